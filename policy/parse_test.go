package policy

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func twoIssuers() []string { return []string{"corp", "ci"} }

func TestSampleFileIsRead(t *testing.T) {
	data, err := os.ReadFile("testdata/grants.yaml")
	if err != nil {
		t.Fatal(err)
	}
	g, err := ParseGrants("grants.yaml", data, twoIssuers())
	if err != nil {
		t.Fatal(err)
	}
	first := g.List[0]
	if first.Name != "engineers-chat" || first.Line != 7 || first.Priority != 10 || first.Egress {
		t.Errorf("got %+v", first)
	}
	if got := fmt.Sprint(first.To, first.Resources, first.Models, first.Actions); got != "[group:corp/ml-eng user:corp/8a7f3c] [phi3 label:env=prod] [phi3:*] [chat embed list-models]" {
		t.Errorf("got %s", got)
	}
	if !reflect.DeepEqual(first.Require, Require{MFA: MFARequired, MaxAuthAge: 12 * time.Hour}) {
		t.Errorf("got %+v", first.Require)
	}
	if l := first.Limits[0]; l.Per != PerPrincipal || l.Mode != ModeEnforce || !slices.Equal(l.Requests, []Rate{{60, time.Minute}}) || !slices.Equal(l.Tokens, []Rate{{200000, 24 * time.Hour}}) || l.Concurrent != 4 || l.MaxOutputTokens != 2048 {
		t.Errorf("got %+v", l)
	}
	if got := g.List[1].Limits[0].Requests; len(got) != 2 || got[1] != (Rate{5000, 24 * time.Hour}) {
		t.Errorf("got %v", got)
	}
	if got := g.List[2].Require; !reflect.DeepEqual(got, Require{MFA: MFAAsserted, MaxAuthAge: time.Hour, Binding: BindingNonce}) {
		t.Errorf("got %+v", got)
	}
	if len(g.List) != 4 || len(g.Admins) != 2 {
		t.Errorf("%d grants, %d admins", len(g.List), len(g.Admins))
	}
}

// grantWith is a good grant whose line 6 is the given one.
func grantWith(line string) string {
	return "grants:\n  - name: a\n    to: [\"user:corp/x\"]\n    resources: [r]\n    actions: [chat]\n    " + line + "\n"
}

