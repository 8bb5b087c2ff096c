package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/dev"
)

const (
	// shortLife is short enough to be outlived here several times, and long enough that a renewal halfway, and one more after
	// a failure, are no race on a loaded machine.
	shortLife = 8 * time.Second
	// renewals are enough for five tokens to have expired one after the other.
	renewals = 6
)

// connectState is what status and connect say of one resource.
type connectState struct {
	Connections []struct {
		Resource    string
		LoginNeeded bool `json:"login_needed"`
	}
}

// waiting are the resources whose connects wait for a login.
func (u *user) waiting() map[string]bool {
	var doc connectState
	got := u.run("status", "-o", "json") // its exit status tells of the relay, which may want a login too
	_ = json.Unmarshal([]byte(got.out), &doc)
	needed := map[string]bool{}
	for _, c := range doc.Connections {
		needed[c.Resource] = c.LoginNeeded
	}
	return needed
}

// One login's life: its tokens expire under load and nobody notices, though the provider stumbles; then the provider ends it
// (ID-25), and the next one goes on where it was.
func TestID25LoginIsRenewedUnseenAndItsEndIsSeenAtOnce(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{provider: dev.ProviderOptions{IDLifetime: shortLife}})
	up, model := startDemo(t, 100)
	s.startAgent(map[string]string{"phi3=model": up.url, "other=model": up.url})
	u := s.loggedIn("alice")
	c := u.connect("phi3")
	u.ok(nil, "connect", "other", "--detach", "--no-notify")
	defer u.ok(nil, "disconnect", "--all")
	web := newCaller(t, c.url())

	running := web.mustStream("/v1/chat/completions", chatBody("demo", "outlive five tokens", true, endless))
	s.provider.Script(dev.EndpointRefresh, dev.Fault{Pass: true, Times: 2}, dev.Fault{Drop: true}, dev.Fault{Pass: true, Times: 2}, dev.Fault{Status: 500})
	renewedUnderLoad(t, s, c, web, histories(s.records())[running.response.Header.Get("X-Request-Id")].decision.Session)
	if model.Active() != 1 {
		t.Error("the renewals ended the answer")
	}

	s.provider.DisableUser("alice")
	if end := running.rest(); end.done || end.code != "login_required" {
		t.Errorf("the running answer ended with %+v", end)
	}
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	said := c.awaitText(0, `"event":"login_needed"`, 1)
	if strings.Count(said, `"event"`) != 1 || !strings.Contains(said, "A new login is needed") || !strings.Contains(said, `"next":"iapctl login"`) {
		t.Errorf("the terminal reads %s", said)
	}
	for _, path := range []string{"/v1/models", "/v1/messages", "/api/tags"} {
		if got := web.ask("GET", path, ""); got.status != 401 || !strings.Contains(got.body, "iapctl login") {
			t.Errorf("%s of a login that is over: %+v", path, got)
		}
	}
	eventually(t, "status knows, of the process in the background too", func() bool {
		needed := u.waiting()
		return needed["phi3"] && needed["other"]
	})

	s.provider.SetUser(dev.DefaultUsers()[0])
	u.login()
	eventually(t, "requests are served again", func() bool { return web.ask("GET", "/v1/models", "").status == 200 })
	c.awaitText(0, `"event":"logged_in"`, 1)
	eventually(t, "status knows", func() bool {
		needed := u.waiting()
		return len(needed) == 2 && !needed["phi3"] && !needed["other"]
	})
	checkAudit(t, s.awaitSettled(), up.requests())
}

// renewedUnderLoad sends requests until the session has been renewed often enough: none may fail or come by another one.
func renewedUnderLoad(t *testing.T, s *system, c *connection, web *caller, session string) {
	t.Helper()
	stop := make(chan struct{})
	var load sync.WaitGroup
	sent := make([]int, 3)
	for i := range sent {
		load.Go(func() {
			for ; ; sent[i]++ {
				select {
				case <-stop:
					return
				default:
				}
				got, err := web.tryAsk("POST", "/v1/chat/completions", chatBody("demo", fmt.Sprintf("load %d.%d", i, sent[i]), false, 1))
				if err != nil || got.status != 200 {
					t.Errorf("request %d: %v %+v", sent[i], err, got)
					return
				}
			}
		})
	}
	eventually(t, fmt.Sprintf("the session was renewed %d times", renewals), func() bool {
		n := 0
		for _, e := range s.records() {
			if e.Kind == audit.KindSession && e.Reason == "refreshed" && e.Session == session {
				n++
			}
		}
		return n >= renewals
	})
	close(stop)
	load.Wait()
	t.Logf("%d requests over %d renewals", sent[0]+sent[1]+sent[2], renewals)
	if text := c.err.text(); text != "" {
		t.Errorf("the user was troubled with a renewal: %s", text)
	}
	for _, h := range histories(s.records()) {
		if isRequest(h.decision) && h.decision.Session != session {
			t.Errorf("a request came by another session: %+v", h.decision)
		}
	}
}

func TestWhatProvidersDropAtRefreshIsRememberedOfTheLogin(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{
		config:   func(text string) string { return text + "\nsessions: {max_token_age: " + shortLife.String() + "}\n" },
		provider: dev.ProviderOptions{DropAtRefresh: []string{"amr", "auth_time"}},
		grants:   strings.Replace(usualGrants, "actions:", "require: {mfa: true, max_auth_age: 12h}\n    actions:", 1),
	})
	up, _ := startDemo(t, 5)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "outlive a session", true, endless))
	session := histories(s.records())[running.response.Header.Get("X-Request-Id")].decision.Session
	s.awaitRecord("the session was renewed", func(e audit.Event) bool {
		return e.Kind == audit.KindSession && e.Reason == "refreshed" && e.Session == session
	})
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "after a renewal", false, 2)); got.status != 200 {
		t.Errorf("after a renewal: %+v", got)
	}
	running.close()
}
