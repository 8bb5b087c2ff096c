package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"iap/internal/agent"
	"iap/internal/audit"
	"iap/policy"
	"iap/tunnel"
)

// grantsWith lets the engineers do everything within limits.
func grantsWith(limits string) string {
	return strings.TrimSuffix(allowAll, "\n") + "\n    limits: " + limits + "\n"
}

// newOllama is a system whose one resource is a server that calls itself Ollama; what it answers to is the test's.
func newOllama(t *testing.T, grants string, answer http.HandlerFunc) *system {
	t.Helper()
	up := httptest.NewServer(ollama(answer))
	t.Cleanup(up.Close)
	s := newSystem(t, grants)
	s.startAs("ollama", up.URL)
	return s
}

// ollama answers an agent's probes and leaves the rest to answer.
func ollama(answer http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		isProbe := r.Header.Get("X-Request-Id") == ""
		switch {
		case !isProbe:
			answer(w, r)
		case r.URL.Path == "/api/version":
			fmt.Fprint(w, `{"version":"0.12.0"}`)
		case r.URL.Path == "/api/tags":
			fmt.Fprint(w, `{"models":[{"name":"phi3:latest","model":"phi3:latest"},{"name":"llama3:latest","model":"llama3:latest"}]}`)
		case r.URL.Path == "/v1/models":
			fmt.Fprint(w, `{"object":"list","data":[{"id":"phi3:latest","object":"model","owned_by":"library"},{"id":"llama3:latest","object":"model","owned_by":"library"}]}`)
		default:
			http.NotFound(w, r)
		}
	}
}

// startAs runs an agent for phi3 that is told what server it has.
func (s *system) startAs(server, upstream string, lines ...string) *runningAgent {
	s.t.Helper()
	resource := served{"phi3", "model", upstream}
	file := filepath.Join(s.dir, fmt.Sprintf("agent-%d", time.Now().UnixNano()), "agent.yaml")
	joined, err := agent.Join(within(s.t), agent.JoinOptions{
		Token: s.joinToken(true, resource).Token, Config: file, CAFile: s.caFile, Upstreams: map[string]string{"phi3": upstream},
	})
	must(s.t, err)
	text, err := os.ReadFile(file)
	must(s.t, err)
	line := fmt.Sprintf("upstream: %q", upstream)
	more := line + "\n    server: " + server
	for _, one := range lines {
		more += "\n    " + one
	}
	changed := strings.Replace(string(text), line, more, 1)
	if changed == string(text) {
		s.t.Fatalf("agent.yaml names no upstream: %s", text)
	}
	must(s.t, os.WriteFile(file, []byte(changed), 0o600))
	a := s.runAgent(file)
	a.id = joined.AgentID
	s.awaitOnline(a.id, 2)
	return a
}

// endless streams pieces of an answer until the caller is cut off, whatever length was asked for.
func endless(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	kind, first, piece := "text/event-stream", "", `data: {"choices":[{"index":0,"delta":{"content":"word"}}]}`+"\n\n"
	switch r.URL.Path {
	case "/v1/messages":
		first = "event: message_start\n" + `data: {"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":9,"output_tokens":1}}}` + "\n\n"
		piece = "event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word"}}` + "\n\n"
	case "/v1/responses":
		first = "event: response.created\n" + `data: {"type":"response.created","response":{"id":"resp_1","status":"in_progress"}}` + "\n\n"
		piece = "event: response.output_text.delta\n" + `data: {"type":"response.output_text.delta","delta":"word"}` + "\n\n"
	case "/api/chat":
		kind, piece = "application/x-ndjson", `{"model":"phi3","message":{"role":"assistant","content":"word"},"done":false}`+"\n"
	}
	w.Header().Set("Content-Type", kind)
	_, _ = io.WriteString(w, first)
	for r.Context().Err() == nil {
		if _, err := io.WriteString(w, piece); err != nil {
			return
		}
		w.(http.Flusher).Flush()
	}
}

// ask sends a chat in one of the dialects and returns its answer, and how reading it ended.
func chatOver(t *testing.T, c *http.Client, path, model string) (*http.Response, string, error) {
	t.Helper()
	body := fmt.Sprintf(`{"model":%q,"stream":true,"messages":[{"role":"user","content":"hello"}]}`, model)
	if path == "/v1/responses" {
		body = fmt.Sprintf(`{"model":%q,"stream":true,"input":"hello"}`, model)
	}
	if path == "/v1/messages" {
		body = strings.TrimSuffix(body, "}") + `,"max_tokens":5000}`
	}
	r, err := c.Post("http://phi3"+path, "application/json", strings.NewReader(body))
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	return r, string(text), err
}

func TestAStreamThatRunsOutOfBudgetEndsInItsOwnProtocol(t *testing.T) {
	const spent = `budget_exceeded`
	for path, want := range map[string]string{
		"/v1/chat/completions": `data: {"error":{"message":"`,
		"/v1/messages":         "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\"",
		"/v1/responses":        "event: error\ndata: {\"type\":\"error\",\"code\":\"budget_exceeded\"",
		"/api/chat":            "\n{\"error\":\"",
	} {
		t.Run(path, func(t *testing.T) {
			s := newOllama(t, grantsWith(`{tokens: 300/1h, contact: "#ml-platform"}`), endless)
			c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
			r, text, err := chatOver(t, c, path, "phi3")
			if err == nil {
				t.Error("a cut answer ended cleanly")
			}
			at := strings.LastIndex(text, want)
			if r.StatusCode != 200 || at < 0 || !strings.Contains(text[at:], spent) || !strings.Contains(text[at:], "300 tokens/1h of grant engineers") || !strings.Contains(text[at:], "#ml-platform") {
				t.Fatalf("%s: got %d, ending %q", path, r.StatusCode, text[max(0, len(text)-400):])
			}
			if got := r.Header.Get("X-Ratelimit-Limit-Tokens"); got != "300" {
				t.Errorf("x-ratelimit-limit-tokens %q", got)
			}
			e := s.awaitEvent("the outcome", func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Usage != "" })
			// This server sends hundreds of tokens in one piece: what was generated is charged.
			if e.Ended != spent || e.TokensOut < 250 || e.TokensIn < 9 {
				t.Errorf("outcome %+v", e)
			}
			// The next one is refused before anything is sent.
			r, text, _ = chatOver(t, c, path, "phi3")
			if r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" || r.Header.Get("X-Ratelimit-Remaining-Tokens") != "0" || !strings.Contains(text, spent) {
				t.Errorf("then got %d %v %s", r.StatusCode, r.Header, text)
			}
		})
	}
}

