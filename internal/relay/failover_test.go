package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"iap/internal/audit"
	"iap/tunnel"
)

// oneModel is what every agent of these tests announces of phi3.
func oneModel(models ...string) tunnel.Announcement {
	return tunnel.Announcement{Resource: "phi3", Kind: "model", Server: "vllm", Models: models, Healthy: true, Capacity: 4}
}

// tally counts requests by their id, at whichever upstream they arrive.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
}

func (c *tally) saw(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	c.seen[id]++
}

func (c *tally) of(id string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[id]
}

// ask sends a chat and returns the status, the error's code and the relay's id of the request.
func ask(t testing.TB, c *http.Client, model string) (status int, code, id string) {
	t.Helper()
	r, err := c.Post("http://phi3/v1/chat/completions", "application/json", strings.NewReader(fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}]}`, model)))
	must(t, err)
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode, r.Header.Get("X-Iap-Error"), r.Header.Get("X-Request-Id")
}

// eachRequest makes of what answers one request what serves a warm stream.
func eachRequest(handle func(context.Context, *tunnel.Stream, tunnel.Header)) func(context.Context, *tunnel.Stream, tunnel.Header) {
	return func(ctx context.Context, st *tunnel.Stream, h tunnel.Header) {
		for err := error(nil); err == nil; h, err = st.ReadHeader(ctx) {
			handle(ctx, st, h)
		}
	}
}

// readRequest takes the request behind the header that a fake agent got.
func readRequest(st *tunnel.Stream) {
	r, err := http.ReadRequest(st.Reader())
	if err == nil {
		_, _ = io.Copy(io.Discard, r.Body)
	}
}

const chatAnswer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

// TestEachRequestReachesOneUpstreamAtMost ends one of two agents at every stage of a request. Whatever the stage, no
// request is seen twice; and where the agent vouched, or the relay knows, that nothing was sent, the other one serves it.
func TestEachRequestReachesOneUpstreamAtMost(t *testing.T) {
	s := newSystem(t, allowAll)
	good := s.enrolFake(true, served{"phi3", "model", ""})
	bad := s.enrolFake(true, served{"phi3", "model", ""})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	var upstreams tally
	busy := oneModel("phi3")
	busy.Capacity = 1 // the other comes first
	good.serve(tunnel.Interactive, eachRequest(func(_ context.Context, st *tunnel.Stream, h tunnel.Header) {
		readRequest(st)
		upstreams.saw(h.Request)
		_ = st.WriteReply(tunnel.Reply{OK: true}, []byte(chatAnswer))
	}), busy)
	passedOn := make(chan struct{}, 1) // the caller has the answer's head
	refusal := func(code string, notSent bool) func(context.Context, *tunnel.Stream, tunnel.Header) {
		return func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
			readRequest(st)
			_ = st.WriteReply(tunnel.Reply{Code: code, NotSent: notSent}, nil)
		}
	}
	dies := func(when string) func(context.Context, *tunnel.Stream, tunnel.Header) {
		return func(_ context.Context, st *tunnel.Stream, h tunnel.Header) {
			switch when {
			case "header":
			case "request":
				readRequest(st)
			case "sent":
				readRequest(st)
				upstreams.saw(h.Request)
			case "answer":
				readRequest(st)
				upstreams.saw(h.Request)
				_ = st.WriteReply(tunnel.Reply{OK: true}, []byte(chatAnswer[:len(chatAnswer)-1]))
				<-passedOn
			}
			_ = st.Session().Close(tunnel.CodeInternal, "killed")
		}
	}
	for _, one := range []struct {
		name      string
		handle    func(context.Context, *tunnel.Stream, tunnel.Header)
		status    int
		seen      int
		elsewhere bool
	}{
		{"queue full", refusal("queue_full", true), 200, 1, true},
		{"draining", refusal("draining", true), 200, 1, true},
		{"upstream cannot be reached", refusal("upstream_unreachable", true), 200, 1, true},
		{"not on the agent's own list", refusal("policy_denied", true), 200, 1, true},
		{"queue full, but who knows", refusal("queue_full", false), 429, 0, false},
		{"unreachable, but who knows", refusal("upstream_unreachable", false), 502, 0, false},
		{"read in another way", refusal("refused", true), 403, 0, false},
		{"broke off upstream", refusal("upstream_reset", false), 502, 0, false},
		{"dies with the header", dies("header"), 502, 0, false},
		{"dies with the request", dies("request"), 502, 0, false},
		{"dies when it is sent", dies("sent"), 502, 1, false},
		{"dies in the answer", dies("answer"), 200, 1, false},
	} {
		session := bad.serve(tunnel.Interactive, eachRequest(one.handle), oneModel("phi3"))
		eventually(t, "both agents are online", func() bool { n, _ := s.relay.agents.online("phi3"); return n == 2 })
		r, err := c.Post("http://phi3/v1/chat/completions", "application/json", strings.NewReader(chatOfPhi3))
		must(t, err)
		if one.name == "dies in the answer" {
			passedOn <- struct{}{}
		}
		_, bodyErr := io.Copy(io.Discard, r.Body)
		r.Body.Close()
		if r.StatusCode != one.status || one.name == "dies in the answer" && bodyErr == nil {
			t.Errorf("%s: %s, %v", one.name, r.Status, bodyErr)
		}
		outcome := s.lastOutcome(t)
		if got := upstreams.of(outcome.Request); got != one.seen {
			t.Errorf("%s: the upstreams have seen the request %d times", one.name, got)
		}
		tried := outcome.Detail["tried"]
		if one.elsewhere != (outcome.Agent == good.id) || one.elsewhere != strings.HasPrefix(tried, bad.id+" ") {
			t.Errorf("%s: the record says agent %s, tried %q", one.name, outcome.Agent, tried)
		}
		_ = session.Close(tunnel.CodeNone, "")
		eventually(t, "the agent is gone", func() bool { n, _ := s.relay.agents.online("phi3"); return n == 1 })
	}
	for id, n := range upstreams.seen {
		if n > 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
}

const chatOfPhi3 = `{"model":"phi3","messages":[{"role":"user","content":"hi"}]}`

// lastOutcome waits for the outcome of the request decided on last.
func (s *system) lastOutcome(t testing.TB) audit.Event {
	t.Helper()
	var found audit.Event
	eventually(t, "the outcome is recorded", func() bool {
		all := s.events(func(e audit.Event) bool {
			return strings.HasPrefix(e.Request, "rq-") && (e.Kind == audit.KindDecision || e.Kind == audit.KindOutcome)
		})
		if len(all) == 0 {
			return false
		}
		found = all[len(all)-1]
		return found.Kind == audit.KindOutcome
	})
	return found
}

// TestRequestThatAnAgentTurnsAwayGoesElsewhere: the agent has no place for another stream, or said a moment too late
// for the relay that it takes no more.
func TestRequestThatAnAgentTurnsAwayGoesElsewhere(t *testing.T) {
	s := newSystem(t, allowAll)
	full := s.enrolFake(true, served{"phi3", "model", ""})
	session, err := s.dial(tunnel.ClientConfig{
		Role: tunnel.RoleAgent, Class: tunnel.Interactive, AgentID: full.id, Key: full.key, MaxStreams: 1, Announce: []tunnel.Announcement{oneModel("phi3")},
	})
	must(t, err)
	begun, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		_ = session.Serve(context.Background(), func(ctx context.Context, _ *tunnel.Stream, _ tunnel.Header) {
			close(begun)
			<-ctx.Done()
		})
	}()
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, ""); <-over })
	s.awaitOnline(full.id, 1)
	user := s.user(nil).open(tunnel.Interactive)
	first := mustOpen(t, user, "phi3")
	_, err = io.WriteString(first, "POST /v1/chat/completions HTTP/1.1\r\nHost: phi3\r\nContent-Type: application/json\r\nContent-Length: "+
		strconv.Itoa(len(chatOfPhi3))+"\r\n\r\n"+chatOfPhi3)
	must(t, err)
	<-begun
	busy := oneModel("phi3")
	busy.Capacity = 1 // the other still comes first
	good := s.enrolFake(true, served{"phi3", "model", ""})
	good.serve(tunnel.Interactive, eachRequest(func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
		readRequest(st)
		_ = st.WriteReply(tunnel.Reply{OK: true}, []byte(chatAnswer))
	}), busy)
	status, code, id := ask(t, client(t, user, tunnel.Header{Resource: "phi3"}), "phi3")
	if status != http.StatusOK {
		t.Errorf("%d %s", status, code)
	}
	eventually(t, "the outcome is recorded", func() bool {
		return len(s.events(func(e audit.Event) bool {
			return e.Kind == audit.KindOutcome && e.Request == id && e.Agent == good.id && e.Detail["tried"] == full.id+" overloaded"
		})) == 1
	})
}

// TestRequestIsGivenToThreeAgentsAtMost, and its caller is told what helps most.
func TestRequestIsGivenToThreeAgentsAtMost(t *testing.T) {
	s := newSystem(t, allowAll)
	var mu sync.Mutex
	asked := 0
	for i := range 5 {
		code := "upstream_unreachable"
		if i%2 == 0 {
			code = "queue_full"
		}
		s.enrolFake(true, served{"phi3", "model", ""}).serve(tunnel.Interactive, eachRequest(func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
			readRequest(st)
			mu.Lock()
			asked++
			mu.Unlock()
			_ = st.WriteReply(tunnel.Reply{Code: code, NotSent: true}, nil)
		}), oneModel("phi3"))
	}
	eventually(t, "all are online", func() bool { n, _ := s.relay.agents.online("phi3"); return n == 5 })
	status, code, _ := ask(t, client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}), "phi3")
	if asked != maxTries || status != http.StatusTooManyRequests || code != "queue_full" {
		t.Errorf("%d agents were asked, then %d %s", asked, status, code)
	}
}

// TestRequestGoesToAnAgentThatHasItsModel, whichever is less busy, and to none if none has it.
func TestRequestGoesToAnAgentThatHasItsModel(t *testing.T) {
	s := newSystem(t, allowAll)
	var mu sync.Mutex
	by := map[string][]string{}
	for _, models := range [][]string{{"phi3"}, {"llama3"}, {"qwen", "phi3"}} {
		name := strings.Join(models, "+")
		s.enrolFake(true, served{"phi3", "model", ""}).serve(tunnel.Interactive, eachRequest(func(_ context.Context, st *tunnel.Stream, h tunnel.Header) {
			readRequest(st)
			if h.Path == "/v1/models" {
				_ = st.WriteReply(tunnel.Reply{OK: true}, []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n"+`{"object":"list","data":[]} `))
				return
			}
			mu.Lock()
			by[h.Model] = append(by[h.Model], name)
			mu.Unlock()
			_ = st.WriteReply(tunnel.Reply{OK: true}, []byte(chatAnswer))
		}), oneModel(models...))
	}
	eventually(t, "all are online", func() bool { n, _ := s.relay.agents.online("phi3"); return n == 3 })
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	for range 12 {
		for _, model := range []string{"phi3", "llama3", "qwen"} {
			if status, code, _ := ask(t, c, model); status != 200 {
				t.Fatalf("%s: %d %s", model, status, code)
			}
		}
	}
	for model, names := range by {
		for _, name := range names {
			if !slices.Contains(strings.Split(name, "+"), model) {
				t.Errorf("%s was asked for %s", name, model)
			}
		}
	}
	r, err := c.Get("http://phi3/v1/models")
	must(t, err)
	defer r.Body.Close()
	var listed struct{ Data []struct{ ID string } }
	must(t, json.NewDecoder(r.Body).Decode(&listed))
	var ids []string
	for _, one := range listed.Data {
		ids = append(ids, one.ID)
	}
	if slices.Sort(ids); !slices.Equal(ids, []string{"llama3", "phi3", "qwen"}) {
		t.Errorf("listed are %v", ids)
	}
	list, err := api(t, s.user(nil).open(tunnel.Interactive)).Resources(within(t))
	must(t, err)
	if got := list.Resources[0].Models; len(got) != 3 {
		t.Errorf("shown are %v", got)
	}
}

// TestDrainingAgentLosesNoRequest stops one of two agents under load: what it no longer takes the other one serves.
func TestDrainingAgentLosesNoRequest(t *testing.T) {
	var upstreams tally
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if id := r.Header.Get("X-Request-Id"); id != "" {
			upstreams.saw(id)
			fmt.Fprint(w, `{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
			return
		}
		fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3","object":"model","owned_by":"vllm"}]}`)
	}))
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll)
	leaving := s.startAs("vllm", up.URL)
	s.startAs("vllm", up.URL)
	session := s.user(nil).open(tunnel.Interactive)
	enough, over := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var group sync.WaitGroup
	var count int
	var mu sync.Mutex
	for range 8 {
		c := client(t, session, tunnel.Header{Resource: "phi3"})
		group.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if status, code, id := ask(t, c, "phi3"); status != 200 {
					t.Errorf("%s: %d %s", id, status, code)
					return
				}
				mu.Lock()
				if count++; count == 50 {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	must(t, leaving.stop())
	close(over)
	group.Wait()
	for id, n := range upstreams.seen {
		if n != 1 {
			t.Errorf("%s was sent %d times", id, n)
		}
	}
}

// TestTCPStreamOpensAtAnAgentWhoseUpstreamIsThere.
func TestTCPStreamOpensAtAnAgentWhoseUpstreamIsThere(t *testing.T) {
	s := newSystem(t, allowAll)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	dead := s.startAgent(served{"db", "tcp", closed.Addr().String()})
	alive := s.startAgent(served{"db", "tcp", echo(t)})
	closed.Close()
	session := s.user(nil).open(tunnel.Bulk)
	for range 10 { // the first may go to either
		st := mustOpen(t, session, "db")
		st.Abort(tunnel.CodeCanceled)
	}
	eventually(t, "ten ends are recorded", func() bool {
		return len(s.events(func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Resource == "db" })) == 10
	})
	for _, e := range s.events(func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Resource == "db" }) {
		if e.Agent != alive.id || e.Detail["tried"] != "" && e.Detail["tried"] != dead.id+" upstream_unreachable" {
			t.Errorf("served by %s, tried %q", e.Agent, e.Detail["tried"])
		}
	}
}
