package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"iap/internal/audit"
	"iap/internal/guard"
	"iap/tunnel"
)

func TestWarmStreamCarriesOneRequestAfterAnother(t *testing.T) {
	s, c := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	})
	warm := func() (n int) {
		s.relay.agents.mu.Lock()
		defer s.relay.agents.mu.Unlock()
		for _, l := range s.relay.agents.links {
			l.mu.Lock()
			n += len(l.warm)
			l.mu.Unlock()
		}
		return n
	}
	for i := range 20 {
		path := fmt.Sprintf("/%d", i)
		r, err := c.Get("http://web" + path)
		must(t, err)
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || string(body) != path+" " {
			t.Fatalf("%s: %q, %v", path, body, err)
		}
		eventually(t, "one stream is kept", func() bool { return warm() == 1 })
	}
}

// TestMixedRequestsNeverGetEachOthersAnswers has callers of every temper share the warm streams of one agent: whole
// requests, uploads, callers who leave in the middle of an answer and before it. Every answer that arrives is the
// caller's own.
func TestMixedRequestsNeverGetEachOthersAnswers(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(mixed))
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", up.URL})
	sessions := []*http.Client{}
	for _, class := range []tunnel.Class{tunnel.Bulk, tunnel.Interactive} {
		sessions = append(sessions, client(t, s.user(nil).open(class), tunnel.Header{Resource: "web"}))
	}
	var callers sync.WaitGroup
	for worker := range 20 {
		callers.Go(func() {
			for i := range 30 {
				id := fmt.Sprintf("w%d-%d", worker, i)
				mixedCall(t, sessions[(worker+i)%2], id, i%5)
			}
		})
	}
	callers.Wait()
	// Of a caller who left the relay learns a moment later.
	eventually(t, "no request is counted as running", func() bool { return s.relay.inflight.others.Load() == 0 })
}

// mixed repeats the caller's id in the answer, as often as asked.
func mixed(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	id := r.URL.Query().Get("id")
	w.Header().Set("X-Id", id)
	switch r.URL.Path {
	case "/broken":
		fmt.Fprint(w, id)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "/long":
		for range 200 {
			fmt.Fprint(w, id, "\n")
			w.(http.Flusher).Flush()
		}
	default:
		fmt.Fprint(w, id, " ", len(body))
	}
}

func mixedCall(t *testing.T, c *http.Client, id string, temper int) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	path, body := "/plain", []byte(nil)
	switch temper {
	case 1:
		body = bytes.Repeat([]byte("b"), 40<<10)
	case 2:
		path = "/long"
	case 3:
		path = "/broken"
	case 4:
		path = "/long"
		go cancel() // at any moment
	}
	r, err := http.NewRequestWithContext(ctx, "POST", "http://web"+path+"?id="+id, bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return
	}
	got, err := c.Do(r)
	if err != nil {
		if temper < 3 {
			t.Errorf("%s: %v", id, err)
		}
		return
	}
	defer got.Body.Close()
	if temper < 3 && (got.StatusCode != 200 || got.Header.Get("X-Id") != id) {
		t.Errorf("%s: %s of %q (%s)", id, got.Status, got.Header.Get("X-Id"), got.Header.Get("X-Iap-Error"))
		return
	}
	if temper == 2 && len(id)%2 == 0 {
		_, _ = io.CopyN(io.Discard, got.Body, 50) // leaves in the middle
		return
	}
	text, err := io.ReadAll(got.Body)
	switch {
	case temper >= 3:
		if got.StatusCode == 200 && got.Header.Get("X-Id") != id {
			t.Errorf("%s: the answer of %q", id, got.Header.Get("X-Id"))
		}
	case err != nil:
		t.Errorf("%s: %v", id, err)
	case temper == 2 && string(text) != strings.Repeat(id+"\n", 200):
		t.Errorf("%s: a foreign or cut answer", id)
	case temper != 2 && string(text) != fmt.Sprintf("%s %d", id, len(body)):
		t.Errorf("%s: got %q", id, text)
	}
}

// TestEndOfAnswerAndEndOfRequestMayCoincide lets the caller leave at the very moment an answer is whole: what is put
// back for the next request must never be aborted afterwards.
func TestEndOfAnswerAndEndOfRequestMayCoincide(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(mixed))
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll)
	s.startAgent(served{"web", "http", up.URL})
	for i := range 300 {
		ctx, cancel := context.WithCancel(context.Background())
		q := &guard.Request{
			ID: fmt.Sprintf("rq-%d", i), Resource: guard.Resource{Name: "web", Kind: guard.KindHTTP}, Caller: &guard.Caller{},
			Method: "GET", Target: fmt.Sprintf("/plain?id=%d", i), Header: http.Header{},
		}
		q.Class.Action = "connect"
		response, err := s.relay.forward(ctx, q)
		if err != nil {
			cancel()
			t.Fatalf("request %d got the end of the one before: %v", i, err)
		}
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.ReadAll(response.Body) })
		both.Go(func() { cancel(); _ = response.Body.Close() }) // as the guard does when the context ends
		both.Wait()
	}
	if n := s.relay.inflight.others.Load(); n != 0 {
		t.Errorf("%d requests are counted as running", n)
	}
}

func TestCallerThatLeavesFreesTheModel(t *testing.T) {
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	s := newSystem(t, allowAll)
	s.startAgent(served{"phi3", "model", m.URL})
	for _, leave := range []struct {
		name string
		by   func(*tunnel.Stream)
	}{
		{"FIN", func(st *tunnel.Stream) { _ = st.CloseWrite() }},
		{"abort", func(st *tunnel.Stream) { st.Abort(tunnel.CodeCanceled) }},
		{"session", func(st *tunnel.Stream) { _ = st.Session().Close(tunnel.CodeNone, "") }},
	} {
		t.Run(leave.name, func(t *testing.T) {
			st := mustOpen(t, s.user(nil).open(tunnel.Interactive), "phi3")
			body := chatBody("phi3", true)
			_, err := fmt.Fprintf(st, "POST /v1/chat/completions HTTP/1.1\r\nHost: phi3\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			must(t, err)
			await(t, chat.begun, "the model begins")
			leave.by(st)
			await(t, chat.ended, "the model stops")
			st.Abort(tunnel.CodeCanceled)
		})
	}
	eventually(t, "three outcomes client_gone", func() bool {
		return len(s.events(func(e audit.Event) bool {
			return e.Kind == audit.KindOutcome && e.Action == "chat" && e.Ended == "client_gone"
		})) == 3
	})
}

func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-within(t).Done():
		t.Fatalf("did not happen: %s", what)
	}
	panic("unreachable")
}