func TestMistakesAreNamedWhereTheyStand(t *testing.T) {
	for text, want := range map[string]string{
		"":                                                              "g.yaml: the file is empty",
		"# nothing yet\n":                                               "g.yaml: the file is empty",
		"---\n":                                                         "g.yaml: the file is empty",
		"admins: [\"user:corp/x\"]":                                     `key "grants" is missing`,
		"grants:\n":                                                     "g.yaml:1:9: grants must be a list, not a missing value",
		"grant: [x]":                                                    `g.yaml:1:1: unknown key "grant" in the grants file (did you mean "grants"?)`,
		"- a\n":                                                         "must be a mapping, not a list",
		"grants: [a]":                                                   "g.yaml:1:10: a grant must be a mapping, not a text",
		"version: 2\ngrants: [a]":                                       "g.yaml:1:10: version must be from 1 to 1",
		"grants: [a]\n---\nx: y":                                        "g.yaml:3:1: a second YAML document",
		"grants:\n\t- a":                                                "g.yaml:2:1:",
		strings.Repeat("[", 1000000):                                    "nested too deeply",
		grantWith("modles: [x]"):                                        `g.yaml:6:5: unknown key "modles" in a grant (did you mean "models"?)`,
		grantWith("actions: [chat]"):                                    `g.yaml:6:5: mapping key "actions" already defined`,
		grantWith("name: b"):                                            `g.yaml:6:5: mapping key "name" already defined`,
		grantWith("models: []"):                                         "g.yaml:6:13: grant a: models must not be empty",
		grantWith("models: [3]"):                                        "g.yaml:6:14: grant a: models must be a text, not a number",
		grantWith("models: [a, a]"):                                     `g.yaml:6:17: grant a: models: "a" stands twice`,
		grantWith("models: ['x[1]']"):                                   "only * and ? are wildcards",
		grantWith("models: ['a b']"):                                    "space or control character",
		grantWith("models: ['']"):                                       "a name must not be empty",
		grantWith("models: &x [a]"):                                     "g.yaml:6:13: grant a: models must be a list, not a YAML alias or anchor",
		grantWith("egress: 1"):                                          "g.yaml:6:13: grant a: egress must be true or false, not a number",
		grantWith("priority: -1"):                                       "g.yaml:6:15: grant a: priority must be from 0 to 1000",
		grantWith("priority: 1.5"):                                      "priority must be a whole number",
		grantWith("priority: 99999999999999999999"):                     "priority must be",
		grantWith("require: {}"):                                        "require must not be empty",
		grantWith("require: {mfa: false}"):                              "mfa must be true or asserted",
		grantWith("require: {mfa: yes}"):                                "mfa must be true or asserted",
		grantWith("require: {mfs: true}"):                               `unknown key "mfs" in grant a: require (did you mean "mfa"?)`,
		grantWith("require: {max_auth_age: 12}"):                        "max_auth_age must be a text, not a number",
		grantWith("require: {max_auth_age: -1h}"):                       "must be a time such as 12h",
		grantWith("require: {max_auth_age: 999999h}"):                   "must be a time such as 12h",
		grantWith("require: {binding: exporter}"):                       `only "nonce" can be demanded`,
		grantWith("limits: {}"):                                         "limits must not be empty",
		grantWith("limits: {request: 60/1m}"):                           `(did you mean "requests"?)`,
		grantWith("limits: {requests: 60}"):                             "requests must be a text, not a number",
		grantWith("limits: {requests: 60/m}"):                           "the window must be a time",
		grantWith("limits: {requests: 0/1m}"):                           "whole number from 1",
		grantWith("limits: {requests: -5/1m}"):                          "whole number from 1",
		grantWith("limits: {requests: 1.5/1m}"):                         "whole number from 1",
		grantWith("limits: {requests: 9999999999999999999/1m}"):         "whole number from 1",
		grantWith("limits: {requests: 5/1ms}"):                          "the window must be a time",
		grantWith("limits: {requests: []}"):                             "requests must not be empty",
		grantWith("limits: {concurrent: 0}"):                            "concurrent must be from 1",
		grantWith("limits: {max_output_tokens: -1}"):                    "max_output_tokens must be from 1",
		grantWith("limits: []"):                                         "limits must not be empty",
		grantWith("limits: [{per: group}]"):                             "they need one of requests, tokens, concurrent, max_output_tokens",
		grantWith("limits: {concurrent: 1, per: team}"):                 `g.yaml:6:34: grant a: per: "team" is not one of principal, group, grant`,
		grantWith("limits: {concurrent: 1, mode: warm}"):                `(did you mean "warn"?)`,
		grantWith("limits: {concurrent: 1, contact: ''}"):               "contact must be one line",
		grantWith("limits: [3]"):                                        "limits must be a mapping, not a number",
		grantWith("media: [vision]"):                                    `g.yaml:6:13: grant a: media: unknown kind "vision"`,
		grantWith("media: image"):                                       "media must be a list, not a text",
		grantWith("media: [image, image]"):                              "stands twice",
		grantWith("keys: true"):                                         "keys must be a mapping",
		grantWith("keys: {}"):                                           `keys needs "max_ttl"`,
		grantWith("keys: {max_ttl: 0s}"):                                "must be a time of up to 366d",
		grantWith("keys: {max_ttl: 2y}"):                                "must be a time of up to 366d",
		grantWith("keys: {max_ttl: 367d}"):                              "must be a time of up to 366d",
		grantWith("require: {acr: gold}"):                               "acr must be a list, not a text",
		grantWith("require: {acr: []}"):                                 "acr must not be empty",
		grantWith("require: {acr: ['a b']}"):                            "is no value of an acr claim",
		strings.Replace(grantWith(""), "chat", "chta", 1):               `g.yaml:5:15: grant a: actions: unknown action "chta" (did you mean "chat"?)`,
		strings.Replace(grantWith(""), "chat", "'*'", 1):                `"*" is no action`,
		strings.Replace(grantWith(""), "chat", "unknown", 1):            `unknown action "unknown"`,
		strings.Replace(grantWith(""), "[r]", "['label:env']", 1):       "a label is written label:KEY=VALUE",
		strings.Replace(grantWith(""), "[r]", "['label:e=p*']", 1):      "a label is written label:KEY=VALUE and matches exactly",
		strings.Replace(grantWith(""), "[r]", "['lable:e=p']", 1):       "a resource is a name, a glob or label:KEY=VALUE",
		strings.Replace(grantWith(""), "name: a", "name: ../a", 1):      "up to 64 letters",
		strings.Replace(grantWith(""), "name: a", "egress: true", 1):    `a grant needs a "name"`,
		strings.Replace(grantWith(""), "user:corp/x", "user:x", 1):      `g.yaml:3:10: grant a: to: "user:x" needs the name of its issuer in front (corp, ci)`,
		strings.Replace(grantWith(""), "user:corp/x", "user:crop/x", 1): `no issuer is called "crop" (did you mean "corp"?)`,
		strings.Replace(grantWith(""), "user:corp/x", "usr:corp/x", 1):  `unknown kind "usr" (did you mean "user"?)`,
		grantWith("") + grantWith("")[len("grants:\n"):]:                `g.yaml:7:11: a grant named "a" stands on line 2 already`,
		grantWith("") + `admins: ["any:corp"]`:                          "is a wildcard; administrators are named one by one",
		grantWith("") + `admins: ["group:corp/*"]`:                      "principals match exactly",
	} {
		_, err := ParseGrants("g.yaml", []byte(text), twoIssuers())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200q\nshould say %s\nsays       %v", text, want, err)
		}
	}
}

