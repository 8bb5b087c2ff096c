package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for events that must happen; no test passes by it.
const patience = 20 * time.Second

// certificates makes an authority and a certificate for localhost.
func certificates(t testing.TB, authority string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: authority},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	must(t, err)
	parsed, err := x509.ParseCertificate(caDER)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, parsed, key.Public(), caKey)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// makeToken makes something with the shape of a compact JWS.
func makeToken(payload string) string {
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"alg":"none"}`)) + "." + enc.EncodeToString([]byte(payload)) + ".AAAA"
}

func makeKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return key
}

// A testRelay is a relay's public port: TLS, HTTP, the upgrade, Accept.
type testRelay struct {
	addr     string
	roots    *x509.CertPool
	cfg      ServerConfig
	sessions chan *Session
	errs     chan error
}

// authenticateAnyone takes what the client says as the truth.
func authenticateAnyone(_ context.Context, h Hello) (Peer, error) {
	if h.Role == RoleAgent {
		return Peer{Name: h.AgentID}, nil
	}
	hash, err := payloadHash(h.Token)
	return Peer{Name: "somebody", TokenHash: hash, Expires: time.Now().Add(time.Hour)}, err
}

func startRelay(t testing.TB, change func(*ServerConfig)) *testRelay {
	t.Helper()
	cert, roots := certificates(t, "test authority")
	r := &testRelay{roots: roots, sessions: make(chan *Session, 64), errs: make(chan error, 64)}
	r.cfg = ServerConfig{Key: makeKey(t), Names: []string{"localhost"}, Authenticate: authenticateAnyone}
	if change != nil {
		change(&r.cfg)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	r.addr = net.JoinHostPort("localhost", port)
	ctx, cancel := context.WithCancel(context.Background())
	var accepting sync.WaitGroup
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		accepting.Add(1)
		defer accepting.Done()
		r.accept(ctx, w, req)
	})}
	tlsListener := tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	served := make(chan struct{})
	go func() { defer close(served); server.Serve(tlsListener) }()
	t.Cleanup(func() {
		cancel()
		server.Close()
		<-served
		accepting.Wait()
		close(r.sessions)
		for s := range r.sessions {
			s.Close(CodeRelayShutdown, "test over")
			<-s.Done()
		}
	})
	return r
}

func (r *testRelay) accept(ctx context.Context, w http.ResponseWriter, req *http.Request) {
	conn, err := Upgrade(w, req)
	if err != nil {
		r.errs <- err
		return
	}
	s, err := Accept(ctx, conn, r.cfg)
	if err != nil {
		r.errs <- err
		return
	}
	r.sessions <- s
}

func (r *testRelay) dialer() *Dialer {
	return &Dialer{
		Address: r.addr, TLS: &tls.Config{RootCAs: r.roots},
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return (&net.Dialer{}).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
}

// clientConfig is a user's, or an agent's, that the relay accepts.
func (r *testRelay) clientConfig(t testing.TB, role Role) ClientConfig {
	cfg := ClientConfig{Role: role, Relay: r.addr, Key: makeKey(t), Version: "test"}
	if role == RoleAgent {
		cfg.AgentID = "agent-1"
	} else {
		cfg.Token = func(context.Context) (string, error) { return makeToken(`{"sub":"alice"}`), nil }
	}
	return cfg
}

// connect gives both ends of a new session.
func (r *testRelay) connect(t testing.TB, cfg ClientConfig) (client, server *Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := r.dialer().Dial(ctx)
	must(t, err)
	client, err = Connect(ctx, conn, cfg)
	must(t, err)
	t.Cleanup(func() { end(client) })
	select {
	case server = <-r.sessions:
	case <-ctx.Done():
		t.Fatal("the relay has no session")
	}
	t.Cleanup(func() { end(server) })
	return client, server
}

func end(s *Session) {
	s.Close(CodeCanceled, "test over")
	<-s.Done()
}

// pair is a session of a user over TLS on loopback.
func pair(t testing.TB) (client, server *Session) {
	r := startRelay(t, nil)
	return r.connect(t, r.clientConfig(t, RoleUser))
}

// agentPair is a session of an agent.
func agentPair(t testing.TB) (agent, relay *Session) {
	r := startRelay(t, nil)
	return r.connect(t, r.clientConfig(t, RoleAgent))
}

// serve runs s.Serve until the test is over.
func serve(t testing.TB, s *Session, handle func(ctx context.Context, st *Stream, h Header)) {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() { defer close(served); s.Serve(ctx, handle) }()
	t.Cleanup(func() { cancel(); <-served })
}

// streams opens a stream from opener and gives both ends. The accepting end's handler returns when the test is over.
func streams(t testing.TB, opener, acceptor *Session) func() (*Stream, *Stream) {
	accepted := make(chan *Stream, 4096)
	over := make(chan struct{})
	serve(t, acceptor, func(ctx context.Context, st *Stream, h Header) {
		accepted <- st
		select {
		case <-over:
		case <-st.Done():
		}
	})
	t.Cleanup(func() { close(over) })
	return func() (*Stream, *Stream) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		a, err := opener.Open(ctx, Header{Resource: "phi3"}, nil)
		must(t, err)
		select {
		case b := <-accepted:
			return a, b
		case <-ctx.Done():
			t.Fatal("no stream was accepted")
		}
		return nil, nil
	}
}

// wait fails the test if ch is not closed in time.
func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not happen", what)
	}
	panic("unreachable")
}

func echo(_ context.Context, st *Stream, _ Header) {
	if _, err := io.Copy(st, st); err == nil {
		st.CloseWrite()
	}
	st.Close()
}

func wantCode(t testing.TB, err error, code Code) {
	t.Helper()
	if CodeOf(err) != code {
		t.Fatalf("got %v (code %v), want code %v", err, CodeOf(err), code)
	}
}

// roundTrip returns once the relay has read, and answered, all that the client sent before.
func roundTrip(t testing.TB, client *Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := client.Refresh(ctx, makeToken("{}")) // refused, but answered
	wantCode(t, err, CodeRefused)
}
