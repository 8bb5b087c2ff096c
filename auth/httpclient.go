package auth

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// newClient returns a client with our limits: a timeout over the whole exchange,
// redirects only within the same scheme and host and only for GET, and answers cut
// off with an error at maxDocumentBytes. A client from outside keeps its transport.
func newClient(base *http.Client, timeout time.Duration) *http.Client {
	c := &http.Client{}
	if base != nil {
		*c = *base
	}
	if c.Timeout == 0 || c.Timeout > timeout {
		c.Timeout = timeout
	}
	if c.Transport == nil {
		c.Transport = NewTransport(nil)
	}
	c.Transport = bounded{c.Transport}
	c.CheckRedirect = stayHome
	return c
}

// NewTransport returns the transport this package uses where none is given: it
// honours the proxy environment, and never dials link-local addresses, where cloud
// metadata lives. Give it a TLS configuration for a provider with a private
// certificate authority, and put it into an HTTPClient field.
func NewTransport(tlsConfig *tls.Config) *http.Transport {
	dialer := &net.Dialer{
		Timeout: providerTimeout,
		Control: func(_, address string, _ syscall.RawConn) error { return refuseLinkLocal(address) },
	}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: providerTimeout,
		ForceAttemptHTTP2:   true,
		// Requests are minutes apart; a kept connection would only be a
		// goroutine without an owner.
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

var errRedirect = errors.New("redirect is not followed")

func stayHome(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case first.Method != http.MethodGet:
		return fmt.Errorf("%w: the request carries credentials", errRedirect)
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d of them", errRedirect, maxRedirects)
	case req.URL.Scheme != first.URL.Scheme || req.URL.Host != first.URL.Host:
		return fmt.Errorf("%w: it leads to another host, %q", errRedirect, req.URL.Host)
	}
	return nil
}

// bounded makes the end of a too long answer an error; a reader that stops quietly
// would see a shorter document.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{ReadCloser: resp.Body, left: maxDocumentBytes}
	return resp, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, fmt.Errorf("answer is longer than %d bytes", maxDocumentBytes)
	}
	if len(p) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= n
	if b.left < 0 {
		return 0, fmt.Errorf("answer is longer than %d bytes", maxDocumentBytes)
	}
	return n, err
}

// withContext returns a client whose requests all end with ctx: x/oauth2 makes its
// device authorization request without a context and leaves the body open. The
// caller gives ctx a deadline and cancels it when it is done.
func withContext(ctx context.Context, c *http.Client) *http.Client {
	bound := *c
	bound.Timeout = 0
	bound.Transport = contextual{ctx, c.Transport}
	return &bound
}

type contextual struct {
	ctx  context.Context
	next http.RoundTripper
}

func (c contextual) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(req.Context())
	context.AfterFunc(c.ctx, cancel)
	return c.next.RoundTrip(req.WithContext(ctx))
}

// fetch gets a document; anything but 200 is an error.
func fetch(ctx context.Context, c *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err // names method and address already
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %w", url, &answerError{status: resp.StatusCode})
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", url, err)
	}
	return body, nil
}
