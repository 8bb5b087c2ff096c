package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/internal/state"
	"iap/tunnel"
)

// grantsForIDs lets the engineers touch what a server keeps for them.
const grantsForIDs = `version: 1
grants:
  - name: engineers
    to: ["group:corp/ml-eng"]
    resources: ["*"]
    actions: [chat, session, list-models]
`

// newKeeper is a vLLM that keeps responses under ids that begin with its name, and tells which one it was asked for.
func newKeeper(t *testing.T, name string) *httptest.Server {
	t.Helper()
	var made atomic.Int64
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("X-Request-Id") == "" && r.URL.Path == "/v1/models":
			fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","object":"model","owned_by":"vllm"}]}`)
		case r.Header.Get("X-Request-Id") == "":
			http.NotFound(w, r)
		case r.Method == http.MethodPost && r.URL.Path == "/v1/responses":
			fmt.Fprintf(w, `{"id":"resp_%s_%d","object":"response","by":%q,"of":%q,"output":[],"usage":{"input_tokens":3,"output_tokens":4,"total_tokens":7}}`, name, made.Add(1), name, string(body))
		default:
			fmt.Fprintf(w, `{"by":%q,"path":%q}`, name, r.URL.Path)
		}
	}))
	t.Cleanup(up.Close)
	return up
}

func respond(t *testing.T, c *http.Client, previous string) (status int, id, body string) {
	t.Helper()
	ask := `{"model":"phi3","input":"hello"}`
	if previous != "" {
		ask = fmt.Sprintf(`{"model":"phi3","input":"hello","previous_response_id":%q}`, previous)
	}
	r, err := c.Post("http://phi3/v1/responses", "application/json", strings.NewReader(ask))
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	must(t, err)
	_, after, _ := strings.Cut(string(text), `"id":"`)
	id, _, _ = strings.Cut(after, `"`)
	return r.StatusCode, id, string(text)
}

func get(t *testing.T, c *http.Client, path string) (int, string) {
	t.Helper()
	r, err := c.Get("http://phi3" + path)
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	must(t, err)
	return r.StatusCode, string(text)
}

