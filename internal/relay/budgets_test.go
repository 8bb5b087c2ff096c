package relay

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/relay/settings"
	"iap/policy"
	"iap/tunnel"
)

// budgetGrants limits principals, the group and everybody.
const budgetGrants = `version: 1
admins: ["user:corp/root"]
grants:
  - name: engineers
    to: ["group:corp/ml-eng"]
    resources: ["phi*"]
    actions: [chat, list-models]
    limits:
      - {tokens: 5000/1h, concurrent: 3, contact: "#ml"}
      - {tokens: 9000/1h, per: group}
      - {requests: 50/1h, per: grant, mode: warn}
  - name: board
    to: ["group:corp/board"]
    resources: [secret]
    actions: [chat]
    limits: {requests: 1/1h}
`

// budgetLines are the budgets as text.
func budgetLines(list admin.BudgetList) string {
	var lines []string
	for _, b := range list.Budgets {
		lines = append(lines, fmt.Sprintf("%s %s %s %s %d of %d %s", b.Grant, b.Per, b.Who, b.Kind, b.Used, b.Limit, b.Mode))
	}
	return strings.Join(lines, "\n")
}

// useSome has the principal use 110 tokens.
func (s *system) useSome(session *tunnel.Session) {
	s.t.Helper()
	before := len(s.events(func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.TokensOut == 100 }))
	r, err := postChat(client(s.t, session, tunnel.Header{Resource: "phi3"}), chatBody("phi3", false))
	must(s.t, err)
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		s.t.Fatalf("got %s", r.Status)
	}
	eventually(s.t, "the outcome", func() bool {
		return len(s.events(func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.TokensOut == 100 })) > before
	})
}

func TestBudgetsAreTheCountersThatRequestsAreHeldTo(t *testing.T) {
	s := newOllama(t, budgetGrants, counted(100))
	alice := s.user(nil).open(tunnel.Interactive)
	mine := api(t, alice)
	s.useSome(alice)
	s.useSome(s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive))
	const want = `engineers principal corp/alice tokens 110 of 5000 enforce
engineers principal corp/alice concurrent 0 of 3 enforce
engineers group corp/ml-eng tokens 220 of 9000 enforce
engineers grant  requests 2 of 50 warn`
	for _, resource := range []string{"", "phi3"} {
		list, err := mine.Budgets(within(t), admin.OwnBudgets{Resource: resource})
		must(t, err)
		if got := budgetLines(list); got != want || list.Revision != s.relay.policy.Revision() {
			t.Errorf("of %q:\n%s\nwant\n%s", resource, got, want)
		}
		first := list.Budgets[0]
		if first.Left != 4890 || first.Window != 3600 || first.Next == nil || first.NextLeft != 5000 || first.Resets == nil || first.Contact != "#ml" {
			t.Errorf("%+v", first)
		}
	}
	for _, resource := range []string{"secret", "nowhere"} { // what others are granted looks like what is not there
		if list, err := mine.Budgets(within(t), admin.OwnBudgets{Resource: resource}); err != nil || len(list.Budgets) > 0 {
			t.Errorf("of %s: %+v, %v", resource, list, err)
		}
	}
	stranger := api(t, s.user(map[string]any{"sub": "eve", "groups": []string{"guests"}}).open(tunnel.Interactive))
	if list, err := stranger.Budgets(within(t), admin.OwnBudgets{}); err != nil || len(list.Budgets) > 0 {
		t.Errorf("a stranger sees %+v, %v", list, err)
	}
}

