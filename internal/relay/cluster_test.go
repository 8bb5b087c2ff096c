package relay

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/agent"
	"iap/internal/audit"
	"iap/internal/cluster"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// pair are two relays over one database.
type pair struct {
	one, two *system
	url      string
	agents   int
}

// newPair starts them: of one public name, with one key, and the second at another address.
func newPair(t *testing.T, grants string, changes ...change) *pair {
	t.Helper()
	p := &pair{url: postgres.URL(t)}
	p.one = prepareSystem(t, grants, append(changes, func(c *settings.Config) { c.State, c.Instance = p.url, "one" })...)
	p.one.start()
	p.two = p.one.beside("two", p.url)
	p.two.start()
	for _, s := range []*system{p.one, p.two} {
		s.reach()
		must(t, s.relay.cluster.Beat(within(t)))
	}
	return p
}

// reach has users and agents dial the relay where it listens.
func (s *system) reach() { s.connect = netip.MustParseAddrPort(s.cfg.Listen) }

// beside prepares another relay as an operator would: the first one's keys, and the rest of its own.
func (s *system) beside(instance, url string) *system {
	s.t.Helper()
	other := &system{t: s.t, dir: filepath.Join(s.dir, instance), grants: s.grants, name: s.name, caFile: s.caFile, roots: s.roots, provider: s.provider}
	cfg := *s.cfg
	cfg.Listen, cfg.Data, cfg.Instance, cfg.State = freeAddress(s.t), filepath.Join(other.dir, "data"), instance, url
	cfg.Audit.Dir, cfg.AdminSocket = filepath.Join(cfg.Data, "audit"), filepath.Join(other.dir, "a.sock")
	must(s.t, os.MkdirAll(cfg.Data, 0o700))
	for _, key := range []string{"relay.key", "assertion.key"} {
		data, err := os.ReadFile(filepath.Join(s.cfg.Data, key))
		must(s.t, err)
		must(s.t, os.WriteFile(filepath.Join(cfg.Data, key), data, 0o600))
	}
	other.cfg = &cfg
	return other
}

// startAgent enrols an agent at the first relay and has it serve at both.
func (p *pair) startAgent(resources ...served) *runningAgent {
	t := p.one.t
	t.Helper()
	p.agents++
	file := filepath.Join(p.one.dir, fmt.Sprint("agent", p.agents), "agent.yaml")
	upstreams := map[string]string{}
	for _, r := range resources {
		upstreams[r.name] = r.upstream
	}
	joined, err := agent.Join(within(t), agent.JoinOptions{Token: p.one.joinToken(true, resources...).Token, Config: file, CAFile: p.one.caFile, Upstreams: upstreams})
	must(t, err)
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, append(text, fmt.Sprintf("\nrelays: [%q, %q]\n", p.one.cfg.Listen, p.two.cfg.Listen)...), 0o600))
	a := p.one.runAgent(file)
	a.id = joined.AgentID
	for _, s := range []*system{p.one, p.two} {
		s.awaitOnline(a.id, 2)
		for _, r := range resources {
			eventually(t, r.name+" is offered", func() bool { n, _ := s.relay.agents.online(r.name); return n > 0 })
		}
	}
	return a
}

// cutBy starts an answer of alice's at the second relay and takes her right to it at the first.
func (p *pair) cutBy(chat *slowChat, take func(t *testing.T, session *tunnel.Session)) func(*testing.T) {
	return func(t *testing.T) {
		u := p.two.user(map[string]any{"sub": "alice"})
		session := u.open(tunnel.Interactive)
		r, err := postChat(client(t, session, tunnel.Header{Resource: "phi3"}), chatBody("phi3", true))
		must(t, err)
		defer r.Body.Close()
		await(t, chat.begun, "the answer begins")
		began := time.Now()
		take(t, session)
		text, err := io.ReadAll(r.Body)
		t.Logf("cut at the other relay after %s", time.Since(began).Round(time.Millisecond))
		if err == nil && strings.Contains(string(text), "[DONE]") || strings.Contains(string(text), "two") {
			t.Errorf("the answer went on: %q, %v", text, err)
		}
		await(t, chat.ended, "the model server is told")
	}
}

