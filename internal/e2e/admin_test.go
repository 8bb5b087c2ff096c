package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"iap/internal/admin"
	"iap/internal/audit"
)

func TestRevokedAgentIsCutAndStaysOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, model := startDemo(t, 20)
	a := s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "running", true, endless))
	list := s.agents()
	if len(list) != 1 || !list[0].Online || list[0].Sessions != 2 || list[0].Resources[0].Name != "phi3" {
		t.Fatalf("agents = %+v", list)
	}

	s.admin(nil, "agents", "revoke", list[0].ID)
	if end := running.rest(); !end.visible() {
		t.Errorf("the answer of a revoked agent ended with %+v", end)
	}
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	if code := a.wait(); code != 1 || !strings.Contains(a.err.text(), "join") {
		t.Errorf("a revoked agent ends with %d and says: %s", code, a.err.tail())
	}
	if got := web.ask("GET", "/v1/models", ""); got.status == 200 || got.code() == "" {
		t.Errorf("after the revocation: %+v", got)
	}
	if again := run(t, a.env, "iap-agent", "run", "--config", a.config); again.code != 1 {
		t.Errorf("a revoked agent starts again: %+v", again)
	}
	if list = s.agents(); list[0].Online || list[0].Revoked == nil {
		t.Errorf("agents = %+v", list)
	}
	s.awaitRecord("the revocation by local:root", func(e audit.Event) bool {
		return e.Kind == audit.KindAdmin && e.Principal == "local:root" && e.Action == "iap:agents.revoke"
	})
	// What was revoked stays revoked, and its name is free for another.
	s.relay.kill()
	s.startRelay()
	if again := run(t, a.env, "iap-agent", "run", "--config", a.config); again.code != 1 {
		t.Errorf("a revoked agent comes back after a restart: %+v", again)
	}
	s.startAgent(map[string]string{"phi3=model": up.url})
	eventually(t, "the new agent serves", func() bool { return web.ask("GET", "/v1/models", "").status == 200 })
}

func TestKilledSessionEndsItsAnswersAndItsLogin(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, model := startDemo(t, 20)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice, other := s.loggedIn("alice"), s.loggedIn("alice")
	c := alice.connect("phi3")
	web, spared := newCaller(t, c.url()), newCaller(t, other.connect("phi3").url())
	running := web.mustStream("/v1/chat/completions", chatBody("demo", "running", true, endless))
	untouched := spared.mustStream("/v1/chat/completions", chatBody("demo", "untouched", true, endless))

	id := sessionWithStreams(s, "dev/alice", running.response.Header.Get("X-Request-Id"))
	mark := c.err.mark()
	s.admin(nil, "sessions", "kill", id)
	if end := running.rest(); end.done || end.code != "revoked" {
		t.Errorf("the running answer ended with %+v, want an error of its protocol", end)
	}
	c.awaitText(mark, "new login is needed", 1)
	if got := web.ask("GET", "/v1/models", ""); got.status != 401 || got.code() != "login_required" {
		t.Errorf("through the listener: %+v", got)
	}
	alice.fails(4, "revoked", "whoami")
	if model.Active() != 1 {
		t.Errorf("%d generations run, want the other login's alone", model.Active())
	}
	untouched.close()

	alice.login()
	alice.ok(nil, "whoami")
	eventually(t, "the old listener serves the new login", func() bool { return web.ask("GET", "/v1/models", "").status == 200 })
	s.awaitRecord("the kill by local:root", func(e audit.Event) bool {
		return e.Kind == audit.KindAdmin && e.Principal == "local:root" && e.Action == "iap:sessions.kill"
	})
	for _, h := range histories(s.awaitSettled()) {
		if h.decision.Session == id && h.decision.Action == "chat" && h.outcomes[0].Ended != "revoked" {
			t.Errorf("outcome %+v", h.outcomes[0])
		}
	}
}

// sessionWithStreams finds the session by which a request came.
func sessionWithStreams(s *system, principal, request string) string {
	s.t.Helper()
	h := histories(s.records())[request]
	if h == nil || h.decision.Session == "" {
		s.t.Fatalf("the audit log has no decision on %q", request)
	}
	var list struct{ Sessions []admin.SessionInfo }
	s.admin(&list, "sessions", "ls")
	for _, one := range list.Sessions {
		if one.ID == h.decision.Session && one.Principal == principal && one.Streams > 0 {
			return one.ID
		}
	}
	s.t.Fatalf("sessions ls does not list %s of %s: %+v", h.decision.Session, principal, list)
	return ""
}

func TestOneJoinTokenEnrolsOneAgentHoweverManyRace(t *testing.T) {
	t.Parallel()
	const racers = 50
	s := newSystem(t, options{})
	token := s.joinToken("gpu-1", "phi3=model")
	var won atomic.Int32
	var group sync.WaitGroup
	for i := range racers {
		dir := filepath.Join(s.dir, fmt.Sprint("racer-", i))
		group.Go(func() {
			got := run(t, baseEnv(dir), "iap-agent", "join", token, "--ca-file", s.ca, "--config", filepath.Join(dir, "agent.yaml"))
			_, err := os.Stat(filepath.Join(dir, "agent.yaml"))
			switch {
			case got.code == 0 && err == nil:
				won.Add(1)
			case got.code != 1 || err == nil || !strings.Contains(got.errOut, "token"):
				t.Errorf("racer %d: %+v, agent.yaml: %v", i, got, err)
			}
		})
	}
	group.Wait()
	list := s.agents()
	if won.Load() != 1 || len(list) != 1 {
		t.Errorf("%d of %d joins succeeded, the relay knows %d agents", won.Load(), racers, len(list))
	}
}

func TestProviderThatIsDownKeepsNobodyOfTheOperatorsOut(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	if err := s.provider.Close(); err != nil {
		t.Fatal(err)
	}
	s.relay.stop()
	s.startRelay()
	var status admin.Status
	s.admin(&status, "status")
	if status.Audit != "ok" || status.Relay != s.name {
		t.Errorf("status = %+v", status)
	}
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	if got := s.user("alice").run("login", s.name, "--ca-file", s.ca, "--no-open", "-o", "json"); got.code == 0 || !strings.Contains(got.errOut, `"code"`) {
		t.Errorf("login without a provider: %+v", got)
	}
}
