package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"iap/internal/modelapi"
	"iap/internal/modelapi/meter"
)

// How an exchange ends that nothing cut: well, or with an error that the upstream sent inside its answer.
const (
	completed     = "completed"
	upstreamError = "upstream_error"
)

// ending says why an exchange did not complete.
type ending struct {
	code       string
	status     int // for an answer that has not begun
	message    string
	retryAfter time.Duration
}

const clientGone = "client_gone"

// forward sends the request and its answer. Cancelling the caller's context ends the work upstream at once.
func (x *exchange) forward() {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	defer cancel(nil)
	defer x.settle("internal") // only if a panic passes here
	defer x.endUpload()
	x.cancel = cancel
	if x.keeping != nil {
		x.w = &keptWriter{ResponseWriter: x.w, keeping: x.keeping, cancel: cancel}
	}
	leave := x.guard.live.enter(ctx, x)
	defer leave()
	if x.asked != x.guard.live.asking.Load() { // the rights changed since the decision, which a recheck could not see
		if d := x.askFirmly(ctx); !d.Allow {
			x.fail(ctx, &ending{code: denied(d).code, status: http.StatusForbidden, message: denied(d).message})
			return
		}
	}

	x.forwarded = x.guard.now()
	response, err := x.guard.Forward(ctx, x.request())
	x.sentOn = err == nil && response.Status < 400 || err != nil && mayHaveWorked(ctx, err)
	if err != nil {
		x.fail(ctx, x.endOf(ctx, err))
		return
	}
	x.agent, x.tried = response.Agent, response.Tried
	body := newBody(response.Body)
	release := x.closeWith(ctx, body)
	defer release() // should a panic pass here
	end, begun := x.answer(ctx, response, body)
	release()
	x.limitDrain()
	ended := completed
	if x.failed {
		ended = response.failure()
	}
	if end == nil {
		end, begun = x.endKeeping(ended), true
	}
	switch {
	case end == nil:
		x.settle(ended)
	case begun:
		x.cut(end)
	default:
		x.fail(ctx, end)
	}
}

// failure is why an answer ended that carries an error.
func (r *Response) failure() string {
	if r.Ended != nil {
		if code := r.Ended(); code != "" {
			return code
		}
	}
	return upstreamError
}

// mayHaveWorked says whether a model may have worked for a request of which no answer came: it was cut, or broke off,
// while the model was thinking.
func mayHaveWorked(ctx context.Context, err error) bool {
	var upstream *UpstreamError
	if errors.As(err, &upstream) && upstream.NotSent {
		return false
	}
	if ctx.Err() != nil || upstream == nil {
		return true
	}
	switch upstream.Code {
	case "upstream_reset", "agent_lost", "timeout":
		return true
	}
	return false
}

func (x *exchange) request() *Request {
	r := &Request{
		ID: x.id, Resource: x.resource, Caller: x.caller, Class: x.class, Decision: x.decision,
		Method: x.r.Method, Target: x.class.Target, Header: x.requestHeader(), Agent: x.pinned,
		Body: x.class.Body, ContentLength: int64(len(x.class.Body)),
	}
	if x.resource.Kind != KindModel {
		r.ContentLength = 0
		if x.counted != nil {
			r.Stream, r.ContentLength = x.counted, x.r.ContentLength
		}
	}
	return r
}

// closeWith closes the body when ctx ends, so that a Read that waits for a token returns, and gives a writer whose
// reader left a last moment. The function it returns closes the body in any case and waits for all that.
func (x *exchange) closeWith(ctx context.Context, body *closeOnce) (release func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = http.NewResponseController(x.w).SetWriteDeadline(time.Now().Add(lastWords))
		body.Close()
	})
	return sync.OnceFunc(func() {
		body.Close()
		if !stop() {
			<-done
		}
	})
}