// counted answers at once and says that it cost n tokens of output.
func counted(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"c","choices":[{"index":0,"message":{"content":"hi"}}],"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}`, n, n+10)
	}
}

func TestBudgetsSurviveARestart(t *testing.T) {
	s := newOllama(t, grantsWith(`{tokens: 1000/1h}`), counted(900))
	u := s.user(nil)
	c := client(t, u.open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	r, err := postChat(c, chatBody("phi3", false))
	must(t, err)
	r.Body.Close()
	s.awaitEvent("the outcome", func(e audit.Event) bool { return e.TokensOut == 900 && e.Usage == "provider" })
	must(t, s.end())
	s.start()
	eventually(t, "the agent is back", func() bool { n, a := s.relay.agents.online("phi3"); return n > 0 && a.Healthy })
	c = client(t, u.open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	r, err = postChat(c, `{"model":"phi3","max_tokens":500,"messages":[{"role":"user","content":"hello"}]}`)
	must(t, err)
	defer r.Body.Close()
	if text, _ := io.ReadAll(r.Body); r.Header.Get("X-Ratelimit-Limit-Tokens") != "1000" || len(r.Header.Get("X-Ratelimit-Remaining-Tokens")) > 2 {
		t.Errorf("after the restart got %d %v %s", r.StatusCode, r.Header, text)
	}
}

func TestACapReachesTheModelServer(t *testing.T) {
	caps := make(chan string, 1)
	s := newOllama(t, grantsWith(`{max_output_tokens: 77}`), func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		_ = json.NewDecoder(r.Body).Decode(&body)
		caps <- fmt.Sprint(body["max_tokens"], body["user"] == nil || body["user"] == "corp/alice")
		counted(3)(w, r)
	})
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	for _, asked := range []string{``, `,"max_tokens":5000`, `,"max_tokens":78`} {
		r, err := postChat(c, `{"model":"phi3","user":"somebody","messages":[{"role":"user","content":"hello"}]`+asked+`}`)
		must(t, err)
		r.Body.Close()
		if got := <-caps; !strings.HasPrefix(got, "77 ") {
			t.Errorf("with %q the server saw max_tokens and user %s", asked, got)
		}
	}
}

func TestAGroupSharesItsCounter(t *testing.T) {
	s := newOllama(t, grantsWith(`[{requests: 2/1h, per: group}, {requests: 100/1h}]`), counted(3))
	status := func(u *user) int {
		r, err := postChat(client(t, u.open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}), chatBody("phi3", false))
		must(t, err)
		r.Body.Close()
		return r.StatusCode
	}
	alice, bob := s.user(nil), s.user(map[string]any{"sub": "bob"})
	if a, b, c := status(alice), status(bob), status(alice); a != 200 || b != 200 || c != http.StatusTooManyRequests {
		t.Errorf("got %d, %d, %d; want the third of the group refused", a, b, c)
	}
}

func TestALimitThatWarnsRefusesNothingAndTells(t *testing.T) {
	s := newOllama(t, grantsWith(`{requests: 2/1h, mode: warn}`), counted(3))
	notices := make(chan tunnel.Notice, 8)
	u := s.user(nil)
	session, err := s.dial(tunnel.ClientConfig{
		Role: tunnel.RoleUser, Class: tunnel.Interactive, Key: u.key, OnNotice: func(n tunnel.Notice) { notices <- n },
		Token: func(context.Context) (string, error) { return u.token(), nil },
	})
	must(t, err)
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	c := client(t, session, tunnel.Header{Resource: "phi3"})
	for range 4 {
		r, err := postChat(c, chatBody("phi3", false))
		must(t, err)
		r.Body.Close()
		if r.StatusCode != 200 {
			t.Errorf("got %d", r.StatusCode)
		}
	}
	e := s.awaitEvent("the notice", func(e audit.Event) bool { return e.Kind == audit.KindLimit && e.Reason == "used_100" })
	if e.Principal != "corp/alice" || e.Grant != "engineers" || e.Detail["mode"] != "warn" {
		t.Errorf("notice %+v", e)
	}
	select {
	case n := <-notices:
		if n.Kind != "limit" || !strings.Contains(n.Text, "engineers") {
			t.Errorf("the person reads %+v", n)
		}
	case <-within(t).Done():
		t.Error("the person was told nothing")
	}
}

