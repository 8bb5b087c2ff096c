package rego

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iap/policy"
)

// oracleGrant is a grant as the property test writes it: texts, read by nothing
// of the product but ParseGrants.
type oracleGrant struct {
	name                           string
	to, resources, models, actions []string
	mfa, binding                   string
	age                            time.Duration
	egress, keys                   bool
	media                          []string // nil: every kind
	acr                            []string
	claims                         map[string]string // ISSUER/NAME → values, joined by spaces
}

func (g oracleGrant) yaml() string {
	var b strings.Builder
	list := func(key string, values []string) {
		if len(values) > 0 {
			fmt.Fprintf(&b, "    %s: [%s]\n", key, `"`+strings.Join(values, `", "`)+`"`)
		}
	}
	fmt.Fprintf(&b, "  - name: %s\n", g.name)
	list("to", g.to)
	list("resources", g.resources)
	list("models", g.models)
	list("actions", g.actions)
	if g.egress {
		b.WriteString("    egress: true\n")
	}
	if g.keys {
		b.WriteString("    keys: {max_ttl: 90d}\n")
	}
	if g.media != nil {
		fmt.Fprintf(&b, "    media: [%s]\n", strings.Join(g.media, ", "))
	}
	var require []string
	if len(g.acr) > 0 {
		require = append(require, "acr: ["+strings.Join(g.acr, ", ")+"]")
	}
	if len(g.claims) > 0 {
		var entries []string
		for key, values := range g.claims {
			entries = append(entries, fmt.Sprintf("%s: [%s]", key, `"`+strings.ReplaceAll(values, " ", `", "`)+`"`))
		}
		require = append(require, "claims: {"+strings.Join(entries, ", ")+"}")
	}
	if g.mfa != "" {
		require = append(require, "mfa: "+g.mfa)
	}
	if g.age != 0 {
		require = append(require, "max_auth_age: "+g.age.String())
	}
	if g.binding != "" {
		require = append(require, "binding: "+g.binding)
	}
	if len(require) > 0 {
		fmt.Fprintf(&b, "    require: {%s}\n", strings.Join(require, ", "))
	}
	return b.String()
}

// oracle decides by reading the grants from top to bottom, the slow and plain way.
func oracle(grants []oracleGrant, in policy.Input) (reason, grant string) {
	reason, best := policy.ReasonNoGrant, 0
	telling := func(rank int, why, name string) {
		if rank > best {
			best, reason, grant = rank, why, name
		}
	}
	for _, g := range grants {
		unmet := oracleUnmet(g, in)
		switch {
		case !slices.ContainsFunc(g.to, func(s string) bool { return oracleTo(s, in.Principal) }):
		case !slices.ContainsFunc(g.resources, func(s string) bool { return oracleResource(s, in.Resource) }):
			telling(1, policy.ReasonResourceNotGranted, "")
		case !oracleModels(g.models, in):
			telling(2, policy.ReasonModelNotGranted, "")
		case in.Action != "*" && !slices.Contains(g.actions, in.Action):
			telling(3, policy.ReasonActionNotGranted, "")
		case in.Egress && !g.egress:
			telling(4, policy.ReasonEgressNotGranted, "")
		case g.media != nil && slices.ContainsFunc(in.Media, func(m string) bool { return !slices.Contains(g.media, m) }):
			telling(5, policy.ReasonMediaNotGranted, "")
		case in.Via == "key" && !g.keys:
			telling(6, policy.ReasonKeysNotGranted, "")
		case !oracleClaims(g.claims, in.Principal):
			telling(7, policy.ReasonClaimsRequired, g.name)
		case unmet != "":
			telling(8, unmet, g.name)
		default:
			return policy.ReasonAllowed, g.name
		}
	}
	return reason, grant
}

func oracleTo(entry string, p policy.Principal) bool {
	if entry == "any:"+p.Issuer {
		return !p.Workload
	}
	if entry == "user:"+p.Issuer+"/"+p.Subject {
		return true
	}
	for _, g := range p.Groups {
		if entry == "group:"+p.Issuer+"/"+g {
			return true
		}
	}
	for _, v := range p.Claims["repo"] {
		if entry == "claim:"+p.Issuer+"/repo="+v {
			return true
		}
	}
	return false
}

