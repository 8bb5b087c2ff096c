package relay

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"iap/internal/audit"
	"iap/tunnel"
)

// newWeb is a system with one http resource called web.
func newWeb(t *testing.T, handler http.HandlerFunc) (*system, *http.Client) {
	t.Helper()
	up := httptest.NewServer(handler)
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", up.URL})
	return s, client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
}

func TestAnswersWithoutBodyKeepTheirMeaning(t *testing.T) {
	_, c := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(r.URL.Query().Get("status"))
		if err != nil {
			http.NotFound(w, r) // the agent's probe
			return
		}
		if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", "12345")
		}
		w.Header().Set("Etag", `"e"`)
		w.WriteHeader(status)
	})
	for _, one := range []struct {
		method string
		status int
		length int64
	}{{"HEAD", 200, 12345}, {"GET", 204, 0}, {"GET", 304, 0}, {"DELETE", 204, 0}, {"HEAD", 404, 12345}} {
		for range 2 { // the second on a warm stream
			r, err := http.NewRequest(one.method, "http://web/?status="+strconv.Itoa(one.status), nil)
			must(t, err)
			got, err := c.Do(r)
			must(t, err)
			body, err := io.ReadAll(got.Body)
			got.Body.Close()
			if err != nil || len(body) != 0 || got.StatusCode != one.status || got.Header.Get("Etag") != `"e"` {
				t.Errorf("%s %d: got %s, %d bytes, %v", one.method, one.status, got.Status, len(body), err)
			}
			if one.method == "HEAD" && got.ContentLength != one.length {
				t.Errorf("HEAD: length %d", got.ContentLength)
			}
		}
	}
}

func TestBodiesOfEveryFramingArriveWhole(t *testing.T) {
	_, c := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush()
		} else {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		_, _ = w.Write(body)
	})
	for _, size := range []int{0, 1, 4095, 32 << 10, 300 << 10, 5 << 20} {
		want := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		for _, path := range []string{"/known", "/chunked"} {
			for _, known := range []bool{true, false} {
				var body io.Reader = bytes.NewReader(want)
				if !known {
					body = io.MultiReader(body) // hides its length
				}
				r, err := http.NewRequest("POST", "http://web"+path, body)
				must(t, err)
				got, err := c.Do(r)
				must(t, err)
				back, err := io.ReadAll(got.Body)
				got.Body.Close()
				if err != nil || !bytes.Equal(back, want) {
					t.Errorf("%s, %d bytes, known %t: %d came back, %v", path, size, known, len(back), err)
				}
			}
		}
	}
}

func TestPostWithoutBodyIsNoChunkedPostAtTheUpstream(t *testing.T) {
	_, c := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%v %d", r.TransferEncoding, r.ContentLength)
	})
	r, err := c.Post("http://web/act", "", nil)
	must(t, err)
	defer r.Body.Close()
	if got, _ := io.ReadAll(r.Body); string(got) != "[] 0" {
		t.Errorf("the upstream saw transfer encoding and length %q, want [] 0: many servers refuse a chunked POST", got)
	}
}

func TestEarlyAnswerToAnUploadReachesACallerThatStoppedSending(t *testing.T) {
	upstream := rawUpstream(t, func(conn net.Conn, _ *http.Request, _ *bufio.Reader) {
		fmt.Fprint(conn, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntoo much")
	})
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", upstream})
	for _, framing := range []string{"Content-Length: 10000000", "Transfer-Encoding: chunked"} {
		t.Run(framing, func(t *testing.T) {
			st := mustOpen(t, s.user(nil).open(tunnel.Bulk), "web")
			defer st.Abort(tunnel.CodeCanceled)
			head := "POST /upload HTTP/1.1\r\nHost: web\r\n" + framing + "\r\n\r\n"
			if strings.HasPrefix(framing, "Transfer") {
				head += "5\r\n"
			}
			_, err := io.WriteString(st, head+"first")
			must(t, err)
			// The caller waits for the answer before it sends the rest.
			stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
			defer stop()
			r, err := http.ReadResponse(bufio.NewReader(st), nil)
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			body, err := io.ReadAll(r.Body)
			if err != nil || r.StatusCode != 413 || string(body) != "too much" {
				t.Errorf("got %s %q, %v", r.Status, body, err)
			}
		})
	}
}

func TestRefusalOfTheAgentReachesACallerThatStoppedSending(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(false, served{"web", "http", ""})
	fake.serve(tunnel.Bulk, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{Code: tunnel.CodePolicyDenied.String(), Message: "not from here"}, nil)
		_, _ = io.Copy(io.Discard, st)
	}, tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true})
	st := mustOpen(t, s.user(nil).open(tunnel.Bulk), "web")
	defer st.Abort(tunnel.CodeCanceled)
	_, err := io.WriteString(st, "POST /upload HTTP/1.1\r\nHost: web\r\nContent-Length: 10000000\r\n\r\nfirst")
	must(t, err)
	stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
	defer stop()
	r, err := http.ReadResponse(bufio.NewReader(st), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if r.StatusCode != http.StatusForbidden {
		t.Errorf("got %s", r.Status)
	}
}

