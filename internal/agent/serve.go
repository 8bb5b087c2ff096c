package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// drainAfterAnswer is how much of a request's body is read after its answer is
// complete, so that the stream can carry the next request. More is not worth
// it: the stream is dropped.
const drainAfterAnswer = 256 << 10

// serveStream carries the requests of one stream, one after another, each
// behind its own sealed header. The first has been read and verified already.
func (a *Agent) serveStream(ctx context.Context, st *tunnel.Stream, h tunnel.Header) {
	for {
		if h.Kind == modelapi.KindTCP {
			a.serveTCP(ctx, st, h)
			return
		}
		if !a.serveRequest(ctx, st, h) {
			return
		}
		var err error
		if h, err = st.ReadHeader(ctx); err != nil {
			if !errors.Is(err, io.EOF) {
				st.Abort(tunnel.CodeProtocolError) // a header that does not verify, or a stream that died
			}
			return
		}
	}
}

// exchange is one request and its answer on a stream of the relay.
type exchange struct {
	agent    *Agent
	stream   *tunnel.Stream
	header   tunnel.Header
	request  *http.Request
	upstream *upstream
	class    modelapi.Class // of kind model
	body     io.Reader      // what goes upstream
	size     int64          // of a model request's body
	begun    bool           // the answer has: its client was told that it waits
	sent     bool           // some of the request may have reached the upstream
	unread   bool           // the upstream may go on: its answer was not read to the end
}

// serveRequest carries one request and reports whether the stream is good for
// another.
func (a *Agent) serveRequest(ctx context.Context, st *tunnel.Stream, h tunnel.Header) bool {
	a.busy.Add(1)
	defer a.busy.Add(-1)
	if h.TimeoutMS > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(h.TimeoutMS)*time.Millisecond)
		defer cancel()
	}
	x := &exchange{agent: a, stream: st, header: h}
	st.LimitHead(maxHeadSize)
	r, err := http.ReadRequest(st.Reader())
	st.LimitHead(0)
	if err != nil {
		x.log(slog.LevelWarn, "unreadable request from the relay", "error", err)
		st.Abort(tunnel.CodeProtocolError)
		return false
	}
	x.request = r
	if err := x.check(); err != nil {
		return x.refuse(err)
	}
	if x.upstream.queue == nil && (x.class.Action.Computes() || x.upstream.cfg.Kind != modelapi.KindModel) {
		defer a.works(x.upstream)()
	}
	held, err := x.takeSlot(ctx)
	if err != nil {
		return x.refuse(err)
	}
	if x.class.Upgrade {
		return x.upgrade(ctx, held)
	}
	return x.forward(ctx, held)
}

// forward sends the request and its answer.
func (x *exchange) forward(ctx context.Context, held *hold) bool {
	response, err := x.upstream.send(x.trace(ctx, held), x.request, x.class, x.body)
	if err != nil {
		held.abandon()
		return x.refuse(x.failed(ctx, err))
	}
	defer response.Body.Close()
	x.agent.answered(x.upstream, x.class, response.StatusCode)
	if response.StatusCode == http.StatusOK {
		held.generates()
	}
	if err := x.answer(response); err != nil {
		held.abandon()
		x.log(slog.LevelDebug, "answer broke off", "error", err)
		endBroken(x.stream, err)
		return false
	}
	if x.unread {
		held.abandon()
	} else {
		held.release()
	}
	return x.finishBody()
}

// trace notes when the request has a connection: from then on it counts as sent.
func (x *exchange) trace(ctx context.Context, held *hold) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		x.sent = true
		held.attach(info.Conn)
	}})
}

// failed notes what no answer says of the upstream's health, and names it.
func (x *exchange) failed(ctx context.Context, err error) error {
	no := upstreamRefusal(ctx, x.upstream, err)
	switch {
	case ctx.Err() != nil: // the caller's doing
	case asRefusal(no).code == tunnel.CodeUpstreamUnreachable:
		x.agent.missed(x.upstream)
	case x.sent:
		x.agent.answered(x.upstream, x.class, 0)
	}
	return no
}

// check is the second check, on the bytes that would go upstream.
func (x *exchange) check() error {
	u, err := x.agent.lookup(x.header)
	if err != nil {
		return err
	}
	x.upstream = u
	if x.agent.stopping.Load() {
		return refusef(tunnel.CodeDraining, "the agent of %s is stopping", u.cfg.Name)
	}
	if err := u.checkHeader(x.header); err != nil {
		return err
	}
	r := x.request
	q := request{
		method: r.Method, target: r.RequestURI, contentType: r.Header.Get("Content-Type"),
		contentEncoding: r.Header.Get("Content-Encoding"), upgrade: upgradeOf(r.Header),
	}
	if u.cfg.Kind != modelapi.KindModel {
		x.body = r.Body
		_, err := u.checkRequest(x.agent.table, x.header, q)
		return err
	}
	q.body, err = io.ReadAll(io.LimitReader(r.Body, modelapi.MaxBody+1))
	if err != nil {
		return refusef(tunnel.CodeProtocolError, "the request broke off")
	}
	if len(q.body) > modelapi.MaxBody {
		return refusef(tunnel.CodeRefused, "the request is larger than %d bytes", modelapi.MaxBody)
	}
	x.body, x.size = bytes.NewReader(q.body), int64(len(q.body))
	x.class, err = u.checkRequest(x.agent.table, x.header, q)
	return err
}

// refuse answers with no and reports whether the stream is good for another
// request.
func (x *exchange) refuse(err error) bool {
	no := asRefusal(err)
	x.log(slog.LevelWarn, "request refused", "code", no.code, "error", err)
	if x.begun {
		if x.endInBand(no) != nil {
			return false
		}
		return x.finishBody()
	}
	reply := tunnel.Reply{Code: no.code.String(), Message: no.message, RetryAfterMS: no.retryAfter.Milliseconds(), NotSent: !x.sent}
	if x.stream.WriteReply(reply, nil) != nil {
		return false
	}
	return x.finishBody()
}

// log costs nothing when nobody listens at that level.
func (x *exchange) log(level slog.Level, text string, args ...any) {
	log := x.agent.log
	if log.Enabled(context.Background(), level) {
		log.With("request", x.header.Request, "resource", x.header.Resource).Log(context.Background(), level, text, args...)
	}
}

// finishBody reads what is left of the request's body, within reason.
func (x *exchange) finishBody() bool {
	n, err := io.CopyN(io.Discard, x.request.Body, drainAfterAnswer)
	if errors.Is(err, io.EOF) {
		return true
	}
	if err != nil || n == drainAfterAnswer {
		x.stream.Abort(tunnel.CodeCanceled)
	}
	return false
}