// oracleGlob leans on path.Match, whose * stops at a slash: there are none here.
func oracleGlob(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

func oracleResource(entry string, r policy.Resource) bool {
	if label, ok := strings.CutPrefix(entry, "label:"); ok {
		key, value, _ := strings.Cut(label, "=")
		got, has := r.Labels[key]
		return has && got == value
	}
	return oracleGlob(entry, r.Name)
}

func oracleModels(models []string, in policy.Input) bool {
	if len(models) == 0 {
		return true
	}
	if in.Model == "" {
		switch in.Action {
		case "list-models", "health", "tokenize", "connect", "*":
			return true
		}
	}
	name := strings.ToLower(in.Model)
	return slices.ContainsFunc(models, func(m string) bool {
		m = strings.ToLower(m)
		return oracleGlob(m, name) || !strings.Contains(m, ":") && oracleGlob(m+":latest", name)
	})
}

func oracleClaims(wanted map[string]string, p policy.Principal) bool {
	for key, values := range wanted {
		name, ofIssuer := strings.CutPrefix(key, p.Issuer+"/")
		held := false
		for _, v := range strings.Fields(values) {
			held = held || ofIssuer && slices.Contains(p.Claims[name], v)
		}
		if !held {
			return false
		}
	}
	return true
}

func oracleUnmet(g oracleGrant, in policy.Input) string {
	p := in.Principal
	claimed := p.MFA && (p.MFASource == "amr" || p.MFASource == "acr" || p.MFASource == "acrs")
	age := in.Now.Sub(p.AuthTime)
	switch {
	case g.mfa == "asserted" && !claimed:
		return policy.ReasonMFARequired
	case g.mfa == "true" && !claimed && !(p.MFA && p.MFASource == "issuer_policy" && !p.Workload):
		return policy.ReasonMFARequired
	case len(g.acr) > 0 && !slices.Contains(g.acr, p.ACR):
		return policy.ReasonACRRequired
	case g.age != 0 && (p.AuthTime.IsZero() || age >= g.age || age < -5*time.Minute):
		return policy.ReasonAuthTooOld
	case g.binding != "" && p.Binding != g.binding:
		return policy.ReasonBindingRequired
	}
	return ""
}

func some(t *rapid.T, label string, least int, from ...string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), least, min(3, len(from)), rapid.ID[string]).Draw(t, label)
}

func one(t *rapid.T, label string, from ...string) string {
	return rapid.SampledFrom(from).Draw(t, label)
}

func drawGrant(t *rapid.T, i int) oracleGrant {
	return oracleGrant{
		name:      fmt.Sprintf("g%d", i),
		to:        some(t, "to", 1, "user:corp/a", "user:ci/a", "user:corp/b", "group:corp/a", "group:corp/x/y", "group:ci/x", "claim:ci/repo=1=2", "claim:corp/repo=a", "any:corp", "any:ci"),
		resources: some(t, "resources", 1, "phi3", "gpu-*", "g?u-1", "*", "label:env=prod", "label:env=a=b", "p*3"),
		models:    some(t, "models", 0, "phi3", "Phi3:*", "*", "?hi3", "q*:7b", "llama.3", "a+b"),
		actions:   some(t, "actions", 1, "chat", "embed", "list-models", "manage-model", "tokenize", "health"),
		mfa:       one(t, "mfa", "", "", "true", "asserted"),
		binding:   one(t, "binding", "", "", "nonce"),
		age:       rapid.SampledFrom([]time.Duration{0, 0, time.Hour, 12 * time.Hour}).Draw(t, "age"),
		egress:    rapid.Bool().Draw(t, "egress"),
		keys:      rapid.Bool().Draw(t, "keys"),
		media:     rapid.SampledFrom([][]string{nil, nil, {}, {"image"}, {"audio", "image"}}).Draw(t, "media"),
		acr:       rapid.SampledFrom([][]string{nil, nil, {"gold"}, {"gold", "silver"}}).Draw(t, "acr"),
		claims: rapid.SampledFrom([]map[string]string{
			nil, nil, {"corp/repo": "a"}, {"ci/repo": "1=2 1"}, {"corp/repo": "1 a", "corp/env": "prod"}, {"corp/repo": "a", "ci/repo": "a"},
		}).Draw(t, "required"),
	}
}

