package guard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestEachTokenArrivesBeforeTheNextIsSent(t *testing.T) {
	for _, try := range []struct{ kind, path, body string }{
		{"text/event-stream", "/v1/chat/completions", chatBody},
		{"application/x-ndjson", "/api/chat", chatBody},
	} {
		t.Run(try.kind, func(t *testing.T) {
			s := newScript()
			f := newFixture(t, streaming(s, try.kind))
			response := f.do(f.request("POST", try.path, try.body))
			if response.StatusCode != 200 || response.Header.Get("Content-Type") != try.kind {
				t.Fatalf("got %d %q", response.StatusCode, response.Header.Get("Content-Type"))
			}
			lines := bufio.NewReader(response.Body)
			for i := range 20 {
				sent := fmt.Sprintf("data: {\"n\":%d}\n", i)
				s.pieces <- sent
				got, err := lines.ReadString('\n') // blocks for ever if the token is held back
				if err != nil || got != sent {
					t.Fatalf("token %d: got %q, %v", i, got, err)
				}
			}
			close(s.pieces)
			if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
				t.Errorf("end: %q, %v", rest, err)
			}
			o := f.outcome()
			if o.Ended != completed || o.Status != 200 || o.BytesOut == 0 || o.TTFT <= 0 || o.Agent != "gpu1" || o.BytesIn != int64(len(chatBody)) {
				t.Errorf("outcome %+v", o)
			}
		})
	}
}

func TestARealUpstreamStreamsThroughTwoSockets(t *testing.T) {
	next := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprint(w, event(i))
			w.(http.Flusher).Flush()
			<-next
		}
		fmt.Fprint(w, "data: [DONE]\n\n")
	}))
	defer upstream.Close()
	f := newFixture(t, func(f *fixture) {
		f.guard.Forward = func(ctx context.Context, r *Request) (*Response, error) {
			out, err := http.NewRequestWithContext(ctx, r.Method, upstream.URL+r.Target, strings.NewReader(string(r.Body)))
			if err != nil {
				return nil, err
			}
			out.Header = r.Header
			in, err := upstream.Client().Do(out)
			if err != nil {
				return nil, err
			}
			return &Response{Status: in.StatusCode, Header: in.Header, Body: in.Body}, nil
		}
	})
	lines := bufio.NewReader(f.chat().Body)
	for i := range 5 {
		for _, want := range []string{fmt.Sprintf("data: {\"n\":%d}\n", i), "\n"} {
			if got, err := lines.ReadString('\n'); err != nil || got != want {
				t.Fatalf("event %d: %q, %v", i, got, err)
			}
		}
		next <- struct{}{}
	}
	if rest, err := io.ReadAll(lines); err != nil || string(rest) != "data: [DONE]\n\n" {
		t.Errorf("end: %q, %v", rest, err)
	}
	upstream.CloseClientConnections()
}