func TestAnotherPrincipalsIDIsUnknownAndAnOwnOneFindsItsAgent(t *testing.T) {
	s := newSystem(t, grantsForIDs)
	first := s.startAs("vllm", newKeeper(t, "one").URL)
	s.startAs("vllm", newKeeper(t, "two").URL)
	alice, bob := s.user(nil), s.user(map[string]any{"sub": "bob"})
	as := func(u *user) *http.Client {
		return client(t, u.open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	}
	ids := map[string]string{} // one of each agent, by its name
	ca, cb := as(alice), as(bob)
	eventually(t, "both agents have answered", func() bool {
		status, id, body := respond(t, ca, "")
		if status != 200 {
			t.Fatalf("got %d %s", status, body)
		}
		ids[strings.Split(id, "_")[1]] = id
		return len(ids) == 2
	})
	for name, id := range ids {
		for range 3 {
			if status, body := get(t, ca, "/v1/responses/"+id); status != 200 || !strings.Contains(body, fmt.Sprintf(`"by":%q`, name)) {
				t.Errorf("its owner got %d %s", status, body)
			}
			if status, _, body := respond(t, ca, id); status != 200 || !strings.Contains(body, fmt.Sprintf(`"by":%q`, name)) {
				t.Errorf("continuing it got %d %s", status, body)
			}
		}
		if status, body := get(t, cb, "/v1/responses/"+id); status != 404 || !strings.Contains(body, "unknown_id") {
			t.Errorf("another got %d %s", status, body)
		}
		if status, _, body := respond(t, cb, id); status != 404 || !strings.Contains(body, "unknown_id") {
			t.Errorf("another continuing it got %d %s", status, body)
		}
	}
	if e := s.awaitEvent("the denial", func(e audit.Event) bool { return e.Reason == "unknown_id" }); e.Principal != "corp/bob" {
		t.Errorf("denied %+v", e)
	}
	// What one agent has, no other can serve.
	must(t, first.stop())
	eventually(t, "the first agent is gone", func() bool { n, _ := s.relay.agents.online("phi3"); return n == 1 })
	if status, body := get(t, ca, "/v1/responses/"+ids["one"]); status != http.StatusServiceUnavailable || !strings.Contains(body, "agent_offline") {
		t.Errorf("without its agent: %d %s", status, body)
	}
	// And all of it outlives the relay.
	must(t, s.end())
	s.start()
	eventually(t, "the other agent is back", func() bool { n, a := s.relay.agents.online("phi3"); return n > 0 && a.Healthy })
	ca, cb = as(alice), as(bob)
	if status, body := get(t, ca, "/v1/responses/"+ids["two"]); status != 200 {
		t.Errorf("after a restart its owner got %d %s", status, body)
	}
	if status, _ := get(t, cb, "/v1/responses/"+ids["two"]); status != 404 {
		t.Errorf("after a restart another got %d", status)
	}
}

// newIDs is a book of ids over a store of its own.
func newIDs(t *testing.T, now func() time.Time) (*ids, state.Store) {
	t.Helper()
	store, err := state.OpenWith(context.Background(), "sqlite::memory:", state.Options{Now: now})
	must(t, err)
	t.Cleanup(func() { store.Close() })
	l, err := openIDs(context.Background(), store, now)
	must(t, err)
	return l, store
}

func responseID(i int) modelapi.ID {
	return modelapi.ID{Kind: modelapi.IDResponse, Value: fmt.Sprintf("resp_%d", i)}
}

func TestIDsAreBoundedByNumberAndTime(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	l, store := newIDs(t, func() time.Time { return now })
	res := guard.Resource{Name: "phi3"}
	ann, bob := &guard.Caller{Principal: "corp/ann"}, &guard.Caller{Principal: "corp/bob"}
	must(t, l.own(within(t), guard.Owner{Resource: "phi3", Agent: "a", Caller: bob}, responseID(-1)))
	for i := range idsEach + 3 {
		must(t, l.own(within(t), guard.Owner{Resource: "phi3", Agent: "a", Caller: ann}, responseID(i)))
	}
	for i, known := range map[int]bool{0: false, 2: false, 3: true, idsEach + 2: true} {
		if _, err := l.owned(within(t), res, ann, responseID(i)); (err == nil) != known {
			t.Errorf("id %d: %v", i, err)
		}
	}
	if _, err := l.owned(within(t), res, bob, responseID(-1)); err != nil {
		t.Errorf("somebody else's gave way: %v", err)
	}
	if err := l.own(within(t), guard.Owner{Resource: "phi3", Agent: "a", Caller: bob}, responseID(5)); err != guard.ErrNotOwner {
		t.Errorf("an id was handed out to a second: %v", err)
	}
	again, err := openIDs(context.Background(), store, l.now)
	must(t, err)
	if again.count != idsEach+1 {
		t.Errorf("%d ids after a restart", again.count)
	}
	now = now.Add(idLife + time.Minute)
	if _, err := l.owned(within(t), res, bob, responseID(-1)); err != guard.ErrNotOwner {
		t.Errorf("after a day: %v", err)
	}
	must(t, l.own(within(t), guard.Owner{Resource: "phi3", Agent: "a", Caller: ann}, responseID(-2)))
	if n := len(l.holders["corp/ann"]); n != 1 {
		t.Errorf("%d are still counted", n)
	}
}

func TestTheSaltIsEachCallersOwnAndSurvivesARestart(t *testing.T) {
	key := newKey(t)
	one, err := salts(key)
	must(t, err)
	two, err := salts(key)
	must(t, err)
	other, err := salts(newKey(t))
	must(t, err)
	ann, bob := &guard.Caller{Principal: "corp/ann"}, &guard.Caller{Principal: "corp/bob"}
	if one(ann) != two(ann) || one(ann) == one(bob) || one(ann) == other(ann) || len(one(ann)) < 32 {
		t.Errorf("salts %s %s %s %s", one(ann), two(ann), one(bob), other(ann))
	}
}
