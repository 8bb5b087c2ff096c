package e2e

import (
	"fmt"
	"strings"
	"testing"
)

func TestPeopleSeeTheirUsageAndAdministratorsEverybodys(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: budgetGrants})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice, bob := s.loggedIn("alice"), s.loggedIn("bob")
	bob.ok(nil, "chat", "phi3", "hello")
	type sum struct {
		Requests, Denied int64
		In               int64 `json:"tokens_in"`
		Out              int64 `json:"tokens_out"`
		P95              int64 `json:"ttft_p95_ms"`
	}
	type report struct {
		Schema, By, Who string
		Total           sum
		Rows            []struct {
			Name string
			sum
		}
		Points []struct{ Start string }
	}
	check := func(what string, r report, who, name string) {
		t.Helper()
		if r.Schema != "iapctl/v1" || r.Who != who || r.Total.Requests == 0 || r.Total.In == 0 || r.Total.Out == 0 || r.Total.P95 == 0 {
			t.Errorf("%s: %+v", what, r)
		}
		if len(r.Rows) == 0 || r.Rows[0].Name != name {
			t.Errorf("%s: %+v", what, r.Rows)
		}
	}
	var own, mine, everybody, root report
	bob.ok(&own, "usage", "--resource", "phi3", "--per", "minute", "--since", "1h")
	check("bob's own", own, "dev/bob", own.Rows[0].Name)
	if own.By != "model" || len(own.Points) == 0 {
		t.Errorf("bob's own: %+v", own)
	}
	bob.ok(&mine, "usage", "--mine", "--by", "principal")
	check("bob's own by principal", mine, "dev/bob", "dev/bob")
	bob.fails(5, "verb_not_granted", "usage", "--by", "principal")
	bob.fails(5, "verb_not_granted", "usage", "--who", "dev/alice")
	if r := bob.run("usage", "--by", "group"); !strings.Contains(r.errOut, "iapctl usage --mine --by group") {
		t.Errorf("a refusal does not say what is allowed: %s", r.errOut)
	}
	alice.ok(&everybody, "usage", "--by", "principal", "--since", "7d")
	check("everybody", everybody, "", "dev/bob")
	s.admin(&root, "usage", "--by", "principal")
	check("root", root, "", "dev/bob")
	if everybody.Total != root.Total {
		t.Errorf("iapctl says %+v, iap-relay admin %+v", everybody.Total, root.Total)
	}
	text := alice.run("usage", "--by", "principal", "--per", "day")
	if text.code != 0 || !strings.Contains(text.out, "PRINCIPAL") || !strings.Contains(text.out, fmt.Sprintf("dev/bob    ###### %5d", everybody.Total.Requests)) {
		t.Errorf("usage printed %d %s%s", text.code, text.out, text.errOut)
	}
	alice.fails(2, "usage", "usage", "--by", "colour")
	alice.fails(2, "bad_request", "usage", "--since", "yesterday")
	alice.fails(2, "usage", "usage", "--mine", "--who", "dev/bob")
}