// TestWhatIsTakenAwayAtOneRelayEndsAtTheOther prints how long each takes, and asserts that it ends.
func TestWhatIsTakenAwayAtOneRelayEndsAtTheOther(t *testing.T) {
	p := newPair(t, allowAll)
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	p.startAgent(served{"phi3", "model", m.URL})
	t.Run("session killed", p.cutBy(chat, func(t *testing.T, s *tunnel.Session) {
		ended, err := p.one.admin.KillSession(within(t), s.ID(), "")
		if err != nil || ended.Sessions != 1 {
			t.Errorf("ended %+v, %v", ended, err)
		}
	}))
	t.Run("login killed at both", p.cutBy(chat, func(t *testing.T, s *tunnel.Session) {
		ended, err := p.one.admin.KillSessions(within(t), admin.KillQuestion{Principal: "corp/alice"})
		if err != nil || ended.Sessions != 1 || len(ended.Silent) > 0 {
			t.Errorf("ended %+v, %v", ended, err)
		}
	}))
	t.Run("principal revoked", p.cutBy(chat, func(t *testing.T, _ *tunnel.Session) {
		must(t, errorOf(p.one.admin.RevokePrincipal(within(t), "corp/alice", "")))
	}))
	if _, err := p.two.user(nil).present(tunnel.Interactive, p.two.provider.Mint(nil)); tunnel.CodeOf(err) != tunnel.CodeRevoked {
		t.Errorf("a revoked principal at the other relay: %v", err)
	}
	must(t, p.one.admin.RestorePrincipal(within(t), "corp/alice", ""))
	eventually(t, "the restored principal comes back at the other relay", func() bool {
		s, err := p.two.user(nil).present(tunnel.Interactive, p.two.provider.Mint(nil))
		if err == nil {
			_ = s.Close(tunnel.CodeNone, "")
		}
		return err == nil
	})
	t.Run("provider's logout", p.cutBy(chat, func(t *testing.T, _ *tunnel.Session) {
		if r, body := p.one.logout(nil); r.StatusCode != http.StatusOK {
			t.Errorf("logout: %s %s", r.Status, body)
		}
	}))
}

func TestAgentRevokedAtOneRelayIsGoneAtTheOther(t *testing.T) {
	p := newPair(t, allowAll)
	m := newModelServer(t, counted(3))
	a := p.startAgent(served{"phi3", "model", m.URL})
	must(t, errorOf(p.one.admin.RevokeAgent(within(t), a.id)))
	eventually(t, "the other relay has cut it", func() bool { return p.two.relay.agents.sessionsOf(a.id) == 0 && !p.two.relay.agents.knows(a.id) })
}

func TestKeyForProgramsOfOneRelayIsTheOthers(t *testing.T) {
	p := newPair(t, keyGrants)
	m := newModelServer(t, counted(3))
	p.startAgent(served{"phi3", "model", m.URL})
	c := api(t, p.one.user(nil).open(tunnel.Interactive))
	k, err := c.CreateKey(within(t), program("mine"))
	must(t, err)
	known := func() bool { return p.two.relay.keys.find(k.Key.ID) != nil }
	eventually(t, "the other relay knows the key", known)
	_, err = c.RevokeKey(within(t), k.Key.ID)
	must(t, err)
	eventually(t, "the other relay has forgotten the key", func() bool { return !known() })
}

func TestEveryRelayShowsWhatAllHave(t *testing.T) {
	p := newPair(t, allowAll)
	m := newModelServer(t, counted(3))
	a := p.startAgent(served{"phi3", "model", m.URL})
	p.one.user(nil).open(tunnel.Interactive)
	p.two.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive)
	p.one.awaitSessions(1)
	p.two.awaitSessions(1)
	for _, s := range []*system{p.one, p.two} {
		list, err := s.admin.Sessions(within(t), admin.SessionQuestion{Role: "user"})
		must(t, err)
		at := map[string]string{}
		for _, one := range list.Sessions {
			at[one.Principal] = one.Relay
		}
		if len(at) != 2 || at["corp/alice"] != "one" || at["corp/bob"] != "two" || list.Next != "" || len(list.Silent) > 0 {
			t.Errorf("%s lists %v, %+v", s.cfg.Instance, at, list)
		}
		agents, err := s.admin.Agents(within(t))
		if err != nil || len(agents) != 1 || agents[0].Sessions != 4 {
			t.Errorf("%s lists agents %+v, %v", s.cfg.Instance, agents, err)
		}
		st, err := s.admin.AdminStatus(within(t))
		if err != nil || len(st.Relays) != 2 || st.Relays[0].Sessions != 1 || st.Relays[1].Agents != 1 || st.Relays[0].RelayKey != st.Relays[1].RelayKey {
			t.Errorf("%s has status %+v, %v", s.cfg.Instance, st.Relays, err)
		}
	}
	people, err := p.one.admin.Principals(within(t), admin.PrincipalQuestion{State: "live"})
	if err != nil || len(people.Principals) != 2 || len(people.Silent) > 0 {
		t.Errorf("principals %+v, %v", people, err)
	}
	page := admin.SessionQuestion{Limit: 1}
	seen := map[string]bool{}
	for range 10 {
		list, err := p.two.admin.Sessions(within(t), page)
		must(t, err)
		for _, one := range list.Sessions {
			seen[one.ID] = true
		}
		if page.Cursor = list.Next; list.Next == "" {
			break
		}
	}
	if len(seen) != 6 {
		t.Errorf("pages of one show %d sessions, want 2 of users and 4 of %s", len(seen), a.id)
	}
}

