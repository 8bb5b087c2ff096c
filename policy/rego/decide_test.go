package rego

import (
	"context"
	"strings"
	"testing"
	"time"

	"iap/policy"
)

const tableGrants = `
grants:
  - name: strict-chat
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    models: ["phi3:*"]
    actions: [chat, list-models]
    require: {mfa: asserted, max_auth_age: 12h, binding: nonce}
    limits: {requests: [60/1m, 1000/24h], tokens: 200000/24h, concurrent: 4, max_output_tokens: 2048}
    priority: 10
  - name: mfa-embed
    to: ["group:corp/ml-eng"]
    resources: ["label:env=prod"]
    models: [nomic-embed-text]
    actions: [embed]
    require: {mfa: true}
  - name: ops
    to: ["user:corp/root"]
    resources: ["gpu-?", "db"]
    actions: [connect, chat, manage-model, health]
    egress: true
  - name: ops-later
    to: ["user:corp/root"]
    resources: ["*"]
    actions: [chat]
    priority: 3
  - name: ci
    to: ["claim:ci/repo=1234"]
    resources: [phi3]
    actions: [embed]
  - name: guests
    to: ["any:corp"]
    resources: [lobby]
    models: [Qwen3]
    actions: [chat, list-models, tokenize]
`

// strong is a login that meets every requirement.
func strong(subject string, groups ...string) policy.Principal {
	p := person(subject, groups...)
	p.Binding = policy.BindingNonce
	return p
}

