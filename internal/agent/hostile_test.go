package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
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
	select {
	case s := <-r.sessions:
		return s
	case <-within(r.t).Done():
		r.t.Fatal("the agent did not connect")
		return nil
	}
}

func (r *hostileRelay) start(file string) <-chan error {
	r.t.Helper()
	cfg, err := LoadConfig(file)
	must(r.t, err)
	a, err := New(cfg, nil)
	must(r.t, err)
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
}

func newUpstream(t testing.TB) *modelServer {
	t.Helper()
	u := &modelServer{}
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" && r.Header.Get("X-Request-Id") == "" {
			fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","owned_by":"test"},{"id":"llama3","owned_by":"test"}]}`)
			return
		}
		if r.URL.Path == "/api/version" && r.Header.Get("X-Request-Id") == "" {
			http.NotFound(w, r)
			return
		}
		u.mu.Lock()
		u.seen = append(u.seen, r.Method+" "+r.RequestURI)
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

func TestHonestRequestPasses(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\"}\n")
	if _, reply := send(t, s, chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3"))); !reply.OK {
		t.Errorf("%+v", reply)
	}
	if got := up.requests(); len(got) != 1 {
		t.Errorf("the upstream saw %v", got)
	}
}

func TestAgentRefusesEveryRequestThatIsNotTheOneDecidedOn(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\"}\n" +
		"  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n" +
		"  - {name: db, kind: tcp, upstream: \"" + strings.TrimPrefix(up.URL, "http://") + "\", opaque: true}\n")
	honest := httpRequest("POST", "/v1/chat/completions", chat("phi3"))
	web := tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}
	for name, one := range map[string]struct {
		header  func(h *tunnel.Header)
		payload []byte
	}{
		"other model in the body":    {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", chat("llama3"))},
		"other model in the header":  {func(h *tunnel.Header) { h.Model = "llama3" }, honest},
		"no model in the header":     {func(h *tunnel.Header) { h.Model = "" }, honest},
		"other action":               {func(h *tunnel.Header) { h.Action = "list-models" }, honest},
		"connect on a model":         {func(h *tunnel.Header) { h.Action = "connect" }, honest},
		"other path":                 {func(*tunnel.Header) {}, httpRequest("POST", "/v1/completions", chat("phi3"))},
		"path in another spelling":   {func(h *tunnel.Header) { h.Path = "/v1//chat/completions" }, httpRequest("POST", "/v1//chat/completions", chat("phi3"))},
		"query beside the path":      {func(h *tunnel.Header) { h.Path += "?x=y" }, httpRequest("POST", "/v1/chat/completions?x=y", chat("phi3"))},
		"other method":               {func(*tunnel.Header) {}, httpRequest("PUT", "/v1/chat/completions", chat("phi3"))},
		"other method in both":       {func(h *tunnel.Header) { h.Method = "DELETE" }, httpRequest("DELETE", "/v1/chat/completions", chat("phi3"))},
		"absolute target":            {func(h *tunnel.Header) { h.Path = "http://169.254.169.254/v1/chat/completions" }, httpRequest("POST", "http://169.254.169.254/v1/chat/completions", chat("phi3"))},
		"unknown route":              {func(h *tunnel.Header) { h.Method, h.Path = "GET", "/internal" }, httpRequest("GET", "/internal", "")},
		"unknown resource":           {func(h *tunnel.Header) { h.Resource = "llama" }, honest},
		"no resource":                {func(h *tunnel.Header) { h.Resource = "" }, honest},
		"kind that differs":          {func(h *tunnel.Header) { h.Kind, h.Action = "http", "connect" }, honest},
		"tcp to a model":             {func(h *tunnel.Header) { h.Kind, h.Action = "tcp", "connect" }, honest},
		"tcp to a web resource":      {func(h *tunnel.Header) { *h = web; h.Kind = "tcp" }, httpRequest("GET", "/", "")},
		"model to a web resource":    {func(h *tunnel.Header) { *h = web; h.Kind, h.Action = "model", "chat" }, httpRequest("GET", "/", "")},
		"http to a tcp resource":     {func(h *tunnel.Header) { *h = web; h.Resource = "db" }, httpRequest("GET", "/", "")},
		"chat on a web resource":     {func(h *tunnel.Header) { *h = web; h.Action = "chat" }, httpRequest("GET", "/", "")},
		"web: target of another":     {func(h *tunnel.Header) { *h = web }, httpRequest("GET", "/admin", "")},
		"web: authority in disguise": {func(h *tunnel.Header) { *h = web; h.Path = "//169.254.169.254/" }, httpRequest("GET", "//169.254.169.254/", "")},
		"web: absolute target":       {func(h *tunnel.Header) { *h = web; h.Path = "http://169.254.169.254/" }, httpRequest("GET", "http://169.254.169.254/", "")},
		"model twice in the body":    {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", `{"model":"phi3","model":"llama3","messages":[]}`)},
		"model in another case":      {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", `{"model":"phi3","Model":"llama3","messages":[]}`)},
		"something behind the body":  {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", chat("phi3")+chat("llama3"))},
		"compressed body":            {func(*tunnel.Header) {}, httpRequest("POST", "/v1/chat/completions", chat("phi3"), "Content-Encoding: gzip")},
		"no HTTP":                    {func(*tunnel.Header) {}, []byte("\x00\x01\x02\r\n\r\n")},
		"CONNECT":                    {func(h *tunnel.Header) { *h = web; h.Method, h.Path = "CONNECT", "169.254.169.254:80" }, []byte("CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: x\r\n\r\n")},
		"api service":                {func(h *tunnel.Header) { h.Service, h.Resource = "api", "" }, honest},
	} {
		h := chatHeader()
		one.header(&h)
		if _, reply := send(t, s, h, one.payload); reply.OK {
			t.Errorf("%s: passed", name)
		}
	}
	if got := up.requests(); len(got) != 0 {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestAgentKeepsToItsOwnListsOfModelsAndActions(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\", models: [\"phi3*\"], actions: [chat, list-models]}\n" +
		"  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true, actions: [chat]}\n")
	llama := chatHeader()
	llama.Model = "llama3"
	embed := chatHeader()
	embed.Action, embed.Path = "embed", "/v1/embeddings"
	for name, one := range map[string]struct {
		h       tunnel.Header
		payload []byte
		allowed bool
	}{
		"listed":          {chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3")), true},
		"unlisted model":  {llama, httpRequest("POST", "/v1/chat/completions", chat("llama3")), false},
		"unlisted action": {embed, httpRequest("POST", "/v1/embeddings", `{"input":"x","model":"phi3"}`), false},
		"web":             {tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}, httpRequest("GET", "/", ""), false},
	} {
		_, reply := send(t, s, one.h, one.payload)
		if reply.OK != one.allowed {
			t.Errorf("%s: %+v", name, reply)
		}
	}
	if got := up.requests(); len(got) != 1 {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestSealedHeaderIsGoodOnceAndWhereItWasSealed(t *testing.T) {
	up := newUpstream(t)
	r := startHostileRelay(t)
	s := r.run("  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n")
	h := tunnel.Header{Resource: "web", Kind: "http", Request: "rq-replay", Action: "connect", Method: "HEAD", Path: "/once"}
	st, reply := send(t, s, h, httpRequest("HEAD", "/once", ""))
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	sealed := r.wire.message(t, `"request":"rq-replay"`)
	replayed := append(append([]byte(nil), sealed...), httpRequest("HEAD", "/once", "")...)
	_, err := st.Write(replayed)
	must(t, err)
	<-st.Done()
	if got := tunnel.CodeOf(st.Err()); got != tunnel.CodeReplayed {
		t.Errorf("on the same stream: %v", st.Err())
	}
	h.Path, h.Request = "/other", "rq-other"
	other, reply := send(t, s, h, httpRequest("HEAD", "/other", ""))
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	_, err = other.Write(replayed)
	must(t, err)
	<-other.Done()
	if got := tunnel.CodeOf(other.Err()); got != tunnel.CodeBadMAC {
		t.Errorf("on another stream: %v", other.Err())
	}
	h.Path, h.Request = "/third", "rq-third"
	third, _ := send(t, s, h, httpRequest("HEAD", "/third", ""))
	forged := bytes.Replace(sealed, []byte("/once"), []byte("/twic"), 1)
	_, err = third.Write(append(forged, httpRequest("HEAD", "/twic", "")...))
	must(t, err)
	<-third.Done()
	if got := tunnel.CodeOf(third.Err()); got != tunnel.CodeBadMAC {
		t.Errorf("changed: %v", third.Err())
	}
	if got := strings.Join(up.requests(), ","); got != "HEAD /once,HEAD /other,HEAD /third" {
		t.Errorf("the upstream saw %s", got)
	}
}

// message finds a length-prefixed message in what was written.
func (p *tap) message(t testing.TB, containing string) []byte {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.all.Bytes()
	at := bytes.Index(all, []byte(containing))
	for start := at; start >= 4; start-- {
		if all[start] != '{' {
			continue
		}
		n := int(binary.BigEndian.Uint32(all[start-4:]))
		if start+n <= len(all) && n > at-start && all[start+n-1] == '}' {
			return append([]byte(nil), all[start-4:start+n]...)
		}
	}
	t.Fatal("the header was not found on the wire")
	return nil
}

func TestDotSegmentsDoNotLeaveTheUpstreamsBase(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "/app\", opaque: true}\n")
	for _, target := range []string{"/../secret", "/x/../../secret", "/%2e%2e/secret", "/..%2fsecret", "/.%2e/secret", "/..\\secret"} {
		_, reply := send(t, s, tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: target}, httpRequest("GET", target, ""))
		if reply.OK {
			t.Errorf("%s passed", target)
		}
	}
	if _, reply := send(t, s, tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/ok?x=1"}, httpRequest("GET", "/ok?x=1", "")); !reply.OK {
		t.Errorf("a plain path: %+v", reply)
	}
	for _, got := range up.requests() {
		if got != "GET /app/ok?x=1" {
			t.Errorf("the upstream saw %s", got)
		}
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n")
	send(t, s, tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/redirect"}, httpRequest("GET", "/redirect", ""))
	if got := up.requests(); len(got) != 1 || got[0] != "GET /redirect" {
		t.Errorf("the upstream saw %q", got)
	}
}

func TestAddressesThatAreNoUpstreamAreNeverDialled(t *testing.T) {
	for _, address := range []string{"169.254.169.254:80", "[fe80::1%25lo]:80", "224.0.0.1:80", "0.0.0.0:80", "[::]:80", "[::ffff:169.254.169.254]:80", "[ff02::1]:80"} {
		conn, err := dialUpstream(within(t), "tcp", strings.Replace(address, "%25", "%", 1))
		if err == nil {
			conn.Close()
			t.Errorf("%s was dialled", address)
			continue
		}
		if !strings.Contains(err.Error(), errForbiddenAddress.Error()) {
			t.Errorf("%s: %v", address, err)
		}
	}
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"http://169.254.169.254\", opaque: true}\n  - {name: db, kind: tcp, upstream: \"169.254.169.254:80\", opaque: true}\n")
	for _, h := range []tunnel.Header{{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}, {Resource: "db", Kind: "tcp", Action: "connect"}} {
		if _, reply := send(t, s, h, httpRequest("GET", "/", "")); reply.OK || reply.Code != tunnel.CodeUpstreamUnreachable.String() {
			t.Errorf("%s: %+v", h.Resource, reply)
		}
	}
}

func TestRelayWithAnotherKeyIsRefused(t *testing.T) {
	r := startHostileRelay(t)
	file := r.agentConfig("  - {name: web, kind: http, upstream: \"http://127.0.0.1:9\", opaque: true}\n")
	r.key = newKey(t) // set up anew, or in between
	found := false
	for _, one := range Check(within(t), file) {
		found = found || one.Name == "relay" && strings.Contains(one.Problem, "another key")
	}
	if !found {
		t.Error("check did not find the foreign key")
	}
	select {
	case <-r.sessions:
		t.Error("a session began")
	default:
	}
}

func TestUpstreamSeesItsOwnHostAndTheAgentsKey(t *testing.T) {
	up := newUpstream(t)
	r := startHostileRelay(t)
	keyFile := filepath.Join(t.TempDir(), "upstream.key")
	must(t, os.WriteFile(keyFile, []byte("upstream-secret\n"), 0o600))
	s := r.run("  - {name: phi3, kind: model, upstream: \"" + up.URL + "\", api_key_file: \"" + keyFile + "\"}\n")
	st, reply := send(t, s, chatHeader(), httpRequest("POST", "/v1/chat/completions", chat("phi3"), "Authorization: Bearer stolen", "Origin: https://evil", "X-Iap-Principal: corp/alice"))
	if !reply.OK {
		t.Fatalf("%+v", reply)
	}
	response, err := http.ReadResponse(st.Reader(), nil)
	must(t, err)
	var b bytes.Buffer
	_, err = b.ReadFrom(response.Body)
	must(t, err)
	want := strings.TrimPrefix(up.URL, "http://") + "|Bearer upstream-secret|"
	if !strings.HasPrefix(b.String(), want) {
		t.Errorf("the upstream saw %s, want %s…", b.String(), want)
	}
	if strings.Contains(b.String(), "evil") {
		t.Errorf("a model server saw an Origin: %s", b.String())
	}
}

func TestEndlessHeadOfARelayIsCut(t *testing.T) {
	up := newUpstream(t)
	s := startHostileRelay(t).run("  - {name: web, kind: http, upstream: \"" + up.URL + "\", opaque: true}\n")
	st, err := s.Open(within(t), tunnel.Header{Resource: "web", Kind: "http", Action: "connect", Method: "GET", Path: "/"}, []byte("GET / HTTP/1.1\r\n"))
	must(t, err)
	stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
	defer stop()
	line := []byte("X-Fill: " + strings.Repeat("y", 16<<10) + "\r\n")
	n := 0
	for n < 64<<20 {
		if _, err = st.Write(line); err != nil {
			break
		}
		n += len(line)
	}
	st.Abort(tunnel.CodeCanceled)
	if err == nil || n > 16<<20 {
		t.Errorf("the agent took %d bytes of one head, %v", n, err)
	}
}
