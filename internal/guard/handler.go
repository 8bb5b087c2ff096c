package guard

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"iap/internal/modelapi"
	"iap/internal/modelapi/meter"
)

// handler serves one resource to one caller.
type handler struct {
	guard    *Guard
	resource Resource
	caller   *Caller
}

// ServeHTTP walks one request through the steps of the package's documentation.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{guard: h.guard, resource: h.resource, caller: h.caller, w: w, r: r}
	x.id, x.start = h.guard.NewID(), h.guard.now()
	x.class = modelapi.Class{Action: modelapi.Unknown, Protocol: modelapi.OpenAI, Framing: modelapi.None}
	x.usage = unknownUsage()
	defer x.release()
	x.setOwnHeaders()
	for _, step := range []func() *refusal{x.admit, x.read, x.checkIDs, x.decide, x.reserve, x.rewrite, x.keep, x.record} {
		if no := step(); no != nil {
			x.refuse(no)
			return
		}
		if x.answered {
			return
		}
	}
	x.forward()
}

// exchange is one request and its answer. It is owned by its handler's goroutine, except what live says.
type exchange struct {
	guard    *Guard
	resource Resource
	caller   *Caller
	w        http.ResponseWriter
	r        *http.Request
	id       string
	start    time.Time

	path, query string // of the request target, raw, without the mount's prefix
	origin      string // the foreign origin that may read the answer; "" for none
	body        []byte // kind model, as received; dropped once classified
	held        int64  // bytes set aside by hold
	received    int64  // bytes of the body
	whole       bool   // the body has been read to its end
	counted     *countedBody

	class         modelapi.Class
	upgrade       *upgrade // nil unless a WebSocket is asked for
	pinned        string   // the agent whose ids the request names
	questions     []Question
	refusedAction string // of questions, the one that was denied
	asked         uint64 // live's count of rechecks when the questions were put
	decision      Decision
	also          []Decision // of the other grants that the request rests on
	ask           Ask
	reservation   Reservation
	keeping       Keeping // the answer is written down as it is sent; nil if not, or no more
	mark          string  // of what was kept, for the record
	recorded      bool    // the allow decision is in the log: an outcome is due
	answered      bool    // nothing is left to do

	hijacked  bool                    // the connection is a WebSocket's, and closed
	cancel    context.CancelCauseFunc // ends the answer; set before the exchange is live
	status    int
	sent      int64
	ttft      time.Duration
	agent     string
	tried     []string    // agents that were asked before it
	forwarded time.Time   // when the request went upstream
	sentOn    bool        // a model may have worked for it
	failed    bool        // the answer told of an error in itself
	usage     meter.Usage // what the answer cost
}

// admit checks where the request comes from and that it is one plain HTTP request.
func (x *exchange) admit() *refusal {
	if err := x.splitTarget(); err != nil {
		return err
	}
	if x.resource.Kind == KindModel {
		x.class.Protocol, x.class.Framing = modelapi.ProtocolOf(x.path), modelapi.JSON
	} else {
		x.class.Action = modelapi.Connect
	}
	if x.caller.Local != nil {
		if err := x.checkLocal(x.caller.Local); err != nil {
			return err
		}
	}
	if err := x.checkFraming(); err != nil {
		return err
	}
	return x.checkOptions()
}

// read brings the request to its canonical form and says what it is.
func (x *exchange) read() *refusal {
	if x.resource.Kind != KindModel {
		return x.readOpaque()
	}
	in := modelapi.Input{
		Server: x.resource.Server, Only: x.resource.Only, Aliases: x.resource.Aliases, Method: x.r.Method, Path: x.path, Query: x.query,
		ContentType: x.r.Header.Get("Content-Type"), ContentEncoding: x.r.Header.Get("Content-Encoding"),
	}
	if x.upgrade != nil {
		in.Upgrade = webSocket
	}
	if len(x.r.Header["Content-Type"]) > 1 || len(x.r.Header["Content-Encoding"]) > 1 {
		return &refusal{status: 400, code: "header_ambiguous", message: "a header that may stand once stands twice"}
	}
	if x.guard.table().HasRoute(in) {
		if err := x.mayReach(); err != nil {
			return err
		}
		if err := x.readBody(); err != nil {
			return err
		}
	}
	in.Body = x.body
	return x.classify(in)
}