func TestExpectContinueIsAnsweredAndNotPassedOn(t *testing.T) {
	_, c := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %q", body, r.Header.Get("Expect"))
	})
	c.Transport.(*http.Transport).ExpectContinueTimeout = patience
	r, err := http.NewRequest("POST", "http://web/", strings.NewReader("payload"))
	must(t, err)
	r.Header.Set("Expect", "100-continue")
	got, err := c.Do(r)
	must(t, err)
	defer got.Body.Close()
	if body, _ := io.ReadAll(got.Body); string(body) != `payload ""` {
		t.Errorf("the upstream saw %q", body)
	}
}

func TestHT07HeadersOfOneHopStayOnIt(t *testing.T) {
	var seen http.Header
	var mu sync.Mutex
	upstream := rawUpstream(t, func(conn net.Conn, r *http.Request, _ *bufio.Reader) {
		mu.Lock()
		seen = r.Header.Clone()
		mu.Unlock()
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: X-Private\r\nX-Private: secret\r\nKeep-Alive: timeout=5\r\n"+
			"Proxy-Authenticate: Basic\r\nAlt-Svc: h3=\":443\"\r\nX-Iap-Principal: corp/root\r\nX-App: yes\r\nSet-Cookie: a=b\r\n\r\nok")
	})
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", upstream})
	c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
	r, err := http.NewRequest("GET", "http://web/", nil)
	must(t, err)
	for name, value := range map[string]string{
		"Connection": "X-Hop, X-Iap-Principal, x-iap-assertion", "X-Hop": "1", "X-Iap-Principal": "corp/root", "X_Iap_Principal": "corp/root",
		"X-Forwarded-For": "1.2.3.4", "X-Original-Url": "/admin", "X-Http-Method-Override": "DELETE", "Te": "trailers", "Proxy-Authorization": "Basic eA==",
		"X-App": "mine", "Cookie": "c=d",
	} {
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
	}
	got, err := c.Do(r)
	must(t, err)
	got.Body.Close()
	mu.Lock()
	defer mu.Unlock()
	for _, name := range []string{"X-Hop", "X_iap_principal", "X-Forwarded-For", "X-Original-Url", "X-Http-Method-Override", "Te", "Proxy-Authorization"} {
		if seen[name] != nil {
			t.Errorf("the upstream saw %s: %v", name, seen[name])
		}
	}
	if v := seen["X-Iap-Principal"]; len(v) != 1 || v[0] != "corp/alice" {
		t.Errorf("the upstream saw X-Iap-Principal %v", v)
	}
	if seen.Get("X-Iap-Assertion") == "" || seen.Get("X-Iap-Groups") != "ml-eng,llm-users" || seen.Get("X-Iap-Email") != "alice@example.test" {
		t.Errorf("identity headers are missing: %v", seen)
	}
	if seen.Get("X-App") != "mine" || seen.Get("Cookie") != "c=d" {
		t.Errorf("the application's own headers are gone: %v", seen)
	}
	for _, name := range []string{"X-Private", "Keep-Alive", "Proxy-Authenticate", "Alt-Svc", "X-Iap-Principal"} {
		if got.Header[name] != nil {
			t.Errorf("the caller saw %s: %v", name, got.Header[name])
		}
	}
	if got.Header.Get("X-App") != "yes" || got.Header.Get("Set-Cookie") != "a=b" {
		t.Errorf("the application's own headers did not come back: %v", got.Header)
	}
}

func TestModelAnswersPassByAllowList(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			switch name {
			case "Authorization", "Cookie", "Origin", "X-Api-Key", "X-Custom", "Accept-Encoding":
				t.Errorf("the model server saw %s", name)
			}
		}
		h := w.Header()
		for _, name := range []string{"Set-Cookie", "Access-Control-Allow-Origin", "Location", "Alt-Svc", "X-Custom", "Server"} {
			h.Set(name, "x")
		}
		completion(w, "hi")
	})
	s := newSystem(t, allowAll)
	s.startAgent(served{"phi3", "model", m.URL})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	r, err := http.NewRequest("POST", "http://phi3/v1/chat/completions", strings.NewReader(chatBody("phi3", false)))
	must(t, err)
	for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "X-Custom"} {
		r.Header.Set(name, "secret")
	}
	r.Header.Set("Content-Type", "application/json")
	got, err := c.Do(r)
	must(t, err)
	defer got.Body.Close()
	if got.StatusCode != 200 {
		t.Fatalf("got %s", got.Status)
	}
	for _, name := range []string{"Set-Cookie", "Access-Control-Allow-Origin", "Location", "Alt-Svc", "X-Custom", "Server"} {
		if got.Header[name] != nil {
			t.Errorf("the caller saw %s", name)
		}
	}
	if got.Header.Get("Content-Security-Policy") == "" || got.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("security headers: %v", got.Header)
	}
}