func TestAdministratorsSeeAndResetBudgetsAndItIsRecorded(t *testing.T) {
	s := newOllama(t, budgetGrants, counted(100))
	alice := s.user(nil).open(tunnel.Interactive)
	root := api(t, s.user(map[string]any{"sub": "root", "groups": []string{}}).open(tunnel.Interactive))
	s.useSome(alice)
	for name, ask := range map[string]func(admin.BudgetQuestion) (admin.BudgetList, error){
		"a session": func(q admin.BudgetQuestion) (admin.BudgetList, error) { return root.AdminBudgets(within(t), q) },
		"root":      func(q admin.BudgetQuestion) (admin.BudgetList, error) { return s.admin.AdminBudgets(within(t), q) },
	} {
		for want, q := range map[string]admin.BudgetQuestion{
			"engineers principal corp/alice tokens 110 of 5000 enforce\nengineers principal corp/alice concurrent 0 of 3 enforce\n" +
				"engineers group corp/ml-eng tokens 110 of 9000 enforce\nengineers grant  requests 1 of 50 warn": {Who: "corp/alice"},
			"engineers group corp/ml-eng tokens 110 of 9000 enforce": {Who: "group:corp/ml-eng"},
			"engineers grant  requests 1 of 50 warn":                 {Who: "all", Grant: "engineers"},
			"":                                                       {Who: "user:corp/nobody"},
			"engineers grant  requests 1 of 50 warn\nengineers group corp/ml-eng tokens 110 of 9000 enforce\n" +
				"engineers principal corp/alice tokens 110 of 5000 enforce": {Grant: "engineers"},
		} {
			list, err := ask(q)
			must(t, err)
			if got := budgetLines(list); got != want {
				t.Errorf("%s asks %+v:\n%s\nwant\n%s", name, q, got, want)
			}
		}
		for _, q := range []admin.BudgetQuestion{{Who: "alice"}, {Who: "nix/alice"}, {Who: "all"}, {Who: "group:"}, {Grant: strings.Repeat("g", 300)}} {
			if _, err := ask(q); refusalOf(err) != "bad_request" {
				t.Errorf("%s asks %+v: %v", name, q, err)
			}
		}
		if _, err := ask(admin.BudgetQuestion{Grant: "none"}); refusalOf(err) != "unknown_grant" {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := root.ResetBudgets(within(t), admin.BudgetReset{Who: "corp/alice", Grant: "engineers"})
	must(t, err)
	if got := budgetLines(list); got != "engineers principal corp/alice tokens 0 of 5000 enforce" {
		t.Errorf("after the reset:\n%s", got)
	}
	left, err := api(t, alice).Budgets(within(t), admin.OwnBudgets{})
	must(t, err)
	if left.Budgets[0].Used != 0 || left.Budgets[2].Used != 110 || left.Budgets[3].Used != 1 {
		t.Errorf("what is shared went with it, or nothing went:\n%s", budgetLines(left))
	}
	if list, err := s.admin.ResetBudgets(within(t), admin.BudgetReset{Who: "group:corp/ml-eng", Grant: "engineers"}); err != nil || list.Budgets[0].Used != 0 || len(list.Budgets) != 1 {
		t.Errorf("the group's: %+v, %v", list, err)
	}
	for code, q := range map[string]admin.BudgetReset{
		"unknown_grant": {Who: "corp/alice", Grant: "none"}, "nothing_to_reset": {Who: "group:corp/ml-eng", Grant: "board"}, "bad_request": {Who: "", Grant: "engineers"},
	} {
		if _, err := root.ResetBudgets(within(t), q); refusalOf(err) != code {
			t.Errorf("%+v: %v, want %s", q, err, code)
		}
	}
	for who, target := range map[string]string{"corp/root": "corp/alice engineers", "local:root": "group:corp/ml-eng engineers"} {
		s.awaitEvent("the reset by "+who, func(e audit.Event) bool {
			return e.Kind == audit.KindAdmin && e.Principal == who && e.Action == "iap:budgets.reset" && e.Detail["target"] == target
		})
	}
}

func TestAResetLetsRequestsThroughAgain(t *testing.T) {
	s := newOllama(t, "admins: [\"user:corp/root\"]\n"+grantsWith(`{requests: 1/1h}`), counted(100))
	alice := s.user(nil).open(tunnel.Interactive)
	s.useSome(alice)
	ask := func() int {
		r, err := postChat(client(t, alice, tunnel.Header{Resource: "phi3"}), chatBody("phi3", false))
		must(t, err)
		r.Body.Close()
		return r.StatusCode
	}
	if got := ask(); got != http.StatusTooManyRequests {
		t.Fatalf("a second request got %d", got)
	}
	root := api(t, s.user(map[string]any{"sub": "root", "groups": []string{}}).open(tunnel.Interactive))
	_, err := root.ResetBudgets(within(t), admin.BudgetReset{Who: "corp/alice", Grant: "engineers"})
	must(t, err)
	if got := ask(); got != http.StatusOK {
		t.Errorf("after the reset got %d", got)
	}
}

func TestBudgetsOfOthersAreRefusedAndThatIsRecorded(t *testing.T) {
	s := newOllama(t, budgetGrants, counted(100))
	alice := s.user(nil).open(tunnel.Interactive)
	mine := api(t, alice)
	s.useSome(alice)
	_, other := mine.AdminBudgets(within(t), admin.BudgetQuestion{Who: "corp/bob"})
	_, grant := mine.AdminBudgets(within(t), admin.BudgetQuestion{Grant: "engineers"})
	_, none := mine.AdminBudgets(within(t), admin.BudgetQuestion{Grant: "none"})
	_, reset := mine.ResetBudgets(within(t), admin.BudgetReset{Who: "corp/alice", Grant: "engineers"})
	_, resetNone := mine.ResetBudgets(within(t), admin.BudgetReset{Who: "corp/alice", Grant: "none"})
	for i, err := range []error{other, grant, none, reset, resetNone} {
		if refusalOf(err) != "verb_not_granted" {
			t.Errorf("%d: %v", i, err)
		}
	}
	list, err := mine.Budgets(within(t), admin.OwnBudgets{})
	must(t, err)
	if list.Budgets[0].Used != 110 {
		t.Errorf("a refused reset did something:\n%s", budgetLines(list))
	}
	for _, verb := range []string{"iap:budgets.show", "iap:budgets.reset"} {
		e := s.awaitEvent("the refusal", func(e audit.Event) bool { return e.Kind == audit.KindAdmin && e.Action == verb })
		if e.Decision != audit.Deny || e.Reason != "verb_not_granted" || e.Principal != "corp/alice" {
			t.Errorf("%+v", e)
		}
	}
}

func TestBudgetsOfAModulesOwnDecisionsAreThoseItNames(t *testing.T) {
	const module = `package iap

decision := {"allow": true, "reason": "allowed", "grant": "own", "limits": {"tokens": ["777/1h"]}} if input.principal.subject == "alice"

decision := {"allow": false, "reason": "no_grant"} if input.principal.subject != "alice"
`
	up := httptest.NewServer(ollama(counted(100)))
	t.Cleanup(up.Close)
	s := newSystem(t, budgetGrants, func(c *settings.Config) {
		file := filepath.Join(t.TempDir(), "own.rego")
		must(t, os.WriteFile(file, []byte(module), 0o600))
		c.Policy.Modules = []string{file}
	})
	s.startAs("ollama", up.URL)
	alice := s.user(nil).open(tunnel.Interactive)
	s.useSome(alice)
	list, err := api(t, alice).Budgets(within(t), admin.OwnBudgets{})
	must(t, err)
	if got := budgetLines(list); got != "own principal corp/alice tokens 110 of 777 enforce" {
		t.Errorf("got\n%s", got)
	}
	list, err = s.admin.ResetBudgets(within(t), admin.BudgetReset{Who: "corp/alice", Grant: "own"})
	must(t, err)
	if got := budgetLines(list); got != "own principal corp/alice tokens 0 of 777 enforce" {
		t.Errorf("after the reset\n%s", got)
	}
}

func TestWhoseGroupsAreNotKnownHasNoBudgets(t *testing.T) {
	s := newSystem(t, budgetGrants)
	p := policy.Principal{Issuer: "corp", Subject: "x", Groups: []string{"ml-eng"}}
	if rules := s.relay.ownRules(within(t), &identity{policy: p}, ""); len(rules) != 3 {
		t.Errorf("with known groups: %+v", rules)
	}
	p.GroupsUnknown = true
	if rules := s.relay.ownRules(within(t), &identity{policy: p}, ""); len(rules) > 0 {
		t.Errorf("nothing is granted, and yet %+v", rules)
	}
}