func drawInput(t *rapid.T) policy.Input {
	p := policy.Principal{
		Issuer: one(t, "issuer", "corp", "ci"), Subject: one(t, "subject", "a", "b", "A"),
		Groups: some(t, "groups", 0, "a", "x/y", "x", "y"),
		MFA:    rapid.Bool().Draw(t, "mfa held"), MFASource: one(t, "source", "", "amr", "acr", "acrs", "issuer_policy", "vibes"),
		Binding: one(t, "binding", "nonce", "first-use", "none", ""), Workload: rapid.Bool().Draw(t, "workload"),
		ACR: one(t, "acr", "", "gold", "silver", "tin"),
	}
	if values := some(t, "claims", 0, "1=2", "a", "1"); len(values) > 0 {
		p.Claims = map[string][]string{"repo": values, "repo=1": {"2"}, "env": {one(t, "environment", "prod", "dev")}}
	}
	if ago := rapid.SampledFrom([]time.Duration{-1, time.Hour - 1, time.Hour, 11 * time.Hour, 13 * time.Hour, -10 * time.Minute, -time.Minute}).Draw(t, "login"); ago != -1 {
		p.AuthTime = noon.Add(-ago)
	}
	in := policy.Input{
		Principal: p, Resource: policy.Resource{Name: one(t, "resource", "phi3", "gpu-1", "gpu-12", "Phi3"), Kind: "model"},
		Action: one(t, "action", "chat", "embed", "list-models", "manage-model", "tokenize", "health", "*"),
		Model:  one(t, "model", "", "phi3:latest", "PHI3", "phi3:mini", "qwen:7b", "llama.3", "llamaX3", "a+b:latest", "aab", "hi3"),
		Egress: rapid.Bool().Draw(t, "egress"), Via: one(t, "via", "tunnel", "tunnel", "bearer", "key"), Now: noon,
		Media: rapid.SampledFrom([][]string{nil, nil, {"image"}, {"audio"}, {"audio", "image"}}).Draw(t, "media"),
	}
	if env := one(t, "env", "", "prod", "a=b", "dev"); env != "" {
		in.Resource.Labels = map[string]string{"env": env, "env=a": "b"}
	}
	return in
}

func TestRegoAgreesWithPlainReading(t *testing.T) {
	file := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		grants := make([]oracleGrant, rapid.IntRange(1, 6).Draw(rt, "grants"))
		text := "grants:\n"
		for i := range grants {
			grants[i] = drawGrant(rt, i)
			text += grants[i].yaml()
		}
		cfg := Config{GrantsFile: write(t, file, "grants.yaml", text), Issuers: []string{"corp", "ci"}, Deadline: slowMachine}
		e, err := New(t.Context(), cfg)
		if err != nil {
			rt.Fatalf("%v\n%s", err, text)
		}
		never := map[string]bool{}
		for _, w := range e.Grants().Warnings([]string{"corp", "ci"}) {
			never[w.Grant] = never[w.Grant] || strings.HasPrefix(w.Message, "never decides")
		}
		for range 20 {
			in := drawInput(rt)
			d := e.Decide(t.Context(), in)
			reason, grant := oracle(grants, in)
			if d.Reason != reason || d.Grant != grant || d.Allow != (reason == policy.ReasonAllowed) {
				rt.Fatalf("rego says %+v\noracle says %s %q\nof %+v\n%s", d, reason, grant, in, text)
			}
			if d.Allow && never[d.Grant] {
				rt.Fatalf("grant %s decides, which check says it never does: %+v\n%s", d.Grant, in, text)
			}
			checkExplanation(rt, e.Explain(t.Context(), in), d)
		}
	})
}

// checkExplanation holds an explanation against the decision it explains.
func checkExplanation(t *rapid.T, x policy.Explanation, d policy.Decision) {
	if x.Decision.Reason != d.Reason || x.Decision.Grant != d.Grant {
		t.Fatalf("explained %+v, decided %+v", x.Decision, d)
	}
	decides := ""
	for _, row := range x.Grants {
		if row.Decides {
			decides += row.Name
		}
		if row.Allows && len(row.To) == 0 {
			t.Fatalf("grant %s allows without naming the principal", row.Name)
		}
		if row.Allows && !d.Allow {
			t.Fatalf("grant %s would allow, yet the decision is %s", row.Name, d.Reason)
		}
	}
	if d.Allow && decides != d.Grant {
		t.Fatalf("%q decides in the explanation, %q in the decision", decides, d.Grant)
	}
}