func TestLargeBodiesTravelOnTheBulkSession(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		completion(w, "read")
	})
	s := newSystem(t, allowAll)
	a := s.startAgent(served{"phi3", "model", m.URL})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	classes := func() (found []tunnel.Class) {
		for _, l := range s.links(a.id) {
			l.mu.Lock()
			if len(l.warm) > 0 {
				found = append(found, l.session.Class())
			}
			l.mu.Unlock()
		}
		return found
	}
	body := fmt.Sprintf(`{"model":"phi3","messages":[{"role":"user","content":%q}]}`, strings.Repeat("x", bulkBody+1))
	chatOK(t, c, body)
	eventually(t, "the large request's stream is kept warm", func() bool { return len(classes()) == 1 })
	if got := classes(); got[0] != tunnel.Bulk {
		t.Errorf("a body over %d bytes travelled on %v", bulkBody, got)
	}
	chatOK(t, c, chatBody("phi3", false))
	eventually(t, "the small request's stream is kept warm", func() bool { return len(classes()) == 2 })
}

func (s *system) links(agent string) []*link {
	s.relay.agents.mu.Lock()
	defer s.relay.agents.mu.Unlock()
	var found []*link
	for _, l := range s.relay.agents.links {
		if l.agent.ID == agent {
			found = append(found, l)
		}
	}
	return found
}

func chatOK(t testing.TB, c *http.Client, body string) string {
	t.Helper()
	r, err := postChat(c, body)
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	must(t, err)
	if r.StatusCode != 200 {
		t.Fatalf("%s: %s", r.Status, text)
	}
	return string(text)
}

func TestFI13BrokenAnswersAreVisibleAndRecorded(t *testing.T) {
	for _, one := range []struct{ name, answer, kind string }{
		{"length too short", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "http"},
		{"no last chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "http"},
		{"broken chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n", "http"},
	} {
		t.Run(one.name, func(t *testing.T) {
			upstream := rawUpstream(t, func(conn net.Conn, _ *http.Request, _ *bufio.Reader) { fmt.Fprint(conn, one.answer) })
			s := newSystem(t, allowAll)
			s.startAgent(served{"web", "http", upstream})
			c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
			r, err := c.Get("http://web/")
			status := 0
			if err == nil {
				status = r.StatusCode
				_, err = io.ReadAll(r.Body)
				r.Body.Close()
			}
			if err == nil && status != http.StatusBadGateway {
				t.Error("a broken answer looked whole")
			}
			s.awaitEvent("outcome upstream_reset", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Ended == "upstream_reset" })
		})
	}
}

func TestFI13ModelThatBreaksOffEndsWithAnErrorEvent(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for range 10 {
			fmt.Fprint(w, "data: {}\n\n")
			w.(http.Flusher).Flush()
		}
		panic(http.ErrAbortHandler)
	})
	s := newSystem(t, allowAll)
	s.startAgent(served{"phi3", "model", m.URL})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	r, err := postChat(c, chatBody("phi3", true))
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if r.StatusCode == 200 && (err == nil || !strings.Contains(string(text), `"code":"upstream_reset"`)) {
		t.Errorf("%s: %q, %v", r.Status, text, err)
	}
	s.awaitEvent("outcome upstream_reset", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Ended == "upstream_reset" })
}

func TestUpstreamThatSpeaksNoHTTPOrSwitchesProtocolsIsA502(t *testing.T) {
	for _, answer := range []string{
		"SSH-2.0-OpenSSH\r\n", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", "",
		"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 2<<20) + "\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	} {
		upstream := rawUpstream(t, func(conn net.Conn, _ *http.Request, _ *bufio.Reader) { fmt.Fprint(conn, answer) })
		s := newSystem(t, allowAll)
		s.startAgent(served{"web", "http", upstream})
		c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
		r, err := c.Get("http://web/")
		must(t, err)
		r.Body.Close()
		if r.StatusCode != http.StatusBadGateway {
			t.Errorf("%.20q: got %s", answer, r.Status)
		}
	}
}

func TestAnswerDelimitedByCloseEndsCleanly(t *testing.T) {
	upstream := rawUpstream(t, func(conn net.Conn, _ *http.Request, _ *bufio.Reader) {
		fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")
	})
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", upstream})
	c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
	for range 3 {
		r, err := c.Get("http://web/")
		must(t, err)
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(body) != "all of it" {
			t.Errorf("got %q, %v", body, err)
		}
	}
}

func TestHostileAgentsEndlessHeadIsCut(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(false, served{"web", "http", ""})
	line := "X-Fill: " + strings.Repeat("y", 32<<10) + "\r\n"
	written := make(chan int, 1)
	fake.serve(tunnel.Bulk, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		n := 0
		err := st.WriteReply(tunnel.Reply{OK: true}, []byte("HTTP/1.1 200 OK\r\n"))
		for err == nil && n < 64<<20 {
			_, err = io.WriteString(st, line)
			n += len(line)
		}
		written <- n
	}, tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true})
	c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
	r, err := c.Get("http://web/")
	if err == nil {
		r.Body.Close()
		if r.StatusCode != http.StatusBadGateway {
			t.Errorf("got %s", r.Status)
		}
	}
	select {
	case n := <-written:
		if n > 16<<20 {
			t.Errorf("the relay took %d bytes of one answer's head into memory", n)
		}
	case <-within(t).Done():
		t.Error("the agent's answer was never cut")
	}
}
