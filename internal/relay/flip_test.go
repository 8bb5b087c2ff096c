package relay

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/policy"
	"iap/tunnel"
)

const (
	policyFlips = 40 // replacements of the policy, each after flipLoad more requests
	flipLoad    = 25
	flipCallers = 6
)

// flipped is one of two policies: its name is its grant's, and what it lets an answer have is its mark upstream.
func flipped(grant string, tokens int, also string) string {
	return fmt.Sprintf(`version: 1
grants:
  - name: %s
    to: ["user:corp/alice"%s]
    resources: ["*"]
    actions: [connect, chat, list-models]
    limits: {max_output_tokens: %d}
`, grant, also, tokens)
}

// verdict is what became of one request: by which policy, and how.
type verdict struct{ revision, grant, mark string }

// TestPolicyFlipUnderLoadDecidesEachRequestByOnePolicy replaces the policy again and again while requests come as fast as
// they can. Alice is allowed by both policies, each under its own name and limit, and never notices. Bob is allowed by one.
func TestPolicyFlipUnderLoadDecidesEachRequestByOnePolicy(t *testing.T) {
	flip := startFlip(t)
	s := flip.s
	marks := map[string]verdict{} // by revision
	var load sync.WaitGroup
	stop := make(chan struct{})
	for i := range flipCallers {
		c, isAlice := client(t, s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}), true
		if i%3 == 2 {
			c, isAlice = client(t, s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}), false
		}
		load.Go(func() { flip.call(c, isAlice, stop) })
	}
	for i := range policyFlips {
		asked := flip.asked.Load()
		eventually(t, "requests are decided by this policy", func() bool { return flip.asked.Load() >= asked+flipLoad })
		one := verdict{grant: "left", mark: "111"}
		text := flipped("left", 111, "")
		if i%2 == 0 {
			one, text = verdict{grant: "right", mark: "222"}, flipped("right", 222, `, "user:corp/bob"`)
		}
		s.setPolicy(text)
		one.revision = s.relay.policy.Revision()
		marks[one.revision] = one
	}
	close(stop)
	load.Wait()
	close(flip.slow.release)
	if text, err := io.ReadAll(flip.running.Body); err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
		t.Errorf("an answer that every policy allowed ended with %q, %v", text, err)
	}
	flip.check(marks)
}

// flip is the system under load.
type flip struct {
	t       *testing.T
	s       *system
	slow    *slowChat
	running *http.Response // alice's, all the while
	asked   atomic.Int64
	marks   sync.Map // request id → the limit that its upstream was told
}

func startFlip(t *testing.T) *flip {
	f := &flip{t: t, slow: newSlowChat()}
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Stream    bool `json:"stream"`
			MaxTokens int  `json:"max_tokens"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("read what was sent: %v", err)
		}
		if body.Stream {
			f.slow.serve(w, r)
			return
		}
		f.marks.Store(r.Header.Get("X-Request-Id"), fmt.Sprint(body.MaxTokens))
		completion(w, "ok")
	})
	f.s = newSystem(t, flipped("left", 111, ""))
	f.s.startAgent(served{"phi3", "model", m.URL})
	var err error
	f.running, err = postChat(client(t, f.s.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"}), chatBody("phi3", true))
	must(t, err)
	t.Cleanup(func() { f.running.Body.Close() })
	await(t, f.slow.begun, "the long answer begins")
	return f
}

// call asks until stop is closed. Alice must always be answered; bob as the policy of the moment says.
func (f *flip) call(c *http.Client, isAlice bool, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		answer, err := postChat(c, chatBody("phi3", false))
		f.asked.Add(1)
		if err != nil {
			if isAlice {
				f.t.Errorf("alice: %v", err)
				return
			}
			continue // bob's stream was refused
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if isAlice && (err != nil || answer.StatusCode != http.StatusOK) {
			f.t.Errorf("alice, whom both policies allow, got %s %s, %v", answer.Status, body, err)
			return
		}
		if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusForbidden {
			f.t.Errorf("bob got %s %s", answer.Status, body)
		}
	}
}

// check holds every record, and what went upstream, against the policy it names.
func (f *flip) check(policies map[string]verdict) {
	f.t.Helper()
	decisions := map[string]string{} // request → revision
	seen := map[string]int{}
	for _, e := range f.s.events(func(e audit.Event) bool { return e.Action == "chat" || e.Detail["asked"] == "reach" }) {
		policy, known := policies[e.Revision]
		if !known {
			if e.Grant == "left" { // the one it began with
				continue
			}
			f.t.Fatalf("a record names no policy: %+v", e)
		}
		switch {
		case e.Kind == audit.KindDecision && e.Decision == audit.Deny:
			if e.Principal != "corp/bob" || policy.grant != "left" {
				f.t.Errorf("denied by a policy that allows it: %+v", e)
			}
			continue
		case e.Grant != policy.grant:
			f.t.Errorf("revision %s with the grant of the other: %+v", e.Revision, e)
		case e.Kind == audit.KindDecision:
			decisions[e.Request] = e.Revision
		case decisions[e.Request] != "" && decisions[e.Request] != e.Revision:
			f.t.Errorf("decided by %s, and the outcome says %s", decisions[e.Request], e.Revision)
		}
		if mark, sent := f.marks.Load(e.Request); sent {
			seen["sent"]++
			if mark != policy.mark {
				f.t.Errorf("decided by %s and sent with the other's limit, %s", policy.grant, mark)
			}
		}
		seen[policy.grant]++
	}
	if seen["left"] == 0 || seen["right"] == 0 || seen["sent"] == 0 {
		f.t.Errorf("the load met one policy only: %v", seen)
	}
	f.t.Logf("%d requests through %d policies; records %v", f.asked.Load(), policyFlips, seen)
}

// TestWhatThePolicyOfTheMomentKeptAwayIsNotDecidedByTheNext has a bearer ask for a resource that the old policy hides from
// it. The request was read without what the agents say of the resource: a new policy must not let it through like that.
func TestWhatThePolicyOfTheMomentKeptAwayIsNotDecidedByTheNext(t *testing.T) {
	s := newSystem(t, flipped("left", 111, ""))
	s.enrolFake(false, served{"phi3", "model", ""})
	bob := bearer{newIdentity(&auth.Token{Principal: auth.Principal{Issuer: "corp", Subject: "bob"}})}
	res, ctx := s.relay.doorResource(within(t), &doorCaller{principalSource: bob, via: policy.ViaBearer}, "phi3")
	old := s.relay.policy.Revision()
	s.setPolicy(flipped("right", 222, `, "user:corp/bob"`))
	q := guard.Question{Resource: res, Caller: &guard.Caller{Value: bob, Via: policy.ViaBearer}, Action: policy.ActionChat, Model: "phi3:latest"}
	if d := s.relay.decide(ctx, q); d.Allow || d.Revision != old {
		t.Errorf("%+v", d)
	}
}
