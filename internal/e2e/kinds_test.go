package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"iap/internal/audit"
)

const largeValue = 16 << 20 // many windows of a stream

// startRedis runs a real Redis server on a port of its own.
func startRedis(t *testing.T) string {
	t.Helper()
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed: a tcp resource is not proven with a real server and its stock client (apt-get install redis-server)")
	}
	if _, err := exec.LookPath("redis-cli"); err != nil {
		t.Skip("redis-cli is not installed: a tcp resource is not proven with a stock client (apt-get install redis-tools)")
	}
	address := freeAddress(t)
	_, port, _ := net.SplitHostPort(address)
	c := exec.Command(server, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	dieWithUs(c)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill() // it holds nothing that matters
		_ = c.Wait()
	})
	eventually(t, "Redis listens", func() bool {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return address
}

func redisCLI(t *testing.T, c *connection, stdin io.Reader, args ...string) string {
	t.Helper()
	_, port, _ := net.SplitHostPort(c.address())
	cli := exec.CommandContext(t.Context(), "redis-cli", append([]string{"-h", "127.0.0.1", "-p", port}, args...)...)
	cli.Stdin = stdin
	out, err := cli.Output()
	if err != nil {
		t.Fatalf("redis-cli %v: %v: %s", args, err, out)
	}
	return string(out)
}

func TestStockRedisClientWorksThroughATCPResource(t *testing.T) {
	t.Parallel()
	address := startRedis(t)
	s := newSystem(t, options{})
	s.startAgent(map[string]string{"cache=tcp": address})
	c := s.loggedIn("alice").connect("cache")

	if got := redisCLI(t, c, nil, "PING"); got != "PONG\n" {
		t.Errorf("PING = %q", got)
	}
	value := strings.Repeat("0123456789abcdef", largeValue/16)
	if got := redisCLI(t, c, strings.NewReader(value), "-x", "SET", "large"); got != "OK\n" {
		t.Errorf("SET = %q", got)
	}
	if got := redisCLI(t, c, nil, "GET", "large"); got != value+"\n" {
		t.Errorf("GET gives %d bytes of %d", len(got), len(value))
	}
	commands := strings.Repeat("INCR counter\n", 500)
	if got := redisCLI(t, c, strings.NewReader(commands)); !strings.HasSuffix(got, "500\n") {
		t.Errorf("500 commands on one connection end with %q", got[max(0, len(got)-20):])
	}
	s.awaitRecord("a connection to the cache, completed", func(e audit.Event) bool {
		return e.Kind == audit.KindOutcome && e.Resource == "cache" && e.Ended == "completed" && e.BytesIn > largeValue
	})
	s.awaitRecord("its decision", func(e audit.Event) bool {
		return e.Kind == audit.KindDecision && e.Resource == "cache" && e.Action == "connect" && e.Principal == "dev/alice"
	})
}

// startSummer serves a protocol that needs a half-close: it answers once it has read to the end.
func startSummer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() { sum(c.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		group.Wait()
	})
	return l.Addr().String()
}

// sum answers with the digest of all it was sent, and resets who asks for that.
func sum(c *net.TCPConn) {
	defer c.Close()
	first := make([]byte, 1)
	if _, err := io.ReadFull(c, first); err != nil || first[0] == 'G' { // the agent's own question, in HTTP
		return
	}
	if first[0] == 'R' {
		_ = c.SetLinger(0) // Close resets
		return
	}
	h := sha256.New()
	h.Write(first)
	if _, err := io.Copy(h, c); err == nil {
		_, _ = io.WriteString(c, hex.EncodeToString(h.Sum(nil))) // a client that left needs no sum
	}
}

func TestTCPResourceKeepsHalfClosesAndResetsApart(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	s.startAgent(map[string]string{"sum=tcp": startSummer(t)})
	c := s.loggedIn("alice").connect("sum")

	data := bytes.Repeat([]byte("x"), largeValue)
	conn, err := net.Dial("tcp", c.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(data)
	if got, err := io.ReadAll(conn); err != nil || string(got) != hex.EncodeToString(digest[:]) {
		t.Errorf("after a half-close: %q, %v", got, err)
	}

	conn, err = net.Dial("tcp", c.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("R")); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); err == nil {
		t.Errorf("a server that resets looks as if it had ended: %q", got)
	}
}

// webApp is a small application with a session cookie, uploads and downloads.
type webApp struct {
	arrived chan string   // the first piece of an upload, while its rest is still to come
	goOn    chan struct{} // lets a download go on
	large   []byte
}

