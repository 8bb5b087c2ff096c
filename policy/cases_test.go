package policy

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const caseTable = `people:
  ann: {user: corp/8a7f3c, groups: [ml-eng, corp/ops], mfa: true, auth_age: 1h, acr: gold, binding: nonce}
cases:
  - name: engineers chat
    who: ann
    resource: {name: phi3, labels: {env: prod}}
    action: chat
    model: phi3:latest
    media: [image]
    at: 2026-11-23T12:00:00Z
    want: allow
    grant: engineers-chat
    limits: {requests: 60/1m}
  - name: ci embeds
    who: {user: "ci/repo:x", claims: {repo: "1234", refs: [a, b]}, workload: true, binding: none}
    resource: phi3
    action: embed
    egress: true
    via: bearer
    want: deny
    reason: no_grant
`

func TestCasesAreReadWhole(t *testing.T) {
	cases, err := ParseCases("t.yaml", []byte(caseTable), twoIssuers())
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	want := []Case{
		{
			Name: "engineers chat", Line: 4, Allow: true, Grant: "engineers-chat",
			Input: Input{
				Principal: Principal{
					Issuer: "corp", Subject: "8a7f3c", Groups: []string{"ml-eng", "ops"}, MFA: true, MFASource: MFASourceAMR,
					AuthTime: noon.Add(-time.Hour), ACR: "gold", Binding: BindingNonce,
				},
				Resource: Resource{Name: "phi3", Kind: "model", Labels: map[string]string{"env": "prod"}},
				Action:   "chat", Model: "phi3:latest", Media: []string{"image"}, Via: ViaTunnel, Now: noon,
			},
			Limits: []Limits{{Requests: []Rate{{60, time.Minute}}, Per: PerPrincipal, Mode: ModeEnforce}},
		},
		{
			Name: "ci embeds", Line: 14, Reason: ReasonNoGrant,
			Input: Input{
				Principal: Principal{Issuer: "ci", Subject: "repo:x", Claims: map[string][]string{"repo": {"1234"}, "refs": {"a", "b"}}, Workload: true, Binding: "none"},
				Resource:  Resource{Name: "phi3", Kind: "model"}, Action: "embed", Egress: true, Via: ViaBearer,
			},
		},
	}
	if !reflect.DeepEqual(cases, want) {
		t.Errorf("got  %+v\nwant %+v", cases, want)
	}
}

func TestMistakesInCasesAreNamedWhereTheyStand(t *testing.T) {
	change := func(from, to string) string {
		if !strings.Contains(caseTable, from) {
			t.Fatalf("%q is not in the table", from)
		}
		return strings.Replace(caseTable, from, to, 1)
	}
	for text, want := range map[string]string{
		"":                                                "t.yaml: the file is empty: a table",
		"people: {}":                                      `key "cases" is missing`,
		"cases: []":                                       "cases must not be empty",
		change("who: ann", "who: bob"):                    `t.yaml:5:10: case engineers chat: nobody among the people is called "bob"`,
		change("who: ann", "whom: ann"):                   `t.yaml:5:5: unknown key "whom" in a case (did you mean "who"?)`,
		change("want: allow", "want: 1"):                  "want must be a text",
		change("want: allow", "want: ok"):                 `"ok" is not one of allow, deny`,
		change("action: chat", "action: x"):               `unknown action "x"`,
		change("60/1m", "60"):                             "requests must be a text",
		change("mfa: true", "mfa: amr"):                   "must be true, false or by-provider",
		change("auth_age: 1h", "auth_age: soon"):          "is no time such as 30m",
		change("user: corp/8a7f3c", "user: x"):            "needs the name of its issuer in front",
		change("user: corp/8a7f3c, ", ""):                 `person ann: key "user" is missing`,
		change("via: bearer", "via: mail"):                `"mail" is not one of`,
		change("12:00:00Z", "noon"):                       "is no time such as 2026-11-23T12:00:00Z",
		change("{name: phi3, ", "{nam: phi3, "):           `unknown key "nam"`,
		change("  - name: ci embeds\n    who", "  - who"): `a case: key "name" is missing`,
		change(`repo: "1234"`, "repo: 1234"):              "put it into quotes",
	} {
		_, err := ParseCases("t.yaml", []byte(text), twoIssuers())
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("should say %s\nsays       %v\n%s", want, err, text)
		}
	}
}
