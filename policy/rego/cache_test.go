package rego

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"iap/policy"
)

func TestDifferentQuestionsHaveDifferentKeys(t *testing.T) {
	base := chat(person("ann", "a", "b"), "phi3", "phi3:latest")
	change := func(f func(*policy.Input)) policy.Input { in := base; f(&in); return in }
	questions := map[string]policy.Input{
		"base":              base,
		"issuer":            change(func(in *policy.Input) { in.Principal.Issuer = "ci" }),
		"subject":           change(func(in *policy.Input) { in.Principal.Subject = "bob" }),
		"boundary moved":    change(func(in *policy.Input) { in.Principal.Issuer, in.Principal.Subject = "corpa", "nn" }),
		"group joined":      change(func(in *policy.Input) { in.Principal.Groups = []string{"ab"} }),
		"group split":       change(func(in *policy.Input) { in.Principal.Groups = []string{"a", "", "b"} }),
		"group missing":     change(func(in *policy.Input) { in.Principal.Groups = []string{"a"} }),
		"claim":             change(func(in *policy.Input) { in.Principal.Claims = map[string][]string{"a": {"b"}} }),
		"claim name":        change(func(in *policy.Input) { in.Principal.Claims = map[string][]string{"ab": {""}} }),
		"claim list":        change(func(in *policy.Input) { in.Principal.Claims = map[string][]string{"a": {"b", "c"}} }),
		"claims two":        change(func(in *policy.Input) { in.Principal.Claims = map[string][]string{"a": {"b"}, "c": nil} }),
		"mfa":               change(func(in *policy.Input) { in.Principal.MFA = false }),
		"mfa source":        change(func(in *policy.Input) { in.Principal.MFASource = "acr" }),
		"mfa by policy":     change(func(in *policy.Input) { in.Principal.MFASource = "issuer_policy" }),
		"auth time":         change(func(in *policy.Input) { in.Principal.AuthTime = in.Principal.AuthTime.Add(1) }),
		"no auth time":      change(func(in *policy.Input) { in.Principal.AuthTime = time.Time{} }),
		"binding":           change(func(in *policy.Input) { in.Principal.Binding = "nonce" }),
		"workload":          change(func(in *policy.Input) { in.Principal.Workload = true }),
		"resource":          change(func(in *policy.Input) { in.Resource.Name = "phi4" }),
		"kind":              change(func(in *policy.Input) { in.Resource.Kind = "http" }),
		"label":             change(func(in *policy.Input) { in.Resource.Labels = map[string]string{"env": "prod"} }),
		"label moved":       change(func(in *policy.Input) { in.Resource.Labels = map[string]string{"envp": "rod"} }),
		"action":            change(func(in *policy.Input) { in.Action = "embed" }),
		"model":             change(func(in *policy.Input) { in.Model = "phi3:mini" }),
		"egress":            change(func(in *policy.Input) { in.Egress = true }),
		"via":               change(func(in *policy.Input) { in.Via = "bearer" }),
		"media":             change(func(in *policy.Input) { in.Media = []string{"image"} }),
		"acr":               change(func(in *policy.Input) { in.Principal.ACR = "gold" }),
		"action into model": change(func(in *policy.Input) { in.Action, in.Model = "cha", "tphi3:latest" }),
	}
	seen := map[cacheKey]string{}
	for name, in := range questions {
		key := newQuestion(in).key()
		if other, taken := seen[key]; taken {
			t.Errorf("%q and %q share a key", name, other)
		}
		seen[key] = name
	}
	later := base
	later.Now = later.Now.Add(time.Minute)
	if newQuestion(later).key() != newQuestion(base).key() {
		t.Error("a minute later it is another question")
	}
}

func TestKeyDependsOnWhatThePolicyReads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := newQuestion(drawInput(t)), newQuestion(drawInput(t))
		same := a.document().Compare(b.document()) == 0
		if same != (a.key() == b.key()) {
			t.Fatalf("documents equal: %t, keys equal: %t\n%+v\n%+v", same, !same, a, b)
		}
	})
}

func TestCachedDecisionEndsWithTheLogin(t *testing.T) {
	e := newTestEngine(t, tableGrants, nil)
	in := chat(strong("ann", "ml-eng"), "phi3", "phi3:latest")
	d := e.Decide(t.Context(), in)
	if !d.Allow {
		t.Fatalf("got %+v", d)
	}
	in.Now = d.Until.Add(-1)
	if d := e.Decide(t.Context(), in); !d.Allow {
		t.Fatalf("just before: %+v", d)
	}
	in.Now = d.Until
	if d := e.Decide(t.Context(), in); d.Reason != policy.ReasonAuthTooOld {
		t.Fatalf("at until: %+v", d)
	}
	in.Now = noon
	if d := e.Decide(t.Context(), in); !d.Allow {
		t.Fatalf("a denial for age outlives the clock's correction: %+v", d)
	}
}

func TestModulesThatReadTheClockAreNotCached(t *testing.T) {
	e := newTestEngine(t, openGrants, map[string]string{"own.rego": `package iap

deny contains "closed" if time.clock(time.now_ns())[0] >= 18
`})
	in := chat(person("ann"), "phi3", "x")
	if d := e.Decide(t.Context(), in); !d.Allow {
		t.Fatalf("at noon: %+v", d)
	}
	in.Now = noon.Add(6 * time.Hour)
	if d := e.Decide(t.Context(), in); d.Reason != policy.ReasonDeniedByRule {
		t.Fatalf("at six: %+v", d)
	}
}

func TestReplacedDecisionWithoutUntilIsNotCachedOverAges(t *testing.T) {
	e := newTestEngine(t, tableGrants, answering(`{"allow": data.iap.builtin.decision.allow}`))
	in := chat(strong("ann", "ml-eng"), "phi3", "phi3:latest")
	if d := e.Decide(t.Context(), in); !d.Allow {
		t.Fatalf("fresh: %+v", d)
	}
	in.Now = noon.Add(24 * time.Hour)
	if d := e.Decide(t.Context(), in); d.Allow {
		t.Fatalf("a day later: %+v", d)
	}
}

func TestCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	c := newDecisionCache(3)
	key := func(n byte) cacheKey { return cacheKey{n} }
	for n := range byte(3) {
		c.put(key(n), policy.Decision{Priority: int(n)})
	}
	c.get(key(0), noon)
	c.put(key(3), policy.Decision{Priority: 3})
	if _, found := c.get(key(1), noon); found || len(c.entries) != 3 || c.recent.Len() != 3 {
		t.Errorf("%d entries; the least used one is there: %t", len(c.entries), found)
	}
	for _, n := range []byte{0, 2, 3} {
		if d, found := c.get(key(n), noon); !found || d.Priority != int(n) {
			t.Errorf("%d: %+v %t", n, d, found)
		}
	}
	c.put(key(2), policy.Decision{Until: noon})
	if _, found := c.get(key(2), noon); found || len(c.entries) != 2 {
		t.Error("an entry outlives its until")
	}
}

func TestReloadForgetsOldDecisions(t *testing.T) {
	cfg := config(t, openGrants, nil)
	e, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	in := chat(person("ann"), "phi3", "x")
	before := e.Decide(t.Context(), in)
	overwrite(t, cfg.GrantsFile, closedGrants)
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := e.Decide(t.Context(), in)
	if !before.Allow || after.Allow || before.Revision == after.Revision || after.Revision != e.Revision() {
		t.Fatalf("before %+v\nafter %+v", before, after)
	}
}