func newWebApp() *webApp {
	a := &webApp{arrived: make(chan string, 1), goOn: make(chan struct{}), large: make([]byte, largeValue)}
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(a.large) // never fails
	return a
}

func (a *webApp) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "s-1", Path: "/", HttpOnly: true})
		http.Redirect(w, r, "/home", http.StatusFound)
	})
	mux.HandleFunc("GET /home", func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("session")
		if err != nil {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, "home of "+cookie.Value+" "+r.URL.RawQuery)
	})
	mux.HandleFunc("PUT /upload", func(w http.ResponseWriter, r *http.Request) {
		first := make([]byte, 5)
		if _, err := io.ReadFull(r.Body, first); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		a.arrived <- string(first)
		h := sha256.New()
		h.Write(first)
		if _, err := io.Copy(h, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, hex.EncodeToString(h.Sum(nil)))
	})
	mux.HandleFunc("GET /large", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(a.large) })
	mux.HandleFunc("GET /slow", func(w http.ResponseWriter, _ *http.Request) {
		say(w, "text/plain", "one,")
		<-a.goOn
		say(w, "text/plain", "two")
	})
	return mux
}

func TestWebApplicationWorksThroughAnHTTPResource(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	app := newWebApp()
	up := startUpstream(t, app.handler())
	s.startAgent(map[string]string{"app=http": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("app").url())
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	web.http.Jar = jar

	if got := web.ask("GET", "/home", ""); got.status != 401 {
		t.Errorf("the application's own 401 = %+v", got)
	}
	if got := web.ask("GET", "/login", ""); got.status != 200 || got.body != "home of s-1 " {
		t.Errorf("cookie and redirect: %+v", got)
	}
	if got := web.ask("GET", "/home?a=1&b=%2F", ""); got.body != "home of s-1 a=1&b=%2F" {
		t.Errorf("query: %+v", got)
	}
	if got := web.ask("GET", "/large", ""); got.body != string(app.large) {
		t.Errorf("a large download gives %d bytes of %d", len(got.body), len(app.large))
	}
	t.Run("upload streams", func(t *testing.T) { uploadInPieces(t, web, app) })
	t.Run("download streams", func(t *testing.T) {
		response, err := web.do(t.Context(), http.MethodGet, "/slow", "")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		first := make([]byte, 4)
		if _, err := io.ReadFull(response.Body, first); err != nil || string(first) != "one," {
			t.Fatalf("the first piece = %q, %v", first, err)
		}
		close(app.goOn) // only now may the server go on: the first piece was not held back
		if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != "two" {
			t.Errorf("the rest = %q, %v", rest, err)
		}
	})
	checkAudit(t, s.awaitSettled(), up.requests())
}

func uploadInPieces(t *testing.T, web *caller, app *webApp) {
	body, feed := io.Pipe()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, web.base+"/upload", body)
	if err != nil {
		t.Fatal(err)
	}
	fed := make(chan error, 1)
	go func() {
		_, err := io.WriteString(feed, "first")
		if err == nil {
			<-app.arrived // only when the server has the beginning is there a rest
			_, err = feed.Write(app.large)
		}
		fed <- err
		feed.CloseWithError(err)
	}()
	response, err := web.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	digest := sha256.Sum256(append([]byte("first"), app.large...))
	if err != nil || string(got) != hex.EncodeToString(digest[:]) {
		t.Errorf("upload = %s %q, %v", response.Status, got, err)
	}
	if err := <-fed; err != nil {
		t.Errorf("feed the upload: %v", err)
	}
}

// A model server under another kind would be one that nobody checks.
func TestModelServerPosingAsAWebApplicationIsNotServed(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	a := s.enrol(map[string]string{"app=http": up.url, "raw=tcp": strings.TrimPrefix(up.url, "http://")})
	a.start()
	a.awaitText(0, "answers as a model server", 2)
	web := newCaller(t, s.loggedIn("alice").connect("app").url())
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "unchecked", false, 2)); got.status == 200 || got.code() != "agent_offline" {
		t.Errorf("an unchecked model server answers: %+v", got)
	}
	if len(up.requests()) != 0 {
		t.Error("the unchecked model server was reached")
	}
	text, err := os.ReadFile(a.config)
	if err != nil {
		t.Fatal(err)
	}
	a.stop()
	s.write(a.config, strings.ReplaceAll(string(text), "kind: http\n", "kind: http\n    opaque: true\n"))
	a.start()
	eventually(t, filepath.Base(a.config)+" says opaque, and it is served", func() bool {
		return web.ask("POST", "/v1/chat/completions", chatBody("demo", "opaque", false, 2)).status == 200
	})
}