// TestRelayThatDiedIsNamedAsSilent is within the half minute in which it is still on the list.
func TestRelayThatDiedIsNamedAsSilent(t *testing.T) {
	p := newPair(t, allowAll)
	m := newModelServer(t, counted(3))
	a := p.startAgent(served{"phi3", "model", m.URL})
	must(t, a.stop())
	dead := cluster.New(cluster.Options{Store: p.one.relay.store, Instance: "dead"})
	must(t, dead.Beat(within(t)))
	want := []string{"dead"}
	if list, err := p.one.admin.Sessions(within(t), admin.SessionQuestion{}); err != nil || !slices.Equal(list.Silent, want) {
		t.Errorf("sessions: %v, %v", list.Silent, err)
	}
	if list, err := p.one.admin.Agents(within(t)); err != nil || len(list) != 1 || !slices.Equal(list[0].Silent, want) {
		t.Errorf("agents: %+v, %v", list, err)
	}
	if list, err := p.one.admin.AdminResources(within(t)); err != nil || !slices.Equal(list.Silent, want) {
		t.Errorf("resources: %v, %v", list.Silent, err)
	}
	if ended, err := p.one.admin.KillSessions(within(t), admin.KillQuestion{Principal: "corp/nobody"}); err != nil || !slices.Equal(ended.Silent, want) {
		t.Errorf("kill: %+v, %v", ended, err)
	}
	var cause *admin.Error
	if _, err := p.one.admin.KillSession(within(t), "none", ""); !errors.As(err, &cause) || cause.Code != "relays_silent" {
		t.Errorf("kill of a session that may be the dead relay's: %v", err)
	}
}

// TestJoinTokenShownToTwoRelaysIsSpentOnce races; so do two tokens for one name that may have one agent.
func TestJoinTokenShownToTwoRelaysIsSpentOnce(t *testing.T) {
	p := newPair(t, allowAll)
	race := func(name string, tokens ...admin.JoinTokenCreated) {
		var won atomic.Int32
		var racers sync.WaitGroup
		for i, created := range tokens {
			for _, s := range []*system{p.one, p.two} {
				if len(tokens) > 1 && (i == 0) != (s == p.one) {
					continue
				}
				racers.Go(func() {
					token, err := auth.ParseJoinToken(created.Token)
					if err != nil {
						t.Error(err)
						return
					}
					if _, _, err := s.postJoin(token); err == nil {
						won.Add(1)
					}
				})
			}
		}
		racers.Wait()
		if won.Load() != 1 {
			t.Errorf("%s: %d agents joined, want 1", name, won.Load())
		}
	}
	for round := range 5 {
		one := served{name: fmt.Sprint("r", round), kind: "model"}
		race("one token", p.one.joinToken(false, one))
		other := served{name: fmt.Sprint("q", round), kind: "model"}
		race("two tokens of one name", p.one.joinToken(false, other), p.two.joinToken(false, other))
	}
}

// TestBudgetIsNotDoubledByTwoRelays spends at both until both refuse, and counts what the model server generated.
func TestBudgetIsNotDoubledByTwoRelays(t *testing.T) {
	const budget = 3000
	p := newPair(t, grantsWith(fmt.Sprintf(`[{tokens: %d/1h}]`, budget)))
	m := newModelServer(t, counted(50))
	p.startAgent(served{"phi3", "model", m.URL})
	var spenders sync.WaitGroup
	var served atomic.Int64
	for _, s := range []*system{p.one, p.two, p.one, p.two} {
		c := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
		spenders.Go(func() {
			for range 200 {
				r, err := postChat(c, `{"model":"phi3","max_tokens":50,"messages":[{"role":"user","content":"hello"}]}`)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				r.Body.Close()
				switch r.StatusCode {
				case http.StatusOK:
					served.Add(1)
				case http.StatusTooManyRequests:
					return
				default:
					t.Errorf("status %s", r.Status)
				}
			}
		})
	}
	spenders.Wait()
	charged := int64(0)
	for _, s := range []*system{p.one, p.two} {
		for _, e := range s.events(func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Action == "chat" }) {
			charged += e.TokensIn + e.TokensOut
		}
	}
	if charged > budget || served.Load() < 20 {
		t.Errorf("%d tokens were charged of a budget of %d, in %d answers", charged, budget, served.Load())
	}
	t.Logf("%d answers, %d of %d tokens", served.Load(), charged, budget)
}

