package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"iap/internal/audit"
)

const (
	manyStreams = 50
	endless     = 90_000 // tokens: longer than any test
)

// openMany opens n streams at once, each with a prompt of its own.
func openMany(t *testing.T, web *caller, n int) []*live {
	t.Helper()
	all := make([]*live, n)
	errs := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			all[i], errs[i] = web.stream("/v1/chat/completions", chatBody("demo", fmt.Sprintf("stream number %d.", i), true, endless))
		})
	}
	group.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	return all
}

// restOfAll reads every stream to its end.
func restOfAll(all []*live) []ending {
	ends := make([]ending, len(all))
	var group sync.WaitGroup
	for i, s := range all {
		group.Go(func() { ends[i] = s.rest() })
	}
	group.Wait()
	return ends
}

func TestRelayKilledUnderLiveStreams(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, model := startDemo(t, 5)
	a := s.startAgent(map[string]string{"phi3=model": up.url})
	c := s.loggedIn("alice").connect("phi3")
	web := newCaller(t, c.url())
	streams := openMany(t, web, manyStreams)

	agentMark, userMark := a.err.mark(), c.err.mark()
	s.relay.kill()
	for i, end := range restOfAll(streams) {
		if !end.visible() {
			t.Errorf("stream %d of a killed relay ended as if it were whole: %+v", i, end)
		}
	}
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	open := openDecisions(s.records())
	if len(open) < manyStreams {
		t.Errorf("%d open decisions in the log of the killed relay, want at least %d", len(open), manyStreams)
	}

	s.startRelay()
	a.awaitConnected(agentMark)
	c.awaitText(userMark, "The relay is back.", 1)
	for i := range 5 {
		if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", fmt.Sprintf("afterwards %d.", i), false, 3)); got.status != 200 {
			t.Errorf("request %d after the restart: %+v", i, got)
		}
	}
	for i := range manyStreams {
		if n := up.count(fmt.Sprintf("stream number %d.", i)); n != 1 {
			t.Errorf("the upstream saw request %d %d times", i, n)
		}
	}
	found := histories(s.awaitSettled())
	for id := range open {
		if h := found[id]; len(h.outcomes) != 1 || h.outcomes[0].Ended != audit.EndedRelayLost {
			t.Errorf("%s was open when the relay was killed; its outcomes: %+v", id, h.outcomes)
		}
	}
	checkAudit(t, s.records(), up.requests())
}

// openDecisions are the requests that have no outcome yet.
func openDecisions(all []audit.Event) map[string]bool {
	open := map[string]bool{}
	for id, h := range histories(all) {
		if len(h.outcomes) == 0 {
			open[id] = true
		}
	}
	return open
}

// A request that comes while the relay is away waits for it, through the listener that was there before.
func TestRequestWaitsForARelayThatRestarts(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	c := s.loggedIn("alice").connect("phi3")
	web := newCaller(t, c.url())
	if got := web.ask("GET", "/v1/models", ""); got.status != 200 {
		t.Fatalf("before: %+v", got)
	}
	mark := c.err.mark()
	s.relay.kill()
	c.awaitText(mark, "Trying again", 1)
	waiting := make(chan answer, 1)
	go func() {
		got, _ := web.tryAsk("GET", "/v1/models", "") // an error leaves status 0
		waiting <- got
	}()
	s.startRelay()
	switch got := <-waiting; {
	case got.status == 200:
	case got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "" && got.code() != "":
		// The user was back before the agent: a typed answer that says when to come again.
	default:
		t.Errorf("a request during the restart: %+v", got)
	}
	eventually(t, "the model answers again", func() bool { return web.ask("GET", "/v1/models", "").status == 200 })
}

func TestAgentKilledMidAnswer(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, model := startDemo(t, 20)
	a := s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	answer := web.mustStream("/v1/chat/completions", chatBody("demo", "killed agent", true, endless))
	mark := s.relay.err.mark()
	a.kill()
	if end := answer.rest(); !end.visible() || end.code != "agent_lost" {
		t.Errorf("the answer of a killed agent ended with %+v", end)
	}
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	s.relay.awaitText(mark, "agent disconnected", 2)
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "nobody there", false, 1)); got.status != 503 || got.code() != "agent_offline" || got.header.Get("Retry-After") == "" {
		t.Errorf("without an agent: %+v", got)
	}
	a.start()
	eventually(t, "the agent serves again", func() bool { return web.ask("GET", "/v1/models", "").status == 200 })
	if n := up.count("killed agent") + up.count("nobody there"); n != 1 {
		t.Errorf("the upstream saw %d requests, want the first alone", n)
	}
	s.awaitRecord("the agent was lost", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Ended == "agent_lost" })
	checkAudit(t, s.awaitSettled(), up.requests())
}

