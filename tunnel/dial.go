package tunnel

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const defaultPort = "443"

// A Dialer makes the connection under a session: TCP, perhaps through an HTTP proxy, then TLS 1.3, then the upgrade. It
// is dialled by hand, since the TLS exporter must be at both ends of it.
type Dialer struct {
	Address string         // the relay as the user names it: host[:port], port 443 by default
	Connect netip.AddrPort // if valid, dial exactly this for Address; no proxy is used then

	// TLS is a base for the TLS configuration; nil is fine. TLS 1.3, ALPN http/1.1 and, unless set, the server name of
	// Address are put in.
	TLS *tls.Config
	// Proxy chooses an HTTP proxy for https://Address. Nil reads HTTPS_PROXY and NO_PROXY.
	Proxy func(*url.URL) (*url.URL, error)
	// NetDial opens TCP connections. Nil is a net.Dialer.
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Dial returns a connection on which the relay awaits a hello. The error is a *DialError.
//
// An httptrace.ClientTrace in ctx hears GetConn with the address that is dialled, which is the proxy's if there is one,
// and TLSHandshakeStart and TLSHandshakeDone of the handshake with the relay. Package net tells it of names and addresses.
func (d *Dialer) Dial(ctx context.Context) (*tls.Conn, error) {
	host, port, err := splitAddress(d.Address)
	if err != nil {
		return nil, &DialError{Stage: "resolve", Err: err}
	}
	raw, err := d.dialNet(ctx, host, port)
	if err != nil {
		return nil, err
	}
	conn, err := d.secure(ctx, raw, host)
	if err == nil {
		err = upgradeClient(ctx, conn, hostHeader(host, port))
	}
	if err != nil {
		raw.Close() // the first error counts
		return nil, err
	}
	return conn, nil
}

// Target is Address with its port, or Address itself if it is none.
func (d *Dialer) Target() string {
	host, port, err := splitAddress(d.Address)
	if err != nil {
		return d.Address
	}
	return net.JoinHostPort(host, port)
}

func splitAddress(address string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(address)
	if err != nil {
		host, port = strings.Trim(address, "[]"), defaultPort
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", "", fmt.Errorf("relay address %q is not host or host:port", address)
		}
	}
	if host == "" || port == "" || strings.ContainsAny(host, "/ @\r\n\t") {
		return "", "", fmt.Errorf("relay address %q is not host or host:port", address)
	}
	return host, port, nil
}

func hostHeader(host, port string) string {
	if port != defaultPort {
		return net.JoinHostPort(host, port)
	}
	if strings.Contains(host, ":") {
		return "[" + host + "]"
	}
	return host
}

func (d *Dialer) dialNet(ctx context.Context, host, port string) (net.Conn, error) {
	if d.Connect.IsValid() {
		return d.dialTCP(ctx, d.Connect.String())
	}
	target := net.JoinHostPort(host, port)
	proxy, err := d.proxyFor(target)
	if err != nil {
		return nil, &DialError{Stage: "proxy", Err: err}
	}
	if proxy == nil {
		traceConn(ctx, target)
		return d.dialTCP(ctx, target)
	}
	traceConn(ctx, proxy.Host)
	return d.dialProxy(ctx, proxy, target)
}

func (d *Dialer) dialTCP(ctx context.Context, target string) (net.Conn, error) {
	dial := d.NetDial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", target)
	if err == nil {
		return conn, nil
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return nil, &DialError{Stage: "resolve", Err: err}
	}
	return nil, &DialError{Stage: "tcp", Err: err}
}

// secure runs the TLS handshake. Only HTTP/1.1 is offered: nothing else can be upgraded.
func (d *Dialer) secure(ctx context.Context, raw net.Conn, host string) (*tls.Conn, error) {
	config := &tls.Config{}
	if d.TLS != nil {
		config = d.TLS.Clone()
	}
	config.MinVersion, config.MaxVersion = tls.VersionTLS13, 0
	config.NextProtos = []string{"http/1.1"}
	if config.ServerName == "" {
		config.ServerName = host
	}
	conn := tls.Client(raw, config)
	trace := httptrace.ContextClientTrace(ctx)
	if trace != nil && trace.TLSHandshakeStart != nil {
		trace.TLSHandshakeStart()
	}
	err := conn.HandshakeContext(ctx)
	if trace != nil && trace.TLSHandshakeDone != nil {
		trace.TLSHandshakeDone(conn.ConnectionState(), err)
	}
	if err != nil {
		return nil, &DialError{Stage: "tls", Err: explainTLS(err)}
	}
	return conn, nil
}

func traceConn(ctx context.Context, address string) {
	if trace := httptrace.ContextClientTrace(ctx); trace != nil && trace.GetConn != nil {
		trace.GetConn(address)
	}
}

// explainTLS names who signed a certificate that was not accepted: on many networks a proxy signs its own.
func explainTLS(err error) error {
	var refused *tls.CertificateVerificationError
	if !errors.As(err, &refused) || len(refused.UnverifiedCertificates) == 0 {
		return err
	}
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return err
	}
	issuer := refused.UnverifiedCertificates[0].Issuer
	name := issuer.CommonName
	if name == "" {
		name = issuer.String()
	}
	return fmt.Errorf("the certificate is signed by %q, which this machine does not trust: %w", name, err)
}

// upgradeClient asks for the tunnel.
func upgradeClient(ctx context.Context, conn net.Conn, host string) error {
	defer cutShort(ctx, conn)()
	_, err := io.WriteString(conn, "GET "+Path+" HTTP/1.1\r\nHost: "+host+
		"\r\nConnection: Upgrade\r\nUpgrade: "+Protocol+"\r\n\r\n")
	if err != nil {
		return &DialError{Stage: "upgrade", Err: overContext(ctx, err)}
	}
	r := bufio.NewReader(io.LimitReader(conn, upgradeBytes))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return &DialError{Stage: "upgrade", Err: overContext(ctx, err)}
	}
	resp.Body.Close() // a 101 has none, and after anything else the connection goes
	switch {
	case resp.StatusCode != http.StatusSwitchingProtocols:
		return &DialError{Stage: "upgrade", Code: upgradeCode(resp.StatusCode), Err: fmt.Errorf("the relay answered %s", resp.Status)}
	case !hasToken(resp.Header, "Upgrade", Protocol):
		return &DialError{Stage: "upgrade", Code: CodeVersionMismatch, Err: fmt.Errorf("the relay switched to %q", resp.Header.Get("Upgrade"))}
	case r.Buffered() > 0:
		return &DialError{Stage: "upgrade", Code: CodeProtocolError, Err: errors.New("the relay spoke before it was spoken to")}
	}
	return nil
}

func upgradeCode(status int) Code {
	switch status {
	case http.StatusServiceUnavailable:
		return CodeRelayShutdown
	case http.StatusTooManyRequests:
		return CodeOverloaded
	case http.StatusUpgradeRequired:
		return CodeVersionMismatch
	}
	return CodeRefused
}

// cutShort bounds what follows on conn by handshakeTimeout and ctx, until release.
func cutShort(ctx context.Context, conn net.Conn) (release func()) {
	conn.SetDeadline(time.Now().Add(handshakeTimeout)) // shows in the next use
	cut := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(longAgo) // a broken connection ends by itself
		close(cut)
	})
	return func() {
		if !stop() {
			<-cut
		}
		conn.SetDeadline(time.Time{}) // shows in the next use
	}
}

// overContext prefers the context's error: the deadline that showed was its doing.
func overContext(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
