package doctor

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/tunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	name string
	cert *x509.Certificate
	key  crypto.Signer
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	cert, err := x509.ParseCertificate(der)
	must(t, err)
	return &authority{name, cert, key}
}

// certificate is good from some time on until another, counted from now.
func (a *authority) certificate(t *testing.T, from, until time.Duration) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "relay"}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	parent, signer := template, crypto.Signer(key)
	if a != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// serve answers HTTPS with the certificate until the test ends.
func serve(t *testing.T, cert tls.Certificate, h http.HandlerFunc) (address string) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}})
	must(t, err)
	s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-done })
	return l.Addr().String()
}

// relay takes the upgrade, as a relay does before it asks who is there.
func relay(w http.ResponseWriter, r *http.Request) {
	if conn, err := tunnel.Upgrade(w, r); err == nil {
		_ = conn.Close()
	}
}

// proxy is an HTTP proxy that answers CONNECT with the status, and connects if that is 200.
func proxy(t *testing.T, status string) *url.URL {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { defer c.Close(); passThrough(c, status) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); serving.Wait() })
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

func passThrough(c net.Conn, status string) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	if status != "200 OK" {
		_, _ = io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Length: 0\r\n\r\n")
		return
	}
	up, err := net.Dial("tcp", r.Host)
	if err != nil {
		return
	}
	defer up.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(up, c); _ = up.Close() })
	_, _ = io.Copy(c, up)
	_ = c.Close()
	both.Wait()
}

