package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/state/pgtest"
)

const (
	clusterBudget  = 4_000 // tokens of the one who wants more
	clusterWorkers = 6     // at each relay
	clusterLoad    = 40    // answers at each relay between two kills
)

const clusterGrants = `version: 1
grants:
  - name: bounded
    to: ["user:dev/greedy"]
    resources: [phi3]
    actions: [chat]
    limits: {tokens: 4000/1h, concurrent: 8}
  - name: others
    to: ["group:dev/ml-eng"]
    resources: [phi3]
    actions: [chat]
`

// cluster are two relays and two agents over one database, each a process of its own.
type cluster struct {
	t        *testing.T
	database *pgtest.Server
	one, two *system
	agents   []*agent
	model    *upstream

	mu    sync.Mutex
	ended map[string]int // guarded by mu; how requests ended, by relay and kind of end
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, database: &pgtest.Server{Durable: true}, ended: map[string]int{}}
	t.Cleanup(func() {
		if err := c.database.Close(); err != nil {
			t.Error(err)
		}
	})
	url := c.database.URL(t)
	c.one = newSystem(t, options{grants: clusterGrants, config: func(text string) string {
		listen := regexp.MustCompile(`listen: (".*")`).FindStringSubmatch(text)
		return withFrontDoor(text) + "\ninstance: one\nstate: \"" + url + "\"\naddress: " + listen[1] + "\n"
	}})
	c.two = c.one.beside("two")
	c.model, _ = startDemo(t, 400)
	for range 2 {
		a := c.one.enrol(map[string]string{"phi3=model": c.model.url})
		text, err := os.ReadFile(a.config)
		if err != nil {
			t.Fatal(err)
		}
		c.one.write(a.config, string(text)+fmt.Sprintf("\nrelays: [%q, %q]\n", c.one.listen, c.two.listen))
		c.agents = append(c.agents, a)
		c.startAgent(a)
	}
	return c
}

// startAgent waits until the agent has its sessions to both relays.
func (c *cluster) startAgent(a *agent) {
	a.process = start(c.t, a.env, "iap-agent", "run", "--config", a.config)
	a.awaitText(0, `"msg":"connected to the relay"`, 4)
}

// beside starts another relay of the same name, with the first one's keys and state, as an operator would.
func (s *system) beside(instance string) *system {
	s.t.Helper()
	other := *s
	other.listen = freeAddress(s.t)
	dir := filepath.Join(s.dir, instance)
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o700); err != nil {
		s.t.Fatal(err)
	}
	for _, file := range []string{"relay.key", "assertion.key"} {
		data, err := os.ReadFile(filepath.Join(filepath.Dir(s.config), "data", file))
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(filepath.Join(dir, "data", file), string(data))
	}
	text, err := os.ReadFile(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	other.config = filepath.Join(dir, "relay.yaml")
	s.write(other.config, strings.NewReplacer(
		`"`+s.listen+`"`, `"`+other.listen+`"`, filepath.Join(filepath.Dir(s.config), "data"), filepath.Join(dir, "data"), "instance: one", "instance: "+instance,
		"grants: grants.yaml", "grants: "+s.grants,
	).Replace(string(text)))
	other.startRelay()
	return &other
}

// ask sends one chat as a bearer, and says how it ended: "done", "cut" (the client was told), "status 429" and the like. An
// answer that looks whole and is not fails the test.
func (c *cluster) ask(s *system, web *http.Client, who, text string, stream bool, tokens int) string {
	q, err := http.NewRequest(http.MethodPost, "https://"+s.listen+"/r/phi3/v1/chat/completions", strings.NewReader(chatBody("demo", text, stream, tokens)))
	if err != nil {
		c.t.Error(err)
		return "error"
	}
	q.Header.Set("Content-Type", "application/json")
	q.Header.Set("Authorization", "Bearer "+s.accessToken(map[string]any{"sub": who}))
	answer, err := web.Do(q)
	if err != nil {
		return "no answer"
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case answer.StatusCode != http.StatusOK:
		return "status " + strconv.Itoa(answer.StatusCode)
	case err != nil || strings.Contains(string(body), `"error"`):
		return "cut"
	case stream && !strings.Contains(string(body), "[DONE]"), !stream && !strings.Contains(string(body), `"finish_reason"`):
		c.t.Errorf("%s: an answer ended as if it were whole: %q", s.listen, body)
	}
	return "done"
}

// load keeps both relays busy until stop.
func (c *cluster) load(stop *atomic.Bool) (wait func()) {
	var workers sync.WaitGroup
	for name, s := range map[string]*system{"one": c.one, "two": c.two} {
		for worker := range clusterWorkers {
			who := "alice"
			if worker%3 == 0 {
				who = "greedy"
			}
			web := &http.Client{Transport: s.https.Transport}
			workers.Go(func() {
				for n := 0; !stop.Load(); n++ {
					how := c.ask(s, web, who, fmt.Sprintf("Request %d of worker %d at %s.", n, worker, name), n%2 == 0, 8)
					c.mu.Lock()
					c.ended[name+" "+who+": "+how]++
					c.mu.Unlock()
					if how != "done" {
						time.Sleep(20 * time.Millisecond) // a client that is refused does not hurry
					}
				}
			})
		}
	}
	return workers.Wait
}

func (c *cluster) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ended[what]
}

