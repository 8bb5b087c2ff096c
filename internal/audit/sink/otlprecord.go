package sink

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// What follows is opentelemetry.proto.collector.logs.v1 in its mapping to JSON: names in camel case, 64-bit numbers as
// texts, enumerations as numbers. A record belongs to no trace, so it has no traceId.
type (
	otlpRequest struct {
		ResourceLogs []otlpResourceLogs `json:"resourceLogs"`
	}
	otlpResourceLogs struct {
		Resource  otlpResource    `json:"resource"`
		ScopeLogs []otlpScopeLogs `json:"scopeLogs"`
	}
	otlpScopeLogs struct {
		Scope      otlpScope    `json:"scope"`
		LogRecords []otlpRecord `json:"logRecords"`
	}
	otlpResource struct {
		Attributes []otlpAttribute `json:"attributes"`
	}
	otlpScope struct {
		Name    string `json:"name"`
		Version string `json:"version,omitempty"`
	}
	otlpRecord struct {
		TimeUnixNano         int64           `json:"timeUnixNano,string"`
		ObservedTimeUnixNano int64           `json:"observedTimeUnixNano,string"`
		SeverityNumber       int             `json:"severityNumber"`
		SeverityText         string          `json:"severityText"`
		EventName            string          `json:"eventName"`
		Body                 otlpValue       `json:"body"`
		Attributes           []otlpAttribute `json:"attributes"`
	}
	otlpAttribute struct {
		Key   string    `json:"key"`
		Value otlpValue `json:"value"`
	}
	otlpValue struct { // one of them
		StringValue *string `json:"stringValue,omitempty"`
		IntValue    *int64  `json:"intValue,string,omitempty"`
		BoolValue   *bool   `json:"boolValue,omitempty"`
	}
)

// record maps a line: the line itself is the body, and each of its fields an attribute, so that receivers can search
// without parsing it. log.record.uid is the same whenever the record is sent.
func (t *otlp) record(r record) otlpRecord {
	line, level := string(r.line), severityOf(&r.event)
	return otlpRecord{
		TimeUnixNano: nanos(r.event.Time), ObservedTimeUnixNano: nanos(r.event.Time),
		SeverityNumber: level.otlp, SeverityText: level.name, EventName: "iap." + r.event.Kind,
		Body:       otlpValue{StringValue: &line},
		Attributes: append(fields(r.line), text("log.record.uid", t.origin+"#"+strconv.FormatUint(r.seq, 10))),
	}
}

// nanos is 0, which stands for unknown, for a time that has no such number.
func nanos(at time.Time) int64 {
	if y := at.Year(); y < 1970 || y > 2261 {
		return 0
	}
	return at.UnixNano()
}

// fields are those of a line, in its order, as attributes named iap.… But for its version and its time.
func fields(line []byte) []otlpAttribute {
	var all []otlpAttribute
	var walk func(prefix string, object []byte)
	walk = func(prefix string, object []byte) {
		in := jsontext.NewDecoder(bytes.NewReader(object))
		if _, err := in.ReadToken(); err != nil {
			return
		}
		for in.PeekKind() == jsontext.KindString {
			name, err := in.ReadToken()
			if err != nil {
				return
			}
			key := prefix + name.String()
			value, err := in.ReadValue()
			if err != nil {
				return
			}
			switch {
			case key == "iap.v" || key == "iap.time":
			case value.Kind() == jsontext.KindBeginObject && prefix == fieldPrefix:
				walk(key+".", value)
			default:
				all = append(all, otlpAttribute{key, valueOf(value)})
			}
		}
	}
	walk(fieldPrefix, line)
	return all
}

const fieldPrefix = "iap."

func valueOf(value jsontext.Value) otlpValue {
	switch value.Kind() {
	case jsontext.KindString:
		var s string
		if err := json.Unmarshal(value, &s); err == nil {
			return otlpValue{StringValue: &s}
		}
	case jsontext.KindNumber:
		if n, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			return otlpValue{IntValue: &n}
		}
	case jsontext.KindTrue, jsontext.KindFalse:
		b := value.Kind() == jsontext.KindTrue
		return otlpValue{BoolValue: &b}
	}
	raw := string(value) // of a field that is yet to be invented
	return otlpValue{StringValue: &raw}
}

func text(key, value string) otlpAttribute {
	return otlpAttribute{key, otlpValue{StringValue: &value}}
}
