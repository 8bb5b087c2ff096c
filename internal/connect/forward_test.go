package connect

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"iap/tunnel"
)

func TestTCPHalfCloseTravelsBothWays(t *testing.T) {
	relay := newTestRelay(t, echo)
	addr := forward(t, &Forward{Resource: "db", Kind: "tcp", Sessions: run(t, relay.config(), tunnel.Bulk)})
	c := dialLocal(t, addr)
	want := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() {
		_, _ = c.Write(want)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(want), err)
	}
}

func TestServerMaySpeakFirst(t *testing.T) {
	relay := newTestRelay(t, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{OK: true}, []byte("220 hello\r\n"))
		_, _ = io.Copy(io.Discard, st)
	})
	addr := forward(t, &Forward{Resource: "smtp", Kind: "tcp", Sessions: run(t, relay.config(), tunnel.Bulk)})
	line, err := bufio.NewReader(dialLocal(t, addr)).ReadString('\n')
	if err != nil || line != "220 hello\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

func TestHeaderNamesResourceKindAndListenersRules(t *testing.T) {
	headers := make(chan tunnel.Header, 1)
	relay := newTestRelay(t, func(_ context.Context, st *tunnel.Stream, h tunnel.Header) {
		headers <- h
		_ = st.WriteReply(tunnel.Reply{OK: true}, []byte("HTTP/1.1 204 No Content\r\n\r\n"))
		_ = st.CloseWrite()
		_, _ = io.Copy(io.Discard, st)
	})
	local := &tunnel.Local{AllowOrigins: []string{"http://localhost:3000"}, KeyHash: make([]byte, 32), Listen: "127.0.0.1:1"}
	addr := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: run(t, relay.config(), tunnel.Interactive), Local: local})
	c := dialLocal(t, addr)
	fmt.Fprint(c, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	h := <-headers
	if h.Resource != "phi3" || h.Kind != "model" || h.Service != "" || h.Local == nil ||
		h.Local.AllowOrigins[0] != "http://localhost:3000" || !bytes.Equal(h.Local.KeyHash, local.KeyHash) {
		t.Fatalf("header = %+v, local = %+v", h, h.Local)
	}
}

func TestLargeUploadPassesWhole(t *testing.T) {
	sizes := make(chan int64, 1)
	relay := newTestRelay(t, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{OK: true}, nil)
		r, err := http.ReadRequest(bufio.NewReader(st))
		if err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		sizes <- n
		_, _ = io.WriteString(st, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_, _ = io.Copy(io.Discard, st)
	})
	addr := forward(t, &Forward{Resource: "files", Kind: "http", Sessions: run(t, relay.config(), tunnel.Bulk)})
	const size = 3 << 20
	reply, err := http.Post("http://"+addr+"/upload", "application/octet-stream", bytes.NewReader(make([]byte, size)))
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer reply.Body.Close()
	if n := <-sizes; n != size || reply.StatusCode != http.StatusOK {
		t.Fatalf("%d bytes arrived, status %d", n, reply.StatusCode)
	}
}

// A stream that died must never look like one that ended.
func TestDeadStreamResetsTheConnection(t *testing.T) {
	for name, end := range map[string]func(*tunnel.Stream){
		"aborted":      func(st *tunnel.Stream) { st.Abort(tunnel.CodeUpstreamReset) },
		"session lost": func(st *tunnel.Stream) { _ = st.Session().Close(tunnel.CodeRelayShutdown, "test") },
	} {
		t.Run(name, func(t *testing.T) {
			relay := newTestRelay(t, func(ctx context.Context, st *tunnel.Stream, _ tunnel.Header) {
				_ = st.WriteReply(tunnel.Reply{OK: true}, []byte("HTTP/1.1 200 OK\r\n\r\npart"))
				one := make([]byte, 1)
				_, _ = st.Read(one) // the client has seen the part
				end(st)
			})
			addr := forward(t, &Forward{Resource: "phi3", Kind: "tcp", Sessions: run(t, relay.config(), tunnel.Bulk)})
			c := dialLocal(t, addr)
			r := bufio.NewReader(c)
			got := make([]byte, len("HTTP/1.1 200 OK\r\n\r\npart"))
			if _, err := io.ReadFull(r, got); err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte("x"))
			if _, err := r.ReadByte(); !isReset(err) {
				t.Fatalf("read ended with %v, want a reset", err)
			}
		})
	}
}

