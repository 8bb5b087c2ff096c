package e2e

import (
	"strings"
	"testing"
)

const budgetGrants = `version: 1
grants:
  - name: everybody
    to: ["any:dev"]
    resources: [phi3]
    actions: [chat, list-models]
    limits: {requests: 1000/1h, tokens: 200000/24h, contact: "#ml"}
admins: ["user:dev/alice"]
`

func TestPeopleSeeTheirBudgetsAndAdministratorsResetThem(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: budgetGrants})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice, bob := s.loggedIn("alice"), s.loggedIn("bob")
	bob.ok(nil, "chat", "phi3", "hello")
	type budgets struct {
		Schema  string
		Budgets []struct {
			Grant, Per, Who, Kind, Contact string
			Limit, Used, Left              int64
		}
	}
	var own budgets
	bob.ok(&own, "budgets", "phi3")
	if len(own.Budgets) != 2 || own.Schema != "iapctl/v1" {
		t.Fatalf("budgets: %+v", own)
	}
	if b := own.Budgets[1]; b.Kind != "tokens" || b.Who != "dev/bob" || b.Used == 0 || b.Left+b.Used != 200000 || b.Contact != "#ml" {
		t.Errorf("%+v", b)
	}
	text := bob.run("budgets")
	if text.code != 0 || !strings.Contains(text.out, "200,000 tokens/24h") || !strings.Contains(text.out, "more from #ml") {
		t.Errorf("budgets printed %d %s%s", text.code, text.out, text.errOut)
	}
	bob.fails(5, "verb_not_granted", "budgets", "show", "dev/alice")
	bob.fails(5, "verb_not_granted", "budgets", "reset", "dev/bob", "everybody")
	alice.fails(2, "usage", "budgets", "show")
	alice.fails(2, "bad_request", "budgets", "show", "bob")
	alice.fails(1, "unknown_grant", "budgets", "reset", "dev/bob", "none")
	var of budgets
	alice.ok(&of, "budgets", "show", "--grant", "everybody")
	if len(of.Budgets) == 0 || of.Budgets[0].Who != "dev/bob" {
		t.Errorf("of the grant: %+v", of)
	}
	var after budgets
	alice.ok(&after, "budgets", "reset", "dev/bob", "everybody")
	if len(after.Budgets) != 2 || after.Budgets[0].Used != 0 || after.Budgets[1].Used != 0 {
		t.Errorf("after the reset: %+v", after)
	}
	bob.ok(nil, "chat", "phi3", "hello again")
	var root budgets
	s.admin(&root, "budgets", "show", "dev/bob")
	if len(root.Budgets) != 2 || root.Budgets[0].Used == 0 {
		t.Errorf("iap-relay admin budgets show: %+v", root)
	}
	s.admin(&root, "budgets", "reset", "dev/bob", "everybody")
	if len(root.Budgets) != 2 || root.Budgets[0].Used != 0 {
		t.Errorf("iap-relay admin budgets reset: %+v", root)
	}
}
