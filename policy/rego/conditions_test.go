package rego

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"iap/policy"
)

const conditionGrants = `
grants:
  - name: team
    to: ["user:corp/root", "group:corp/ml-eng", "group:corp/ops"]
    resources: [phi3]
    actions: [chat]
    media: [image]
    keys: {max_ttl: 90d}
    limits:
      - {requests: 60/1m, concurrent: 4, max_output_tokens: 4096}
      - {tokens: [1000/1m, 2000000/30d], max_output_tokens: 2048, per: group, contact: "#ml-platform"}
      - {max_output_tokens: 100, mode: warn, per: grant}
  - name: text-only
    to: ["any:corp"]
    resources: [phi4]
    actions: [chat]
    media: []
  - name: careful
    to: ["any:corp"]
    resources: [gold]
    actions: [chat]
    keys: {max_ttl: 1d}
    require: {mfa: asserted, acr: [gold, silver], max_auth_age: 12h, binding: nonce}
`

func TestDecisionCarriesEveryLimitAndTheGroup(t *testing.T) {
	e := newTestEngine(t, conditionGrants, nil)
	d := e.Decide(t.Context(), chat(person("ann", "chess", "ops", "ml-eng"), "phi3", "phi3"))
	want := []policy.Limits{
		{Requests: []policy.Rate{{N: 60, Per: time.Minute}}, Concurrent: 4, MaxOutputTokens: 4096, Per: "principal", Mode: "enforce"},
		{Tokens: []policy.Rate{{N: 1000, Per: time.Minute}, {N: 2000000, Per: 720 * time.Hour}}, MaxOutputTokens: 2048, Per: "group", Mode: "enforce", Contact: "#ml-platform"},
		{MaxOutputTokens: 100, Per: "grant", Mode: "warn"},
	}
	if !d.Allow || !reflect.DeepEqual(d.Limits, want) || d.MaxOutputTokens() != 2048 {
		t.Errorf("got %+v", d)
	}
	if d.Group != "corp/ml-eng" || d.Keys.MaxTTL != 90*24*time.Hour {
		t.Errorf("group %q, keys %v: the first group of the grant counts, not of the principal", d.Group, d.Keys)
	}
	if d := e.Decide(t.Context(), chat(person("root"), "phi3", "phi3")); !d.Allow || d.Group != "" {
		t.Errorf("by user: %+v", d)
	}
}