func TestModelStopsWhenItsReaderLeaves(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, model := startDemo(t, 20)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	for name, request := range map[string][2]string{
		"openai": {"/v1/chat/completions", chatBody("demo", "left", true, endless)},
		"ollama": {"/api/chat", `{"model":"demo","ignore_eos":true,"options":{"num_predict":90000},"messages":[{"role":"user","content":"left"}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			answer := web.mustStream(request[0], request[1])
			if model.Active() != 1 {
				t.Errorf("%d generations run, want 1", model.Active())
			}
			answer.close()
			eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
		})
	}
	for _, h := range histories(s.awaitSettled()) {
		if h.decision.Action == "chat" && h.outcomes[0].Ended != "client_gone" {
			t.Errorf("outcome %+v", h.outcomes[0])
		}
	}
}

// brokenTricks are answers that end in the middle, each in its own framing.
var brokenTricks = map[string]trick{
	"sse-reset": func(w http.ResponseWriter, _ <-chan struct{}) {
		for i := range 10 {
			say(w, "text/event-stream", chunk(fmt.Sprint("word ", i)))
		}
		reset(w)
	},
	"sse-short": func(w http.ResponseWriter, _ <-chan struct{}) {
		say(w, "text/event-stream", chunk("word"))
		panic(http.ErrAbortHandler) // a FIN without the last chunk
	},
	"sse-torn": func(w http.ResponseWriter, _ <-chan struct{}) {
		say(w, "text/event-stream", chunk("word")+`data: {"id":"c","obj`)
		reset(w)
	},
	"ndjson-reset": func(w http.ResponseWriter, _ <-chan struct{}) {
		say(w, "application/x-ndjson", `{"model":"m","message":{"role":"assistant","content":"word"},"done":false}`+"\n")
		reset(w)
	},
	"length-reset": func(w http.ResponseWriter, _ <-chan struct{}) {
		w.Header().Set("Content-Length", "1000")
		say(w, "application/json", `{"id":"c","object":"chat.completion","choices":[{"message":{"role":"assistant","content":"wo`)
		reset(w)
	},
}

func TestUpstreamThatBreaksOffIsSeenToBreakOff(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up := startScripted(t, false, brokenTricks)
	ollama := startScripted(t, true, brokenTricks)
	s.startAgent(map[string]string{"phi3=model": up.url, "llama=model": ollama.url})
	c := s.loggedIn("alice").connectAll("phi3", "llama")
	web, native := newCaller(t, c.report.Connections[0].URL), newCaller(t, c.report.Connections[1].URL)

	for _, name := range []string{"sse-reset", "sse-short", "sse-torn"} {
		end := web.mustStream("/v1/chat/completions", chatBody(name, name, true, 5)).rest()
		if !end.visible() || end.code != "upstream_reset" {
			t.Errorf("%s ended with %+v", name, end)
		}
	}
	end := native.mustStream("/api/chat", `{"model":"ndjson-reset","messages":[{"role":"user","content":"ndjson-reset"}]}`).rest()
	if !end.visible() || end.code != "upstream_reset" {
		t.Errorf("ndjson-reset ended with %+v", end)
	}
	got, err := web.tryAsk("POST", "/v1/chat/completions", chatBody("length-reset", "length-reset", false, 5))
	if err == nil {
		t.Errorf("length-reset ended cleanly: %+v", got)
	}
	broken := 0
	for _, h := range histories(s.awaitSettled()) {
		if h.decision.Action == "chat" && h.outcomes[0].Ended == "upstream_reset" {
			broken++
		}
	}
	if broken != len(brokenTricks) {
		t.Errorf("%d outcomes say upstream_reset, want %d", broken, len(brokenTricks))
	}
	for name := range brokenTricks {
		if n := up.count(`"content":"`+name+`"`) + ollama.count(`"content":"`+name+`"`); n != 1 {
			t.Errorf("the upstream saw %s %d times", name, n)
		}
	}
}

func TestUpstreamThatHangs(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	var hanging sync.WaitGroup
	arrived, goOn := make(chan struct{}, 8), make(chan struct{})
	up := startScripted(t, false, map[string]trick{
		"hang": func(_ http.ResponseWriter, gone <-chan struct{}) {
			hanging.Add(1)
			defer hanging.Done()
			arrived <- struct{}{}
			<-gone
		},
		"think": func(w http.ResponseWriter, _ <-chan struct{}) {
			arrived <- struct{}{}
			<-goOn // no byte, not even a head
			say(w, "text/event-stream", chunk("thought")+"data: [DONE]\n\n")
		},
		"pause": func(w http.ResponseWriter, _ <-chan struct{}) {
			say(w, "text/event-stream", chunk("first"))
			<-goOn
			say(w, "text/event-stream", chunk("second")+"data: [DONE]\n\n")
		},
	})
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())

	t.Run("a client that gives up frees it", func(t *testing.T) { giveUp(t, web, arrived, &hanging) })
	t.Run("a client that waits gets its answer", func(t *testing.T) {
		paused := web.mustStream("/v1/chat/completions", chatBody("pause", "pause", true, 5))
		thought := make(chan error, 1)
		go func() {
			answer, err := web.stream("/v1/chat/completions", chatBody("think", "think", true, 5))
			if err == nil {
				if end := answer.rest(); !end.done || end.err != nil {
					err = fmt.Errorf("ended with %+v", end)
				}
			}
			thought <- err
		}()
		<-arrived
		// What is silent is alive: the relay pings, and nothing of it ends a stream.
		for range 3 {
			if got := web.ask("GET", "/v1/models", ""); got.status != 200 {
				t.Errorf("beside silent streams: %+v", got)
			}
		}
		close(goOn)
		if end := paused.rest(); !end.done || end.err != nil {
			t.Errorf("the paused answer ended with %+v", end)
		}
		if err := <-thought; err != nil {
			t.Errorf("the late answer: %v", err)
		}
	})
	checkAudit(t, s.awaitSettled(), up.requests())
}

func giveUp(t *testing.T, web *caller, arrived <-chan struct{}, hanging *sync.WaitGroup) {
	ctx, cancel := limited(t)
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		response, err := web.do(ctx, http.MethodPost, "/v1/chat/completions", chatBody("hang", "hang", true, 5))
		if err == nil {
			response.Body.Close()
			err = fmt.Errorf("answered %s", response.Status)
		}
		failed <- err
	}()
	<-arrived
	cancel()
	if err := <-failed; !strings.Contains(err.Error(), "canceled") {
		t.Errorf("the client got %v", err)
	}
	hanging.Wait() // the upstream's handler saw its client leave
}

