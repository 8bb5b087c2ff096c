package guard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestNothingGoesUpstreamBeforeItsRecord(t *testing.T) {
	f := newFixture(t)
	if response := f.chat(); response.StatusCode != 200 || readAll(t, response) != `{"ok":true}` {
		t.Fatalf("got %d", response.StatusCode)
	}
	f.outcome()
	if got, want := f.taken(), "record decision allow, forward, record outcome allow"; got != want {
		t.Errorf("steps: %s; want %s", got, want)
	}
	e := f.recorded()[0]
	if e.Request != "req-1" || e.Action != "chat" || e.Model != "phi3:latest" || e.Path != "/v1/chat/completions" || e.Method != "POST" || e.Grant != "g1" || e.Caller.Principal != "corp/ann" {
		t.Errorf("decision %+v", e)
	}
}

// reservation counts how it ended. It bounds nothing.
type reservation struct{ released, settled atomic.Int32 }

func (r *reservation) Output() int64          { return -1 }
func (r *reservation) Header(http.Header)     {}
func (r *reservation) Use(int64, int64) error { return nil }
func (r *reservation) Release()               { r.released.Add(1) }
func (r *reservation) Settle(Event)           { r.settled.Add(1) }

func reserving(r *reservation) option {
	return func(f *fixture) {
		f.guard.Reserve = func(context.Context, Ask) (Reservation, error) { return r, nil }
	}
}

func TestWhatCannotBeRecordedIsNotDone(t *testing.T) {
	var r reservation
	f := newFixture(t, reserving(&r), func(f *fixture) {
		f.guard.Record = func(context.Context, Event) error { return errors.New("disk full") }
	})
	response := f.chat()
	body := readAll(t, response)
	if response.StatusCode != 503 || !strings.Contains(body, `"code":"audit_unavailable"`) || response.Header.Get("Retry-After") == "" {
		t.Errorf("got %d %s", response.StatusCode, body)
	}
	if r.released.Load() != 1 || r.settled.Load() != 0 || f.taken() != "record decision allow" {
		t.Errorf("released %d, settled %d, steps %s", r.released.Load(), r.settled.Load(), f.taken())
	}
}

func TestAReservationEndsExactlyOnce(t *testing.T) {
	for name, forward := range map[string]func(context.Context, *Request) (*Response, error){
		"completed": func(context.Context, *Request) (*Response, error) { return answerWith(200, "", "x"), nil },
		"refused":   func(context.Context, *Request) (*Response, error) { return answerWith(302, "", "x"), nil },
		"failed":    func(context.Context, *Request) (*Response, error) { return nil, errors.New("no route") },
		"panicking": func(context.Context, *Request) (*Response, error) { panic(http.ErrAbortHandler) },
	} {
		var r reservation
		f := newFixture(t, reserving(&r), func(f *fixture) { f.guard.Forward = forward })
		if response, err := f.server.Client().Do(f.request("POST", "/api/chat", chatBody)); err == nil {
			_ = response.Body.Close()
		}
		f.outcome()
		if r.released.Load() != 0 || r.settled.Load() != 1 {
			t.Errorf("%s: released %d, settled %d", name, r.released.Load(), r.settled.Load())
		}
	}
}

func TestALimitIsAnsweredWith429(t *testing.T) {
	f := newFixture(t, func(f *fixture) {
		f.guard.Reserve = func(context.Context, Ask) (Reservation, error) {
			return nil, &Limited{Code: "rate_limited", Message: "60 requests a minute", RetryAfter: 1500 * time.Millisecond, Header: http.Header{"X-Ratelimit-Limit-Requests": {"60"}}}
		}
	})
	response := f.chat()
	if response.StatusCode != 429 || response.Header.Get("Retry-After") != "2" || response.Header.Get("X-Ratelimit-Limit-Requests") != "60" {
		t.Errorf("got %d %v", response.StatusCode, response.Header)
	}
	if body := readAll(t, response); !strings.Contains(body, `"rate_limit_error"`) || !strings.Contains(body, `"rate_limited"`) {
		t.Errorf("got %s", body)
	}
	if f.taken() != "record decision deny" {
		t.Errorf("steps %s", f.taken())
	}
}