func TestNextKeyOfOneRelayIsTheOthers(t *testing.T) {
	p := newPair(t, allowAll)
	m := newModelServer(t, counted(3))
	a := p.startAgent(served{"phi3", "model", m.URL})
	for range 2 {
		rotated, err := p.one.admin.RotateRelay(within(t), admin.NewRelayKey{Overlap: "0s"})
		must(t, err)
		eventually(t, "the other relay has the key", func() bool { return keyID(p.two.relay.ring.Public()) == rotated.Next })
	}
	must(t, errorOf(p.two.admin.KillSessions(within(t), admin.KillQuestion{Agent: a.id})))
	p.two.awaitOnline(a.id, 2)
}

// TestRunningStreamsOutliveTheDatabase has it die and come back: nothing new is granted meanwhile, what is taken away is.
func TestRunningStreamsOutliveTheDatabase(t *testing.T) {
	p := newPair(t, allowAll)
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	p.startAgent(served{"phi3", "model", m.URL})
	bob := p.two.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive)
	going, err := postChat(client(t, bob, tunnel.Header{Resource: "phi3"}), chatBody("phi3", true))
	must(t, err)
	defer going.Body.Close()
	alice := p.two.user(nil).open(tunnel.Interactive)
	cut, err := postChat(client(t, alice, tunnel.Header{Resource: "phi3"}), chatBody("phi3", true))
	must(t, err)
	defer cut.Body.Close()
	await(t, chat.begun, "one answer begins")
	await(t, chat.begun, "the other begins")
	p.two.awaitSessions(2)

	postgres.Kill(t)
	for _, s := range []*system{p.one, p.two} {
		if got := s.relay.problem(within(t)); got != "state_unavailable" {
			t.Errorf("%s is ready: %q", s.cfg.Instance, got)
		}
	}
	if _, err := p.one.user(nil).present(tunnel.Interactive, p.one.provider.Mint(nil)); tunnel.CodeOf(err) != tunnel.CodeStateUnavailable {
		t.Errorf("a new session without the database: %v", err)
	}
	if _, err := p.one.admin.CreateJoinToken(within(t), admin.NewJoinToken{Name: "a", Resources: []admin.JoinResource{{Name: "r", Kind: "model"}}}); err == nil {
		t.Error("a join token was made without the database")
	}
	var cause *admin.Error
	if _, err := p.one.admin.RevokePrincipal(within(t), "corp/alice", ""); !errors.As(err, &cause) || cause.Code != "state_unavailable" {
		t.Errorf("a revocation that only one relay knows: %v", err)
	}
	select {
	case <-alice.Done():
		t.Error("the other relay cannot know yet")
	default:
	}
	postgres.Restart(t)
	began := time.Now()
	await(t, alice.Done(), "the revocation is heard at the other relay")
	t.Logf("heard %s after the database was back", time.Since(began).Round(time.Millisecond))
	close(chat.release)
	if text, err := io.ReadAll(going.Body); err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
		t.Errorf("bob's answer ended with %q, %v", text, err)
	}
	eventually(t, "both are ready again", func() bool { return p.one.relay.problem(within(t))+p.two.relay.problem(within(t)) == "" })
}

// TestLeasedBudgetIsSpentWhileTheDatabaseIsAwayAndNoMore has a lease, loses the database, and spends what it has.
func TestLeasedBudgetIsSpentWhileTheDatabaseIsAwayAndNoMore(t *testing.T) {
	p := newPair(t, grantsWith(`[{tokens: 100000/1h}]`))
	m := newModelServer(t, counted(50))
	p.startAgent(served{"phi3", "model", m.URL})
	c := client(t, p.one.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	ask := func() (status int, text string) {
		r, err := postChat(c, `{"model":"phi3","max_tokens":50,"messages":[{"role":"user","content":"hello"}]}`)
		must(t, err)
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		must(t, err)
		return r.StatusCode, string(body)
	}
	for range 100 { // demand, of which the lease's size follows
		if status, text := ask(); status != http.StatusOK {
			t.Fatal(status, text)
		}
	}
	postgres.Kill(t)
	served := 0
	for {
		status, text := ask()
		if status == http.StatusOK {
			if served++; served*60 > 100_000 {
				t.Fatal("more was served than the budget has")
			}
			continue
		}
		if status != http.StatusServiceUnavailable || !strings.Contains(text, "limits_unavailable") {
			t.Errorf("refused with %d %s", status, text)
		}
		break
	}
	postgres.Restart(t)
	if served == 0 {
		t.Error("nothing was served on the lease")
	}
	t.Logf("%d requests were served on the lease", served)
	eventually(t, "budgets are granted again", func() bool { status, _ := ask(); return status == http.StatusOK })
}
