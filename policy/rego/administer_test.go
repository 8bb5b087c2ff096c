package rego

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"iap/policy"
)

const oneAdmin = "grants: []\nadmins: [\"user:corp/boss\"]\n"

func asks(p policy.Principal, verb string) policy.Input {
	return policy.Input{Principal: p, Action: verb, Via: policy.ViaTunnel, Now: noon}
}

func TestModulesTakeVerbsAwayAndNeverGiveThem(t *testing.T) {
	for name, c := range map[string]struct {
		module string
		reason string // of boss, who is in the list
	}{
		"silent":            {"package iap\nadmin_deny contains \"never\" if input.action == \"chat\"\n", policy.ReasonAllowed},
		"takes away":        {"package iap\nadmin_deny contains \"not today\" if input.action == \"iap:sessions.kill\"\n", policy.ReasonDeniedByRule},
		"no text":           {"package iap\nadmin_deny contains 7 if input.principal.subject == \"boss\"\n", policy.ReasonDeniedByRule},
		"fails":             {"package iap\nadmin_deny contains \"x\" if to_number(input.principal.subject) > 1\n", policy.ReasonPolicyError},
		"gives":             {"package iap\nadmin_allow contains \"x\"\nadmins := [\"user:corp/eve\"]\n", policy.ReasonAllowed},
		"replaced":          {"package iap\ndecision := {\"allow\": true}\n", policy.ReasonAllowed},
		"replaced and deny": {"package iap\ndecision := {\"allow\": true}\nadmin_deny contains \"x\"\n", policy.ReasonDeniedByRule},
		"deny of requests":  {"package iap\ndeny contains \"x\"\n", policy.ReasonAllowed},
	} {
		e := newTestEngine(t, oneAdmin, map[string]string{"own.rego": c.module})
		d := e.MayAdminister(t.Context(), asks(strong("boss"), policy.VerbSessionsKill))
		if d.Reason != c.reason || d.Allow != (c.reason == policy.ReasonAllowed) || d.Revision != e.Revision() {
			t.Errorf("%s: %+v", name, d)
		}
		if d := e.MayAdminister(t.Context(), asks(strong("eve"), policy.VerbSessionsKill)); d.Allow || d.Reason != policy.ReasonVerbNotGranted {
			t.Errorf("%s: eve: %+v", name, d)
		}
	}
	for _, module := range []string{
		"package iap\nadmin_deny := true\n",
		"package iap\nadmin_deny if input.action == \"x\"\n",
		"package iap\nadmin_deny[\"x\"] := 1\n",
		"package iap.admin_deny\nx contains \"y\"\n",
	} {
		if _, err := New(t.Context(), config(t, oneAdmin, map[string]string{"own.rego": module})); err == nil || !strings.Contains(err.Error(), "admin_deny contains") {
			t.Errorf("%q loads: %v", module, err)
		}
	}
}

func TestOnlySessionsUseVerbs(t *testing.T) {
	e := newTestEngine(t, oneAdmin, nil)
	for _, via := range []string{policy.ViaBearer, policy.ViaKey, policy.ViaLocal, "", "odd"} {
		in := asks(strong("boss"), policy.VerbSessionsKill)
		in.Via = via
		if d := e.MayAdminister(t.Context(), in); d.Allow || d.Reason != policy.ReasonSessionRequired {
			t.Errorf("via %q: %+v", via, d)
		}
		if x := e.Explain(t.Context(), in); x.Decision.Allow || x.Grants[0].Allows {
			t.Errorf("via %q: %+v", via, x)
		}
	}
	in := asks(strong("boss"), policy.VerbSessionsKill)
	in.Resource.Name = "phi3"
	if d := e.Decide(t.Context(), in); d.Allow || d.Reason != policy.ReasonActionUnknown {
		t.Errorf("a verb is asked of the grants: %+v", d)
	}
}

