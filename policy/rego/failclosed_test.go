package rego

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"iap/policy"
)

const openGrants = `
grants:
  - name: open
    to: ["any:corp"]
    resources: ["*"]
    actions: [chat, embed]
`

// answering is a module that replaces the decision by a Rego expression.
func answering(expression string) map[string]string {
	return map[string]string{"own.rego": "package iap\n\ndecision := " + expression + "\n"}
}

func TestPO01MalformedAnswersDeny(t *testing.T) {
	for name, test := range map[string]struct{ module, reason string }{
		"undefined":               {"package iap\n\ndecision := {\"allow\": true} if input.model == \"no such\"\n", "policy_undefined"},
		"the string true":         {"package iap\n\ndecision := \"true\"\n", "policy_error"},
		"a number":                {"package iap\n\ndecision := 1\n", "policy_error"},
		"a bare true":             {"package iap\n\ndecision := true\n", "policy_error"},
		"a set":                   {"package iap\n\ndecision := {\"allow\", true}\n", "policy_error"},
		"null":                    {"package iap\n\ndecision := null\n", "policy_error"},
		"empty":                   {"package iap\n\ndecision := {}\n", "policy_error"},
		"a partial set":           {"package iap\n\ndecision contains \"allow\"\n", "policy_error"},
		"conflicting values":      {"package iap\n\ndecision := {\"allow\": true} if input.action == \"chat\"\n\ndecision := {\"allow\": false} if input.via == \"tunnel\"\n", "policy_error"},
		"builtin error":           {"package iap\n\ndecision := {\"allow\": to_number(input.model) == 1 / 0}\n", "policy_error"},
		"builtin error in a not":  {"package iap\n\ndecision := {\"allow\": true} if not to_number(input.model) == 1\n", "policy_error"},
		"allow is a string":       {"package iap\n\ndecision := {\"allow\": \"true\"}\n", "policy_error"},
		"allow is a number":       {"package iap\n\ndecision := {\"allow\": 1}\n", "policy_error"},
		"allow is missing":        {"package iap\n\ndecision := {\"reason\": \"allowed\"}\n", "policy_error"},
		"allow against reason":    {"package iap\n\ndecision := {\"allow\": true, \"reason\": \"no_grant\"}\n", "policy_error"},
		"deny against reason":     {"package iap\n\ndecision := {\"allow\": false, \"reason\": \"allowed\"}\n", "policy_error"},
		"reason is no code":       {"package iap\n\ndecision := {\"allow\": false, \"reason\": \"Go away\"}\n", "policy_error"},
		"unknown key":             {"package iap\n\ndecision := {\"allow\": true, \"alow\": 1}\n", "policy_error"},
		"limits of another shape": {"package iap\n\ndecision := {\"allow\": true, \"limits\": {\"requests\": \"60/1m\"}}\n", "policy_error"},
		"a rate that is none":     {"package iap\n\ndecision := {\"allow\": true, \"limits\": {\"requests\": [\"60/soon\"]}}\n", "policy_error"},
		"an unknown limit":        {"package iap\n\ndecision := {\"allow\": true, \"limits\": {\"request\": [\"60/1m\"]}}\n", "policy_error"},
		"a negative limit":        {"package iap\n\ndecision := {\"allow\": true, \"limits\": {\"concurrent\": -1}}\n", "policy_error"},
		"half a priority":         {"package iap\n\ndecision := {\"allow\": true, \"priority\": 0.5}\n", "policy_error"},
		"until has passed":        {"package iap\n\ndecision := {\"allow\": true, \"until\": 1}\n", "policy_error"},
		"until is a text":         {"package iap\n\ndecision := {\"allow\": true, \"until\": \"2030-01-01\"}\n", "policy_error"},
		"message with a newline":  {"package iap\n\ndecision := {\"allow\": false, \"message\": \"a\\nb\"}\n", "policy_error"},
		"allow below a package":   {"package iap.decision\n\nallow := \"yes\"\n", "policy_error"},
		"deny is no text":         {"package iap\n\ndeny contains 7\n", "policy_error"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newTestEngine(t, openGrants, map[string]string{"own.rego": test.module})
			for range 2 { // an error must not be cached as anything else either
				d := e.Decide(t.Context(), chat(person("ann"), "phi3", "phi3:latest"))
				if d.Allow || d.Reason != test.reason || d.Message == "" {
					t.Fatalf("got %+v", d)
				}
			}
		})
	}
}