func TestACallerThatLeavesEndsTheWorkUpstream(t *testing.T) {
	s := newScript()
	ended := make(chan struct{})
	f := newFixture(t, func(f *fixture) {
		f.guard.Forward = func(ctx context.Context, _ *Request) (*Response, error) {
			context.AfterFunc(ctx, func() { close(ended) })
			return &Response{Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: s}, nil
		}
	})
	response := f.chat()
	s.pieces <- event(1)
	if _, err := bufio.NewReader(response.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	<-ended
	<-s.closed
	if o := f.outcome(); o.Ended != clientGone || o.Status != 200 {
		t.Errorf("outcome %+v", o)
	}
}

func TestACallerThatLeavesBeforeTheAnswerEndsForward(t *testing.T) {
	begun := make(chan struct{})
	f := newFixture(t, func(f *fixture) {
		f.guard.Forward = func(ctx context.Context, _ *Request) (*Response, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	ctx, leave := context.WithCancel(context.Background())
	go func() {
		<-begun
		leave()
	}()
	_, err := f.server.Client().Do(f.request("POST", "/v1/chat/completions", chatBody).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if o := f.outcome(); o.Ended != clientGone || o.Status != 0 {
		t.Errorf("outcome %+v", o)
	}
}

func TestAnUpstreamThatBreaksOffNeverLooksFinished(t *testing.T) {
	for _, try := range []struct {
		name, kind, path, sent, want, ended string
		fail                                error
	}{
		{
			"sse", "text/event-stream", "/v1/chat/completions", event(1),
			event(1) + `data: {"error":{"message":"the model server's answer broke off","type":"server_error","param":null,"code":"upstream_reset"}}` + "\n\n",
			"upstream_reset", io.ErrUnexpectedEOF,
		},
		{
			// Until it is whole it could be the usage that the caller had not asked for.
			"sse in the middle of an event that may be hidden", "text/event-stream", "/v1/chat/completions", event(1) + `data: {"n`,
			event(1) + `data: {"error":{"message":"gone","type":"server_error","param":null,"code":"agent_lost"}}` + "\n\n",
			"agent_lost", &UpstreamError{Code: "agent_lost", Message: "gone"},
		},
		{
			"sse in the middle of an event", "text/event-stream", "/v1/messages", `data: {"n`,
			`data: {"n` + "\n\nevent: error\n" + `data: {"type":"error","error":{"type":"api_error","message":"gone","code":"agent_lost"}}` + "\n\n",
			"agent_lost", &UpstreamError{Code: "agent_lost", Message: "gone"},
		},
		{
			"anthropic", "text/event-stream", "/v1/messages", event(1),
			event(1) + "event: error\n" + `data: {"type":"error","error":{"type":"api_error","message":"gone","code":"agent_lost"}}` + "\n\n",
			"agent_lost", &UpstreamError{Code: "agent_lost", Message: "gone"},
		},
		{
			"ndjson", "application/x-ndjson", "/api/chat", "{\"n\":1}\n",
			"{\"n\":1}\n{\"error\":\"gone\",\"code\":\"agent_lost\"}\n", "agent_lost", &UpstreamError{Code: "agent_lost", Message: "gone"},
		},
		{"json", "application/json", "/api/chat", `{"a":`, `{"a":`, "upstream_reset", errors.New("reset")},
	} {
		t.Run(try.name, func(t *testing.T) {
			s := newScript()
			s.fail = try.fail
			f := newFixture(t, streaming(s, try.kind))
			response := f.do(f.request("POST", try.path, chatBody))
			s.pieces <- try.sent
			close(s.pieces)
			got, err := io.ReadAll(response.Body)
			if err == nil {
				t.Error("the answer ended cleanly")
			}
			if string(got) != try.want {
				t.Errorf("got  %q\nwant %q", got, try.want)
			}
			if o := f.outcome(); o.Ended != try.ended {
				t.Errorf("outcome %+v", o)
			}
		})
	}
}

func TestAnAnswerShorterOrLongerThanItsLengthIsCut(t *testing.T) {
	for _, body := range []string{"12345", "123456789012345"} {
		f := newFixture(t, func(f *fixture) {
			f.guard.Forward = func(context.Context, *Request) (*Response, error) {
				r := answerWith(200, "application/json", body)
				r.Header.Set("Content-Length", "10")
				return r, nil
			}
		})
		response, err := f.server.Client().Do(f.request("POST", "/api/chat", chatBody))
		if err == nil {
			_, err = io.ReadAll(response.Body)
			_ = response.Body.Close()
		}
		if err == nil {
			t.Errorf("%d bytes of 10 ended cleanly", len(body))
		}
		if o := f.outcome(); o.Ended != "upstream_reset" {
			t.Errorf("outcome %+v", o)
		}
	}
}

func TestALostRightEndsTheAnswerInItsProtocol(t *testing.T) {
	s := newScript()
	f := newFixture(t, streaming(s, "text/event-stream"))
	response := f.chat()
	s.pieces <- event(1)
	lines := bufio.NewReader(response.Body)
	for range 2 {
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	f.end(&Ended{Code: "revoked", Message: "the session was ended by an administrator"})
	rest, err := io.ReadAll(lines)
	if err == nil {
		t.Error("the answer ended cleanly")
	}
	if !strings.HasPrefix(string(rest), `data: {"error":{`) || !strings.Contains(string(rest), `"code":"revoked"`) || !strings.HasSuffix(string(rest), "\n\n") {
		t.Errorf("got %q", rest)
	}
	<-s.closed
	if o := f.outcome(); o.Ended != "revoked" {
		t.Errorf("outcome %+v", o)
	}
}

func TestALostRightEndsAnAnswerNobodyReads(t *testing.T) {
	body := &endless{closed: make(chan struct{})}
	f := newFixture(t, func(f *fixture) {
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			return &Response{Status: 200, Header: http.Header{"Content-Type": {"text/event-stream"}}, Body: body}, nil
		}
	})
	f.chat() // and not read: the handler blocks in a write
	f.end(&Ended{Code: "revoked"})
	if o := f.outcome(); o.Ended != "revoked" {
		t.Errorf("outcome %+v", o)
	}
	<-body.closed
}

// endless is a body that always has more.
type endless struct{ closed chan struct{} }

func (e *endless) Read(p []byte) (int, error) { return len(p), nil }
func (e *endless) Close() error               { close(e.closed); return nil }

func TestRecheckEndsWhatIsNoLongerAllowed(t *testing.T) {
	s := newScript()
	asked := make(chan Question, 4)
	var denies atomic.Bool
	f := newFixture(t, streaming(s, "application/x-ndjson"), func(f *fixture) {
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			if q.Action != ActionReach { // asked before the body was read
				asked <- q
			}
			return Decision{Allow: !denies.Load(), Reason: "no_grant", Message: "no grant"}
		}
	})
	response := f.do(f.request("POST", "/api/chat", chatBody))
	s.pieces <- "{}\n"
	first := <-asked
	f.guard.Recheck(context.Background(), "policy_changed", nil)
	second := <-asked
	if first.Action != "chat" || first.Model != "phi3:latest" || second.Action != first.Action || second.Model != first.Model {
		t.Errorf("asked %+v, then %+v", first, second)
	}
	denies.Store(true)
	f.guard.Recheck(context.Background(), "policy_changed", nil)
	rest, err := io.ReadAll(response.Body)
	if err == nil || !strings.Contains(string(rest), `"code":"policy_changed"`) {
		t.Errorf("got %q, %v", rest, err)
	}
	if o := f.outcome(); o.Ended != "policy_changed" {
		t.Errorf("outcome %+v", o)
	}
}

func TestARightLostBeforeTheAnswerIsAnsweredAndTheConnectionClosed(t *testing.T) {
	begun := make(chan struct{})
	var denies atomic.Bool
	f := newFixture(t, func(f *fixture) {
		f.guard.Decide = func(context.Context, Question) Decision {
			return Decision{Allow: !denies.Load(), Reason: "no_grant", Message: "no grant"}
		}
		f.guard.Forward = func(ctx context.Context, _ *Request) (*Response, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	})
	go func() {
		<-begun
		denies.Store(true)
		f.guard.Recheck(context.Background(), "policy_changed", nil)
	}()
	response := f.chat()
	if body := readAll(t, response); response.StatusCode != 403 || !response.Close || !strings.Contains(body, "policy_changed") {
		t.Errorf("got %d %s", response.StatusCode, body)
	}
	if o := f.outcome(); o.Ended != "policy_changed" {
		t.Errorf("outcome %+v", o)
	}
}

func TestADecisionIsAskedForAgainWhenItExpires(t *testing.T) {
	s := newScript()
	var asked atomic.Int32
	f := newFixture(t, streaming(s, "application/x-ndjson"), func(f *fixture) {
		f.guard.Decide = func(context.Context, Question) Decision {
			return Decision{Allow: asked.Add(1) < 3, Reason: "auth_too_old", Message: "log in again", Until: time.Now().Add(time.Millisecond)}
		}
	})
	response := f.do(f.request("POST", "/api/chat", chatBody))
	rest, err := io.ReadAll(response.Body)
	if err == nil || !strings.Contains(string(rest), `"code":"auth_too_old"`) {
		t.Errorf("got %q, %v", rest, err)
	}
	if o := f.outcome(); o.Ended != "auth_too_old" || asked.Load() != 3 {
		t.Errorf("asked %d times, outcome %+v", asked.Load(), o)
	}
}

// TestADecisionEndsByTheClockAndNotByATimerAlone: a timer stands still while the machine sleeps.
func TestADecisionEndsByTheClockAndNotByATimerAlone(t *testing.T) {
	s := newScript()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	until := now().Add(time.Hour)
	begun := make(chan struct{}, 1)
	f := newFixture(t, streaming(s, "application/x-ndjson"), func(f *fixture) {
		forward := f.guard.Forward
		f.guard.Forward = func(ctx context.Context, r *Request) (*Response, error) {
			begun <- struct{}{}
			return forward(ctx, r)
		}
		f.guard.Now = now
		f.guard.Decide = func(context.Context, Question) Decision {
			return Decision{Allow: now().Before(until), Reason: "auth_too_old", Message: "log in again", Until: until}
		}
	})
	go func() {
		<-begun
		ahead.Store(int64(2 * time.Hour))
	}()
	response := f.do(f.request("POST", "/api/chat", chatBody))
	stop := time.AfterFunc(20*time.Second, func() { response.Body.Close() })
	defer stop.Stop()
	rest, err := io.ReadAll(response.Body)
	if err == nil || !strings.Contains(string(rest), `"code":"auth_too_old"`) {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestAbortIsVisibleOverHTTP2(t *testing.T) {
	s := newScript()
	s.fail = errors.New("reset")
	f := newFixture(t, streaming(s, "text/event-stream"))
	server := httptest.NewUnstartedServer(f.guard.Handler(f.resource, f.caller))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	request := f.request("POST", "/v1/chat/completions", chatBody)
	request.URL.Scheme, request.URL.Host, request.Host = "https", server.Listener.Addr().String(), ""
	response, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	s.pieces <- event(1)
	close(s.pieces)
	got, err := io.ReadAll(response.Body)
	if err == nil || response.ProtoMajor != 2 || !strings.HasPrefix(string(got), event(1)) {
		t.Errorf("HTTP/%d: got %q, %v", response.ProtoMajor, got, err)
	}
}

func TestClientThatLeavesWithTheWholeAnswerCompletedIt(t *testing.T) {
	for last, want := range map[string]string{"data: [DONE]\n\n": "completed", "data: {}\n\n": "client_gone"} {
		s := newScript()
		f := newFixture(t, streaming(s, "text/event-stream"))
		response := f.do(f.request("POST", "/v1/chat/completions", `{"model":"phi3","stream":true,"messages":[]}`))
		s.pieces <- last
		if _, err := io.ReadFull(response.Body, make([]byte, len(last))); err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
		<-s.closed
		if o := f.outcome(); o.Ended != want {
			t.Errorf("left after %q: %s, want %s", last, o.Ended, want)
		}
	}
}

// TestARequestIsDecidedByOnePolicyAsAWhole replaces the policy between the two questions of a request: the old one allows the
// first and the new one the second, but neither allows both.
func TestARequestIsDecidedByOnePolicyAsAWhole(t *testing.T) {
	var asked atomic.Int32
	f := newFixture(t, func(f *fixture) {
		f.resource.Server = "ollama"
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			if q.Action == ActionReach {
				return Decision{Allow: true, Revision: "old", Grant: "old"}
			}
			if asked.Add(1) == 1 {
				return Decision{Allow: true, Revision: "old", Grant: "old"}
			}
			return Decision{Allow: q.Model == "b:latest", Reason: "no_grant", Revision: "new", Grant: "new"}
		}
	})
	response := f.do(f.request("POST", "/api/copy", `{"source":"a","destination":"b"}`))
	if body := readAll(t, response); response.StatusCode != 403 || !strings.Contains(body, "no_grant") {
		t.Errorf("a mix of two policies allowed it: %d %s", response.StatusCode, body)
	}
	for _, e := range f.recorded() {
		if e.Decision != "deny" || e.Revision != "new" {
			t.Errorf("recorded %+v", e)
		}
	}
	if len(f.forwarded()) != 0 {
		t.Error("it was sent")
	}
}

func TestAPolicyThatNeverRestsAllowsNothing(t *testing.T) {
	var asked atomic.Int32
	f := newFixture(t, func(f *fixture) {
		f.guard.Decide = func(context.Context, Question) Decision {
			return Decision{Allow: true, Revision: fmt.Sprint(asked.Add(1))}
		}
	})
	response := f.do(f.request("POST", "/api/copy", `{"source":"a","destination":"b"}`))
	if body := readAll(t, response); response.StatusCode != 503 || !strings.Contains(body, "policy_timeout") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
}

// TestWhoIsRevokedBetweenDecisionAndAnswerIsNotServed ends a caller whose request is decided and not yet among those that run.
func TestWhoIsRevokedBetweenDecisionAndAnswerIsNotServed(t *testing.T) {
	var revoked atomic.Bool
	f := newFixture(t, func(f *fixture) {
		f.guard.Decide = func(context.Context, Question) Decision {
			return Decision{Allow: !revoked.Load(), Lost: revoked.Load(), Reason: "revoked", Message: "by an administrator"}
		}
		f.guard.Record = func(_ context.Context, e Event) error {
			if e.Kind == EventDecision && e.Decision == "allow" {
				revoked.Store(true)
				f.guard.End(func(*Caller) bool { return true }, &Ended{Code: "revoked"})
			}
			return nil
		}
	})
	response := f.chat()
	if body := readAll(t, response); response.StatusCode != 403 || !strings.Contains(body, "revoked") {
		t.Errorf("%d %s", response.StatusCode, body)
	}
	if o := f.outcome(); o.Ended != "revoked" || len(f.forwarded()) != 0 {
		t.Errorf("forwarded %d times, outcome %+v", len(f.forwarded()), o)
	}
}

func TestRecheckTellsWhoLostItsRightWithItsOwnCode(t *testing.T) {
	s := newScript()
	var lost atomic.Bool
	f := newFixture(t, streaming(s, "application/x-ndjson"), func(f *fixture) {
		f.guard.Decide = func(context.Context, Question) Decision {
			return Decision{Allow: !lost.Load(), Lost: true, Reason: "login_required", Message: "log in again"}
		}
	})
	response := f.do(f.request("POST", "/api/chat", chatBody))
	s.pieces <- "{}\n"
	lost.Store(true)
	f.guard.Recheck(context.Background(), "policy_changed", nil)
	if rest, err := io.ReadAll(response.Body); err == nil || !strings.Contains(string(rest), `"code":"login_required"`) {
		t.Errorf("got %q, %v", rest, err)
	}
}
