package guard

import (
	"context"
	"net/http"

	"iap/internal/modelapi"
)

// Keeping is an answer that is written down while it is sent. It is for one goroutine; End or Discard ends it, once.
type Keeping interface {
	Answer(status int, h http.Header) error
	Write(p []byte) (int, error)             // of the answer's body, before it is sent
	End(why string) (mark string, err error) // the mark is for the outcome's record
	Discard() error                          // the request was not sent after all
}

// recordingUnavailable is the code of what must be written down and cannot be: our failure, not the caller's.
const recordingUnavailable = "recording_unavailable"

const unkept = "the answer cannot be recorded any more, as its grant demands"

// keep writes the request down if its decision demands that. What carries no prompt is not.
func (x *exchange) keep() *refusal {
	if !x.decision.Record || x.class.Action == modelapi.Health || x.class.Action == modelapi.ListModels {
		return nil
	}
	no := &refusal{
		status: 503, code: recordingUnavailable, retryAfter: overloadRetry,
		message: "the grant demands that the request be recorded, which is not possible at the moment, so it was not sent on",
	}
	switch {
	case x.class.Upgrade || x.resource.Kind != KindModel:
		no.status, no.retryAfter = 403, 0
		no.message = "the grant demands that requests be recorded, and what passes here is not read"
		return no
	case x.guard.Keep == nil:
		x.guard.logger().Error("a grant demands recording, and none is configured", "request", x.id, "grant", x.decision.Grant)
		return no
	}
	keeping, mark, err := x.guard.Keep(x.request())
	if err != nil {
		x.guard.logger().Error("record request", "request", x.id, "resource", x.resource.Name, "error", err)
		return no
	}
	x.keeping, x.mark = keeping, mark
	x.w.Header().Set("X-Iap-Recorded", "true")
	return nil
}

// discard takes back what was kept of a request that is not sent.
func (x *exchange) discard() {
	if x.keeping == nil {
		return
	}
	if err := x.keeping.Discard(); err != nil {
		x.guard.logger().Error("discard recording", "request", x.id, "error", err)
	}
	x.keeping, x.mark = nil, ""
	x.w.Header().Del("X-Iap-Recorded")
}

// endKeeping closes the recording before the answer's end is sent, so that no answer looks whole whose recording is not.
// Its mark, or that it is broken, goes into the outcome.
func (x *exchange) endKeeping(why string) *ending {
	if x.keeping == nil {
		return nil
	}
	mark, err := x.keeping.End(why)
	x.keeping, x.mark = nil, mark
	if err == nil {
		return nil
	}
	x.mark = "broken"
	x.guard.logger().Error("record answer", "request", x.id, "resource", x.resource.Name, "error", err)
	return &ending{code: recordingUnavailable, status: http.StatusServiceUnavailable, message: unkept}
}

// keptWriter records an answer as its caller gets it. When that fails the exchange ends: what passes then are our own
// last words.
type keptWriter struct {
	http.ResponseWriter
	keeping Keeping
	cancel  context.CancelCauseFunc
	failed  bool
}

// Unwrap is for http.ResponseController.
func (w *keptWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *keptWriter) WriteHeader(status int) {
	w.check(w.keeping.Answer(status, w.Header()))
	w.ResponseWriter.WriteHeader(status)
}

func (w *keptWriter) Write(p []byte) (int, error) {
	if !w.failed {
		_, err := w.keeping.Write(p)
		if err = w.check(err); err != nil {
			return 0, err
		}
	}
	return w.ResponseWriter.Write(p)
}

func (w *keptWriter) check(err error) error {
	if err == nil {
		return nil
	}
	w.failed = true
	why := &Ended{Code: recordingUnavailable, Message: unkept}
	w.cancel(why)
	return why
}