func TestReplacedDecisionIsHonoured(t *testing.T) {
	for name, test := range map[string]struct {
		expression, reason string
		allow              bool
	}{
		"plain allow":  {`{"allow": true}`, policy.ReasonAllowed, true},
		"plain deny":   {`{"allow": false}`, policy.ReasonDeniedByRule, false},
		"own code":     {`{"allow": false, "reason": "out_of_office", "message": "come back tomorrow"}`, "out_of_office", false},
		"the built-in": {`data.iap.builtin.decision`, policy.ReasonAllowed, true},
		"full":         {`{"allow": true, "reason": "allowed", "grant": "mine", "priority": 3, "until": null, "limits": {"requests": ["60/1m"], "concurrent": 2}}`, policy.ReasonAllowed, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := newTestEngine(t, openGrants, answering(test.expression)).Decide(t.Context(), chat(person("ann"), "phi3", "phi3:latest"))
			if d.Allow != test.allow || d.Reason != test.reason || d.Message == "" {
				t.Fatalf("got %+v", d)
			}
		})
	}
}

func TestDenyRulesNarrowTheBuiltinPolicy(t *testing.T) {
	e := newTestEngine(t, openGrants, map[string]string{"own.rego": `package iap

deny contains "no embeddings on Mondays" if input.action == "embed"

deny contains "and none for guests" if {
	input.action == "embed"
	"guests" in input.principal.groups
}
`})
	if d := e.Decide(t.Context(), chat(person("ann"), "phi3", "phi3:latest")); !d.Allow {
		t.Fatalf("chat: %+v", d)
	}
	in := chat(person("ann", "guests"), "phi3", "phi3:latest")
	in.Action = policy.ActionEmbed
	if d := e.Decide(t.Context(), in); d.Allow || d.Reason != policy.ReasonDeniedByRule || d.Message != "and none for guests; no embeddings on Mondays" {
		t.Fatalf("embed: %+v", d)
	}
	in.Principal = policy.Principal{Issuer: "ci", Subject: "x", Workload: true}
	in.Action = policy.ActionChat
	if d := e.Decide(t.Context(), in); d.Reason != policy.ReasonNoGrant {
		t.Fatalf("a deny rule that does not apply hides the reason: %+v", d)
	}
}

// The modules stand in the package documentation.
func TestDocumentedModulesWork(t *testing.T) {
	narrowing := newTestEngine(t, strings.Replace(openGrants, "chat, embed", "chat, manage-model", 1), map[string]string{"own.rego": `package iap

deny contains "no model changes over the front door" if {
	input.action == "manage-model"
	input.via == "bearer"
}
`})
	in := chat(person("ann"), "phi3", "phi3:latest")
	in.Action = policy.ActionManageModel
	if d := narrowing.Decide(t.Context(), in); !d.Allow {
		t.Errorf("over the tunnel: %+v", d)
	}
	in.Via = "bearer"
	if d := narrowing.Decide(t.Context(), in); d.Reason != policy.ReasonDeniedByRule {
		t.Errorf("over the front door: %+v", d)
	}
	in.Action = policy.ActionAny
	if d := narrowing.Decide(t.Context(), in); !d.Allow {
		t.Errorf("the resource as such: %+v", d)
	}

	replacing := newTestEngine(t, openGrants, map[string]string{"own.rego": `package iap

decision := data.iap.builtin.decision if not on_holiday

decision := {"allow": false, "reason": "on_holiday"} if on_holiday

on_holiday if "away" in input.principal.groups
`})
	if d := replacing.Decide(t.Context(), chat(person("ann"), "phi3", "x")); !d.Allow {
		t.Errorf("at work: %+v", d)
	}
	if d := replacing.Decide(t.Context(), chat(person("ann", "away"), "phi3", "x")); d.Reason != "on_holiday" {
		t.Errorf("on holiday: %+v", d)
	}
}

func TestEndlessPolicyIsCutOff(t *testing.T) {
	cfg := config(t, openGrants, map[string]string{"own.rego": `package iap

decision := {"allow": count([1 |
	some a in numbers.range(1, 10000)
	some b in numbers.range(1, 10000)
	a * b == 7
]) > 0}
`})
	cfg.Deadline = 50 * time.Millisecond
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if d := e.Decide(t.Context(), chat(person("ann"), "phi3", "x")); d.Allow || d.Reason != policy.ReasonPolicyTimeout {
		t.Fatalf("got %+v", d)
	}
}

