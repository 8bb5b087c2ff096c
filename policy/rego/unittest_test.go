package rego

import (
	"strings"
	"testing"

	"iap/policy"
)

const policyTests = `package iap_test

import data.iap

ann := {"issuer": "corp", "subject": "ann", "groups": ["guests"], "claims": {}, "mfa": {"held": false, "asserted": false, "source": ""}, "binding": "none", "workload": false}

question := {"principal": ann, "resource": {"name": "phi3", "kind": "model", "labels": {}}, "action": "chat", "model": "phi3:latest", "egress": false, "via": "tunnel"}

test_open_grant_allows if iap.decision.allow with input as question

test_fails if {
	print("the reason is", iap.decision.reason) with input as question
	iap.decision.reason == "no_grant" with input as question
}

test_guests_are_denied_at_night if {
	d := iap.decision with input as question with time.now_ns as 1
	d.reason == "denied_by_rule"
}

todo_test_later if false
`

func TestPolicyUnitTestsRun(t *testing.T) {
	cfg := config(t, openGrants, map[string]string{
		"own.rego":      "package iap\n\ndeny contains \"night\" if {\n\t\"guests\" in input.principal.groups\n\ttime.now_ns() < 1000\n}\n",
		"own_test.rego": policyTests,
	})
	if err := Check(t.Context(), cfg); err != nil {
		t.Fatalf("tests disturb the policy: %v", err)
	}
	results, err := Test(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]TestResult{}
	for _, r := range results {
		got[r.Name] = r
	}
	if len(got) != 4 || !got["test_open_grant_allows"].Passed || !got["test_guests_are_denied_at_night"].Passed || !got["todo_test_later"].Skipped {
		t.Errorf("got %+v", results)
	}
	failed := got["test_fails"]
	if failed.Passed || !strings.Contains(failed.Output, "the reason is ") || !strings.Contains(failed.Location, "own_test.rego:") {
		t.Errorf("got %+v", failed)
	}
}

func TestPolicyUnitTestsAreRestrictedToo(t *testing.T) {
	cfg := config(t, openGrants, map[string]string{
		"own.rego":      "package iap\n\ndeny contains \"x\" if input.model == \"x\"\n",
		"own_test.rego": "package iap_test\n\ntest_x if http.send({}).status_code == 200\n",
	})
	if _, err := Test(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "http.send") {
		t.Fatalf("got %v", err)
	}
}

func TestExplanationShowsWhereEachGrantFails(t *testing.T) {
	e := newTestEngine(t, tableGrants, nil)
	x := e.Explain(t.Context(), chat(person("ann", "ml-eng"), "phi3", "phi3:latest"))
	want := map[string]string{
		"strict-chat": "binding_required", "mfa-embed": "resource_not_granted", "ops": "no_grant",
		"ops-later": "no_grant", "ci": "no_grant", "guests": "resource_not_granted",
	}
	for _, row := range x.Grants {
		if row.Verdict() != want[row.Name] || row.Line == 0 {
			t.Errorf("%s (line %d): %s", row.Name, row.Line, row.Verdict())
		}
	}
	if len(x.Grants) != len(want) || x.Decision.Reason != policy.ReasonBindingRequired || x.Grants[0].To[0] != "group:corp/ml-eng" {
		t.Errorf("got %+v", x)
	}
	x = e.Explain(t.Context(), chat(strong("root"), "gpu-1", "x"))
	if x.Grants[2].Verdict() != "decides" || x.Grants[3].Verdict() != "would allow" {
		t.Errorf("got %+v", x.Grants)
	}
	if x = e.Explain(t.Context(), policy.Input{}); x.Decision.Reason != policy.ReasonInputInvalid || x.Grants != nil {
		t.Errorf("got %+v", x)
	}
}
