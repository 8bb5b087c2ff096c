package policy

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"
)

func TestIssuerPrefixMayBeLeftOutWithOneIssuer(t *testing.T) {
	for text, want := range map[string]Selector{
		"group:ml-eng":           {SelectGroup, "corp", "ml-eng", ""},
		"group:corp/ml-eng":      {SelectGroup, "corp", "ml-eng", ""},
		"group:a/b":              {SelectGroup, "corp", "a/b", ""},
		"group:corp/corp/x":      {SelectGroup, "corp", "corp/x", ""},
		"user:auth0|12/3":        {SelectUser, "corp", "auth0|12/3", ""},
		"claim:repo=org/name":    {SelectClaim, "corp", "repo", "org/name"},
		"claim:corp/repo=a=b":    {SelectClaim, "corp", "repo", "a=b"},
		"any:corp":               {SelectAny, "corp", "", ""},
		"claim:sub=repo:o/n:ref": {SelectClaim, "corp", "sub", "repo:o/n:ref"},
	} {
		if got, err := ParseSelector(text, []string{"corp"}); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"group:ml-eng", "group:a/b", "claim:repo=org/name", "user:", "group:corp/", "claim:corp/x", "claim:corp/=x",
		"claim:corp/x=", "any:", "any:other", "corp/x", "email:a@b", "group:corp/*", "user:corp/a\x00b", "",
	} {
		if got, err := ParseSelector(text, []string{"corp", "ci"}); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestSelectorsMatchExactly(t *testing.T) {
	p := Principal{Issuer: "corp", Subject: "8a", Groups: []string{"ml", "x/y"}, Claims: map[string][]string{"repo": {"1", "2"}}}
	for text, want := range map[string]bool{
		"user:corp/8a": true, "user:ci/8a": false, "user:corp/8A": false, "user:corp/8": false,
		"group:corp/ml": true, "group:corp/x/y": true, "group:corp/x": false, "group:corp/8a": false,
		"claim:corp/repo=1": true, "claim:corp/repo=2": true, "claim:corp/repo=12": false, "claim:corp/rep=1": false, "claim:ci/repo=1": false,
		"any:corp": true, "any:ci": false,
	} {
		s, err := ParseSelector(text, []string{"corp", "ci"})
		if err != nil || s.Matches(p) != want {
			t.Errorf("%s: %t, %v", text, !want, err)
		}
	}
	p.Workload = true
	if (Selector{Kind: SelectAny, Issuer: "corp"}).Matches(p) {
		t.Error("any: names a workload")
	}
}

func TestLinesReadBackAsTheirPrincipal(t *testing.T) {
	p := Principal{Issuer: "corp", Subject: "a/b", Groups: []string{"z", "x/y"}, Claims: map[string][]string{"repo": {"1=2"}, "env": {"p", "q"}}}
	lines := Lines(p)
	want := []string{"user:corp/a/b", "group:corp/x/y", "group:corp/z", "claim:corp/env=p", "claim:corp/env=q", "claim:corp/repo=1=2"}
	if !slices.Equal(lines, want) {
		t.Fatalf("got %q", lines)
	}
	for _, line := range lines {
		s, err := ParseSelector(line, []string{"corp", "ci"})
		if err != nil || !s.Matches(p) {
			t.Errorf("%s: %+v, %v", line, s, err)
		}
	}
}

func TestGlobsHaveTwoWildcards(t *testing.T) {
	for _, test := range []struct {
		glob, name string
		want       bool
	}{
		{"phi3", "phi3", true},
		{"phi3", "phi33", false},
		{"phi3", "xphi3", false},
		{"phi*", "phi3:mini", true},
		{"*", "", true},
		{"*", "hf.co/a/b:q4", true},
		{"*/b:*", "hf.co/a/b:q4", true},
		{"?hi3", "phi3", true},
		{"?hi3", "hi3", false},
		{"?", "é", true},
		{"??", "é", false},
		{"a.c", "abc", false},
		{"a+", "aa", false},
		{"(a|b)", "a", false},
		{"^a$", "a", false},
		{"a", "a\n", false},
		{"a*", "a\nb", true},
	} {
		if got := regexp.MustCompile(GlobExpression(test.glob)).MatchString(test.name); got != test.want {
			t.Errorf("%q of %q: %t", test.glob, test.name, got)
		}
	}
	for pattern, want := range map[ModelPattern][]string{
		"Phi3": {"phi3", "phi3:latest"}, "phi3:mini": {"phi3:mini"}, "host:5000/a/b": {"host:5000/a/b", "host:5000/a/b:latest"}, "*": {"*", "*:latest"},
	} {
		if got := pattern.Names(); !slices.Equal(got, want) {
			t.Errorf("%s: %q", pattern, got)
		}
	}
}

func TestVocabularyIsClosed(t *testing.T) {
	for _, action := range Actions() {
		if !IsAction(action) {
			t.Errorf("%s is listed and not known", action)
		}
	}
	if len(Actions()) != 16 || IsAction(ActionAny) || IsAction(ActionUnknown) || IsAction("") || IsAction("Chat") || IsAction("admin") {
		t.Error("something else is an action")
	}
}

func TestRatesReadBackAsWritten(t *testing.T) {
	for text, want := range map[string]Rate{
		"60/1m": {60, time.Minute}, "200000/24h": {200000, 24 * time.Hour}, "1/1s": {1, time.Second}, "5/90s": {5, 90 * time.Second}, "7/1h30m": {7, 90 * time.Minute}, "9/1d": {9, 24 * time.Hour}, "9/30d": {9, 720 * time.Hour}, "9/1d12h": {9, 36 * time.Hour},
	} {
		got, err := ParseRate(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseRate(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s", text, got)
		}
	}
	if got := (Rate{200000, 24 * time.Hour}).String(); got != "200000/24h" {
		t.Errorf("got %s", got)
	}
	for _, text := range []string{"", "/", "60", "60/", "/1m", "+6/1m", "6 /1m", "6/1m/2", "6e3/1m", "0x6/1m", "60/0s", "60/-1m", "60/367d", "60/d", "60/-1d", "60/1d-1h", "60/1d+1h", "60/1.5d", "60/1h1d", "60/1d1d"} {
		if got, err := ParseRate(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestDecisionTravelsAsJSON(t *testing.T) {
	d := Decision{
		Allow: true, Reason: ReasonAllowed, Message: "m", Grant: "g", Priority: 3, Revision: "r",
		Limits: []Limits{{Requests: []Rate{{60, time.Minute}}, Concurrent: 2, Per: PerGroup}}, Group: "corp/a", Keys: KeyRule{90 * day},
		StepUp: &StepUp{MFA: true, ACR: "gold silver", MaxAge: 12 * time.Hour}, Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	data, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"allow":true,"reason":"allowed","message":"m","grant":"g","group":"corp/a","limits":[{"requests":["60/1m"],"concurrent":2,"per":"group"}],"keys":{"max_ttl":"90d"},"priority":3,"step_up":{"mfa":true,"acr":"gold silver","max_age":"12h"},"until":"2026-01-02T03:04:05Z","revision":"r"}`
	if string(data) != want {
		t.Errorf("got %s", data)
	}
	var back Decision
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, d) {
		t.Errorf("got %+v, %v", back, err)
	}
	if data, _ := json.Marshal(Decision{Reason: ReasonNoGrant}); string(data) != `{"allow":false,"reason":"no_grant","message":""}` {
		t.Errorf("got %s", data)
	}
}