// awaitLoad waits until both relays answer again.
func (c *cluster) awaitLoad() {
	one, two := c.count("one alice: done"), c.count("two alice: done")
	eventually(c.t, "both relays answer", func() bool {
		return c.count("one alice: done") >= one+clusterLoad && c.count("two alice: done") >= two+clusterLoad
	})
}

// revoke revokes a principal at one relay; while the database is away that relay says that it alone knows.
func (c *cluster) revoke(at *system, who string) {
	run(c.t, baseEnv(at.dir), "iap-relay", "admin", "--config", at.config, "principals", "revoke", "--yes", "dev/"+who)
}

// fate is how an answer ended, and when.
type fate struct {
	how string
	at  time.Time
}

// victim has a long answer run at a relay, and tells how it ended.
func (c *cluster) victim(at *system, who string) <-chan fate {
	ended := make(chan fate, 1)
	before := c.model.count("I am " + who)
	go func() {
		how := c.ask(at, at.https, who, "I am "+who+".", true, 30_000)
		ended <- fate{how, time.Now()}
	}()
	eventually(c.t, who+" is answered", func() bool { return c.model.count("I am "+who) > before })
	return ended
}

// TestTwoRelaysAndTwoAgentsOverOneDatabaseWhileEachOfTheFiveIsKilled kills one after the other under load, as a power cut
// would, and revokes somebody each time. IAP_ROUNDS=10 has it done ten times over.
func TestTwoRelaysAndTwoAgentsOverOneDatabaseWhileEachOfTheFiveIsKilled(t *testing.T) {
	t.Parallel()
	rounds, _ := strconv.Atoi(os.Getenv("IAP_ROUNDS"))
	c := newCluster(t)
	var stop atomic.Bool
	wait := c.load(&stop)
	var revoked []string
	for round := range max(rounds, 1) {
		for _, k := range []struct {
			name        string
			at, survive *system // where the victim's answer runs, and where it is revoked
			kill, start func()
		}{
			{"one", c.two, c.two, func() { c.one.relay.kill() }, func() { c.one.startRelay() }},
			{"two", c.one, c.one, func() { c.two.relay.kill() }, func() { c.two.startRelay() }},
			{"agent", c.two, c.one, func() { c.agents[0].kill() }, func() { c.startAgent(c.agents[0]) }},
			{"other agent", c.one, c.two, func() { c.agents[1].kill() }, func() { c.startAgent(c.agents[1]) }},
			{"database", c.two, c.one, func() { c.database.Kill(t) }, func() { c.database.Restart(t) }},
		} {
			c.awaitLoad()
			who := fmt.Sprintf("victim-%d-%s", round, strings.ReplaceAll(k.name, " ", "-"))
			ended := c.victim(k.at, who)
			k.kill()
			c.revoke(k.survive, who)
			began := time.Now()
			k.start()
			if got := <-ended; got.how == "done" {
				t.Errorf("%s killed: the answer of %s went on to its end", k.name, who)
			} else {
				t.Logf("%s killed: the answer of %s: %s, %s after its revocation was acknowledged", k.name, who, got.how, got.at.Sub(began).Round(time.Millisecond))
			}
			revoked = append(revoked, who)
		}
	}
	c.awaitLoad()
	stop.Store(true)
	wait()
	for _, s := range []*system{c.one, c.two} {
		for _, who := range revoked {
			if how := c.ask(s, s.https, who, "It is me.", false, 4); how == "done" {
				t.Errorf("%s: the revocation of %s was lost", s.listen, who)
			}
		}
	}
	c.checkRecords()
}

// TestClientOfARelayThatDiesGoesToTheOther keeps its port and its login.
func TestClientOfARelayThatDiesGoesToTheOther(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	eventually(t, "the relay tells of both", func() bool {
		answer, err := c.one.https.Get("https://" + c.one.listen + "/.well-known/iap-relay")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return err == nil && strings.Contains(string(body), `"`+c.two.listen+`"`)
	})
	web := newCaller(t, c.one.loggedIn("alice").connect("phi3").url())
	say := func(text string) bool {
		got, err := web.tryAsk("POST", "/v1/chat/completions", chatBody("demo", text, false, 4))
		return err == nil && got.status == http.StatusOK
	}
	eventually(t, "the model answers", func() bool { return say("At the first.") })
	c.one.relay.kill()
	eventually(t, "it answers by the other relay", func() bool { return say("At the second.") })
	if c.model.count("At the second.") == 0 {
		t.Error("the model was not asked")
	}
}

// checkRecords holds the logs of both relays against the model server's, and against the budget.
func (c *cluster) checkRecords() {
	all := append(c.one.awaitSettled(), c.two.awaitSettled()...)
	checkAudit(c.t, all, c.model.requests())
	charged := 0
	for _, h := range histories(all) {
		for _, e := range h.outcomes {
			if h.decision.Principal == "dev/greedy" && e.Kind == audit.KindOutcome {
				charged += int(e.TokensIn + e.TokensOut)
			}
		}
	}
	if charged > clusterBudget {
		c.t.Errorf("%d tokens were charged of a budget of %d", charged, clusterBudget)
	}
	for _, what := range slices.Sorted(maps.Keys(c.ended)) {
		c.t.Logf("%6d %s", c.ended[what], what)
	}
	c.t.Logf("%d of %d tokens charged to the one with a budget", charged, clusterBudget)
}
