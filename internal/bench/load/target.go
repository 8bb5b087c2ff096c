package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

const (
	dialTimeout = 30 * time.Second
	readBuffer  = 8 << 10
)

// Target is a base URL under load. ParseTarget makes one.
type Target struct {
	addr string // host:port to dial
	host string // Host header
	path string // prefix of every path, without a slash at its end
	tls  *tls.Config

	Bearer string // token to send with every request, if any
}

// ParseTarget reads http://HOST:PORT[/PREFIX] or the same with https, whose
// certificate is not verified: what is measured is the caller's own.
func ParseTarget(base string) (Target, error) {
	u, err := url.Parse(base)
	if err != nil {
		return Target{}, err
	}
	t := Target{addr: u.Host, host: u.Host, path: strings.TrimRight(u.Path, "/")}
	switch u.Scheme {
	case "http":
	case "https":
		t.tls = &tls.Config{InsecureSkipVerify: true, ServerName: u.Hostname(), NextProtos: []string{"http/1.1"}}
	default:
		return Target{}, fmt.Errorf("%q: want http or https", base)
	}
	if u.Port() == "" {
		return Target{}, fmt.Errorf("%q: want a port", base)
	}
	return t, nil
}

func (t Target) dial(ctx context.Context) (*conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	c, err := d.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return nil, err
	}
	if t.tls != nil {
		secure := tls.Client(c, t.tls)
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		c = secure
	}
	return &conn{Conn: c, r: bufio.NewReaderSize(c, readBuffer)}, nil
}

// request is the bytes of one request; a nil body is none.
func (t Target) request(method, path string, body []byte) []byte {
	if body == nil {
		return t.head(method, path, "", -1)
	}
	return append(t.head(method, path, "application/json", int64(len(body))), body...)
}

// head is a request's head; length -1 means no body.
func (t Target) head(method, path, contentType string, length int64) []byte {
	b := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: slmload\r\nAccept: */*\r\n", method, t.path+path, t.host)
	if t.Bearer != "" {
		b = fmt.Appendf(b, "Authorization: Bearer %s\r\n", t.Bearer)
	}
	if length >= 0 {
		b = fmt.Appendf(b, "Content-Type: %s\r\nContent-Length: %d\r\n", contentType, length)
	}
	return append(b, "\r\n"...)
}
