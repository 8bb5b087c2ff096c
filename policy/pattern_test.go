package policy

import "testing"

func TestAResourcePatternMatchesByNameGlobOrLabel(t *testing.T) {
	gpu := Resource{Name: "gpu/phi3", Labels: map[string]string{"env": "prod", "empty": ""}}
	for text, want := range map[string]bool{
		"gpu/phi3": true, "gpu/phi": false, "GPU/phi3": false, "gpu*": true, "*": true, "gp?/phi3": true, "g?phi3": false, "phi3": false,
		"label:env=prod": true, "label:env=pro": false, "label:team=prod": false,
	} {
		p, err := parseResourcePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Matches(gpu); got != want {
			t.Errorf("%s: %t", text, got)
		}
	}
}