// A client keeps its connection; who serves behind it, and with which server, is a question of each request.
func TestConnectionFromBeforeTheAgentCameIsServedOnceItIsThere(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	a := s.enrol(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	if got := web.ask("GET", "/v1/models", ""); got.status != 503 || got.code() != "agent_offline" {
		t.Fatalf("before the agent: %+v", got)
	}
	a.start()
	for _, path := range []string{"/v1/models", "/api/tags"} {
		eventually(t, path+" is served", func() bool { return web.ask("GET", path, "").status == 200 })
	}
}

func TestSecondAgentOfANameTakesOverFromTheFirst(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	agents := []*agent{s.startAgent(map[string]string{"phi3=model": up.url}), s.startAgent(map[string]string{"phi3=model": up.url})}
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	served := map[string]bool{}
	eventually(t, "both agents have served", func() bool {
		if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "either", false, 1)); got.status != 200 {
			t.Fatalf("with two agents: %+v", got)
		}
		for _, h := range histories(s.awaitSettled()) {
			if isRequest(h.decision) {
				served[h.outcomes[0].Agent] = true
			}
		}
		return len(served) == len(agents)
	})
	mark := s.relay.err.mark()
	agents[0].kill()
	s.relay.awaitText(mark, "agent disconnected", 2)
	for range 10 {
		if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "the other", false, 1)); got.status != 200 {
			t.Errorf("with one agent left: %+v", got)
		}
	}
}
