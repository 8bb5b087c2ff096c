package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/audit"
)

const (
	crashRounds  = 10 // without IAP_KILLS
	crashWorkers = 8
	crashLoad    = 25        // requests that reach the upstream between two crashes, at most
	crashBudget  = 5_000_000 // tokens of the one who has a budget
)

const crashGrants = `version: 1
grants:
  - name: bounded
    to: ["user:dev/greedy"]
    resources: [phi3]
    actions: [chat]
    limits: {tokens: 5000000/24h}
  - name: others
    to: ["group:dev/ml-eng"]
    resources: [phi3]
    actions: [chat, list-models]
`

// crash is a relay that is killed again and again under load, and what its callers got of it.
type crash struct {
	t        *testing.T
	system   *system
	upstream *upstream
	random   *rand.Rand

	received atomic.Int64 // tokens that reached the one who has a budget
}

// load keeps the relay busy until stop: tunnels and bearers, streams and whole answers.
func (c *crash) load(web *caller, stop *atomic.Bool) (wait func()) {
	var group sync.WaitGroup
	for worker := range crashWorkers {
		group.Go(func() {
			bearer := &http.Client{Transport: c.system.https.Transport}
			for n := 0; !stop.Load(); n++ {
				text := fmt.Sprintf("request %d of worker %d.", n, worker)
				if worker%4 == 0 {
					c.spend(bearer, text, n%2 == 0)
					continue
				}
				got, err := web.tryAsk("POST", "/v1/chat/completions", chatBody("demo", text, n%2 == 0, 4+n%20))
				if err == nil && got.status == http.StatusServiceUnavailable {
					web.http.CloseIdleConnections() // a relay that has just come back: its agent follows
				}
			}
		})
	}
	return group.Wait
}

// spend asks as the one who has a budget, and counts the tokens that arrive, of broken answers as well.
func (c *crash) spend(web *http.Client, text string, stream bool) {
	status, body := c.system.bearer(web, "greedy", chatBody("demo", text, stream, 12))
	if status != http.StatusOK {
		return
	}
	if stream {
		c.received.Add(int64(bytes.Count(body, []byte(`"delta":{"content":`))))
		return
	}
	var answer struct {
		Usage struct {
			CompletionTokens int64 `json:"completion_tokens"`
		}
	}
	if json.Unmarshal(body, &answer) == nil {
		c.received.Add(answer.Usage.CompletionTokens)
	}
}

// strike kills the relay at a moment that nobody chose: under load, or while it starts.
func (c *crash) strike() {
	for range c.random.IntN(3) { // before it is up
		p := start(c.t, baseEnv(c.system.dir), "iap-relay", "run", "--config", c.system.config)
		time.Sleep(time.Duration(c.random.IntN(120)) * time.Millisecond)
		p.kill()
	}
	c.system.startRelay()
	seen, more := len(c.upstream.requests()), c.random.IntN(crashLoad)
	eventually(c.t, "requests reach the upstream again", func() bool { return len(c.upstream.requests()) > seen+more })
	time.Sleep(time.Duration(c.random.IntN(20)) * time.Millisecond)
	c.system.relay.kill()
}

// TestNoRequestGoesUpstreamWithoutARecordHoweverOftenTheRelayIsKilled, each decision has one outcome, no budget leaks, and
// the log proves itself. IAP_KILLS says how often, IAP_SEED repeats the moments of another run.
func TestNoRequestGoesUpstreamWithoutARecordHoweverOftenTheRelayIsKilled(t *testing.T) {
	t.Parallel()
	kills, _ := strconv.Atoi(os.Getenv("IAP_KILLS"))
	if kills == 0 {
		kills = crashRounds
	}
	seed, err := strconv.ParseUint(os.Getenv("IAP_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("IAP_SEED=%d", seed)
	s := newSystem(t, options{grants: crashGrants, config: func(text string) string {
		return withFrontDoor(text) + "\naudit: {rotate: {size: 1MiB}}\n"
	}})
	c := &crash{t: t, system: s, random: rand.New(rand.NewPCG(seed, 0))}
	c.upstream, _ = startDemo(t, 2000)
	a := s.startAgent(map[string]string{"phi3=model": c.upstream.url})
	u := s.loggedIn("alice")
	var stop atomic.Bool
	wait := c.load(newCaller(t, u.connect("phi3").url()), &stop)
	s.relay.kill()
	for range kills - 1 {
		c.strike()
	}
	s.startRelay()
	stop.Store(true)
	wait()

	seen := c.upstream.requests()
	asked := map[string]bool{}
	for _, q := range seen {
		if asked[q.body] {
			t.Errorf("the upstream saw twice: %s", q.body)
		}
		asked[q.body] = true
	}
	all := s.awaitSettled()
	checkAudit(t, all, seen)
	c.checkBudget(all)
	c.checkProof(u, a)
	t.Logf("%d kills: %d requests reached the upstream, %d records", kills, len(seen), len(all))
}

// checkBudget holds what is charged against what was received and what the log tells, and against the budget.
func (c *crash) checkBudget(all []audit.Event) {
	c.t.Helper()
	var told int64
	for _, h := range histories(all) {
		for _, e := range h.outcomes {
			if h.decision.Principal == "dev/greedy" {
				told += e.TokensIn + e.TokensOut
			}
		}
	}
	var list struct {
		Budgets []struct {
			Kind                    string
			Limit, Used, Held, Left int64
		}
	}
	got := run(c.t, baseEnv(c.system.dir), "iap-relay", "admin", "--config", c.system.config, "budgets", "show", "dev/greedy", "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &list); err != nil || len(list.Budgets) != 1 {
		c.t.Fatalf("budgets show: %d %s%s", got.code, got.out, got.errOut)
	}
	b := list.Budgets[0]
	if b.Used < told || b.Used < c.received.Load() || b.Limit != crashBudget || b.Used > b.Limit || b.Used+b.Held+b.Left != b.Limit {
		c.t.Errorf("%+v; %d tokens were received, the log tells of %d", b, c.received.Load(), told)
	}
	if c.received.Load() == 0 {
		c.t.Error("nobody spent anything of the budget")
	}
	c.t.Logf("%d of %d tokens charged; %d received, %d in the log", b.Used, b.Limit, c.received.Load(), told)
}

// checkProof stops the relay, which signs what it has, and has the log proven by the key that the agent pinned and by what
// the agent holds of it.
func (c *crash) checkProof(u *user, a *agent) {
	c.t.Helper()
	c.system.relay.stop()
	held := run(c.t, a.env, "iap-agent", "witness", "--config", a.config)
	if held.code != 0 {
		c.t.Fatalf("iap-agent witness: %d %s", held.code, held.errOut)
	}
	checkpoint := filepath.Join(filepath.Dir(a.config), "held")
	c.system.write(checkpoint, held.out)
	var report struct {
		OK     bool
		Last   int64
		Proven struct{ Record int64 }
	}
	u.ok(&report, "audit", "verify", filepath.Join(filepath.Dir(c.system.config), "data", "audit"),
		"--key", a.config, "--checkpoint", checkpoint)
	if !report.OK || report.Last == 0 || report.Proven.Record != report.Last {
		c.t.Errorf("audit verify: %+v", report)
	}
}
