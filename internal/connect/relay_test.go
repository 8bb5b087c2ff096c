package connect

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/tunnel"
)

const patience = 20 * time.Second // a test that waits this long has failed; none measures it

// testRelay is the relay's side of the tunnel: real TLS, real upgrade, real sessions, and a handler for streams.
type testRelay struct {
	t      *testing.T
	addr   string
	tls    *tls.Config
	key    ed25519.PrivateKey
	handle func(ctx context.Context, st *tunnel.Stream, h tunnel.Header)

	mu       sync.Mutex
	refuse   *tunnel.Refusal      // guarded by mu; answer to every hello
	life     time.Duration        // guarded by mu; of sessions; 0: no end
	tokens   []string             // guarded by mu; those presented, refreshes included
	sessions []*tunnel.Session    // guarded by mu
	server   *httptest.Server     // guarded by mu; nil while stopped
	came     chan *tunnel.Session // every session that was accepted

	now       func() time.Time // the clock by which sessions end
	deaf      bool             // to withdrawals, as relays were before there were any
	withdrawn chan tunnel.Code // capacity 10
}

func newTestRelay(t *testing.T, handle func(ctx context.Context, st *tunnel.Stream, h tunnel.Header)) *testRelay {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &testRelay{t: t, key: key, handle: handle, came: make(chan *tunnel.Session, 100), withdrawn: make(chan tunnel.Code, 10), now: time.Now}
	r.start("127.0.0.1:0")
	t.Cleanup(r.stop)
	return r
}

func (r *testRelay) start(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		r.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	_ = server.Listener.Close()
	server.Listener = l
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.server, r.addr, r.tls = server, l.Addr().String(), &tls.Config{RootCAs: pool}
}

// stop ends the listener and every session, as a killed relay would.
func (r *testRelay) stop() {
	r.mu.Lock()
	server, sessions := r.server, r.sessions
	r.server, r.sessions = nil, nil
	r.mu.Unlock()
	if server == nil {
		return
	}
	_ = server.Listener.Close()
	for _, s := range sessions {
		_ = s.Close(tunnel.CodeRelayShutdown, "test")
	}
	server.Close()
}

func (r *testRelay) serve(w http.ResponseWriter, q *http.Request) {
	conn, err := tunnel.Upgrade(w, q)
	if err != nil {
		return
	}
	s, err := tunnel.Accept(context.Background(), conn, tunnel.ServerConfig{
		Key: r.key, Binding: tunnel.BindingExporter, Names: []string{"127.0.0.1"},
		Authenticate: r.authenticate,
		OnWithdraw: func(s *tunnel.Session, why tunnel.Code) {
			if r.deaf {
				return
			}
			r.withdrawn <- why
			go func() { _ = s.Close(tunnel.CodeLoginRequired, "test") }() // joined by the server's end, which waits for its sessions
		},
		Refresh: func(_ context.Context, _ *tunnel.Session, token string) (time.Time, error) {
			return r.accept(token), nil
		},
	})
	if err != nil {
		return
	}
	r.mu.Lock()
	stopped := r.server == nil
	r.sessions = append(r.sessions, s)
	r.mu.Unlock()
	if stopped {
		_ = s.Close(tunnel.CodeRelayShutdown, "test")
	}
	r.came <- s
	_ = s.Serve(context.Background(), r.handle)
}

func (r *testRelay) authenticate(_ context.Context, h tunnel.Hello) (tunnel.Peer, error) {
	r.mu.Lock()
	refuse := r.refuse
	r.mu.Unlock()
	if refuse != nil {
		return tunnel.Peer{}, refuse
	}
	return tunnel.Peer{Name: "test", Expires: r.accept(h.Token), TokenHash: hashOf(h.Token)}, nil
}

func (r *testRelay) accept(token string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tokens = append(r.tokens, token)
	if r.life == 0 {
		return time.Time{}
	}
	return r.now().Add(r.life)
}

func (r *testRelay) setRefusal(no *tunnel.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse = no
}

// token makes something that has a token's form; nobody here verifies it.
func token(text string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"none"}`)) + "." + part([]byte(`{"sub":"`+text+`"}`)) + "." + part([]byte("sig"))
}

// hashOf is the hash of a token's payload, as a verifier would have it.
func hashOf(token string) []byte {
	payload, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	sum := sha256.Sum256(payload)
	return sum[:]
}

// config is a client's configuration for this relay, with a fixed token.
func (r *testRelay) config() Config {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		r.t.Fatal(err)
	}
	fixed := func(context.Context) (string, error) { return token("alice"), nil }
	return Config{
		Dialer: &tunnel.Dialer{Address: r.addr, TLS: r.tls}, Relay: r.addr, Version: "test",
		Login: func(context.Context) (Login, error) {
			return Login{ID: "1", Key: key, Token: fixed, Refresh: fixed}, nil
		},
	}
}

// run keeps sessions until the test ends.
func run(t *testing.T, cfg Config, classes ...tunnel.Class) *Sessions {
	t.Helper()
	s := NewSessions(cfg, classes...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return s
}

// forward serves a resource on a free port until the test ends and returns its address.
func forward(t *testing.T, f *Forward) string {
	t.Helper()
	b, err := Bind(context.Background(), PortRequest{Any: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f.Serve(ctx, b); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return b.Addrs()[0]
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// dialLocal connects as an application would.
func dialLocal(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// isReset reports whether a read ended as a reset does, not cleanly and not by a deadline.
func isReset(err error) bool {
	var timeout net.Error
	return err != nil && !errors.Is(err, io.EOF) && !(errors.As(err, &timeout) && timeout.Timeout())
}

// echo answers OK and sends back what it gets; the end too.
func echo(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
	if st.WriteReply(tunnel.Reply{OK: true}, nil) != nil {
		return
	}
	if _, err := io.Copy(st, st); err == nil {
		_ = st.CloseWrite()
	}
}

// dialAndRead connects to something that resets at once: the reset may come before the dial returns.
func dialAndRead(t *testing.T, addr string) error {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, err = c.Read(make([]byte, 1))
	return err
}