func TestEndedRequestIsDenied(t *testing.T) {
	e := newTestEngine(t, openGrants, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range cap(e.slots) {
		e.slots <- struct{}{}
	}
	if d := e.Decide(ctx, chat(person("ann"), "phi3", "x")); d.Allow || d.Reason != policy.ReasonPolicyError {
		t.Fatalf("got %+v", d)
	}
	for range cap(e.slots) {
		<-e.slots
	}
	if d := e.Decide(t.Context(), chat(person("ann"), "phi3", "x")); !d.Allow {
		t.Fatalf("the denial of an ended request was kept: %+v", d)
	}
}

func TestPO03DangerousBuiltinsAreRefusedByName(t *testing.T) {
	for builtin, expression := range map[string]string{
		"http.send":                         `http.send({"method": "get", "url": "http://127.0.0.1"}).status_code == 200`,
		"net.lookup_ip_addr":                `count(net.lookup_ip_addr("localhost")) > 0`,
		"net.cidr_contains":                 `net.cidr_contains("10.0.0.0/8", "10.1.1.1")`,
		"opa.runtime":                       `opa.runtime().env.HOME != ""`,
		"rego.parse_module":                 `rego.parse_module("x", "package x").package`,
		"io.jwt.decode":                     `count(io.jwt.decode("a.b.c")) > 0`,
		"io.jwt.decode_verify":              `io.jwt.decode_verify("a.b.c", {})[0]`,
		"crypto.hmac.sha256":                `crypto.hmac.sha256("a", "b") == "c"`,
		"crypto.x509.parse_rsa_private_key": `crypto.x509.parse_rsa_private_key("x").d != ""`,
		"rand.intn":                         `rand.intn("a", 2) == 1`,
		"uuid.rfc4122":                      `uuid.rfc4122("a") != ""`,
		"json.match_schema":                 `json.match_schema({}, {"$ref": "http://127.0.0.1/x"})[0]`,
		"providers.aws.sign_req":            `providers.aws.sign_req({}, {}, 1).url != ""`,
		"trace":                             `trace("x")`,
	} {
		t.Run(builtin, func(t *testing.T) {
			for _, module := range []string{
				"package iap\n\ndecision := {\"allow\": true} if " + expression + "\n",
				"package iap\n\nmock(_) := 1\n\nmocked if data.iap.helper with " + builtin + " as mock\n\nhelper := true\n",
				"package iap\n\ndeny contains \"x\" if {\n\tsome f in [1 | " + expression + "]\n\tf == 1\n}\n",
			} {
				_, err := New(t.Context(), config(t, openGrants, map[string]string{"own.rego": module}))
				if err == nil || !strings.Contains(err.Error(), builtin) || !strings.Contains(err.Error(), "own.rego") {
					t.Errorf("got %v of\n%s", err, module)
				}
			}
		})
	}
}

func TestModulesStayInTheirPlace(t *testing.T) {
	for name, module := range map[string]string{
		"the built-in policy":      "package iap.builtin\n\ndecision := {\"allow\": true}\n",
		"the built-in, from above": "package iap\n\nbuiltin.decision := {\"allow\": true}\n",
		"the grants":               "package grants\n\nlist := []\n",
		"below the grants":         "package grants.by\n\nany := {\"corp\": [0]}\n",
		"the system":               "package system.authz\n\nallow := true\n",
		"old syntax":               "package iap\n\ndecision = {\"allow\": true} { input.x }\n",
		"unused variable":          "package iap\n\ndecision := {\"allow\": true} if { x := 1 }\n",
		"unused import":            "package iap\n\nimport data.foo\n\ndecision := {\"allow\": true}\n",
		"unknown function":         "package iap\n\ndecision := {\"allow\": true} if no.such(1)\n",
		"syntax error":             "package iap\n\ndecision := {\n",
		"nothing":                  "",
		"two complete deny rules":  "package iap\n\ndeny := true\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(t.Context(), config(t, openGrants, map[string]string{"own.rego": module})); err == nil {
				t.Fatal("loaded")
			}
		})
	}
}

func TestMissingSourcesAreErrors(t *testing.T) {
	good := config(t, openGrants, nil)
	for name, change := range map[string]func(*Config){
		"no grants file":         func(c *Config) { c.GrantsFile += ".no" },
		"a directory as grants":  func(c *Config) { c.GrantsFile = t.TempDir() },
		"empty grants":           func(c *Config) { c.GrantsFile = write(t, t.TempDir(), "g.yaml", "") },
		"no issuers":             func(c *Config) { c.Issuers = nil },
		"no such module":         func(c *Config) { c.Modules = []string{"/no/such.rego"} },
		"directory with nothing": func(c *Config) { c.Modules = []string{t.TempDir()} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := good
			change(&cfg)
			if err := Check(t.Context(), cfg); err == nil {
				t.Fatal("no error")
			}
		})
	}
	if err := Check(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	var located *policy.ParseError
	bad := good
	bad.GrantsFile = write(t, t.TempDir(), "g.yaml", "grants:\n  - nam: x\n")
	if err := Check(t.Context(), bad); !errors.As(err, &located) || located.Line != 2 {
		t.Fatalf("got %v", err)
	}
}