func TestEveryRefusalIsRecordedOnceAndNothingSent(t *testing.T) {
	nothing := func(f *fixture) {
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			if q.Action == ActionReach {
				return Decision{Allow: true}
			}
			return Decision{Allow: q.Model == "phi3:latest" && q.Action == "chat" && !q.Egress, Reason: "model_not_granted", Message: "not yours"}
		}
	}
	for _, try := range []struct {
		method, target, body string
		header               []string
		status               int
		reason, want         string
	}{
		{"POST", "/v1/chat/completions", `{"model":"secret","messages":[1]}`, nil, 403, "model_not_granted", `{"error":{"message":"not yours","type":"permission_error","param":null,"code":"model_not_granted"}}`},
		{"POST", "/v1/messages", `{"model":"secret","messages":[1]}`, nil, 403, "model_not_granted", `{"type":"error","error":{"type":"permission_error","message":"not yours","code":"model_not_granted"}}`},
		{"POST", "/api/chat", `{"model":"secret","messages":[1]}`, nil, 403, "model_not_granted", `{"error":"not yours","code":"model_not_granted"}`},
		{"POST", "/api/chat", `{"model":"phi3"}`, nil, 403, "model_not_granted", ""},
		{"POST", "/api/chat", `{"model":"phi3:cloud","messages":[1]}`, nil, 403, "model_not_granted", ""},
		{"POST", "/api/copy", `{"source":"secret","destination":"phi3"}`, nil, 403, "model_not_granted", ""},
		{"DELETE", "/api/delete", `{"model":"phi3"}`, nil, 403, "model_not_granted", ""},
		{"POST", "/api/chat", `{"model":"phi3","MODEL":"secret","messages":[1]}`, nil, 400, "json_duplicate_name", ""},
		{"POST", "/api/chat", chatBody, []string{"Content-Type: text/plain"}, 400, "header_ambiguous", ""},
		{"POST", "/api/chat", chatBody, []string{"Content-Encoding: br"}, 415, "encoding_unsupported", ""},
		{"POST", "/api/nothing", `{}`, nil, 404, "unknown_route", `{"error":"no route of this model server is known by this method and path","code":"unknown_route"}`},
		{"POST", "/api/chat/", chatBody, nil, 404, "unknown_route", ""},
		{"PUT", "/api/chat", chatBody, nil, 404, "unknown_route", ""},
		{"GET", "/v1%2Fmodels", "", nil, 400, "path_ambiguous", ""},
		{"GET", "//api/tags", "", nil, 400, "path_ambiguous", ""},
		{"GET", "/v1/../api/tags", "", nil, 400, "path_ambiguous", ""},
		{"OPTIONS", "/api/chat", "", nil, 403, "preflight_refused", ""},
		{"TRACE", "/api/chat", "", nil, 405, "method_refused", ""},
		{"GET", "/api/tags", "", []string{"Upgrade: websocket", "Connection: Upgrade"}, 400, "upgrade_refused", ""},
		{"HEAD", "/api/nothing", "", nil, 404, "unknown_route", ""},
	} {
		f := newFixture(t, nothing)
		response := f.do(f.request(try.method, try.target, try.body, try.header...))
		body := readAll(t, response)
		if response.StatusCode != try.status || response.Header.Get("X-Iap-Decision") != "deny; reason="+try.reason {
			t.Errorf("%s %s %s: got %d %q", try.method, try.target, try.body, response.StatusCode, response.Header.Get("X-Iap-Decision"))
		}
		if try.want != "" && body != try.want {
			t.Errorf("%s: got %s", try.target, body)
		}
		events := f.recorded()
		if len(events) != 1 || events[0].Decision != "deny" || events[0].Reason != try.reason || events[0].Status != try.status || len(f.forwarded()) != 0 {
			t.Errorf("%s %s: recorded %+v, forwarded %d", try.method, try.target, events, len(f.forwarded()))
		}
	}
}

func TestADecisionThatIsNoneDenies(t *testing.T) {
	for reason, status := range map[string]int{"": 403, "policy_error": 503, "mfa_required": 403} {
		f := newFixture(t, func(f *fixture) {
			f.guard.Decide = func(context.Context, Question) Decision { return Decision{Reason: reason} }
		})
		if response := f.chat(); response.StatusCode != status || len(f.forwarded()) != 0 {
			t.Errorf("%q: got %d", reason, response.StatusCode)
		}
	}
}

