package sink

import "iap/internal/audit"

// severity is how loud a record is, in the words of each protocol.
type severity struct {
	name   string
	syslog int // RFC 5424, table 2
	otlp   int // opentelemetry.proto.logs.v1.SeverityNumber
}

// severityOf is info for what was allowed and done, warning for what was refused, and error for what the log or the relay
// found wrong with itself.
func severityOf(e *audit.Event) severity {
	switch e.Reason {
	case audit.ReasonBadLines, audit.ReasonHashesMismatch, audit.ReasonTreeMismatch, audit.ReasonRecovered, ReasonGap, "witness_refused":
		if e.Kind == audit.KindRelay {
			return severity{"ERROR", 3, 17}
		}
	}
	if e.Decision == audit.Deny || e.Kind == audit.KindDeniedCount {
		return severity{"WARN", 4, 13}
	}
	return severity{"INFO", 6, 9}
}
