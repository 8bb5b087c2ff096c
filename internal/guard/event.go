package guard

import (
	"strings"
	"time"
)

// The kinds of events.
const (
	EventDecision = "decision"
	EventOutcome  = "outcome"
)

// Lengths a recorded text of the caller's is cut at.
const (
	maxRecordedPath   = 1024
	maxRecordedMethod = 32
)

// Event is one line of the audit: a decision, or the outcome of a request that was allowed.
type Event struct {
	Kind     string // EventDecision or EventOutcome
	Time     time.Time
	Request  string
	Resource Resource
	Caller   *Caller

	Action    string
	SubAction string
	Model     string
	Models    []string
	Egress    bool
	Method    string
	Path      string // without query

	Decision string // "allow" or "deny"
	Reason   string
	Message  string
	Grant    string
	Revision string

	Status   int // what the caller was answered; 0 in an allow decision
	BytesIn  int64
	BytesOut int64
	TTFT     time.Duration // request to first body byte; 0 if none came
	Duration time.Duration
	Ended    string // "completed", "client_gone", "upstream_reset", "agent_lost", "revoked", …
	Agent    string
	Tried    []string // agent and code of each that was asked before Agent, and sent nothing

	Recorded  string   // of what was written down: the request's mark in a decision, the answer's in an outcome
	Alias     string   // the name the caller wrote for Model
	Refused   string   // the action that was denied, where it is one of Also
	Also      []string // further actions it was allowed
	Media     []string
	Usage     string // where the counts come from, a meter.Source; "" if nothing was counted
	TokensIn  int64  // -1 if not known, as all counts
	TokensOut int64
	Cached    int64 // of TokensIn
	Reasoning int64 // of TokensOut
}

// event is what decision and outcome have in common.
func (x *exchange) event(kind string) Event {
	e := Event{
		Kind: kind, Time: x.guard.now(), Request: x.id, Resource: x.resource, Caller: x.caller,
		Action: string(x.class.Action), SubAction: x.class.SubAction,
		Model: x.class.Model, Models: x.class.Models, Egress: x.class.Egress,
		Alias: recorded(x.class.Alias, maxRecordedMethod*8), Media: x.class.Media,
		Method: recorded(x.method(), maxRecordedMethod), Path: recorded(x.decidedPath(), maxRecordedPath),
		Grant: x.decision.Grant, Revision: x.decision.Revision, BytesIn: x.bytesIn(),
	}
	for _, also := range x.class.Also {
		e.Also = append(e.Also, string(also))
	}
	if x.refusedAction != e.Action && x.refusedAction != ActionReach {
		e.Refused = x.refusedAction
	}
	return e
}

// recorded makes text of a stranger's fit for a record: valid and of bounded length.
func recorded(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit] + "..."
	}
	return strings.ToValidUTF8(text, "?")
}