func TestIdsNobodyIsKnownToOwnAreDenied(t *testing.T) {
	f := newFixture(t, func(f *fixture) { f.resource.Server = "llama.cpp" })
	for _, try := range [][2]string{{"GET", "/v1/stream/abc"}, {"DELETE", "/v1/stream?conv_id=abc"}, {"GET", "/v1/stream/abc::phi3"}} {
		if response := f.do(f.request(try[0], try[1], "")); response.StatusCode != 404 {
			t.Errorf("%v: got %d", try, response.StatusCode)
		}
	}
	if len(f.forwarded()) != 0 {
		t.Error("something went upstream")
	}
}

func TestHealthNeedsNoMoreThanReach(t *testing.T) {
	f := newFixture(t, func(f *fixture) {
		f.guard.Decide = func(_ context.Context, q Question) Decision { return Decision{Allow: q.Action == ActionReach} }
	})
	if response := f.do(f.request("GET", "/api/version", "")); response.StatusCode != 200 {
		t.Errorf("got %d", response.StatusCode)
	}
	if response := f.do(f.request("HEAD", "/", "")); response.StatusCode != 200 {
		t.Errorf("got %d", response.StatusCode)
	}
	if e := f.recorded()[0]; e.Action != "health" {
		t.Errorf("recorded as %q", e.Action)
	}
}

