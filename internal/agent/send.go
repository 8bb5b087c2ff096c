package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// send puts the request to the upstream. It returns with the answer's head,
// however long that takes: a model may think for minutes.
func (u *upstream) send(ctx context.Context, r *http.Request, class modelapi.Class, body io.Reader) (*http.Response, error) {
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
	if u.cfg.Kind == modelapi.KindModel && out.ContentLength > 0 {
		out.Header["Content-Type"] = []string{"application/json"}
		if class.ContentType != "" {
			out.Header["Content-Type"] = []string{class.ContentType}
		}
	}
	out.Body = io.NopCloser(body)
	if out.ContentLength == 0 {
		out.Body = once(out)
	} else if u.cfg.Kind != modelapi.KindModel || r.Method != http.MethodPost {
		// A server that does not read this body would take it for the next request
		// on the connection, which may be somebody else's.
		out.Close = true
	}
	return u.transport.RoundTrip(out.WithContext(ctx))
}

// once is no body at all, in a form that keeps the transport from sending the
// request a second time where its connection breaks: it would do that by itself
// for methods without effect, and for keys that promise none.
func once(out *http.Request) io.ReadCloser {
	for _, name := range []string{"Idempotency-Key", "X-Idempotency-Key"} {
		if values, there := out.Header[name]; there { // the transport looks for this spelling
			delete(out.Header, name)
			out.Header[strings.ToLower(name)] = values
		}
	}
	switch out.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return io.NopCloser(strings.NewReader(""))
	}
	return http.NoBody // a body of unknown length would be sent in chunks
}

// header is what the relay sent, less what belongs to the connection it came
// on and, for a model server, less what a browser might have said and less
// every credential: those there are the agent's own.
func (u *upstream) header(out http.Header) http.Header {
	dropHopByHop(out)
	if u.cfg.Kind == modelapi.KindModel {
		for _, name := range []string{"Origin", "Referer", "Cookie", "Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
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
