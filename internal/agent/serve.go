package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
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
	log := a.log.With("request", h.Request, "resource", h.Resource)
	st.LimitHead(maxHeadSize)
	r, err := http.ReadRequest(st.Reader())
	st.LimitHead(0)
	if err != nil {
		log.Warn("unreadable request from the relay", "error", err)
		st.Abort(tunnel.CodeProtocolError)
		return false
	}
	u, body, err := a.check(h, r)
	if err != nil {
		return a.refuse(st, r, log, err)
	}
	response, err := u.send(ctx, r, h, body)
	if err != nil {
		return a.refuse(st, r, log, upstreamRefusal(ctx, u, err))
	}
	defer response.Body.Close()
	if err := a.buffers.writeAnswer(st, r.Method, response); err != nil {
		log.Debug("answer broke off", "error", err)
		endBroken(st, err)
		return false
	}
	return a.finishBody(st, r)
}

// check is the second check, on the bytes that would go upstream.
func (a *Agent) check(h tunnel.Header, r *http.Request) (*upstream, io.Reader, error) {
	u, err := a.lookup(h)
	if err != nil {
		return nil, nil, err
	}
	if err := u.checkHeader(h); err != nil {
		return nil, nil, err
	}
	q := request{method: r.Method, target: r.RequestURI, contentType: r.Header.Get("Content-Type"), contentEncoding: r.Header.Get("Content-Encoding")}
	if u.cfg.Kind != modelapi.KindModel {
		_, err := u.checkRequest(a.table, h, q)
		return u, r.Body, err
	}
	q.body, err = io.ReadAll(io.LimitReader(r.Body, modelapi.MaxBody+1))
	if err != nil {
		return nil, nil, refusef(tunnel.CodeProtocolError, "the request broke off")
	}
	if len(q.body) > modelapi.MaxBody {
		return nil, nil, refusef(tunnel.CodeRefused, "the request is larger than %d bytes", modelapi.MaxBody)
	}
	checked, err := u.checkRequest(a.table, h, q)
	if err != nil {
		return nil, nil, err
	}
	return u, bytes.NewReader(checked), nil
}

// refuse answers with no and reports whether the stream is good for another
// request.
func (a *Agent) refuse(st *tunnel.Stream, r *http.Request, log *slog.Logger, err error) bool {
	reply := tunnel.Reply{Code: tunnel.CodeInternal.String(), Message: "the agent could not do that"}
	var no *refusal
	if errors.As(err, &no) {
		reply.Code, reply.Message = no.code.String(), no.message
	}
	log.Warn("request refused", "code", reply.Code, "error", err)
	if st.WriteReply(reply, nil) != nil {
		return false
	}
	return a.finishBody(st, r)
}

// finishBody reads what is left of the request's body, within reason.
func (a *Agent) finishBody(st *tunnel.Stream, r *http.Request) bool {
	n, err := io.CopyN(io.Discard, r.Body, drainAfterAnswer)
	if errors.Is(err, io.EOF) {
		return true
	}
	if err != nil || n == drainAfterAnswer {
		st.Abort(tunnel.CodeCanceled)
	}
	return false
}

// send puts the request to the upstream. It returns with the answer's head,
// however long that takes: a model may think for minutes.
func (u *upstream) send(ctx context.Context, r *http.Request, h tunnel.Header, body io.Reader) (*http.Response, error) {
	target, err := upstreamURL(u.cfg.url, r.RequestURI)
	if err != nil {
		return nil, refusef(tunnel.CodeProtocolError, "%v", err)
	}
	out := &http.Request{
		Method: r.Method, URL: target, Host: u.cfg.url.Host, Header: u.header(r.Header),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, ContentLength: r.ContentLength,
	}
	if known, ok := body.(*bytes.Reader); ok {
		out.ContentLength = known.Size()
	}
	out.Body = io.NopCloser(body)
	if out.ContentLength == 0 {
		out.Body = http.NoBody // a body of unknown length would be sent in chunks
	} else if u.cfg.Kind != modelapi.KindModel || r.Method != http.MethodPost {
		// A server that does not read this body would take it for the next request
		// on the connection, which may be somebody else's.
		out.Close = true
	}
	return u.transport.RoundTrip(out.WithContext(ctx))
}

// header is what the relay sent, less what belongs to the connection it came
// on and, for a model server, less what a browser might have said.
func (u *upstream) header(out http.Header) http.Header {
	dropHopByHop(out)
	if u.cfg.Kind == modelapi.KindModel {
		for _, name := range []string{"Origin", "Referer", "Cookie"} {
			out.Del(name)
		}
	}
	if _, ok := out["User-Agent"]; !ok {
		out["User-Agent"] = []string{""} // say nothing rather than Go's own
	}
	if u.cfg.apiKey != "" {
		out.Set("Authorization", "Bearer "+u.cfg.apiKey)
	}
	return out
}

// dropHopByHop deletes what describes one connection: the headers of RFC 9110
// section 7.6.1, and those that Connection names.
func dropHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for name := range h {
		if hopByHop(name) {
			delete(h, name)
		}
	}
}

func hopByHop(name string) bool {
	switch http.CanonicalHeaderKey(name) {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
		"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Host", "Expect":
		return true
	}
	return false
}

// upstreamRefusal says why no answer came.
func upstreamRefusal(ctx context.Context, u *upstream, err error) error {
	var no *refusal
	var op *net.OpError
	switch {
	case errors.As(err, &no):
		return err
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return refusef(tunnel.CodeTimeout, "%s did not answer in time", u.cfg.Name)
	case errors.Is(err, errForbiddenAddress):
		return refusef(tunnel.CodeUpstreamUnreachable, "the upstream of %s resolves to an address that is never dialled", u.cfg.Name)
	case errors.As(err, &op) && op.Op == "dial":
		return refusef(tunnel.CodeUpstreamUnreachable, "the model server of %s is not running or not reachable from its agent", u.cfg.Name)
	default:
		return refusef(tunnel.CodeUpstreamReset, "the model server of %s broke off before it answered", u.cfg.Name)
	}
}

// serveTCP joins the stream with a connection to the upstream.
func (a *Agent) serveTCP(ctx context.Context, st *tunnel.Stream, h tunnel.Header) {
	a.busy.Add(1)
	defer a.busy.Add(-1)
	u, err := a.lookup(h)
	if err == nil {
		err = u.checkHeader(h)
	}
	log := a.log.With("request", h.Request, "resource", h.Resource)
	var conn net.Conn
	if err == nil {
		conn, err = dialUpstream(ctx, "tcp", u.cfg.Upstream)
		if err != nil {
			err = upstreamRefusal(ctx, u, err)
		}
	}
	if err != nil {
		var no *refusal
		if !errors.As(err, &no) {
			no = &refusal{tunnel.CodeInternal, "the agent could not do that"}
		}
		log.Warn("stream refused", "code", no.code, "error", err)
		_ = st.WriteReply(tunnel.Reply{Code: no.code.String(), Message: no.message}, nil) // the stream ends either way
		_ = st.Close()
		return
	}
	if err := st.WriteReply(tunnel.Reply{OK: true}, nil); err != nil {
		conn.Close()
		return
	}
	spliced, err := tunnel.Splice(ctx, st, tunnel.TCP(conn.(*net.TCPConn)))
	log.Debug("tcp stream ended", "to_upstream", spliced.AToB, "from_upstream", spliced.BToA, "error", err)
}
