package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync/atomic"
	"time"

	"iap/internal/guard"
	"iap/tunnel"
)

const (
	bulkBody      = 256 << 10        // a larger body would hold up the tokens of others on an interactive session
	offlineRetry  = 5 * time.Second  // an agent that lost its relay is back by then
	uploadBuffer  = 32 << 10         // one frame
	maxAnswerHead = 1 << 20          // an agent's word is no reason to fill our memory
	maxAgentText  = 512              // of an agent's words, on to the caller
	firstBytes    = 16 << 10         // of a request, with the header that opens its stream: they fit any window
	openTimeout   = 10 * time.Second // to put a header on a session: longer and it is dead
)

// exchange is one request and its answer on a warm stream.
type exchange struct {
	link     *chosen
	request  *guard.Request
	stream   *tunnel.Stream
	disarm   func() bool  // stops the context's hold on the stream; false if it has struck
	spawn    func(func()) // the relay's: it waits for the upload
	sent     atomic.Bool  // the body is whole on the stream
	body     io.ReadCloser
	uploads  bool          // the body is read as it is sent: it cannot be sent again
	upgraded bool          // to a WebSocket: the stream is good for nothing else
	over     atomic.Bool   // Read's end and Close race for it: the guard closes from its context's end too
	count    *atomic.Int64 // of the requests that run; the drain waits for it
}

// inflight counts the requests that run, by what the drain gives them.
type inflight struct{ models, others atomic.Int64 }

func (i *inflight) of(kind string) *atomic.Int64 {
	if kind == guard.KindModel {
		return &i.models
	}
	return &i.others
}

// run sends the request and waits for the head of its answer.
func (x *exchange) run(ctx context.Context) (*guard.Response, error) {
	if err := x.begin(ctx); err != nil {
		return nil, err
	}
	return x.answer(ctx)
}

// begin takes a stream and puts the sealed header, the head and, where the guard
// holds it whole, the body on it: all in one write if it is short.
func (x *exchange) begin(ctx context.Context) error {
	q := x.request
	h := tunnel.Header{
		Resource: q.Resource.Name, Kind: q.Resource.Kind, Request: q.ID, Session: q.Caller.Session, Principal: q.Caller.Principal,
		Action: string(q.Class.Action), Model: q.Class.Model, Method: q.Method, Path: q.Target,
		Grant: q.Decision.Grant, Priority: q.Decision.Priority,
	}
	first, rest := requestHead(q), q.Body
	if len(first)+len(rest) <= firstBytes {
		first, rest = append(first, rest...), nil
	}
	if err := x.put(ctx, h, first); err != nil {
		return err
	}
	if len(rest) > 0 {
		if _, err := x.stream.Write(rest); err != nil {
			return err
		}
	}
	if q.Stream != nil {
		// It ends with the stream's abort or, should it wait for the caller, with the
		// guard's handler.
		x.uploads = true
		x.spawn(func() { x.send(q.Stream) })
	}
	return nil
}

// put writes the header and the first bytes to a warm stream, or to a new one.
func (x *exchange) put(ctx context.Context, h tunnel.Header, first []byte) error {
	if st := x.link.takeWarm(); st != nil {
		x.hold(ctx, st)
		return st.WriteHeader(h, first)
	}
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	st, err := x.link.session.Open(opening, h, first[:min(len(first), firstBytes)])
	if err != nil {
		return err
	}
	x.hold(ctx, st)
	if len(first) > firstBytes {
		_, err = st.Write(first[firstBytes:])
	}
	return err
}

// hold makes the context's end the stream's: it frees whoever is blocked on it,
// upload and answer alike, and tells the agent to cancel the model's work.
func (x *exchange) hold(ctx context.Context, st *tunnel.Stream) {
	x.stream = st
	x.count.Add(1)
	x.disarm = context.AfterFunc(ctx, func() { st.Abort(abortCode(ctx)) })
}

