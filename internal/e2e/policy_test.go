package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/audit"
)

// nobodysGrants are usualGrants for a group that nobody is in.
var nobodysGrants = strings.ReplaceAll(usualGrants, "group:dev/ml-eng", "group:dev/nobody")

func TestPolicyLetsTheOneInAndKeepsTheOtherOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: strings.Replace(usualGrants, "actions:", "models: [demo]\n    actions:", 1)})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})

	bob := s.loggedIn("bob")
	bob.fails(5, "unknown_resource", "connect", "phi3")
	var who struct {
		Lines  []string
		Grants int
	}
	bob.ok(&who, "whoami")
	if who.Grants != 0 || !strings.Contains(strings.Join(who.Lines, " "), "user:dev/bob") {
		t.Errorf("bob's whoami = %+v", who)
	}

	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "allowed", false, 2)); got.status != 200 {
		t.Errorf("alice asks the model she may: %+v", got)
	}
	for path, body := range map[string]string{
		"/v1/chat/completions": chatBody("other", "denied", false, 2),
		"/api/chat":            `{"model":"other","messages":[{"role":"user","content":"denied"}]}`,
	} {
		got := web.ask("POST", path, body)
		if got.status != 403 || got.code() != "model_not_granted" || !strings.HasPrefix(got.header.Get("X-Iap-Decision"), "deny") {
			t.Errorf("%s with a model she may not: %+v", path, got)
		}
	}
	if n := up.count("denied"); n != 0 {
		t.Errorf("the upstream saw %d denied requests", n)
	}
	s.awaitRecord("the denial", func(e audit.Event) bool {
		return e.Decision == audit.Deny && e.Reason == "model_not_granted" && e.Principal == "dev/alice"
	})
}

func TestEditedGrantsActOnRunningAnswersAndNewRequests(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, model := startDemo(t, 20)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	openAI := web.mustStream("/v1/chat/completions", chatBody("demo", "openai", true, endless))
	native := web.mustStream("/api/chat", `{"model":"demo","ignore_eos":true,"options":{"num_predict":90000},"messages":[{"role":"user","content":"native"}]}`)

	s.write(s.grants, nobodysGrants)
	for name, answer := range map[string]*live{"SSE": openAI, "NDJSON": native} {
		if end := answer.rest(); end.done || end.code != "policy_changed" {
			t.Errorf("the running %s answer ended with %+v, want an error of its protocol", name, end)
		}
	}
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "afterwards", false, 2)); got.status != 403 || got.code() == "" {
		t.Errorf("a new request: %+v", got)
	}
	if up.count("afterwards") != 0 {
		t.Error("a denied request reached the upstream")
	}
	s.write(s.grants, usualGrants)
	eventually(t, "the grant is back", func() bool {
		return web.ask("POST", "/v1/chat/completions", chatBody("demo", "again", false, 2)).status == 200
	})
	for _, h := range histories(s.awaitSettled()) {
		if h.decision.Action == "chat" && h.outcomes[0].Ended == "client_gone" {
			t.Errorf("outcome %+v blames the client", h.outcomes[0])
		}
	}
}

func TestBrokenGrantsChangeNothingAndSayWhere(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 20)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "running", true, endless))

	mark := s.relay.err.mark()
	s.write(s.grants, strings.Replace(usualGrants, "actions:", "acctions:", 1))
	line := strings.Count(usualGrants[:strings.Index(usualGrants, "actions:")], "\n") + 1
	place := fmt.Sprintf("%s:%d", filepath.Base(s.grants), line)
	said := s.relay.awaitText(mark, "policy not reloaded", 1)
	if !strings.Contains(said, place) || !strings.Contains(said, "acctions") {
		t.Errorf("the relay's log does not name %s: %s", place, said)
	}
	checked := run(t, baseEnv(s.dir), "iap-relay", "check", "--config", s.config)
	if text := checked.out + checked.errOut; checked.code != 1 || !strings.Contains(text, place) || !strings.Contains(text, "actions") {
		t.Errorf("iap-relay check: %d, does not name %s or the nearest word: %s", checked.code, place, text)
	}
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "still", false, 2)); got.status != 200 {
		t.Errorf("under the old policy: %+v", got)
	}
	running.close()
	mark = s.relay.err.mark()
	s.write(s.grants, usualGrants)
	s.relay.awaitText(mark, "policy loaded", 1)
	if checked := run(t, baseEnv(s.dir), "iap-relay", "check", "--config", s.config); checked.code != 0 {
		t.Errorf("iap-relay check of good files: %d %s%s", checked.code, checked.out, checked.errOut)
	}
}
