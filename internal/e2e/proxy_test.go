package e2e

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// connectProxy is an HTTP proxy that lets whoever knows the password reach one name, which only it can resolve.
type connectProxy struct {
	server   *httptest.Server
	password string
	target   string // host:port that clients ask for
	address  string // where that is

	mu      sync.Mutex
	passed  int // guarded by mu
	refused int // guarded by mu
}

func startProxy(t *testing.T, password, target, address string) *connectProxy {
	t.Helper()
	p := &connectProxy{password: password, target: target, address: address}
	p.server = httptest.NewServer(p)
	t.Cleanup(p.server.Close)
	return p
}

// env is the variable by which a program learns of the proxy.
func (p *connectProxy) env(password string) string {
	return "HTTPS_PROXY=" + strings.Replace(p.server.URL, "http://", "http://worker:"+password+"@", 1)
}

func (p *connectProxy) counts() (passed, refused int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed, p.refused
}

func (p *connectProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("worker:"+p.password))
	status := http.StatusOK
	switch {
	case r.Header.Get("Proxy-Authorization") != want:
		status = http.StatusProxyAuthRequired
		w.Header().Set("Proxy-Authenticate", `Basic realm="company"`)
	case r.Method != http.MethodConnect || r.RequestURI != p.target:
		status = http.StatusForbidden
	}
	p.mu.Lock()
	if status == http.StatusOK {
		p.passed++
	} else {
		p.refused++
	}
	p.mu.Unlock()
	if status != http.StatusOK {
		w.WriteHeader(status)
		return
	}
	p.join(w)
}

// join carries bytes between the client and the target until both have ended.
func (p *connectProxy) join(w http.ResponseWriter) {
	far, err := net.Dial("tcp", p.address)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		far.Close()
		return
	}
	_, _ = io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n") // an error shows below
	var group sync.WaitGroup
	for _, way := range []struct {
		from io.Reader
		to   net.Conn
	}{{buffered, far}, {far, near}} {
		group.Go(func() {
			_, _ = io.Copy(way.to, way.from) // whichever end breaks off ends both
			near.Close()
			far.Close()
		})
	}
	group.Wait()
}

func TestHTTPProxyWithAPasswordStandsInBetween(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{host: "relay.iap.test"})
	proxy := startProxy(t, "s3cret:/ü", s.name, s.listen)
	right, wrong := proxy.env("s3cret%3A%2F%C3%BC"), proxy.env("guess")
	up, _ := startDemo(t, 500)

	unproxied := s.user("alice")
	unproxied.fails(7, "relay_unknown_name", "login", s.name, "--ca-file", s.ca)
	s.user("alice", wrong).fails(7, "proxy_auth_required", "login", s.name, "--ca-file", s.ca)

	s.startAgent(map[string]string{"phi3=model": up.url}, right)
	alice := s.loggedIn("alice", right)
	web := newCaller(t, alice.connect("phi3").url())
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "through a proxy", true, 4)); got.status != 200 || !strings.Contains(got.body, "[DONE]") {
		t.Errorf("through the proxy: %+v", got)
	}
	if passed, _ := proxy.counts(); passed < 6 { // join, 2 sessions of the agent, discovery, login, connect
		t.Errorf("%d connections went through the proxy", passed)
	}
	_, before := proxy.counts()
	message := alice.with(wrong).fails(7, "proxy_auth_required", "whoami")
	if !strings.Contains(message, "proxy") {
		t.Errorf("a wrong proxy password reads %q", message)
	}
	if _, after := proxy.counts(); after == before {
		t.Error("the wrong password never reached the proxy")
	}
}

func TestAgentBehindAProxySaysThatItsPasswordIsWrong(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{host: "relay.iap.test"})
	proxy := startProxy(t, "right", s.name, s.listen)
	up, _ := startDemo(t, 500)
	a := s.enrol(map[string]string{"phi3=model": up.url}, proxy.env("right"))
	checked := run(t, append(a.env, proxy.env("wrong")), "iap-agent", "check", "--config", a.config)
	if checked.code != 1 || !strings.Contains(checked.out, "proxy") {
		t.Errorf("iap-agent check: %d %s%s", checked.code, checked.out, checked.errOut)
	}
	if checked := run(t, a.env, "iap-agent", "check", "--config", a.config); checked.code != 0 {
		t.Errorf("iap-agent check with the right password: %d %s%s", checked.code, checked.out, checked.errOut)
	}
}