// endOf finds the reason in what went wrong: a lost right first, then a caller that left, then the upstream.
func (x *exchange) endOf(ctx context.Context, err error) *ending {
	if ctx.Err() != nil {
		var ended *Ended
		if errors.As(context.Cause(ctx), &ended) {
			return &ending{code: ended.Code, status: http.StatusForbidden, message: ended.Message}
		}
		return &ending{code: clientGone}
	}
	if x.counted != nil && x.counted.broken.Load() {
		return &ending{code: clientGone}
	}
	var upstream *UpstreamError
	if errors.As(err, &upstream) {
		if upstream.Agent != "" {
			x.agent = upstream.Agent
		}
		x.tried = upstream.Tried
		e := &ending{code: upstream.Code, status: upstream.Status, message: upstream.Message, retryAfter: upstream.RetryAfter}
		if e.status < 400 || e.status > 599 {
			e.status = http.StatusBadGateway
		}
		return e
	}
	return &ending{code: "upstream_reset", status: http.StatusBadGateway, message: "the model server's answer broke off"}
}

// fail ends an exchange whose answer has not begun.
func (x *exchange) fail(ctx context.Context, end *ending) {
	if end.code == clientGone && end.status == 0 {
		x.settle(end.code)
		panic(http.ErrAbortHandler) // nobody is there to be answered
	}
	h := x.w.Header()
	h.Set("X-Iap-Error", end.code)
	if ctx.Err() != nil {
		x.endConnection() // its deadlines are no longer fit for another request
	}
	x.answerError(end.asError(), end.retryAfter)
	x.settle(end.code)
}

func (e *ending) asError() *modelapi.Error {
	message := e.message
	if message == "" {
		message = "the request was ended"
	}
	return &modelapi.Error{Status: e.status, Code: e.code, Message: message}
}

// cut ends an exchange whose answer is under way: the caller reads why, where its protocol has room for that, and then
// sees the connection break. A cut answer never looks like a finished one.
func (x *exchange) cut(end *ending) {
	x.settle(end.code)
	if x.hijacked {
		return
	}
	panic(http.ErrAbortHandler)
}

// answer passes the upstream's answer on. begun says that its head is out, so that only a cut can follow.
func (x *exchange) answer(ctx context.Context, response *Response, body *closeOnce) (end *ending, begun bool) {
	if end := x.checkResponse(response); end != nil {
		return end, false
	}
	if x.class.Upgrade && response.Status == http.StatusSwitchingProtocols {
		return x.answerUpgrade(ctx, response, body)
	}
	if x.class.Action == modelapi.ListModels && x.r.Method != http.MethodHead {
		return x.answerList(ctx, response, body)
	}
	if end := x.modelGone(ctx, response, body); end != nil {
		return end, false
	}
	return x.answerBody(ctx, response, body)
}

// answerBody passes an answer on as it comes.
func (x *exchange) answerBody(ctx context.Context, response *Response, body io.Reader) (end *ending, begun bool) {
	length, err := contentLength(response.Header)
	if err != nil {
		return &ending{code: "upstream_invalid", status: http.StatusBadGateway, message: err.Error()}, false
	}
	s := stream{x: x, class: x.class, length: length, control: http.NewResponseController(x.w)}
	s.class.Framing = modelapi.None
	if x.resource.Kind == KindModel {
		s.class.Framing = actualFraming(response.Header.Get("Content-Type"))
		s.reader = x.watchReader()
	}
	x.copyResponseHeader(response.Header)
	hasBody := x.r.Method != http.MethodHead && response.Status != http.StatusNoContent && response.Status != http.StatusNotModified
	hides := x.class.HidesUsage && s.class.Framing == modelapi.SSE // the caller gets less than was promised to us
	if length >= 0 && !hides && (hasBody || x.resource.Kind != KindModel) && response.Status != http.StatusNoContent {
		s.promised = true
		x.w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	}
	x.closeUnlessWhole()
	x.status = response.Status
	x.w.WriteHeader(response.Status)
	if !hasBody {
		return nil, true
	}
	if x.isMetered(response.Status) {
		s.meter = meter.New(s.class, response.Status, response.Header)
		defer func() {
			x.usage, x.failed = s.meter.Finish(end == nil), s.meter.Failed()
		}()
	}
	return s.copy(ctx, body), true
}

