package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"golang.org/x/net/http/httpproxy"
)

// proxyFor finds the proxy for target, or nil.
func (d *Dialer) proxyFor(target string) (*url.URL, error) {
	choose := d.Proxy
	if choose == nil {
		choose = httpproxy.FromEnvironment().ProxyFunc()
	}
	return choose(&url.URL{Scheme: "https", Host: target})
}

// dialProxy asks an HTTP proxy to connect to target (RFC 9110, section 9.3.6).
func (d *Dialer) dialProxy(ctx context.Context, proxy *url.URL, target string) (net.Conn, error) {
	port := proxy.Port()
	switch {
	case proxy.Scheme == "http" && port == "":
		port = "80"
	case proxy.Scheme == "https" && port == "":
		port = "443"
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return nil, &DialError{Stage: "proxy", Err: fmt.Errorf("proxy scheme %q is not http or https", proxy.Scheme)}
	}
	conn, err := d.dialTCP(ctx, net.JoinHostPort(proxy.Hostname(), port))
	if err != nil {
		var dial *DialError
		errors.As(err, &dial)
		return nil, &DialError{Stage: "proxy", Err: fmt.Errorf("reach proxy %s: %w", proxy.Host, dial.Err)}
	}
	tunnel := conn
	if proxy.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: proxy.Hostname(), MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close() // the first error counts
			return nil, &DialError{Stage: "proxy", Err: fmt.Errorf("secure proxy %s: %w", proxy.Host, explainTLS(err))}
		}
		tunnel = secure
	}
	if err := connectThrough(ctx, tunnel, proxy, target); err != nil {
		conn.Close() // the first error counts
		return nil, err
	}
	return tunnel, nil
}

func connectThrough(ctx context.Context, conn net.Conn, proxy *url.URL, target string) error {
	defer cutShort(ctx, conn)()
	request := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	if user := proxy.User; user != nil {
		password, _ := user.Password()
		request += "Proxy-Authorization: Basic " +
			base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return &DialError{Stage: "proxy", Err: overContext(ctx, err)}
	}
	r := bufio.NewReader(io.LimitReader(conn, upgradeBytes))
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return &DialError{Stage: "proxy", Err: overContext(ctx, err)}
	}
	resp.Body.Close() // an answer to CONNECT has none that matters
	if err := ProxyAnswer(ctx, proxy, nil, resp); err != nil {
		return err
	}
	if r.Buffered() > 0 {
		return &DialError{Stage: "proxy", Code: CodeProtocolError, Err: fmt.Errorf("proxy %s spoke out of turn", proxy.Host)}
	}
	return nil
}

// ProxyAnswer says what a proxy's answer to CONNECT means: nil, or a *DialError. It fits
// http.Transport.OnProxyConnectResponse, whose own error says no more than the status.
func ProxyAnswer(_ context.Context, proxy *url.URL, _ *http.Request, answer *http.Response) error {
	switch {
	case answer.StatusCode == http.StatusProxyAuthRequired:
		return &DialError{Stage: "proxy", Code: CodeProxyAuthRequired, Err: fmt.Errorf("proxy %s wants credentials", proxy.Host)}
	case answer.StatusCode/100 != 2:
		return &DialError{Stage: "proxy", Code: CodeProxyRefused, Err: fmt.Errorf("proxy %s answered %s", proxy.Host, answer.Status)}
	}
	return nil
}
