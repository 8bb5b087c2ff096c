package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/dev"
	"iap/tunnel"
)

// patience bounds waits for events that must happen; no test passes by it.
const patience = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	key, err := auth.NewKey()
	must(t, err)
	return key
}

// hostileRelay is a relay that was taken over: it has the right key and says what it likes.
type hostileRelay struct {
	t        testing.TB
	addr     string
	caFile   string
	key      ed25519.PrivateKey
	sessions chan *tunnel.Session
	wire     *tap // what the relay wrote, in the clear
	// rotate takes an agent's next key; nil: none. Set before the first agent runs.
	rotate func(context.Context, *tunnel.Session, ed25519.PublicKey) error
}

// tap remembers what is written to a connection.
type tap struct {
	mu  sync.Mutex
	all bytes.Buffer
}

type tappedConn struct {
	net.Conn
	tap *tap
}

func (c *tappedConn) Write(p []byte) (int, error) {
	c.tap.mu.Lock()
	c.tap.all.Write(p)
	c.tap.mu.Unlock()
	return c.Conn.Write(p)
}

func startHostileRelay(t testing.TB) *hostileRelay {
	t.Helper()
	dir := t.TempDir()
	files, err := dev.Certificates(dir, "localhost", "127.0.0.1")
	must(t, err)
	cert, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	must(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}})
	must(t, err)
	r := &hostileRelay{t: t, addr: listener.Addr().String(), caFile: files.CA, key: newKey(t), sessions: make(chan *tunnel.Session, 64), wire: &tap{}}
	var accepting sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		accepting.Add(1)
		defer accepting.Done()
		r.accept(ctx, w, q)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	t.Cleanup(func() {
		cancel()
		_ = server.Close()
		<-served
		accepting.Wait()
		close(r.sessions)
		for s := range r.sessions {
			_ = s.Close(tunnel.CodeNone, "")
		}
	})
	return r
}

func (r *hostileRelay) accept(ctx context.Context, w http.ResponseWriter, q *http.Request) {
	conn, err := tunnel.Upgrade(w, q)
	if err != nil {
		return
	}
	s, err := tunnel.Accept(ctx, &tappedConn{conn, r.wire}, tunnel.ServerConfig{
		Key: r.key, Binding: tunnel.BindingNonce, Names: []string{r.addr},
		Authenticate: func(_ context.Context, h tunnel.Hello) (tunnel.Peer, error) { return tunnel.Peer{Name: h.AgentID}, nil },
		OnAnnounce:   func(*tunnel.Session, []tunnel.Announcement) error { return nil },
		Rotate:       r.rotate,
	})
	if err != nil {
		return
	}
	r.sessions <- s
	_ = s.Serve(ctx, func(context.Context, *tunnel.Stream, tunnel.Header) {})
}

// agentConfig writes agent.yaml with these resources, as lines of YAML.
func (r *hostileRelay) agentConfig(resources string) string {
	r.t.Helper()
	dir := r.t.TempDir()
	must(r.t, auth.SaveKey(filepath.Join(dir, "agent.key"), newKey(r.t)))
	pin := base64.StdEncoding.EncodeToString(r.key.Public().(ed25519.PublicKey))
	text := fmt.Sprintf("relay: %q\nagent_id: agent-1\nrelay_key: %s\nca_file: %q\nresources:\n%s", r.addr, pin, r.caFile, resources)
	file := filepath.Join(dir, "agent.yaml")
	must(r.t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// run starts an agent and returns one of its sessions.
func (r *hostileRelay) run(resources string) *tunnel.Session {
	r.t.Helper()
	r.start(r.agentConfig(resources))
	return r.session()
}

func (r *hostileRelay) start(file string) <-chan error {
	r.t.Helper()
	return r.launch(r.agent(file))
}

// agent makes an agent that does not run yet.
func (r *hostileRelay) agent(file string) *Agent {
	r.t.Helper()
	cfg, err := LoadConfig(file)
	must(r.t, err)
	a, err := New(cfg, nil)
	must(r.t, err)
	return a
}

// runAs starts an agent after tweak had it and returns one of its sessions.
func (r *hostileRelay) runAs(resources string, tweak func(a *Agent)) (*Agent, *tunnel.Session) {
	r.t.Helper()
	a := r.agent(r.agentConfig(resources))
	tweak(a)
	r.launch(a)
	return a, r.session()
}

func (r *hostileRelay) session() *tunnel.Session {
	r.t.Helper()
	select {
	case s := <-r.sessions:
		return s
	case <-within(r.t).Done():
		r.t.Fatal("the agent did not connect")
		return nil
	}
}

func (r *hostileRelay) launch(a *Agent) <-chan error {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ended := make(chan struct{})
	go func() { defer close(ended); done <- a.Run(ctx) }()
	r.t.Cleanup(func() { cancel(); <-ended })
	return done
}

// modelServer records what reaches it, the agent's own probes aside.
type modelServer struct {
	*httptest.Server
	mu   sync.Mutex
	seen []string
	auth []string // the Authorization of each
}

func newUpstream(t testing.TB) *modelServer {
	t.Helper()
	u := &modelServer{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" && r.Header.Get("X-Request-Id") == "" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","owned_by":"test"},{"id":"llama3","owned_by":"test"}]}`)
			return
		}
		if r.Header.Get("X-Request-Id") == "" {
			http.NotFound(w, r)
			return
		}
		u.mu.Lock()
		u.seen = append(u.seen, r.Method+" "+r.RequestURI)
		u.auth = append(u.auth, r.Header.Get("Authorization"))
		u.mu.Unlock()
		if strings.HasPrefix(r.URL.Path, "/redirect") {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
			return
		}
		fmt.Fprintf(w, "%s|%s|%s|%s", r.Host, r.Header.Get("Authorization"), r.Header.Get("Origin"), r.Header.Get("X-Iap-Principal"))
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *modelServer) requests() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.seen...)
}

func httpRequest(method, target, body string, headers ...string) []byte {
	head := method + " " + target + " HTTP/1.1\r\nHost: phi3\r\nX-Request-Id: rq-1\r\n"
	for _, h := range headers {
		head += h + "\r\n"
	}
	if body != "" {
		head += fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	}
	return []byte(head + "\r\n" + body)
}

func chat(model string) string {
	return fmt.Sprintf(`{"messages":[{"content":"hi","role":"user"}],"model":%q}`, model)
}

// chatHeader is what an honest relay says of chat("phi3").
func chatHeader() tunnel.Header {
	return tunnel.Header{
		Resource: "phi3", Kind: "model", Request: "rq-1", Session: "s", Principal: "corp/alice",
		Action: "chat", Model: "phi3", Method: "POST", Path: "/v1/chat/completions", Grant: "g",
	}
}

// send opens a stream and returns the agent's reply.
func send(t testing.TB, s *tunnel.Session, h tunnel.Header, payload []byte) (*tunnel.Stream, tunnel.Reply) {
	t.Helper()
	st, err := s.Open(within(t), h, payload)
	must(t, err)
	t.Cleanup(func() { st.Abort(tunnel.CodeCanceled) })
	reply, err := st.ReadReply(within(t))
	if err != nil {
		return st, tunnel.Reply{Code: tunnel.CodeOf(err).String(), Message: err.Error()}
	}
	return st, reply
}
