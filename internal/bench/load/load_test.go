package load

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/bench/fakeslm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func contextEnded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx, cancel
}

// against returns a load on a server, short enough for a test.
func against(t *testing.T, h http.Handler) *Load {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	target, err := ParseTarget(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return &Load{
		Target: target, Bulk: target, Control: target,
		For: 30 * time.Millisecond, StreamsFor: 100 * time.Millisecond, TokensPerSecond: 100, Rate: 500,
	}
}

func TestEveryTestRunsWithoutFailure(t *testing.T) {
	l := against(t, fakeslm.New(fakeslm.Pace{Tokens: 4}).Handler())
	for _, test := range []string{"lat-c1", "lat-c2", "sat-c2", "new-c1", "newsat-c2", "sse-3", "down-1", "up-1", "mix-2"} {
		res, err := l.Run(t.Context(), test)
		if err != nil || res.Failed != 0 || res.Done == 0 || res.Test != test {
			t.Errorf("%s: %+v, %v", test, res, err)
		}
		if strings.HasPrefix(test, "sse") && (res.OpenPeak == 0 || res.TokenDelay.Count != 3*10) {
			t.Errorf("%s: %d open, %d tokens", test, res.OpenPeak, res.TokenDelay.Count)
		}
	}
}

func TestUnknownTestIsRefused(t *testing.T) {
	l := &Load{}
	for _, test := range []string{"", "sse", "sse-", "sse-0", "sse-x", "what-1"} {
		if _, err := l.Run(t.Context(), test); err == nil {
			t.Errorf("%q ran", test)
		}
	}
}

func TestRefusalsAreCountedWithTheirText(t *testing.T) {
	model := fakeslm.New(fakeslm.Pace{Tokens: 4}).Handler()
	l := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			http.Error(w, "not granted", http.StatusForbidden)
			return
		}
		model.ServeHTTP(w, r)
	}))
	for _, test := range []string{"lat-c1", "new-c1", "sse-2"} {
		res, err := l.Run(t.Context(), test)
		if err != nil || res.Failed == 0 || res.Done != 0 || !strings.Contains(res.Error, "status 403") || !strings.Contains(res.Error, "not granted") {
			t.Errorf("%s: %+v, %v", test, res, err)
		}
	}
}

func TestAnswerCutShortIsAFailure(t *testing.T) {
	model := fakeslm.New(fakeslm.Pace{}).Handler()
	l := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/chat/completions" { // one token, then a clean end
			w.(http.Flusher).Flush()
			_, _ = w.Write([]byte(`data: {"x_due_ns":1,"x_sent_ns":1}` + "\n\n"))
			return
		}
		model.ServeHTTP(w, r)
	}))
	res, err := l.Run(t.Context(), "sse-1")
	if err != nil || res.Failed != 1 || !strings.Contains(res.Error, "ended early: 1 of") {
		t.Errorf("%+v, %v", res, err)
	}
}

func TestInterruptedTestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	model := fakeslm.New(fakeslm.Pace{}).Handler()
	l := against(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/chat/completions" {
			_, _ = io.Copy(io.Discard, r.Body) // only then the server looks whether the client is there
			cancel()
			<-r.Context().Done() // an answer that never comes
			return
		}
		model.ServeHTTP(w, r)
	}))
	if _, err := l.Run(ctx, "sse-1"); err == nil {
		t.Error("an interrupted test told a result")
	}
}

func TestHeadOfAnAnswerIsRead(t *testing.T) {
	for text, want := range map[string]response{
		"HTTP/1.1 200 OK\r\ncontent-LENGTH: 12\r\n\r\n":                     {200, 12},
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n":     {200, chunked},
		"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\nrest": {503, 0},
	} {
		got, err := connOf(text).readHead()
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "HTTP/1.1 2", "HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 xyz OK\r\n\r\n", "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 200 OK\r\n"} {
		if _, err := connOf(bad).readHead(); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func connOf(text string) *conn {
	return &conn{Conn: nopConn{}, r: bufio.NewReader(strings.NewReader(text))}
}

type nopConn struct{ net.Conn }

func TestStampsAreReadFromATokenLine(t *testing.T) {
	line := []byte(`data: {"choices":[],"x_due_ns":123,"x_sent_ns":456}`)
	if due, ok := numberAfter(line, dueKey); !ok || due != 123 {
		t.Errorf("due = %d, %v", due, ok)
	}
	if sent, ok := numberAfter(line, sentKey); !ok || sent != 456 {
		t.Errorf("sent = %d, %v", sent, ok)
	}
	if _, ok := numberAfter([]byte("data: [DONE]"), sentKey); ok {
		t.Error("found a stamp where there is none")
	}
}

func TestTargetNeedsSchemeAndPort(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:80", "ftp://127.0.0.1:21", "http://127.0.0.1", "http://\x7f"} {
		if _, err := ParseTarget(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
	target, err := ParseTarget("http://127.0.0.1:9000/r/phi3/")
	if err != nil {
		t.Fatal(err)
	}
	target.Bearer = "secret"
	want := "POST /r/phi3/v1/x HTTP/1.1\r\nHost: 127.0.0.1:9000\r\nUser-Agent: slmload\r\nAccept: */*\r\nAuthorization: Bearer secret\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	if got := target.request("POST", "/v1/x", []byte("{}")); string(got) != want {
		t.Errorf("request = %q", got)
	}
}

func TestReportPrintsEachTestAndItsFailure(t *testing.T) {
	var out bytes.Buffer
	r := Report{Label: "none", Results: []Result{{Test: "lat-c1", Done: 5, Latency: &Spread{P50: 42}, CPUPer: map[string]float64{"relay": .5}, CPUUnit: "1k requests"}, {Test: "sse-1", Error: "broke"}}}
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lat-c1", "42", "relay 0.500 s/1k requests", "sse-1: first failure: broke"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