func TestTooManyAtOnceAreRefusedAndFreedAgain(t *testing.T) {
	slow := newSlowChat()
	s := newOllama(t, grantsWith(`{concurrent: 1}`), slow.serve)
	c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	first, err := postChat(c, chatBody("phi3", true))
	must(t, err)
	<-slow.begun
	second, err := postChat(c, chatBody("phi3", true))
	must(t, err)
	text, _ := io.ReadAll(second.Body)
	second.Body.Close()
	if second.StatusCode != http.StatusTooManyRequests || !strings.Contains(string(text), "concurrency_exceeded") {
		t.Errorf("the second got %d %s", second.StatusCode, text)
	}
	close(slow.release)
	_, _ = io.Copy(io.Discard, first.Body)
	first.Body.Close()
	eventually(t, "the place is free again", func() bool {
		r, err := postChat(c, chatBody("phi3", true))
		must(t, err)
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode == 200
	})
}

func TestATCPStreamIsOneRequestAndOneAtOnce(t *testing.T) {
	s := newSystem(t, grantsWith(`{requests: 2/1h, concurrent: 1}`))
	s.startAgent(served{"db", "tcp", echo(t)})
	session := s.user(nil).open(tunnel.Bulk)
	first := mustOpen(t, session, "db")
	st, reply, err := openStream(within(t), session, tunnel.Header{Resource: "db"})
	must(t, err)
	st.Abort(tunnel.CodeCanceled)
	if reply.OK || reply.Code != tunnel.CodeLimitReached.String() || !strings.Contains(reply.Message, "concurrency_exceeded") {
		t.Errorf("a second at once: %+v", reply)
	}
	first.Abort(tunnel.CodeCanceled)
	eventually(t, "the place is free again", func() bool {
		st, reply, err := openStream(within(t), session, tunnel.Header{Resource: "db"})
		must(t, err)
		st.Abort(tunnel.CodeCanceled)
		return reply.OK
	})
	eventually(t, "the window is used up", func() bool {
		st, reply, err := openStream(within(t), session, tunnel.Header{Resource: "db"})
		must(t, err)
		st.Abort(tunnel.CodeCanceled)
		return !reply.OK && strings.Contains(reply.Message, "rate_limited")
	})
}

func TestRulesFollowTheDecision(t *testing.T) {
	limits := func(per string) policy.Limits {
		return policy.Limits{Requests: []policy.Rate{{N: 60, Per: time.Minute}}, Tokens: []policy.Rate{{N: 9, Per: time.Hour}}, Per: per, Mode: policy.ModeEnforce, Contact: "#ml"}
	}
	for name, try := range map[string]struct {
		per, group string
		wantPer    string
		wantWho    string
	}{
		"a principal's":            {policy.PerPrincipal, "corp/ml", policy.PerPrincipal, "corp/ann"},
		"a group's":                {policy.PerGroup, "corp/ml", policy.PerGroup, "corp/ml"},
		"a group's, without one":   {policy.PerGroup, "", policy.PerPrincipal, "corp/ann"},
		"everybody's of the grant": {policy.PerGrant, "corp/ml", policy.PerGrant, ""},
	} {
		d := policy.Decision{Grant: "g", Group: try.group, Limits: []policy.Limits{limits(try.per), {Tokens: limits("").Tokens, Mode: policy.ModeWarn}}}
		with, without := rulesOf(d, "corp/ann", true), rulesOf(d, "corp/ann", false)
		if len(with) != 2 || with[0].Per != try.wantPer || with[0].Who != try.wantWho || with[0].Grant != "g" || with[0].Contact != "#ml" || len(with[0].Tokens) != 1 || with[0].Warn || !with[1].Warn {
			t.Errorf("%s: %+v", name, with)
		}
		if len(without) != 1 || len(without[0].Tokens) != 0 || len(without[0].Requests) != 1 {
			t.Errorf("%s, of what costs no tokens: %+v", name, without)
		}
	}
}

func TestAWebResourceIsHeldToRequestsAndNotToTokens(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "ok") }))
	t.Cleanup(up.Close)
	s := newSystem(t, grantsWith(`{requests: 3/1h, tokens: 1/1h}`))
	s.startAgent(served{"web", "http", up.URL})
	c := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
	var got []int
	for range 4 {
		r, err := c.Get("http://web/page")
		must(t, err)
		r.Body.Close()
		got = append(got, r.StatusCode)
	}
	if want := []int{200, 200, 200, 429}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