func TestMediaAndKeysNarrowAGrant(t *testing.T) {
	e := newTestEngine(t, conditionGrants, nil)
	for name, test := range map[string]struct {
		resource, via, reason string
		media                 []string
	}{
		"text":                    {"phi3", "tunnel", "allowed", nil},
		"a listed kind":           {"phi3", "tunnel", "allowed", []string{"image"}},
		"a kind beside":           {"phi3", "tunnel", "media_not_granted", []string{"audio", "image"}},
		"a kind nobody knows":     {"phi3", "tunnel", "media_not_granted", []string{"smell"}},
		"an image for text only":  {"phi4", "tunnel", "media_not_granted", []string{"image"}},
		"text for text only":      {"phi4", "tunnel", "allowed", nil},
		"a key where keys may":    {"phi3", "key", "allowed", nil},
		"a key where none may":    {"phi4", "key", "keys_not_granted", nil},
		"a token where keys none": {"phi4", "bearer", "allowed", nil},
	} {
		in := chat(person("ann", "ml-eng"), test.resource, "m")
		in.Via, in.Media = test.via, test.media
		if d := e.Decide(t.Context(), in); d.Reason != test.reason || d.Allow != (test.reason == "allowed") || d.Message == "" || d.StepUp != nil {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestDenialSaysWhatALoginWouldCure(t *testing.T) {
	e := newTestEngine(t, conditionGrants, nil)
	good := strong("ann")
	good.ACR = "silver"
	cure := &policy.StepUp{MFA: true, ACR: "gold silver", MaxAge: 12 * time.Hour, Binding: "nonce"}
	for name, test := range map[string]struct {
		change func(*policy.Input)
		reason string
		cure   *policy.StepUp
	}{
		"all met":       {func(*policy.Input) {}, "allowed", nil},
		"no mfa":        {func(in *policy.Input) { in.Principal.MFA = false }, "mfa_required", cure},
		"another class": {func(in *policy.Input) { in.Principal.ACR = "tin" }, "acr_required", cure},
		"no class":      {func(in *policy.Input) { in.Principal.ACR = "" }, "acr_required", cure},
		"too old":       {func(in *policy.Input) { in.Principal.AuthTime = noon.Add(-12 * time.Hour) }, "auth_too_old", cure},
		"not bound":     {func(in *policy.Input) { in.Principal.Binding = "first-use" }, "binding_required", cure},
		"a key":         {func(in *policy.Input) { in.Principal.ACR, in.Via = "", "key" }, "acr_required", nil},
		"another model": {func(in *policy.Input) { in.Action = "embed" }, "action_not_granted", nil},
	} {
		in := chat(good, "gold", "m")
		test.change(&in)
		d := e.Decide(t.Context(), in)
		if d.Reason != test.reason || !reflect.DeepEqual(d.StepUp, test.cure) || d.Message == "" {
			t.Errorf("%s: %+v %+v", name, d, d.StepUp)
		}
	}
}

func TestModulesSpeakOfLimitsKeysAndStepUp(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		via    string
		want   policy.Decision
	}{
		"one limit":      {`{"allow": true, "limits": {"concurrent": 1}}`, "tunnel", policy.Decision{Allow: true, Reason: "allowed", Limits: []policy.Limits{{Concurrent: 1, Per: "principal", Mode: "enforce"}}}},
		"no limit":       {`{"allow": true, "limits": {}}`, "tunnel", policy.Decision{Allow: true, Reason: "allowed"}},
		"a list":         {`{"allow": true, "limits": [{"concurrent": 1, "per": "grant", "mode": "warn", "contact": "x"}, {}]}`, "tunnel", policy.Decision{Allow: true, Reason: "allowed", Limits: []policy.Limits{{Concurrent: 1, Per: "grant", Mode: "warn", Contact: "x"}}}},
		"a group":        {`{"allow": true, "group": "corp/x"}`, "tunnel", policy.Decision{Allow: true, Reason: "allowed", Group: "corp/x"}},
		"keys":           {`{"allow": true, "keys": {"max_ttl": 1000000000}}`, "key", policy.Decision{Allow: true, Reason: "allowed", Keys: policy.KeyRule{MaxTTL: time.Second}}},
		"forgotten keys": {`{"allow": true}`, "key", policy.Decision{Reason: "keys_not_granted"}},
		"step-up":        {`{"allow": false, "reason": "at_night", "step_up": {"mfa": true}}`, "tunnel", policy.Decision{Reason: "at_night", StepUp: &policy.StepUp{MFA: true}}},
		"no step-up":     {`{"allow": false, "reason": "at_night", "step_up": null}`, "tunnel", policy.Decision{Reason: "at_night"}},
		"a bad mode":     {`{"allow": true, "limits": {"concurrent": 1, "mode": "off"}}`, "tunnel", policy.Decision{Reason: "policy_error"}},
		"a bad per":      {`{"allow": true, "limits": [{"concurrent": 1, "per": ""}]}`, "tunnel", policy.Decision{Reason: "policy_error"}},
		"a bad list":     {`{"allow": true, "limits": [1]}`, "tunnel", policy.Decision{Reason: "policy_error"}},
		"bad keys":       {`{"allow": true, "keys": {"max_ttl": "90d"}}`, "tunnel", policy.Decision{Reason: "policy_error"}},
		"negative keys":  {`{"allow": true, "keys": {"max_ttl": -1}}`, "key", policy.Decision{Reason: "policy_error"}},
		"bad step-up":    {`{"allow": false, "reason": "r", "step_up": {"password": true}}`, "tunnel", policy.Decision{Reason: "policy_error"}},
		"bad binding":    {`{"allow": false, "reason": "r", "step_up": {"binding": "none"}}`, "tunnel", policy.Decision{Reason: "policy_error"}},
	} {
		in := chat(person("ann"), "phi3", "m")
		in.Via = test.via
		d := newTestEngine(t, openGrants, answering(test.answer)).Decide(t.Context(), in)
		d.Message, d.Revision = "", ""
		if !reflect.DeepEqual(d, test.want) {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestRequiredClaimsHoldTogetherAndForTheirIssuerAlone(t *testing.T) {
	e := newTestEngine(t, `
grants:
  - name: release
    to: ["claim:ci/repo=1234", "user:corp/ann"]
    resources: [phi3]
    actions: [chat]
    require: {claims: {ci/workflow: "o/r/.github/workflows/release.yml@refs/heads/main", ci/env: [production, staging]}}
`, nil)
	workflow := "o/r/.github/workflows/release.yml@refs/heads/main"
	job := func(claims map[string][]string) policy.Principal {
		return policy.Principal{Issuer: "ci", Subject: "repo:o/r:environment:production", Claims: claims, Binding: "none", Workload: true}
	}
	for name, test := range map[string]struct {
		who    policy.Principal
		reason string
	}{
		"both":              {job(map[string][]string{"repo": {"1234"}, "workflow": {workflow}, "env": {"staging"}}), "allowed"},
		"by member":         {job(map[string][]string{"repo": {"1234"}, "workflow": {"x", workflow}, "env": {"production"}}), "allowed"},
		"another repo":      {job(map[string][]string{"repo": {"12345"}, "workflow": {workflow}, "env": {"staging"}}), "no_grant"},
		"another workflow":  {job(map[string][]string{"repo": {"1234"}, "workflow": {workflow + "x"}, "env": {"staging"}}), "claims_required"},
		"another case":      {job(map[string][]string{"repo": {"1234"}, "workflow": {strings.ToUpper(workflow)}, "env": {"staging"}}), "claims_required"},
		"another env":       {job(map[string][]string{"repo": {"1234"}, "workflow": {workflow}, "env": {"dev"}}), "claims_required"},
		"no env":            {job(map[string][]string{"repo": {"1234"}, "workflow": {workflow}}), "claims_required"},
		"an empty list":     {job(map[string][]string{"repo": {"1234"}, "workflow": {workflow}, "env": {}}), "claims_required"},
		"the claims of two": {job(map[string][]string{"repo": {"1234"}, "workflow": {"production"}, "env": {workflow}}), "claims_required"},
		"of another issuer": {policy.Principal{Issuer: "corp", Subject: "ann", Claims: map[string][]string{"workflow": {workflow}, "env": {"staging"}}}, "claims_required"},
	} {
		d := e.Decide(t.Context(), chat(test.who, "phi3", "m"))
		if d.Reason != test.reason || d.Allow != (test.reason == "allowed") || d.StepUp != nil || d.Message == "" {
			t.Errorf("%s: %+v", name, d)
		}
		if d.Reason == policy.ReasonClaimsRequired && (strings.Contains(d.Message, workflow) || strings.Contains(d.Message, "production")) {
			t.Errorf("%s: the denied learns the values: %s", name, d.Message)
		}
	}
	x := e.Explain(t.Context(), chat(job(map[string][]string{"repo": {"1234"}, "workflow": {workflow}, "env": {"dev"}}), "phi3", "m"))
	if c := x.Closest(); c == nil || c.Shortfall() != "grant release would allow it but for: claim ci/env is dev, and the grant wants production or staging" {
		t.Errorf("explained as %+v", x)
	}
}
