package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	dialWithin  = 10 * time.Second
	maxAnswer   = 64 << 10 // bytes that are read of an answer
	shownAnswer = 200      // bytes of it that stand in an error
	maxSecrets  = 64 << 10 // bytes of a file of secrets or headers
	idleFor     = 90 * time.Second
)

// refusal is an answer that is not yes.
type refusal struct {
	status int
	after  time.Duration // that the receiver asks to wait
	text   string        // the beginning of the answer
}

func (r *refusal) Error() string {
	text := fmt.Sprintf("the receiver answers %d %s", r.status, http.StatusText(r.status))
	switch {
	case r.status/100 == 3:
		return text + "; redirects are not followed: configure the URL that it leads to"
	case r.text != "":
		return text + fmt.Sprintf(": %q", r.text)
	}
	return text
}

// passing refusals are about this moment; others stay until somebody mends something.
func (r *refusal) passing() bool {
	switch r.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

func (r *refusal) tooLarge() bool { return r.status == http.StatusRequestEntityTooLarge }

// poster posts batches to one URL.
type poster struct {
	client      http.Client
	url         string
	headersFile string
	now         func() time.Time
}

func newPoster(o Options, c Config) (*poster, error) {
	secure, err := c.tls()
	if err != nil {
		return nil, err
	}
	p := &poster{url: c.URL, headersFile: c.HeadersFile, now: o.Now}
	if _, err := p.headers(); err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialWithin}
	p.client = http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: secure, TLSHandshakeTimeout: dialWithin,
			ForceAttemptHTTP2: true, MaxIdleConns: 1, IdleConnTimeout: idleFor, MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return p, nil
}

func (p *poster) close() { p.client.CloseIdleConnections() }

// post returns the answer to a body if it is a yes, and a *refusal if it is not.
func (p *poster) post(ctx context.Context, body []byte, header http.Header) (answer []byte, err error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return nil, withoutURL(err)
	}
	if q.Header, err = p.headers(); err != nil {
		return nil, err
	}
	for name, values := range header {
		q.Header[name] = values
	}
	response, err := p.client.Do(q)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode/100 == 2 {
		return answer, err
	}
	return nil, &refusal{
		status: response.StatusCode, after: retryAfter(response.Header.Get("Retry-After"), p.now()),
		text: string(answer[:min(len(answer), shownAnswer)]),
	}
}

// probe takes any answer: it is the way there that is asked for.
func (p *poster) probe(ctx context.Context) error {
	q, err := http.NewRequestWithContext(ctx, http.MethodOptions, p.url, nil)
	if err != nil {
		return withoutURL(err)
	}
	answer, err := p.client.Do(q)
	if err != nil {
		return withoutURL(err)
	}
	return answer.Body.Close()
}

// withoutURL leaves out of an error what may be a secret.
func withoutURL(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// retryAfter reads seconds or a date; 0 if it is neither.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// headers are read anew for each request, so that a token can be changed while the relay runs.
func (p *poster) headers() (http.Header, error) {
	all := http.Header{}
	if p.headersFile == "" {
		return all, nil
	}
	lines, err := secretLines(p.headersFile)
	if err != nil {
		return nil, fmt.Errorf("headers_file: %w", err)
	}
	for i, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		value = textproto.TrimString(value)
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, fmt.Errorf("headers_file: line %d of %s is no header: write Name: value", i+1, p.headersFile)
		}
		all.Add(name, value)
	}
	return all, nil
}

// secretLines are the lines of a small file, without empty ones.
func secretLines(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecrets+1))
	if err == nil && len(data) > maxSecrets {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxSecrets)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return lines, err
}

// tls is how the receiver is trusted and what is shown to it.
func (c Config) tls() (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", c.CAFile)
		}
	}
	if c.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}