// What a login must be is evaluated by the built-in policy for grants and by
// package policy for verbs: they must never part.
func TestRequirementsMeanTheSameForGrantsAndForVerbs(t *testing.T) {
	requires := []string{
		"mfa: true", "mfa: asserted", "acr: [gold, silver]", "max_auth_age: 12h", "binding: nonce", "claims: {corp/office: [hq, lab]}", "claims: {ci/office: hq}",
		"claims: {corp/office: hq}, mfa: true", "mfa: true, acr: [gold], max_auth_age: 12h, binding: nonce",
	}
	var file strings.Builder
	file.WriteString("grants:\n")
	for i, r := range requires {
		fmt.Fprintf(&file, "  - {name: g%d, to: [\"user:corp/ann\"], resources: [r%d], actions: [chat], require: {%s}}\n", i, i, r)
	}
	file.WriteString("admins:\n")
	for i, r := range requires {
		fmt.Fprintf(&file, "  - {to: [\"user:corp/ann\"], verbs: [%q], require: {%s}}\n", policy.Verbs()[i], r)
	}
	e := newTestEngine(t, file.String(), nil)
	for _, mfa := range []string{"", policy.MFASourceAMR, policy.MFASourceIssuerPolicy, "odd"} {
		for _, age := range []time.Duration{0, time.Hour, 12 * time.Hour, -time.Minute, -time.Hour} {
			for _, office := range []string{"", "hq", "lab"} {
				for _, workload := range []bool{false, true} {
					p := policy.Principal{Issuer: "corp", Subject: "ann", MFA: mfa != "", MFASource: mfa, Workload: workload, Claims: map[string][]string{"office": {office}}}
					if p.ACR, p.Binding = "gold", policy.BindingNonce; office == "lab" {
						p.ACR, p.Binding = "bronze", "first-use"
					}
					if age != 0 {
						p.AuthTime = noon.Add(-age)
					}
					for i, r := range requires {
						grant := e.Decide(t.Context(), chat(p, fmt.Sprintf("r%d", i), "m"))
						verb := e.MayAdminister(t.Context(), asks(p, policy.Verbs()[i]))
						if grant.Allow != verb.Allow || grant.Reason != verb.Reason || !grant.Until.Equal(verb.Until) || (grant.StepUp == nil) != (verb.StepUp == nil) {
							t.Errorf("{%s} of %+v:\ngrant %+v\nverb  %+v", r, p, grant, verb)
						}
						if grant.StepUp != nil && *grant.StepUp != *verb.StepUp {
							t.Errorf("{%s} of %+v: step up %+v, %+v", r, p, grant.StepUp, verb.StepUp)
						}
					}
				}
			}
		}
	}
}

func TestAVerbIsExplainedByTheEntriesOfAdmins(t *testing.T) {
	e := newTestEngine(t, `grants: []
admins:
  - "user:corp/boss"
  - {to: ["group:corp/desk"], verbs: ["iap:sessions.ls"]}
  - {to: ["group:corp/desk"], verbs: ["iap:sessions.kill"], require: {mfa: asserted, max_auth_age: 12h}}
`, nil)
	x := e.Explain(t.Context(), asks(policy.Principal{Issuer: "corp", Subject: "d", Groups: []string{"desk"}}, policy.VerbSessionsKill))
	near := x.Closest()
	if x.Decision.Reason != policy.ReasonMFARequired || !x.Verb || len(x.Grants) != 3 || near == nil || near.Name != "admins:5" || len(near.Lacks) != 2 {
		t.Fatalf("%+v", x)
	}
	if g := x.Grants[0]; len(g.To) > 0 || g.Verdict() != policy.ReasonNoGrant || !strings.Contains(g.Lacks[0], "user:corp/boss") {
		t.Errorf("%+v", g)
	}
	if g := x.Grants[1]; g.Verdict() != policy.ReasonActionNotGranted || len(g.Unmet) > 0 {
		t.Errorf("%+v", g)
	}
	x = e.Explain(t.Context(), asks(policy.Principal{Issuer: "corp", Subject: "boss"}, policy.VerbSessionsKill))
	if !x.Decision.Allow || !x.Grants[0].Decides || x.Closest() != nil {
		t.Errorf("%+v", x)
	}
}

func TestTablesStateWhoMayAdminister(t *testing.T) {
	cfg := config(t, oneAdmin, nil)
	results, err := TestCases(t.Context(), cfg, write(t, t.TempDir(), "t.yaml", `cases:
  - {name: boss kills, who: {user: corp/boss}, action: "iap:sessions.kill", want: allow, grant: "admins:2"}
  - {name: eve does not, who: {user: corp/eve}, action: "iap:sessions.kill", want: deny, reason: verb_not_granted}
  - {name: nor does a key, who: {user: corp/boss}, action: "iap:sessions.kill", via: key, want: deny, reason: session_required}
  - {name: wrong, who: {user: corp/eve}, action: "iap:status.read", want: allow}
`))
	if err != nil || len(results) != 4 {
		t.Fatalf("%+v, %v", results, err)
	}
	for i, r := range results {
		if r.Passed != (i < 3) {
			t.Errorf("%+v", r)
		}
	}
	for table, want := range map[string]string{
		`{name: n, who: {user: corp/a}, action: "iap:session.kill", want: allow}`: `did you mean "iap:sessions.kill"`,
		`{name: n, who: {user: corp/a}, action: chat, want: allow}`:               `key "resource" is missing`,
	} {
		if _, err := TestCases(t.Context(), cfg, write(t, t.TempDir(), "t.yaml", "cases:\n  - "+table+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", table, err)
		}
	}
}