// classify says what the request is, and takes its canonical form in place of what came.
func (x *exchange) classify(in modelapi.Input) *refusal {
	if in.ContentEncoding != "" && !x.holdDecoded() {
		return &refusal{status: 503, code: "overloaded", message: "too many large requests are under way", retryAfter: overloadRetry}
	}
	class, err := x.guard.table().Classify(in)
	x.class, x.body = class, nil
	x.holdOnly(len(class.Body))
	var bad *modelapi.Error
	switch {
	case errors.As(err, &bad):
		return &refusal{status: bad.Status, code: bad.Code, message: bad.Message}
	case err != nil:
		x.class.Action = modelapi.Unknown
		return &refusal{status: 400, code: "request_invalid", message: "the request cannot be read"}
	case class.Action == modelapi.Unknown:
		return &refusal{status: 404, code: "unknown_route", message: "no route of this model server is known by this method and path"}
	case class.Upgrade != (x.upgrade != nil):
		return errUpgrade()
	case class.Stream && !x.r.ProtoAtLeast(1, 1):
		// Such an answer ends with its connection, however it ends.
		return &refusal{status: 505, code: "http_version", message: "a stream that broke off would look finished over HTTP/1.0; use HTTP/1.1"}
	}
	return nil
}

// canonical is the request in the form that goes upstream.
func (x *exchange) canonical() modelapi.Input {
	path, query, _ := strings.Cut(x.class.Target, "?")
	in := modelapi.Input{
		Server: x.resource.Server, Only: x.resource.Only, Method: x.r.Method, Path: path, Query: query,
		ContentType: x.contentType(), Body: x.class.Body,
	}
	if x.upgrade != nil {
		in.Upgrade = webSocket
	}
	return in
}

// decide asks for each model and each action of the request; all must be allowed.
func (x *exchange) decide() *refusal {
	x.asked = x.guard.live.asking.Load()
	actions := make([]string, 1, 1+len(x.class.Also))
	actions[0] = string(x.class.Action)
	if x.class.Action == modelapi.Health {
		actions[0] = ActionReach // whoever may use the resource may ask whether it is well
	}
	for _, also := range x.class.Also {
		actions = append(actions, string(also))
	}
	q := Question{
		Resource: x.resource, Caller: x.caller, Method: x.method(), Path: x.decidedPath(), Egress: x.class.Egress, Media: x.class.Media,
	}
	for _, q.Model = range atLeastOne(x.class.Models) {
		for _, q.Action = range actions {
			x.questions = append(x.questions, q)
		}
	}
	var refused *Question
	if x.decision, x.also, refused = x.answerOf(x.r.Context()); refused != nil {
		x.class.Model = refused.Model // the one that the record is about
		x.refusedAction = refused.Action
		return denied(x.decision)
	}
	return nil
}

// policyTries bounds how often the questions of a request are put anew because the policy was replaced between them.
const policyTries = 8

// answerOf puts the questions of the exchange to one policy, never to parts of two: its first decision within the bounds
// of all and those by other grants, or the first denial and what it denies. It reads only what no longer changes.
func (x *exchange) answerOf(ctx context.Context) (all Decision, also []Decision, refused *Question) {
	for range policyTries {
		var mixed bool
		if all, also, refused, mixed = x.answerOnce(ctx); !mixed {
			return all, also, refused
		}
	}
	return policyRestless(), nil, &x.questions[0]
}

// policyRestless denies because no policy was in force for as long as it takes to ask it.
func policyRestless() Decision {
	return Decision{Reason: "policy_timeout", Message: "the policy changes faster than it can be asked"}
}

