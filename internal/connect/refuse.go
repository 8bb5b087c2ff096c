package connect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/modelapi"
	"iap/tunnel"
)

const (
	// lingerTime and lingerBytes bound what is still read after a refusal, so that the answer is not lost to a reset.
	lingerTime  = time.Second
	lingerBytes = 1 << 20
	// refuseWrite bounds the writing of an answer of a few hundred bytes.
	refuseWrite = 5 * time.Second
	// retryAfter is what a client is told while the relay is away; redialling is faster than that.
	retryAfter = 5
)

// refusal is an answer given without the relay.
type refusal struct {
	status     int
	code       string
	message    string
	retryAfter int // seconds; 0: none
}

// refusalOf turns an error into an answer. The table of codes and statuses is here and nowhere else.
func refusalOf(err error, resource string) refusal {
	var reply *ReplyError
	if errors.As(err, &reply) {
		return refusalOfReply(reply.Reply, resource)
	}
	var outside *TokenRefusedError
	if errors.As(err, &outside) {
		return refusal{
			status: http.StatusUnauthorized, code: outside.Code,
			message: fmt.Sprintf("%s: check %s on this machine; requests are served again once it gives a good token", outside.What, outside.Source),
		}
	}
	if NeedsLogin(err) {
		return refusal{status: http.StatusUnauthorized, code: "login_required", message: "a new login to the relay is needed: run `iapctl login` on this machine, then try again"}
	}
	var source *auth.LoginError
	if errors.As(err, &source) {
		return refusal{
			status: http.StatusServiceUnavailable, code: source.Code, retryAfter: retryAfter,
			message: source.Public + "; iapctl tries again by itself",
		}
	}
	switch tunnel.CodeOf(err) {
	case tunnel.CodePolicyDenied:
		return refusal{status: http.StatusForbidden, code: "policy_denied", message: "the policy does not let you use " + resource}
	case tunnel.CodeTooManyStreams, tunnel.CodeLimitReached:
		return refusal{status: http.StatusTooManyRequests, code: "limit_reached", message: "too many requests at once", retryAfter: 1}
	case tunnel.CodeVersionMismatch:
		return refusal{status: http.StatusBadGateway, code: "version_mismatch", message: "relay and iapctl do not speak the same protocol: update iapctl"}
	}
	return refusal{
		status: http.StatusServiceUnavailable, code: "relay_unreachable", retryAfter: retryAfter,
		message: "the relay cannot be reached right now; try again in a few seconds",
	}
}

func refusalOfReply(r tunnel.Reply, resource string) refusal {
	out := refusal{status: http.StatusForbidden, code: r.Code, message: r.Message}
	switch tunnel.ParseCode(r.Code) {
	case tunnel.CodeAgentOffline, tunnel.CodeUpstreamUnreachable, tunnel.CodeOverloaded, tunnel.CodeRelayShutdown,
		tunnel.CodeAuditUnavailable, tunnel.CodeStateUnavailable:
		out.status, out.retryAfter = http.StatusServiceUnavailable, retryAfter
	case tunnel.CodeLimitReached, tunnel.CodeTooManyStreams:
		out.status, out.retryAfter = http.StatusTooManyRequests, 1
	case tunnel.CodeLoginRequired, tunnel.CodeSessionExpired, tunnel.CodeRevoked, tunnel.CodeTokenInvalid:
		out.status = http.StatusUnauthorized
	case tunnel.CodeUnknownResource:
		out.status = http.StatusNotFound
	case tunnel.CodeInternal, tunnel.CodeProtocolError:
		out.status = http.StatusBadGateway
	}
	if r.RetryAfterMS > 0 {
		out.retryAfter = int((r.RetryAfterMS + 999) / 1000)
	}
	if out.code == "" {
		out.code = "refused"
	}
	if out.message == "" {
		out.message = fmt.Sprintf("the relay refused %s: %s", resource, out.code)
	}
	return out
}

// refuse answers the request that begins with first, in the protocol its path belongs to, and closes.
func refuse(ctx context.Context, c *net.TCPConn, first []byte, r refusal) {
	stop := context.AfterFunc(ctx, func() { reset(c) })
	defer stop()
	path, isHTTP := requestPath(first)
	if !isHTTP {
		reset(c)
		return
	}
	e := &modelapi.Error{Status: r.status, Code: r.code, Message: r.message}
	_ = c.SetWriteDeadline(time.Now().Add(refuseWrite))
	if _, err := c.Write(r.response(e.Body(modelapi.ProtocolOf(path)))); err != nil {
		reset(c)
		return
	}
	_ = c.CloseWrite()
	_ = c.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c, lingerBytes)
	_ = c.Close()
}

// response is written by hand: five headers, and nothing of the request is echoed.
func (r refusal) response(body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.status, http.StatusText(r.status))
	b.WriteString("Content-Type: application/json\r\n")
	b.WriteString("X-Content-Type-Options: nosniff\r\n")
	b.WriteString("Cache-Control: no-store\r\n")
	if r.retryAfter > 0 {
		b.WriteString("Retry-After: " + strconv.Itoa(r.retryAfter) + "\r\n")
	}
	b.WriteString("Content-Length: " + strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n")
	b.Write(body)
	return b.Bytes()
}

// requestPath reads the path of a request line. What does not look like HTTP gets no HTTP answer.
func requestPath(first []byte) (string, bool) {
	line, _, _ := bytes.Cut(first, []byte("\n"))
	method, rest, ok := strings.Cut(string(line), " ")
	if !ok || method == "" || len(method) > 32 {
		return "", false
	}
	for _, c := range method {
		if c < 'A' || c > 'Z' {
			return "", false
		}
	}
	target, _, _ := strings.Cut(rest, " ")
	path, _, _ := strings.Cut(strings.TrimSpace(target), "?")
	return path, true
}
