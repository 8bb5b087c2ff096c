package e2e

import (
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/dev"
)

// shortLife is short enough to be outlived here, and long enough that a renewal in its last fifth is no race on a
// loaded machine.
const shortLife = 20 * time.Second

func TestSessionIsRenewedInPlaceUnderARunningAnswer(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{
		config: func(text string) string { return text + "\nsessions: {max_age: " + shortLife.String() + "}\n" },
		// What providers drop at refresh is remembered of the login.
		provider: dev.ProviderOptions{DropAtRefresh: []string{"amr", "auth_time"}},
		grants:   strings.Replace(usualGrants, "actions:", "require: {mfa: true, max_auth_age: 12h}\n    actions:", 1),
	})
	up, model := startDemo(t, 5)
	s.startAgent(map[string]string{"phi3=model": up.url})
	c := s.loggedIn("alice").connect("phi3")
	web := newCaller(t, c.url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "outlive a session", true, endless))
	session := histories(s.records())[running.response.Header.Get("X-Request-Id")].decision.Session

	s.awaitRecord("the session was renewed", func(e audit.Event) bool {
		return e.Kind == audit.KindSession && e.Reason == "refreshed" && e.Session == session
	})
	if model.Active() != 1 {
		t.Error("the renewal ended the answer")
	}
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "after a renewal", false, 2)); got.status != 200 {
		t.Errorf("after a renewal: %+v", got)
	}
	if text := c.err.text(); text != "" {
		t.Errorf("the user was troubled with a renewal: %s", text)
	}
	running.close()
	for _, h := range histories(s.awaitSettled()) {
		if isRequest(h.decision) && h.decision.Session != session {
			t.Errorf("a request came by another session: %+v", h.decision)
		}
	}
}

func TestSessionEndsWithItsTokenWhenTheProviderGivesNoOther(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{provider: dev.ProviderOptions{IDLifetime: shortLife}})
	up, model := startDemo(t, 5)
	s.startAgent(map[string]string{"phi3=model": up.url})
	c := s.loggedIn("alice").connect("phi3")
	web := newCaller(t, c.url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "outlive a token", true, endless))
	s.provider.DisableUser("alice")
	if end := running.rest(); end.done || end.code != "session_expired" {
		t.Errorf("the running answer ended with %+v", end)
	}
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	c.awaitText(0, "new login is needed", 1)
	eventually(t, "the listener asks for a login", func() bool {
		got := web.ask("GET", "/v1/models", "")
		return got.status == 401 && got.code() == "login_required" && strings.Contains(got.body, "iapctl login")
	})
}