// examine dials as the commands do and reports.
func examine(t *testing.T, d *tunnel.Dialer, known bool) (*Report, *Finding, Network) {
	t.Helper()
	if d.Proxy == nil {
		d.Proxy = func(*url.URL) (*url.URL, error) { return nil, nil }
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	traced, end := Trace(ctx, d.Target())
	conn, err := d.Dial(traced)
	n := Network{
		Relay: d.Address, Way: end(), Err: err, Known: known, CAHint: "--ca-file FILE",
		Explain: func(err error) Finding { return Finding{Code: "explained", What: err.Error(), Next: "do it"} },
		Clock:   func(at time.Time) string { return at.Format(time.DateOnly) },
	}
	if conn != nil {
		_ = conn.Close()
	}
	r := &Report{}
	failed := r.Network(n)
	if (failed != nil) != r.Failed() || (failed != nil) != (err != nil) {
		t.Errorf("the dial's error is %v, the finding %+v", err, failed)
	}
	return r, failed, n
}

func (r *Report) stage(t *testing.T, name string) Stage {
	t.Helper()
	for _, s := range r.Stages {
		if s.Stage == name {
			return s
		}
	}
	t.Fatalf("no stage %s in %+v", name, r.Stages)
	return Stage{}
}

func TestEachStageOfAGoodWayIsTold(t *testing.T) {
	ca := newAuthority(t, "Corp Root")
	address := serve(t, ca.certificate(t, -time.Hour, 30*24*time.Hour), relay)
	r, _, n := examine(t, &tunnel.Dialer{Address: address, TLS: &tls.Config{RootCAs: ca.roots()}}, false)
	r.Complete([]string{"name", "proxy", "tcp", "tls", "upgrade", "session"})
	for i, want := range []struct{ stage, verdict, found string }{
		{"name", OK, "127.0.0.1 is an address"},
		{"proxy", OK, "none is set"},
		{"tcp", OK, address + " answers"},
		{"tls", OK, `TLS 1.3, signed by "Corp Root", good until `},
		{"upgrade", OK, "speaks " + tunnel.Protocol},
		{"session", Skipped, ""},
	} {
		if got := r.Stages[i]; got.Stage != want.stage || got.Verdict != want.verdict || !strings.HasPrefix(got.Found, want.found) {
			t.Errorf("stage %d is %+v, want %+v", i, got, want)
		}
	}
	if w := n.Way; w.TCP <= 0 || w.Handshake <= 0 || w.Upgrade <= 0 || w.TLS == nil || w.Reached != address {
		t.Errorf("%+v", w)
	}
}

func TestACertificateThatEndsSoonIsAWarning(t *testing.T) {
	ca := newAuthority(t, "Corp Root")
	address := serve(t, ca.certificate(t, -time.Hour, time.Hour), relay)
	r, _, _ := examine(t, &tunnel.Dialer{Address: address, TLS: &tls.Config{RootCAs: ca.roots()}}, true)
	if got := r.stage(t, "tls"); got.Verdict != Warn || got.Next == "" || r.Failed() {
		t.Errorf("%+v", got)
	}
}

// TestWhoeverSignsInBetweenIsNamed: one of an authority that nobody here trusts reads along if the relay's was verified before, and
// is a relay with an authority of its own else. Names of strangers act on no terminal.
func TestWhoeverSignsInBetweenIsNamed(t *testing.T) {
	trusted, strange := newAuthority(t, "Corp Root"), newAuthority(t, "Net\x1b[31mFilter CA")
	day := 24 * time.Hour
	for name, c := range map[string]struct {
		cert  tls.Certificate
		known bool
		code  string
		what  string
		next  string
	}{
		"known relay":      {strange.certificate(t, -day, day), true, "tls_intercepted", "something reads along", "left out of TLS inspection"},
		"never seen relay": {strange.certificate(t, -day, day), false, "relay_certificate", "which this machine does not trust", "--ca-file FILE"},
		"self-signed":      {(*authority)(nil).certificate(t, -day, day), true, "relay_certificate", "is signed by itself", "--ca-file FILE"},
		"expired":          {trusted.certificate(t, -2*day, -day), true, "relay_certificate", "was good until " + time.Now().Add(-day).Format(time.DateOnly), "must be renewed"},
		"of tomorrow":      {trusted.certificate(t, day, 2*day), true, "relay_certificate", "this machine's clock", "set this machine's clock"},
	} {
		address := serve(t, c.cert, relay)
		r, failed, _ := examine(t, &tunnel.Dialer{Address: address, TLS: &tls.Config{RootCAs: trusted.roots()}}, c.known)
		if failed == nil {
			t.Errorf("%s: passes", name)
			continue
		}
		got := r.stage(t, "tls")
		if got.Verdict != Fail || got.Code != c.code || !strings.Contains(got.Found, c.what) || !strings.Contains(got.Next, c.next) || strings.ContainsRune(got.Found, 0x1b) {
			t.Errorf("%s: %+v", name, got)
		}
		if signer := strings.Contains(name, "relay"); signer && !strings.Contains(got.Found, "Filter CA") {
			t.Errorf("%s: the signer is not named: %+v", name, got)
		}
		if last := r.Stages[len(r.Stages)-1]; last.Stage != "tls" {
			t.Errorf("%s: %s was looked at behind the failure", name, last.Stage)
		}
	}
}

func TestAProxyIsAStageOfItsOwn(t *testing.T) {
	ca := newAuthority(t, "Corp Root")
	address := serve(t, ca.certificate(t, -time.Hour, 30*24*time.Hour), relay)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	for name, c := range map[string]struct {
		proxy *url.URL
		code  tunnel.Code
		says  string
	}{
		"lets through":     {proxy(t, "200 OK"), tunnel.CodeNone, "lets it through"},
		"wants a password": {proxy(t, "407 Proxy Authentication Required"), tunnel.CodeProxyAuthRequired, "wants credentials"},
		"refuses":          {proxy(t, "403 Forbidden"), tunnel.CodeProxyRefused, "403 Forbidden"},
		"is not there":     {&url.URL{Scheme: "http", Host: closed.Addr().String()}, tunnel.CodeNone, "reach proxy"},
	} {
		d := &tunnel.Dialer{Address: address, TLS: &tls.Config{RootCAs: ca.roots()}, Proxy: func(*url.URL) (*url.URL, error) { return c.proxy, nil }}
		r, failed, n := examine(t, d, true)
		got := r.stage(t, "proxy")
		if !strings.HasPrefix(got.Found, c.proxy.Host) || !strings.Contains(got.Found, c.says) || tunnel.CodeOf(n.Err) != c.code || (got.Verdict == OK) != (name == "lets through") {
			t.Errorf("%s: %+v, %v", name, got, n.Err)
		}
		if named := r.stage(t, "name"); !strings.Contains(named.Found, "the proxy's to look up") {
			t.Errorf("%s: %+v", name, named)
		}
		if failed == nil {
			if tcp := r.stage(t, "tcp"); tcp.Found != "by way of the proxy" || n.Way.Via <= 0 {
				t.Errorf("%s: %+v, %+v", name, tcp, n.Way)
			}
		}
	}
}

// TestWhatSpeaksNoRelaysProtocolFailsAtTheUpgrade, and something that takes the upgrade out looks like an old relay.
func TestWhatSpeaksNoRelaysProtocolFailsAtTheUpgrade(t *testing.T) {
	ca := newAuthority(t, "Corp Root")
	answer := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		says    string
	}{
		"a web server":   {answer(http.StatusOK), "200"},
		"no such page":   {answer(http.StatusNotFound), "404"},
		"upgrade filter": {func(w http.ResponseWriter, r *http.Request) { r.Header.Del("Upgrade"); relay(w, r) }, "something on the way takes the upgrade out"},
	} {
		address := serve(t, ca.certificate(t, -time.Hour, 30*24*time.Hour), c.handler)
		r, _, _ := examine(t, &tunnel.Dialer{Address: address, TLS: &tls.Config{RootCAs: ca.roots()}}, true)
		if got := r.stage(t, "upgrade"); got.Verdict != Fail || !strings.Contains(got.Found, c.says) {
			t.Errorf("%s: %+v", name, got)
		}
		if got := r.stage(t, "tls"); got.Verdict != OK {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestNamesAndPortsThatLeadNowhereAreToldApart(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	r, _, _ := examine(t, &tunnel.Dialer{Address: closed.Addr().String()}, true)
	if got := r.stage(t, "tcp"); got.Verdict != Fail || got.Code != "explained" {
		t.Errorf("%+v", got)
	}
	unknown := func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "relay.test", IsNotFound: true}
	}
	r, _, _ = examine(t, &tunnel.Dialer{Address: "relay.test", NetDial: unknown}, true)
	if got := r.stage(t, "name"); got.Verdict != Fail || len(r.Stages) != 1 {
		t.Errorf("%+v", r.Stages)
	}
}

// TestABetrayedSessionNamesWhoSignedTLS: an authority that the machine trusts passes as TLS, and fails where both ends sign what they see.
func TestABetrayedSessionNamesWhoSignedTLS(t *testing.T) {
	ca := newAuthority(t, "Inspection Root")
	address := serve(t, ca.certificate(t, -time.Hour, 30*24*time.Hour), relay)
	_, _, n := examine(t, &tunnel.Dialer{Address: address, TLS: &tls.Config{RootCAs: ca.roots()}}, true)
	for code, named := range map[tunnel.Code]bool{tunnel.CodePopFailed: true, tunnel.CodeRelayUntrusted: true, tunnel.CodeRevoked: false} {
		n.Err = &tunnel.DialError{Stage: "handshake", Code: code, Err: errors.New("no")}
		if got := n.Betrayed(Finding{What: "refused"}); strings.Contains(got.What, "Inspection Root") != named {
			t.Errorf("%v: %q", code, got.What)
		}
	}
}

func TestRowsShowVerdictsTimesAndTheNextStep(t *testing.T) {
	r := &Report{}
	r.Add("name", OK, 1500*time.Microsecond, "relay.test is 127.0.0.1", "")
	r.Fail("upstream phi3", 0, Finding{"upstream_unreachable", "nobody answers", "start it"})
	r.Complete([]string{"name", "tcp", "upstream"})
	rows := r.Rows(strings.ToUpper)
	want := [][]string{
		{"name", "OK", "2 ms", "relay.test is 127.0.0.1"},
		{"tcp", "SKIPPED", "", ""},
		{"upstream phi3", "FAIL", "", "nobody answers\nNext: start it"},
	}
	for i, row := range want {
		if strings.Join(rows[i], "|") != strings.Join(row, "|") {
			t.Errorf("row %d is %q, want %q", i, rows[i], row)
		}
	}
	if len(rows) != len(want) || len(Heading()) != len(rows[0]) {
		t.Errorf("%d rows of %d columns", len(rows), len(rows[0]))
	}
}