func TestClientThatLeavesEndsTheStream(t *testing.T) {
	gone := make(chan error, 1)
	relay := newTestRelay(t, func(ctx context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{OK: true}, []byte("HTTP/1.1 200 OK\r\n\r\n"))
		for {
			if _, err := st.Write(make([]byte, 1024)); err != nil {
				gone <- err
				return
			}
		}
	})
	addr := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: run(t, relay.config(), tunnel.Interactive)})
	c := dialLocal(t, addr)
	fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	select {
	case <-gone:
	case <-within(t).Done():
		t.Fatal("the relay still writes to a client that has left")
	}
}

func TestRefusalSpeaksTheProtocolOfThePath(t *testing.T) {
	reply := tunnel.Reply{Code: "model_not_granted", Message: "you may not use this"}
	relay := newTestRelay(t, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(reply, nil)
		_ = st.CloseWrite()
		_, _ = io.Copy(io.Discard, st)
	})
	addr := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: run(t, relay.config(), tunnel.Interactive)})
	for path, key := range map[string]string{"/v1/chat/completions": "error", "/api/chat": "error", "/v1/messages": "type"} {
		status, _, body := post(t, addr, path)
		var doc map[string]any
		if err := json.Unmarshal(body, &doc); err != nil || doc[key] == nil {
			t.Errorf("%s: %s, %v", path, body, err)
		}
		if status != http.StatusForbidden || !strings.Contains(string(body), "you may not use this") {
			t.Errorf("%s: status %d, %s", path, status, body)
		}
	}
}