// requestHead is the head of the request as it goes to the agent.
func requestHead(q *guard.Request) []byte {
	var b bytes.Buffer
	b.Grow(1024)
	b.WriteString(q.Method + " " + q.Target + " HTTP/1.1\r\nHost: " + q.Resource.Name + "\r\n")
	_ = q.Header.Write(&b) // a buffer takes everything
	switch {
	case q.Stream != nil && q.ContentLength < 0:
		b.WriteString("Transfer-Encoding: chunked\r\n\r\n")
	case q.Stream != nil:
		b.WriteString("Content-Length: " + strconv.FormatInt(q.ContentLength, 10) + "\r\n\r\n")
	case len(q.Body) > 0 || q.Method == http.MethodPost || q.Method == http.MethodPut || q.Method == http.MethodPatch:
		b.WriteString("Content-Length: " + strconv.Itoa(len(q.Body)) + "\r\n\r\n")
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

// send streams the request's body. A body that breaks off aborts the stream: a
// cut upload must not look like a whole one.
func (x *exchange) send(body io.Reader) {
	var w io.WriteCloser = nopCloser{x.stream}
	if x.request.ContentLength < 0 {
		w = httputil.NewChunkedWriter(x.stream)
	}
	n, err := io.CopyBuffer(onlyWriter{w}, body, make([]byte, uploadBuffer))
	if err == nil && x.request.ContentLength >= 0 && n != x.request.ContentLength {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil && x.request.ContentLength < 0 {
		_, err = io.WriteString(x.stream, "\r\n") // the chunked writer leaves the empty trailer to us
	}
	if err != nil {
		x.stream.Abort(tunnel.CodeCanceled)
		return
	}
	x.sent.Store(true)
}

// answer waits for the agent's reply and the head of the answer.
func (x *exchange) answer(ctx context.Context) (*guard.Response, error) {
	reply, err := x.stream.ReadReply(ctx)
	if err != nil {
		return nil, err
	}
	if !reply.OK {
		return nil, refusedByAgent(reply, x.link.agent.ID)
	}
	x.stream.LimitHead(maxAnswerHead)
	response, err := http.ReadResponse(x.stream.Reader(), &http.Request{Method: x.request.Method})
	x.stream.LimitHead(0)
	if err != nil {
		return nil, err
	}
	x.body = response.Body
	if x.request.Class.Upgrade && response.StatusCode == http.StatusSwitchingProtocols {
		// From here on the stream is the WebSocket's.
		x.body, x.upgraded = io.NopCloser(x.stream.Reader()), true
		return &guard.Response{Status: response.StatusCode, Header: response.Header, Body: socket{x}, Agent: x.link.agent.ID}, nil
	}
	ended := func() string {
		if code := response.Trailer.Get(tunnel.EndedTrailer); code != "" {
			return agentsCode(tunnel.Reply{Code: code}).String()
		}
		return ""
	}
	return &guard.Response{Status: response.StatusCode, Header: response.Header, Body: x, Agent: x.link.agent.ID, Ended: ended}, nil
}

// Read passes the answer's body on and gives the stream back at its end.
func (x *exchange) Read(p []byte) (int, error) {
	n, err := x.body.Read(p)
	switch {
	case err == io.EOF:
		x.finish()
	case err != nil:
		err = upstreamError(err)
	}
	return n, err
}

// Close ends the exchange. Before the answer's end it cancels the work.
func (x *exchange) Close() error {
	x.fail()
	return nil
}

// socket is the body of an answer that changed to a WebSocket: both directions.
type socket struct{ *exchange }

func (s socket) Write(p []byte) (int, error) { return s.stream.Write(p) }

// CloseWrite tells the model server that the caller says no more.
func (s socket) CloseWrite() error { return s.stream.CloseWrite() }

// finish keeps the stream for the next request if both directions are whole.
func (x *exchange) finish() {
	if !x.over.CompareAndSwap(false, true) {
		return
	}
	x.count.Add(-1)
	x.link.leave()
	// Answered before the body was whole: what still comes belongs to nobody.
	whole := !x.upgraded && (x.request.Stream == nil || x.sent.Load())
	if x.disarm() && whole {
		x.link.keepWarm(x.stream)
		return
	}
	x.stream.Abort(tunnel.CodeCanceled)
}

// fail ends the stream unless finish has.
func (x *exchange) fail() {
	if !x.over.CompareAndSwap(false, true) {
		return
	}
	x.link.leave()
	if x.stream == nil {
		return
	}
	x.count.Add(-1)
	x.disarm()
	x.stream.Abort(tunnel.CodeCanceled)
}

// abortCode tells the agent why a request ended early.
func abortCode(ctx context.Context) tunnel.Code {
	var ended *guard.Ended
	if errors.As(context.Cause(ctx), &ended) {
		if code := tunnel.ParseCode(ended.Code); code != tunnel.CodeNone {
			return code
		}
	}
	return tunnel.CodeCanceled
}

// refusedByAgent turns the agent's no into what the caller is told.
func refusedByAgent(reply tunnel.Reply, agent string) error {
	code := agentsCode(reply)
	e := &guard.UpstreamError{
		Code: code.String(), Agent: agent, Message: reply.Message, RetryAfter: time.Duration(reply.RetryAfterMS) * time.Millisecond, NotSent: reply.NotSent,
	}
	if len(e.Message) > maxAgentText {
		e.Message = e.Message[:maxAgentText]
	}
	switch code {
	case tunnel.CodePolicyDenied, tunnel.CodeRefused, tunnel.CodeNotAnnounced, tunnel.CodeUnknownResource:
		e.Status = http.StatusForbidden
	case tunnel.CodeLimitReached, tunnel.CodeOverloaded, tunnel.CodeQueueFull:
		e.Status = http.StatusTooManyRequests
	case tunnel.CodeTimeout:
		e.Status = http.StatusGatewayTimeout
	case tunnel.CodeDraining:
		e.Status, e.RetryAfter = http.StatusServiceUnavailable, offlineRetry
	default:
		e.Status = http.StatusBadGateway
	}
	return e
}

// agentsCode is the code of an agent's no. What is not an agent's to say means a
// plain refusal: it goes into the audit.
func agentsCode(reply tunnel.Reply) tunnel.Code {
	switch code := tunnel.ParseCode(reply.Code); code {
	case tunnel.CodePolicyDenied, tunnel.CodeNotAnnounced, tunnel.CodeUnknownResource, tunnel.CodeUpstreamReset, tunnel.CodeUpstreamUnreachable,
		tunnel.CodeLimitReached, tunnel.CodeOverloaded, tunnel.CodeQueueFull, tunnel.CodeTimeout, tunnel.CodeInternal, tunnel.CodeProtocolError,
		tunnel.CodeDraining:
		return code
	}
	return tunnel.CodeRefused
}

// upstreamError names what happened to a stream in the guard's words.
func upstreamError(err error) *guard.UpstreamError {
	e := broken(err)
	e.NotSent = e.NotSent || errors.Is(err, tunnel.ErrNotSent)
	return e
}

func broken(err error) *guard.UpstreamError {
	var known *guard.UpstreamError
	if errors.As(err, &known) {
		return known
	}
	var abort *tunnel.AbortError
	if errors.As(err, &abort) {
		switch abort.Code {
		case tunnel.CodeUpstreamUnreachable:
			return &guard.UpstreamError{Code: "upstream_unreachable", Message: "the model server cannot be reached from the agent", Err: err}
		case tunnel.CodeQueueFull:
			return &guard.UpstreamError{Code: "queue_full", Status: http.StatusTooManyRequests, RetryAfter: time.Second, Message: "others wait for the model server", Err: err}
		case tunnel.CodeRelayShutdown: // it crossed the agent's word that it takes no more
			return &guard.UpstreamError{Code: "draining", Status: http.StatusServiceUnavailable, RetryAfter: offlineRetry, Message: "the agent is stopping", Err: err}
		case tunnel.CodeTooManyStreams, tunnel.CodeOverloaded:
			return &guard.UpstreamError{Code: "overloaded", Status: http.StatusServiceUnavailable, RetryAfter: time.Second, Message: "the agent has too many requests at once", Err: err}
		default:
			return &guard.UpstreamError{Code: "upstream_reset", Message: "the model server broke off", Err: err}
		}
	}
	if errors.Is(err, tunnel.ErrSessionLost) {
		return &guard.UpstreamError{Code: "agent_lost", Message: "the connection to the agent was lost", RetryAfter: offlineRetry, Err: err}
	}
	return &guard.UpstreamError{Code: "upstream_reset", Message: "the answer broke off or was no HTTP", Err: err}
}

// onlyWriter hides ReadFrom, so that CopyBuffer uses the buffer it is given.
type onlyWriter struct{ io.Writer }

// nopCloser is for a writer whose end is told by length.
type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