func TestTheMountsPrefixIsNoPartOfThePath(t *testing.T) {
	f := newFixture(t, func(f *fixture) { f.caller.Prefix = "/r/phi3"; f.caller.Via = "bearer" })
	response := f.do(f.request("POST", "/r/phi3/v1/chat/completions?x=1", chatBody))
	if response.StatusCode != 200 || f.forwarded()[0].Target != "/v1/chat/completions" {
		t.Errorf("got %d", response.StatusCode)
	}
	if response.Header.Get("Content-Security-Policy") != "sandbox; default-src 'none'" || response.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("got %v", response.Header)
	}
	if response := f.do(f.request("HEAD", "/r/phi3", "")); response.StatusCode != 200 || f.forwarded()[1].Target != "/" {
		t.Errorf("root: got %d", response.StatusCode)
	}
	for _, target := range []string{"/r/phi34/v1/models", "/r/%70hi3/v1/models", "/r/phi3%2Fv1/models", "/v1/models"} {
		if response := f.do(f.request("GET", target, "")); response.StatusCode != 400 && response.StatusCode != 404 {
			t.Errorf("%s: got %d", target, response.StatusCode)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	f := newFixture(t, func(f *fixture) { f.guard.Limits = Limits{Body: 10_000} })
	big := func(n int) string {
		return `{"model":"phi3","messages":[1],"x":"` + strings.Repeat("x", n) + `"}`
	}
	for _, chunked := range []bool{false, true} {
		for _, try := range []struct{ size, status int }{{100, 200}, {9_000, 200}, {10_000, 413}, {1_000_000, 413}} {
			r := f.request("POST", "/api/chat", big(try.size))
			if chunked {
				r.ContentLength = -1
			}
			if response := f.do(r); response.StatusCode != try.status {
				t.Errorf("%d bytes, chunked %v: got %d, want %d", try.size, chunked, response.StatusCode, try.status)
			}
		}
	}
	if f.guard.buffered.all != 0 || len(f.guard.buffered.shares) != 0 {
		t.Errorf("memory of finished requests is still set aside: %+v", f.guard.buffered.shares)
	}
}

func TestNobodysLargePromptsKeepOutThoseOfOthers(t *testing.T) {
	f := newFixture(t, func(f *fixture) { f.guard.Limits = Limits{Buffered: 64 << 20} })
	hold := func(who string, n int64) bool {
		x := &exchange{guard: f.guard, caller: &Caller{Principal: who}}
		return x.hold(n)
	}
	if !hold("mallory", 8<<20) || hold("mallory", 1) {
		t.Error("a caller may hold an eighth of the memory, and no more")
	}
	if !hold("alice", 1<<20) {
		t.Error("one caller's memory is another's refusal")
	}
	for i := range 6 {
		hold("other"+strings.Repeat("x", i), 8<<20)
	}
	if !hold("last", 7<<20) {
		t.Fatal("the memory is not what it should be")
	}
	prompt := func(n int) string {
		return `{"model":"phi3","messages":[1],"x":"` + strings.Repeat("x", n) + `"}`
	}
	if response := f.do(f.request("POST", "/api/chat", prompt(200_000))); response.StatusCode != 503 {
		t.Errorf("memory full: got %d", response.StatusCode)
	}
	if response := f.do(f.request("POST", "/api/chat", prompt(20_000))); response.StatusCode != 200 {
		t.Errorf("a small prompt was refused for memory: got %d", response.StatusCode)
	}
}

func TestNoMemoryIsSpentOnWhoMayNotUseTheResource(t *testing.T) {
	f := newFixture(t, func(f *fixture) {
		f.guard.Decide = func(context.Context, Question) Decision { return Decision{Reason: "no_grant"} }
	})
	// The body never comes: an answer shows that nobody waited for it.
	got := f.raw("POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 403") {
		t.Errorf("got %q", got)
	}
}

func TestABodyThatBreaksOffIsNotSentOn(t *testing.T) {
	f := newFixture(t)
	got := f.raw("POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{\"model\":")
	if len(f.forwarded()) != 0 || strings.Contains(got, "200 OK") {
		t.Errorf("got %q, forwarded %d", got, len(f.forwarded()))
	}
}

func TestUpstreamFailuresHaveTheirStatusAndShape(t *testing.T) {
	for _, try := range []struct {
		err    error
		status int
		code   string
		retry  string
	}{
		{&UpstreamError{Code: "agent_offline", Status: 503, Message: "phi3 is offline", RetryAfter: 5 * time.Second}, 503, "agent_offline", "5"},
		{fmt.Errorf("wrapped: %w", &UpstreamError{Code: "upstream_unreachable"}), 502, "upstream_unreachable", ""},
		{errors.New("boom at 10.0.0.7"), 502, "upstream_reset", ""},
	} {
		f := newFixture(t, func(f *fixture) {
			f.guard.Forward = func(context.Context, *Request) (*Response, error) { return nil, try.err }
		})
		response := f.do(f.request("POST", "/api/chat", chatBody))
		body := readAll(t, response)
		if response.StatusCode != try.status || !strings.Contains(body, try.code) || response.Header.Get("Retry-After") != try.retry || strings.Contains(body, "10.0.0.7") {
			t.Errorf("%v: got %d %s %v", try.err, response.StatusCode, body, response.Header)
		}
		if o := f.outcome(); o.Ended != try.code || o.Status != try.status {
			t.Errorf("outcome %+v", o)
		}
	}
}

func TestListsAreFiltered(t *testing.T) {
	f := newFixture(t, func(f *fixture) {
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			return Decision{Allow: q.Action == "list-models" || q.Action == ActionReach && q.Model == "phi3:latest"}
		}
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			return answerWith(200, "application/json", `{"models":[{"name":"secret:latest"},{"name":"phi3:latest"}]}`), nil
		}
	})
	response := f.do(f.request("GET", "/api/tags", ""))
	if body := readAll(t, response); body != `{"models":[{"name":"phi3:latest"}]}` {
		t.Errorf("got %s", body)
	}
	if len(f.recorded()) != 2 {
		t.Errorf("recorded %d events", len(f.recorded()))
	}
}

func TestAListThatCannotBeFilteredIsNotShown(t *testing.T) {
	huge := `{"models":[` + strings.Repeat(" ", 5<<20) + `]}`
	for _, response := range []*Response{
		answerWith(200, "application/json", "secret"), answerWith(200, "application/json", huge),
		answerWith(404, "application/json", `{"models":[{"name":"secret"}]}`), answerWith(201, "application/json", `{"models":[{"name":"secret"}]}`),
		{Status: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"models":[]}`), broken{}))},
	} {
		f := newFixture(t, func(f *fixture) {
			f.guard.Forward = func(context.Context, *Request) (*Response, error) { return response, nil }
		})
		got := f.do(f.request("GET", "/api/tags", ""))
		if body := readAll(t, got); got.StatusCode < 400 || strings.Contains(body, "secret") {
			t.Errorf("got %d %s", got.StatusCode, body)
		}
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("reset") }