func post(t *testing.T, addr, path string) (int, http.Header, []byte) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Post("http://"+addr+path, "application/json", strings.NewReader(`{"model":"m"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, reply.Header, body
}

func TestRefusedTCPStreamIsAReset(t *testing.T) {
	relay := newTestRelay(t, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		_ = st.WriteReply(tunnel.Reply{Code: "policy_denied"}, nil)
		_, _ = io.Copy(io.Discard, st)
	})
	addr := forward(t, &Forward{Resource: "db", Kind: "tcp", Sessions: run(t, relay.config(), tunnel.Bulk)})
	if err := dialAndRead(t, addr); !isReset(err) {
		t.Fatalf("connection ended with %v, want a reset", err)
	}
}

func TestLoginNeededAnswers401AndSaysSo(t *testing.T) {
	relay := newTestRelay(t, echo)
	relay.setRefusal(&tunnel.Refusal{Code: tunnel.CodeLoginRequired, Message: "log in again"})
	addr := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: run(t, relay.config(), tunnel.Interactive)})
	status, header, body := post(t, addr, "/v1/chat/completions")
	if status != http.StatusUnauthorized || !strings.Contains(string(body), "iapctl login") {
		t.Fatalf("status %d, %s", status, body)
	}
	if header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("headers %v", header)
	}
}

func TestWhileTheRelayIsAwayRequestsWaitThenGet503WithRetryAfter(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	relay.stop()
	sessions := run(t, cfg, tunnel.Interactive, tunnel.Bulk)
	addr := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: sessions, Wait: 50 * time.Millisecond})
	status, header, body := post(t, addr, "/api/chat")
	if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || !strings.Contains(string(body), "relay_unreachable") {
		t.Errorf("status %d, %v, %s", status, header, body)
	}
	tcp := forward(t, &Forward{Resource: "db", Kind: "tcp", Sessions: sessions, Wait: 50 * time.Millisecond})
	if err := dialAndRead(t, tcp); !isReset(err) {
		t.Errorf("tcp connection ended with %v, want a reset", err)
	}
}

func TestRepliesKeepTheirMeaningAsStatus(t *testing.T) {
	for code, want := range map[string]int{
		"policy_denied": 403, "mfa_required": 403, "agent_offline": 503, "limit_reached": 429, "session_expired": 401,
		"unknown_resource": 404, "audit_unavailable": 503, "internal": 502, "a_code_of_tomorrow": 403, "": 403,
	} {
		if r := refusalOfReply(tunnel.Reply{Code: code}, "phi3"); r.status != want || r.message == "" || r.code == "" {
			t.Errorf("%q: %+v, want status %d", code, r, want)
		}
	}
	if r := refusalOfReply(tunnel.Reply{Code: "limit_reached", RetryAfterMS: 1500}, "phi3"); r.retryAfter != 2 {
		t.Errorf("retry after %d s, want 2", r.retryAfter)
	}
}

func TestOnlyHTTPGetsAnHTTPAnswer(t *testing.T) {
	for first, want := range map[string]string{
		"GET /v1/models?x=1 HTTP/1.1\r\n": "/v1/models", "POST /api/chat HTTP/1.1\r\nHost": "/api/chat", "GET /": "/",
	} {
		if path, ok := requestPath([]byte(first)); !ok || path != want {
			t.Errorf("%q: %q, %v", first, path, ok)
		}
	}
	for _, first := range []string{"", "\x16\x03\x01", "SSH-2.0-x\r\n", "get / HTTP/1.1\r\n", "ÄÖ / HTTP/1.1"} {
		if path, ok := requestPath([]byte(first)); ok {
			t.Errorf("%q taken for a request of %q", first, path)
		}
	}
}

func FuzzRequestPath(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte("\x00\xff \n"))
	f.Fuzz(func(t *testing.T, first []byte) {
		if path, _ := requestPath(first); strings.ContainsAny(path, " \n?") {
			t.Errorf("path %q of %q", path, first)
		}
	})
}

// The listener outlives the relay: what runs ends visibly, what comes later works again.
func TestListenerSurvivesARelayRestart(t *testing.T) {
	relay := newTestRelay(t, echo)
	addr := forward(t, &Forward{Resource: "db", Kind: "tcp", Sessions: run(t, relay.config(), tunnel.Bulk)})
	c := dialLocal(t, addr)
	_, _ = c.Write([]byte("a"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	where := relay.addr
	relay.stop()
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Fatalf("running connection ended with %v, want a reset", err)
	}
	next := dialLocal(t, addr) // waits while the relay is away
	_, _ = next.Write([]byte("b"))
	relay.start(where)
	if _, err := next.Read(make([]byte, 1)); err != nil {
		t.Fatalf("after the restart: %v", err)
	}
}

func TestConnectionsBeyondTheCapAreReset(t *testing.T) {
	relay := newTestRelay(t, echo)
	addr := forward(t, &Forward{Resource: "db", Kind: "tcp", Sessions: run(t, relay.config(), tunnel.Bulk), MaxConns: 1})
	first := dialLocal(t, addr)
	_, _ = first.Write([]byte("a"))
	if _, err := first.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := dialAndRead(t, addr); !isReset(err) {
		t.Fatalf("second connection ended with %v, want a reset", err)
	}
}

func TestServeEndsOpenConnectionsAndReturns(t *testing.T) {
	relay := newTestRelay(t, echo)
	sessions := run(t, relay.config(), tunnel.Bulk)
	b, err := Bind(context.Background(), PortRequest{Any: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- (&Forward{Resource: "db", Kind: "tcp", Sessions: sessions}).Serve(ctx, b) }()
	c := dialLocal(t, b.Addrs()[0])
	_, _ = c.Write([]byte("a"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("Serve does not return")
	}
	if _, err := c.Read(make([]byte, 1)); !isReset(err) {
		t.Errorf("open connection ended with %v, want a reset", err)
	}
}
