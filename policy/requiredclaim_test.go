package policy

import (
	"slices"
	"strings"
	"testing"
)

func claimGrant(require string) string {
	return "grants: [{name: job, to: [\"claim:ci/repo=1\"], resources: [phi3], actions: [chat], require: {claims: " + require + "}}]"
}

func TestRequiredClaimsAreReadStrictly(t *testing.T) {
	g, err := ParseGrants("grants.yaml", []byte(claimGrant(`{ci/workflow: "o/r/.github/workflows/a.yml@refs/heads/main", ci/env: [prod, "2"]}`)), []string{"corp", "ci"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range g.List[0].Require.Claims {
		got = append(got, c.String())
	}
	if want := []string{"ci/env=prod|2", "ci/workflow=o/r/.github/workflows/a.yml@refs/heads/main"}; !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
	for require, says := range map[string]string{
		`{}`:                                  "must not be empty",
		`{ci/env: []}`:                        "must not be empty",
		`{ci/env: ""}`:                        "no value",
		`{ci/env: "prod*"}`:                   "match exactly",
		`{ci/env: 1}`:                         "put it into quotes",
		`{ci/env: true}`:                      "put it into quotes",
		`{ci/env: {a: b}}`:                    "must be a text",
		`{ci/env: [a, a]}`:                    "stands twice",
		`{env: prod}`:                         "needs the name of its issuer",
		`{gh/env: prod}`:                      "no issuer is called",
		`{ci/: prod}`:                         "ISSUER/NAME",
		`{ci/env=prod: prod}`:                 "ISSUER/NAME",
		`{ci/env: a, ci/env: b}`:              "env",
		`[ci/env=prod]`:                       "mapping",
		`prod`:                                "mapping",
		`{ci/env: prod}, max_auth_age: never`: "max_auth_age",
	} {
		if _, err := ParseGrants("grants.yaml", []byte(claimGrant(require)), []string{"corp", "ci"}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v does not say %q", require, err, says)
		}
	}
	if _, err := ParseGrants("grants.yaml", []byte(strings.ReplaceAll(claimGrant(`{ci/env: a, env: b}`), "claim:ci/", "claim:")), []string{"ci"}); err == nil || !strings.Contains(err.Error(), "ci/env stands twice") {
		t.Errorf("one claim in two spellings: %v", err)
	}
}

func TestRequiredClaimsOfAnotherIssuerAreWarnedOf(t *testing.T) {
	g := grantsOf(t, `to: ["user:corp/ann", "claim:ci/repo=1"], require: {claims: {ci/env: prod}}`)
	if w := g.Warnings([]string{"ci"}); len(w) != 1 || !strings.Contains(w[0].Message, "user:corp/ann cannot meet") {
		t.Errorf("got %+v", w)
	}
}