func TestDecisionsByReason(t *testing.T) {
	with := func(in policy.Input, change func(*policy.Input)) policy.Input { change(&in); return in }
	engineer, root := strong("ann", "ml-eng"), strong("root")
	builder := policy.Principal{Issuer: "ci", Subject: "repo:x", Workload: true, Claims: map[string][]string{"repo": {"1234"}}}
	tests := map[string]struct {
		in     policy.Input
		reason string
		grant  string
	}{
		"all requirements met":                  {chat(engineer, "phi3", "phi3:latest"), "allowed", "strict-chat"},
		"list-models needs no model":            {with(chat(engineer, "phi3", ""), func(in *policy.Input) { in.Action = "list-models" }), "allowed", "strict-chat"},
		"any action, any model":                 {with(chat(engineer, "phi3", ""), func(in *policy.Input) { in.Action = policy.ActionAny }), "allowed", "strict-chat"},
		"any action still checks the model":     {with(chat(engineer, "phi3", "llama3:latest"), func(in *policy.Input) { in.Action = policy.ActionAny }), "model_not_granted", ""},
		"any action still checks the login":     {with(chat(person("ann", "ml-eng"), "phi3", ""), func(in *policy.Input) { in.Action = policy.ActionAny }), "binding_required", "strict-chat"},
		"nobody's grant":                        {chat(strong("eve"), "phi3", "phi3:latest"), "resource_not_granted", ""},
		"no grant at all":                       {chat(policy.Principal{Issuer: "ci", Subject: "eve", Workload: true}, "phi3", "phi3:latest"), "no_grant", ""},
		"same subject of another issuer":        {chat(policy.Principal{Issuer: "ci", Subject: "root"}, "db", ""), "no_grant", ""},
		"other resource":                        {chat(engineer, "phi4", "phi3:latest"), "resource_not_granted", ""},
		"resource names match by case":          {chat(engineer, "PHI3", "phi3:latest"), "resource_not_granted", ""},
		"other model":                           {chat(engineer, "phi3", "llama3:latest"), "model_not_granted", ""},
		"chat without a model":                  {chat(engineer, "phi3", ""), "model_not_granted", ""},
		"chat without a model, all granted":     {chat(root, "gpu-1", ""), "allowed", "ops"},
		"other action":                          {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Action = "manage-model" }), "action_not_granted", ""},
		"model leaves the host":                 {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Egress = true }), "egress_not_granted", ""},
		"model may leave the host":              {with(chat(root, "gpu-1", "big:cloud"), func(in *policy.Input) { in.Egress = true }), "allowed", "ops"},
		"no second factor":                      {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Principal.MFA = false }), "mfa_required", "strict-chat"},
		"second factor by policy, not by claim": {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Principal.MFASource = "issuer_policy" }), "mfa_required", "strict-chat"},
		"second factor of no known source":      {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Principal.MFASource = "" }), "mfa_required", "strict-chat"},
		"login too old":                         {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Now = noon.Add(11 * time.Hour) }), "auth_too_old", "strict-chat"},
		"login just young enough":               {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Now = noon.Add(11*time.Hour - 1) }), "allowed", "strict-chat"},
		"login at an unknown time":              {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Principal.AuthTime = time.Time{} }), "auth_too_old", "strict-chat"},
		"login in the far future":               {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Principal.AuthTime = noon.Add(time.Hour) }), "auth_too_old", "strict-chat"},
		"login by a clock slightly ahead":       {with(chat(engineer, "phi3", "phi3:latest"), func(in *policy.Input) { in.Principal.AuthTime = noon.Add(time.Minute) }), "allowed", "strict-chat"},
		"login not made for the key":            {chat(person("ann", "ml-eng"), "phi3", "phi3:latest"), "binding_required", "strict-chat"},
		"by label, second factor by policy": {with(chat(engineer, "emb", "nomic-embed-text:latest"), func(in *policy.Input) {
			in.Action, in.Resource.Labels, in.Principal.MFASource = "embed", map[string]string{"env": "prod"}, "issuer_policy"
		}), "allowed", "mfa-embed"},
		"policy of the provider says nothing about workloads": {with(chat(engineer, "emb", "nomic-embed-text:latest"), func(in *policy.Input) {
			in.Action, in.Resource.Labels, in.Principal.MFASource = "embed", map[string]string{"env": "prod"}, "issuer_policy"
			in.Principal.Workload = true
		}), "mfa_required", "mfa-embed"},
		"other label value": {with(chat(engineer, "emb", "nomic-embed-text:latest"), func(in *policy.Input) {
			in.Action, in.Resource.Labels = "embed", map[string]string{"env": "production"}
		}), "resource_not_granted", ""},
		"question mark is one character":    {chat(root, "gpu-10", "x"), "allowed", "ops-later"},
		"first in file order decides":       {chat(root, "gpu-1", "x"), "allowed", "ops"},
		"tcp":                               {with(chat(root, "db", ""), func(in *policy.Input) { in.Action = "connect" }), "allowed", "ops"},
		"workload by claim":                 {with(chat(builder, "phi3", "x"), func(in *policy.Input) { in.Action = "embed" }), "allowed", "ci"},
		"any names people only":             {with(chat(engineer, "lobby", "qwen3:latest"), func(in *policy.Input) { in.Principal.Workload = true }), "resource_not_granted", ""},
		"model without tag is latest":       {chat(engineer, "lobby", "qwen3:latest"), "allowed", "guests"},
		"model without tag is itself":       {chat(engineer, "lobby", "QWEN3"), "allowed", "guests"},
		"model without tag is no other tag": {chat(engineer, "lobby", "qwen3:0.6b"), "model_not_granted", ""},
		"groups unknown":                    {with(chat(root, "gpu-1", "x"), func(in *policy.Input) { in.Principal.GroupsUnknown = true }), "groups_unknown", ""},
		"request in no table":               {with(chat(root, "gpu-1", "x"), func(in *policy.Input) { in.Action = policy.ActionUnknown }), "action_unknown", ""},
		"no action":                         {with(chat(root, "gpu-1", "x"), func(in *policy.Input) { in.Action = "" }), "action_unknown", ""},
		"no subject":                        {with(chat(root, "gpu-1", "x"), func(in *policy.Input) { in.Principal.Subject = "" }), "input_invalid", ""},
		"no resource":                       {chat(root, "", "x"), "input_invalid", ""},
	}
	e := newTestEngine(t, tableGrants, nil)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			d := e.Decide(t.Context(), test.in)
			if d.Reason != test.reason || d.Grant != test.grant || d.Allow != (test.reason == "allowed") {
				t.Fatalf("got %+v", d)
			}
			if d.Message == "" || d.Revision != e.Revision() {
				t.Errorf("message or revision missing: %+v", d)
			}
			if again := e.Decide(t.Context(), test.in); again.Reason != d.Reason || again.Grant != d.Grant || !again.Until.Equal(d.Until) {
				t.Errorf("the cached answer differs: %+v", again)
			}
		})
	}
}