func TestAllMistakesAreReportedAtOnce(t *testing.T) {
	text := "grants:\n  - name: a\n    to: [\"user:nix/x\"]\n    resources: [r]\n    actions: [chatt, emebd]\n    egres: true\n"
	_, err := ParseGrants("g.yaml", []byte(text), twoIssuers())
	for _, want := range []string{"g.yaml:3:10:", "g.yaml:5:15:", "g.yaml:5:22:", "g.yaml:6:5:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in\n%v", want, err)
		}
	}
	var first *ParseError
	if !errors.As(err, &first) || first.File != "g.yaml" {
		t.Errorf("no ParseError: %v", err)
	}
	flood := "grants:\n" + strings.Repeat("  - nix\n", 100)
	if _, err := ParseGrants("g.yaml", []byte(flood), twoIssuers()); strings.Count(err.Error(), "\n") != maxParseErrors || !strings.Contains(err.Error(), "and 80 more") {
		t.Errorf("got %v", err)
	}
}

func TestNoIssuersIsAnError(t *testing.T) {
	if _, err := ParseGrants("g.yaml", []byte(grantWith("")), nil); err == nil {
		t.Fatal("a grant for nobody's users was read")
	}
}

func FuzzParseGrants(f *testing.F) {
	sample, err := os.ReadFile("testdata/grants.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	for _, seed := range []string{
		"", "grants:", "grants: [{name: a, to: [x], resources: [y], actions: [z]}]", "{", "\"", "&a [*a]", "? - : -", "a: |\n b\n", "!!binary x", "<<: {}",
		grantWith("limits: {requests: [1/1s, 2/2h]}"), grantWith("require: {mfa: asserted}"), grantWith("models: ['hf.co/a/b:*', '?']"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseGrants("g.yaml", data, twoIssuers())
		if err != nil {
			return
		}
		if len(g.List) == 0 {
			t.Fatal("no grants and no error")
		}
		for _, grant := range g.List {
			if grant.Name == "" || grant.Line <= 0 || len(grant.To) == 0 || len(grant.Resources) == 0 || len(grant.Actions) == 0 {
				t.Fatalf("half a grant: %+v", grant)
			}
			for _, s := range grant.To {
				again, err := ParseSelector(s.String(), twoIssuers())
				if err != nil || again != s {
					t.Fatalf("%+v reads back as %+v, %v", s, again, err)
				}
			}
		}
		for _, e := range g.Admins {
			if len(e.To) == 0 || slices.ContainsFunc(e.To, func(s Selector) bool { return s.Kind == SelectAny }) {
				t.Fatalf("nobody, or a wildcard, among the administrators: %+v", e)
			}
		}
	})
}

func TestEmptyListTakesEverythingFromEverybody(t *testing.T) {
	g, err := ParseGrants("g.yaml", []byte("grants: []\nadmins: []\n"), []string{"corp"})
	if err != nil {
		t.Fatal(err)
	}
	if len(g.List) != 0 || len(g.Admins) != 0 {
		t.Errorf("got %+v", g)
	}
}