// checkResponse refuses what a model server may not say to its caller: an interim answer as a final one, a redirect,
// a question for credentials that are not the caller's business, a compressed body nobody asked for.
func (x *exchange) checkResponse(response *Response) *ending {
	status := response.Status
	if x.class.Upgrade && status == http.StatusSwitchingProtocols {
		return x.checkUpgraded(response)
	}
	bad := status < 200 || status > 599 || status == http.StatusProxyAuthRequired
	if x.resource.Kind == KindModel {
		bad = bad || status >= 300 && status < 400 || status == http.StatusUnauthorized
	}
	if bad {
		return &ending{
			code: "upstream_status", status: http.StatusBadGateway,
			message: fmt.Sprintf("the upstream answered %d, which does not pass here", status),
		}
	}
	encoding := response.Header.Get("Content-Encoding")
	if x.resource.Kind == KindModel && encoding != "" && encoding != "identity" {
		return &ending{code: "upstream_encoding", status: http.StatusBadGateway, message: "the model server compressed its answer unasked"}
	}
	return nil
}

// contentLength reads the one length an answer may have; -1 if it has none.
func contentLength(h http.Header) (int64, error) {
	values := h["Content-Length"]
	if len(values) == 0 {
		return -1, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	if err != nil || len(values) > 1 {
		return 0, errors.New("the upstream's answer has no clear length")
	}
	return int64(n), nil
}

// answerList reads a list of models whole and tells of it what the caller may use.
func (x *exchange) answerList(ctx context.Context, response *Response, body io.Reader) (end *ending, begun bool) {
	if response.Status != http.StatusOK {
		return &ending{
			code: "upstream_status", status: max(response.Status, 400),
			message: fmt.Sprintf("the model server answered %d to the question for its models", response.Status),
		}, false
	}
	if !x.hold(modelapi.MaxList) {
		return &ending{code: "overloaded", status: 503, message: "too many large requests are under way", retryAfter: overloadRetry}, false
	}
	list, err := io.ReadAll(io.LimitReader(body, modelapi.MaxList+1))
	if err != nil {
		return x.endOf(ctx, err), false
	}
	if len(list) > modelapi.MaxList {
		return &ending{code: "upstream_invalid", status: http.StatusBadGateway, message: "the model server's list of models is too long"}, false
	}
	if list, end = x.filterList(ctx, list); end != nil {
		return end, false
	}
	h := x.w.Header()
	h.Set("Content-Type", modelapi.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(list)))
	x.status, x.ttft = http.StatusOK, x.guard.now().Sub(x.start)
	x.w.WriteHeader(http.StatusOK)
	n, err := x.w.Write(list)
	x.sent += int64(n)
	if err != nil {
		return &ending{code: clientGone}, true
	}
	return nil, true
}

// filterList leaves in a list what the caller may use, by one policy alone.
func (x *exchange) filterList(ctx context.Context, list []byte) ([]byte, *ending) {
	in := modelapi.Input{Server: x.resource.Server, Only: x.resource.Only, Aliases: x.resource.Aliases, Method: x.r.Method, Path: x.path}
	if x.resource.Several {
		in.Also = x.resource.Models
	}
	for range policyTries {
		revisions := map[string]struct{}{}
		kept, err := x.guard.table().FilterModels(in, list, func(model string, egress bool) bool {
			q := x.questions[0]
			q.Action, q.Model, q.Egress = ActionReach, model, egress
			d := x.guard.Decide(ctx, q)
			revisions[d.Revision] = struct{}{}
			return d.Allow
		})
		switch {
		case err != nil:
			return nil, &ending{code: "upstream_invalid", status: http.StatusBadGateway, message: "the model server's list of models cannot be read"}
		case len(revisions) <= 1:
			return kept, nil
		}
	}
	no := denied(policyRestless())
	return nil, &ending{code: no.code, status: no.status, message: no.message, retryAfter: no.retryAfter}
}