func TestAllowCarriesLimitsPriorityAndUntil(t *testing.T) {
	e := newTestEngine(t, tableGrants, nil)
	d := e.Decide(t.Context(), chat(strong("ann", "ml-eng"), "phi3", "phi3:latest"))
	if len(d.Limits) != 1 || d.MaxOutputTokens() != 2048 {
		t.Fatalf("limits: %+v", d.Limits)
	}
	if got := d.Limits[0]; len(got.Requests) != 2 || got.Requests[1] != (policy.Rate{N: 1000, Per: 24 * time.Hour}) ||
		len(got.Tokens) != 1 || got.Concurrent != 4 || got.MaxOutputTokens != 2048 {
		t.Errorf("limits: %+v", got)
	}
	if d.Priority != 10 || !d.Until.Equal(noon.Add(11*time.Hour)) {
		t.Errorf("priority %d, until %v", d.Priority, d.Until)
	}
	if d := e.Decide(t.Context(), chat(strong("root"), "gpu-1", "x")); !d.Until.IsZero() {
		t.Errorf("a grant without max_auth_age ends at %v", d.Until)
	}
}

func TestMessagesNameTheNextStep(t *testing.T) {
	e := newTestEngine(t, tableGrants, nil)
	weak := person("ann", "ml-eng")
	old := strong("ann", "ml-eng")
	old.AuthTime = noon.Add(-48 * time.Hour)
	for want, in := range map[string]policy.Input{
		"iapctl whoami":          chat(policy.Principal{Issuer: "ci", Subject: "eve"}, "phi3", ""),
		"iapctl resources":       chat(strong("eve"), "phi3", ""),
		"iapctl login --browser": chat(weak, "phi3", "phi3:latest"),
		"of the last 12h":        chat(old, "phi3", "phi3:latest"),
		`"llama3:latest"`:        chat(strong("ann", "ml-eng"), "phi3", "llama3:latest"),
		`names none`:             chat(strong("ann", "ml-eng"), "phi3", ""),
	} {
		if d := e.Decide(t.Context(), in); !strings.Contains(d.Message, want) {
			t.Errorf("%s: %q does not say %q", d.Reason, d.Message, want)
		}
	}
	long := e.Decide(t.Context(), chat(strong("ann", "ml-eng"), "phi3", "\x1b]52;c;"+strings.Repeat("x", 5000)))
	if len(long.Message) > 400 || strings.Contains(long.Message, "\x1b") {
		t.Errorf("a name from a request floods the message: %.500q", long.Message)
	}
}

func mayKill(e *Engine, p policy.Principal) bool {
	return e.MayAdminister(context.Background(), policy.Input{Principal: p, Action: policy.VerbSessionsKill, Via: policy.ViaTunnel}).Allow
}

func TestAdministratorsAreNamedInTheirListOnly(t *testing.T) {
	e := newTestEngine(t, tableGrants+`
admins: ["user:corp/boss", "group:corp/iap-admins", "claim:ci/role=admin"]
`, nil)
	for name, want := range map[string]bool{"boss": true, "root": false, "ann": false} {
		if got := mayKill(e, strong(name)); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
	if !mayKill(e, strong("ann", "x", "iap-admins")) || !mayKill(e, policy.Principal{Issuer: "ci", Subject: "j", Claims: map[string][]string{"role": {"admin"}}}) {
		t.Error("group or claim of the list is not an administrator")
	}
	for _, p := range []policy.Principal{
		{Issuer: "ci", Subject: "boss"},
		{Issuer: "corp", Subject: "boss", GroupsUnknown: true},
		{Issuer: "corp"},
		{},
	} {
		if mayKill(e, p) {
			t.Errorf("%+v is an administrator", p)
		}
	}
}
