package rego

import (
	"strings"
	"testing"
)

const someCases = `people:
  ann: {user: corp/ann, groups: [ml-eng]}
cases:
  - {name: as expected, who: ann, resource: phi3, action: chat, model: m, want: allow, grant: team, limits: [{requests: 60/1m, concurrent: 4, max_output_tokens: 4096}, {tokens: [1000/1m, 2000000/30d], max_output_tokens: 2048, per: group, contact: "#ml-platform"}, {max_output_tokens: 100, mode: warn, per: grant}]}
  - {name: wrong verdict, who: ann, resource: phi3, action: embed, want: allow}
  - {name: wrong grant, who: ann, resource: phi4, action: chat, want: allow, grant: team}
  - {name: wrong reason, who: ann, resource: phi4, action: chat, media: [image], want: deny, reason: no_grant}
  - {name: wrong limits, who: ann, resource: phi3, action: chat, want: allow, limits: {concurrent: 4}}
`

func TestCasesTellWhatDiffers(t *testing.T) {
	cfg := config(t, conditionGrants, nil)
	table := write(t, t.TempDir(), "table.yaml", someCases)
	results, err := TestCases(t.Context(), cfg, table)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"", "want allow, got deny action_not_granted", "want allow by team, got allow by text-only",
		"want deny no_grant, got deny media_not_granted", "want allow [4 at once], got allow by team [60 requests/1m, 4 at once",
	}
	if len(results) != len(want) {
		t.Fatalf("%d results", len(results))
	}
	for i, r := range results {
		got := ""
		if !r.Passed {
			got = "want " + r.Want + ", got " + r.Got
		}
		if !strings.HasPrefix(got, want[i]) || (got == "") != (want[i] == "") || !strings.HasSuffix(r.Location, "table.yaml:"+string(rune('4'+i))) {
			t.Errorf("%s (%s): %q", r.Name, r.Location, got)
		}
	}
	if cfg.CaseTable() != "" {
		t.Error("a table is found where none is")
	}
}
