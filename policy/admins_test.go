package policy

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const adminsFile = `grants: []
admins:
  - "user:corp/boss"
  - to: ["group:corp/desk", "claim:ci/repo=1", "user:ci/bot"]
    verbs: ["iap:sessions.ls", "iap:sessions.kill"]
  - to: ["group:corp/desk"]
    verbs: ["iap:principals.revoke", "iap:sessions.kill"]
    require: {mfa: asserted, acr: [gold, silver], max_auth_age: 1h, binding: nonce}
  - {to: ["group:corp/desk"], verbs: ["iap:audit.read"], require: {claims: {corp/office: hq}}}
`

func admins(t *testing.T, file string) *Grants {
	t.Helper()
	g, err := ParseGrants("g.yaml", []byte(file), twoIssuers())
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestAVerbIsGivenByAnEntryOfAdminsAndByNothingElse(t *testing.T) {
	g, noon := admins(t, adminsFile), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	desk := Principal{Issuer: "corp", Subject: "d", Groups: []string{"desk"}}
	strong := desk
	strong.MFA, strong.MFASource, strong.ACR, strong.AuthTime, strong.Binding = true, MFASourceAMR, "silver", noon.Add(-time.Minute), BindingNonce
	old, hq, unknown := strong, desk, desk
	old.AuthTime, hq.Claims, unknown.GroupsUnknown = noon.Add(-time.Hour), map[string][]string{"office": {"hq"}}, true
	for _, c := range []struct {
		name   string
		who    Principal
		verb   string
		reason string
		grant  string
	}{
		{"every verb", Principal{Issuer: "corp", Subject: "boss"}, VerbRelayRotate, ReasonAllowed, "admins:3"},
		{"of another issuer", Principal{Issuer: "ci", Subject: "boss"}, VerbRelayRotate, ReasonVerbNotGranted, ""},
		{"a listed verb", desk, VerbSessionsKill, ReasonAllowed, "admins:4"},
		{"an unlisted verb", desk, VerbAgentsToken, ReasonVerbNotGranted, ""},
		{"no verb", desk, "iap:sessions", ReasonActionUnknown, ""},
		{"any verb", Principal{Issuer: "corp", Subject: "boss"}, ActionAny, ReasonActionUnknown, ""},
		{"an action", Principal{Issuer: "corp", Subject: "boss"}, ActionChat, ReasonActionUnknown, ""},
		{"nobody", Principal{Issuer: "corp"}, VerbSessionsKill, ReasonInputInvalid, ""},
		{"groups unknown", unknown, VerbSessionsKill, ReasonGroupsUnknown, ""},
		{"all requirements", strong, VerbPrincipalsRevoke, ReasonAllowed, "admins:6"},
		{"no second factor", desk, VerbPrincipalsRevoke, ReasonMFARequired, "admins:6"},
		{"too long ago", old, VerbPrincipalsRevoke, ReasonAuthTooOld, "admins:6"},
		{"a claim", hq, VerbAuditRead, ReasonAllowed, "admins:9"},
		{"no claim", strong, VerbAuditRead, ReasonClaimsRequired, "admins:9"},
		{"a workload by its subject", Principal{Issuer: "ci", Subject: "bot", Workload: true}, VerbSessionsList, ReasonAllowed, "admins:4"},
		{"a workload by its claim", Principal{Issuer: "ci", Subject: "job", Workload: true, Claims: map[string][]string{"repo": {"1"}}}, VerbSessionsList, ReasonVerbNotGranted, ""},
		{"a person by a claim", Principal{Issuer: "ci", Subject: "ann", Claims: map[string][]string{"repo": {"1"}}}, VerbSessionsList, ReasonAllowed, "admins:4"},
		{"a workload by its group", Principal{Issuer: "corp", Subject: "job", Workload: true, Groups: []string{"desk"}}, VerbSessionsList, ReasonVerbNotGranted, ""},
	} {
		d := g.MayAdminister(c.who, c.verb, noon)
		if d.Allow != (c.reason == ReasonAllowed) || d.Reason != c.reason || d.Grant != c.grant || d.Message == "" {
			t.Errorf("%s: %+v", c.name, d)
		}
		stepUp := slices.Contains([]string{ReasonMFARequired, ReasonACRRequired, ReasonAuthTooOld, ReasonBindingRequired}, c.reason)
		if (d.StepUp != nil) != stepUp {
			t.Errorf("%s: step up %+v", c.name, d.StepUp)
		}
	}
	if d := g.MayAdminister(strong, VerbPrincipalsRevoke, noon); !d.Until.Equal(noon.Add(59 * time.Minute)) {
		t.Errorf("it holds until %s", d.Until)
	}
	if d := g.MayAdminister(desk, VerbPrincipalsRevoke, noon); !reflect.DeepEqual(d.StepUp, &StepUp{MFA: true, ACR: "gold silver", MaxAge: time.Hour, Binding: BindingNonce}) {
		t.Errorf("step up %+v", d.StepUp)
	}
	if d := g.MayAdminister(strong, VerbAuditRead, noon); strings.Contains(d.Message, "hq") {
		t.Errorf("the claim that is wanted is told: %s", d.Message)
	}
	if d := g.MayAdminister(desk, VerbAgentsToken, noon); !strings.Contains(d.Message, `{to: ["user:corp/d"], verbs: ["iap:agents.token"]}`) {
		t.Errorf("the message has no line to add: %s", d.Message)
	}
	var none *Grants
	if none.MayAdminister(strong, VerbSessionsKill, noon).Allow {
		t.Error("no policy allows")
	}
	may, stepUp := g.VerbsOf(desk, noon)
	if !slices.Equal(may, []string{VerbSessionsList, VerbSessionsKill}) || !slices.Equal(stepUp, []string{VerbPrincipalsRevoke}) {
		t.Errorf("%v, %v", may, stepUp)
	}
	if may, _ := g.VerbsOf(Principal{Issuer: "corp", Subject: "boss"}, noon); !slices.Equal(may, Verbs()) {
		t.Errorf("%v", may)
	}
}

func TestMistakesInAdminsAreNamedWithTheirLine(t *testing.T) {
	for entries, want := range map[string]string{
		`["any:corp"]`:                                         `g.yaml:2:10: admins: "any:corp" is a wildcard`,
		`["user:corp/a", "user:corp/a"]`:                       `"user:corp/a" stands on line 2 already`,
		`["user:nix/a"]`:                                       `no issuer is called "nix"`,
		`[7]`:                                                  "the entry of admins on line 2 must be a mapping, not a number",
		`"user:corp/a"`:                                        "admins must be a list",
		`[{to: ["user:corp/a"]}]`:                              `key "verbs" is missing`,
		`[{verbs: ["iap:sessions.ls"]}]`:                       `key "to" is missing`,
		`[{to: [], verbs: ["iap:sessions.ls"]}]`:               "to must not be empty",
		`[{to: ["user:corp/a"], verbs: []}]`:                   "verbs must not be empty",
		`[{to: ["user:corp/a"], verbs: ["*"]}]`:                "no wildcard gives verbs",
		`[{to: ["user:corp/a"], verbs: ["iap:*"]}]`:            "no wildcard gives verbs",
		`[{to: ["user:corp/a"], verbs: [chat]}]`:               `unknown verb "chat"`,
		`[{to: ["user:corp/a"], verbs: ["iap:session.kill"]}]`: `unknown verb "iap:session.kill" (did you mean "iap:sessions.kill"?)`,
		`[{to: ["user:corp/a"], verbs: ["iap:sessions.ls", "iap:sessions.ls"]}]`:            "stands twice",
		`[{to: ["any:corp"], verbs: ["iap:sessions.ls"]}]`:                                  "is a wildcard",
		`[{to: ["user:corp/a"], verb: ["iap:sessions.ls"]}]`:                                `unknown key "verb" in the entry of admins on line 2 (did you mean "verbs"?)`,
		`[{to: ["user:corp/a"], verbs: ["iap:sessions.ls"], require: {}}]`:                  "require must not be empty",
		`[{to: ["user:corp/a"], verbs: ["iap:sessions.ls"], require: {mfa: false}}]`:        "mfa must be true or asserted",
		`[{to: ["user:corp/a"], verbs: ["iap:sessions.ls"], limits: {requests: 1/1m}}]`:     `unknown key "limits"`,
		`[{to: ["user:corp/a"], verbs: ["iap:sessions.ls"], require: {max_auth_age: -1h}}]`: "max_auth_age",
	} {
		_, err := ParseGrants("g.yaml", []byte("grants: []\nadmins: "+entries+"\n"), twoIssuers())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "g.yaml:2:") {
			t.Errorf("%s: %v, want %q", entries, err, want)
		}
	}
}

func TestNoGrantCanNameAVerb(t *testing.T) {
	for _, verb := range Verbs() {
		if IsAction(verb) {
			t.Errorf("%s is an action of grants", verb)
		}
		file := "grants:\n  - {name: g, to: [\"user:corp/a\"], resources: [\"*\"], actions: [\"" + verb + "\"]}\n"
		if _, err := ParseGrants("g.yaml", []byte(file), twoIssuers()); err == nil {
			t.Errorf("a grant names %s", verb)
		}
	}
}