// answerOnce is answerOf, unless the answers that allow come from two policies.
func (x *exchange) answerOnce(ctx context.Context) (all Decision, also []Decision, refused *Question, mixed bool) {
	for i := range x.questions {
		d := x.guard.Decide(ctx, x.questions[i])
		if !d.Allow {
			return d, nil, &x.questions[i], false
		}
		isKnown := func(other Decision) bool { return other.Grant == d.Grant }
		switch {
		case i == 0:
			all = d
		case d.Revision != all.Revision:
			return Decision{}, nil, nil, true
		case !isKnown(all) && !slices.ContainsFunc(also, isKnown):
			also = append(also, d)
		}
		if n := d.MaxOutputTokens; n > 0 && (all.MaxOutputTokens == 0 || n < all.MaxOutputTokens) {
			all.MaxOutputTokens = n
		}
		if !d.Until.IsZero() && (all.Until.IsZero() || d.Until.Before(all.Until)) {
			all.Until = d.Until
		}
		all.TokenLimited = all.TokenLimited || d.TokenLimited
		all.Record = all.Record || d.Record
	}
	return all, also, nil, false
}

// decidedPath is the path that is decided on, recorded and sent: the canonical one, or the raw one of a request that no
// table knows.
func (x *exchange) decidedPath() string {
	if x.class.Route == "" {
		return x.path
	}
	path, _, _ := strings.Cut(x.class.Target, "?")
	return path
}

// mayReach asks, before memory is spent on a body, whether the caller may use the resource at all.
func (x *exchange) mayReach() *refusal {
	if x.r.Body == nil || x.r.Body == http.NoBody || x.r.ContentLength == 0 {
		return nil // decide asks soon enough
	}
	q := Question{Resource: x.resource, Caller: x.caller, Action: ActionReach, Method: x.method(), Path: x.path}
	if x.decision = x.guard.Decide(x.r.Context(), q); !x.decision.Allow {
		return denied(x.decision)
	}
	return nil
}

func atLeastOne(models []string) []string {
	if len(models) == 0 {
		return []string{""}
	}
	return models
}

// record writes the decision down. Whatever cannot be recorded is not done.
func (x *exchange) record() *refusal {
	e := x.event(EventDecision)
	e.Decision, e.Reason, e.Message, e.Recorded = "allow", x.decision.Reason, x.decision.Message, x.mark
	err := x.guard.Record(x.r.Context(), e)
	if err == nil {
		x.recorded = true
		return nil
	}
	if x.reservation != nil {
		x.reservation.Release()
		x.reservation = nil
	}
	x.discard()
	x.guard.logger().Error("record decision", "request", x.id, "resource", x.resource.Name, "error", err)
	return &refusal{
		status: 503, code: "audit_unavailable", message: "the request cannot be recorded, so it was not sent on",
		retryAfter: overloadRetry, unrecorded: true,
	}
}

// settle ends what record began. It runs once.
func (x *exchange) settle(ended string) {
	if !x.recorded {
		return
	}
	x.recorded = false
	if end := x.endKeeping(ended); end != nil {
		ended = end.code
	}
	e := x.event(EventOutcome)
	e.Recorded = x.mark
	e.Decision, e.Status, e.BytesOut, e.TTFT, e.Agent, e.Tried = "allow", x.status, x.sent, x.ttft, x.agent, x.tried
	e.Duration, e.Ended = x.guard.now().Sub(x.start), ended
	x.estimate()
	e.Usage, e.TokensIn, e.TokensOut = string(x.usage.Source), x.usage.Input, x.usage.Output
	e.Cached, e.Reasoning = x.usage.Cached, x.usage.Reasoning
	if x.reservation != nil {
		x.reservation.Settle(e)
		x.reservation = nil
	}
	// The caller may be gone; the outcome is due all the same.
	if err := x.guard.Record(context.WithoutCancel(x.r.Context()), e); err != nil {
		x.guard.logger().Error("record outcome", "request", x.id, "resource", x.resource.Name, "ended", ended, "error", err)
	}
}

// release gives back what the exchange still holds when its handler ends, by a panic too.
func (x *exchange) release() {
	if x.reservation != nil {
		x.reservation.Release()
		x.reservation = nil
	}
	x.discard()
	x.free()
}
