package audit

import "time"

// Kinds of events.
const (
	KindDecision    = "decision"     // a request or stream was allowed or denied
	KindOutcome     = "outcome"      // how an allowed request or stream ended; one for each allowed decision
	KindLogin       = "login"        // a token was presented: accepted or refused
	KindSession     = "session"      // a session began, ended or was killed
	KindAgent       = "agent"        // an agent was enrolled, came, went or was revoked
	KindAdmin       = "admin"        // an administrator's act: kill, revocation, join token
	KindSubject     = "subject"      // what the policy knew of a principal; decisions name it by Subject
	KindLimit       = "limit"        // a limit is used to 80 or 100 percent
	KindPolicy      = "policy"       // the policy was loaded or refused
	KindRelay       = "relay"        // the relay and this log about themselves
	KindDeniedCount = "denied_count" // refusals that were counted instead of written in full
)

// Kinds are all of them, those that people ask about first.
func Kinds() []string {
	return []string{KindDecision, KindOutcome, KindLogin, KindSession, KindAgent, KindAdmin, KindSubject, KindLimit, KindPolicy, KindRelay, KindDeniedCount}
}

// Values of Event.Decision. An allowed decision with a Request is open until an outcome with the same Request.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Reasons of the log's own relay events, and the end it gives to decisions that a dead relay left open.
const (
	ReasonSegmentStart = "segment_start"   // first record of a segment; Count open decisions are repeated behind it
	ReasonOpenDecision = "open_decision"   // a decision of an earlier segment that is still open
	ReasonTornLine     = "torn_line"       // an unfinished last line was set aside
	ReasonBadLines     = "bad_lines"       // lines that are no events were found and left where they are
	ReasonRecovered    = "audit_recovered" // the log can write again; Count records were refused meanwhile
	ReasonExpired      = "records_expired" // the first Count lines were deleted, as retention asks

	ReasonHashesMismatch = "hashes_mismatch" // a hash file was not its segment's; it was set aside and made anew
	ReasonTreeMismatch   = "tree_mismatch"   // the files are not those that the last checkpoint was signed for

	EndedRelayLost        = "relay_lost"        // the relay ended without knowing how the request did
	EndedAuditUnavailable = "audit_unavailable" // the decision could not be made durable, so the request was not sent
)

// Event is one record. Callers fill what they know; Seq and Mono are the log's, Time is too unless it is set. Strings
// are bounded when written (see the package documentation), empty and zero fields are left out.
type Event struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	Mono int64     `json:"mono"` // nanoseconds since the log was opened; never falls, restarts with the process
	Kind string    `json:"kind"`

	Request   string `json:"request,omitempty"`
	Session   string `json:"session,omitempty"`
	Principal string `json:"principal,omitempty"`
	Issuer    string `json:"issuer,omitempty"`
	Agent     string `json:"agent,omitempty"`
	Resource  string `json:"resource,omitempty"`
	Action    string `json:"action,omitempty"`
	Model     string `json:"model,omitempty"`
	Grant     string `json:"grant,omitempty"`
	Via       string `json:"via,omitempty"`
	Source    string `json:"source,omitempty"`
	Binding   string `json:"binding,omitempty"`
	Subject   string `json:"subject,omitempty"` // id of the latest subject event with the facts a decision rested on
	Facts     string `json:"facts,omitempty"`   // of a subject event: those facts as JSON

	Method   string `json:"method,omitempty"`
	Path     string `json:"path,omitempty"`
	Decision string `json:"decision,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Revision string `json:"revision,omitempty"`
	Message  string `json:"message,omitempty"`

	Status     int    `json:"status,omitempty"`
	BytesIn    int64  `json:"bytes_in,omitempty"`
	BytesOut   int64  `json:"bytes_out,omitempty"`
	TTFTMs     int64  `json:"ttft_ms,omitempty"`
	DurationMs int64  `json:"duration_ms,omitempty"`
	TokensIn   int64  `json:"tokens_in,omitempty"`
	TokensOut  int64  `json:"tokens_out,omitempty"`
	Usage      string `json:"usage,omitempty"`
	Ended      string `json:"ended,omitempty"`
	Count      int64  `json:"count,omitempty"`

	Detail map[string]string `json:"detail,omitempty"`
}

// urgent events take rights away or tell how something ended. They are written from the reserve when the disk is full,
// and even if the caller's context has ended.
func (e *Event) urgent() bool {
	switch e.Kind {
	case KindOutcome, KindAdmin, KindSession, KindRelay:
		return true
	}
	return false
}

// opens says whether the event begins something that an outcome must end.
func (e *Event) opens() bool {
	return e.Kind == KindDecision && e.Decision == Allow && e.Request != ""
}
