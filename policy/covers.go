package policy

import (
	"slices"
	"strings"
)

// The functions of this file answer whether everything that b admits is admitted
// by a as well. They may say no where the answer is yes, never the reverse.

// covers compares who: any: stands for everybody of an issuer of people.
func (s Selector) covers(b Selector, workloads []string) bool {
	return s == b || s.Kind == SelectAny && s.Issuer == b.Issuer && !slices.Contains(workloads, s.Issuer)
}

func (p ResourcePattern) covers(b ResourcePattern) bool {
	switch {
	case p == b, p.Name == "*":
		return true
	case p.LabelKey != "" || b.LabelKey != "":
		return false
	}
	return globCovers(p.Name, b.Name)
}

// modelsCover compares lists of patterns with one pattern; no list is every model,
// and "" for the pattern is what a grant without a list admits.
func modelsCover(a []ModelPattern, b ModelPattern) bool {
	if len(a) == 0 || slices.Contains(a, "*") {
		return true
	}
	if b == "" {
		return false
	}
	for _, name := range b.Names() {
		covered := slices.ContainsFunc(a, func(p ModelPattern) bool {
			return slices.ContainsFunc(p.Names(), func(glob string) bool { return globCovers(glob, name) })
		})
		if !covered {
			return false
		}
	}
	return true
}

// globCovers reads b's wildcards as characters of their own: its * is matched by a's
// * alone, its ? by a's ? or *. What b stands for then matches a as well.
func globCovers(a, b string) bool {
	if a == "" {
		return b == ""
	}
	if a[0] == '*' {
		rest := strings.TrimLeft(a, "*")
		for i := 0; i <= len(b); i++ {
			if globCovers(rest, b[i:]) {
				return true
			}
		}
		return false
	}
	if b == "" || b[0] == '*' || a[0] != '?' && a[0] != b[0] {
		return false
	}
	if a[0] == '?' && b[0] >= 0x80 {
		return false // one character is several bytes here
	}
	return globCovers(a[1:], b[1:])
}

// coversConditions compares what a request and a login must be.
func (g Grant) coversConditions(b Grant) bool {
	media := g.Media == nil || b.Media != nil && !slices.ContainsFunc(b.Media, func(kind string) bool { return !slices.Contains(g.Media, kind) })
	return media && (g.Egress || !b.Egress) && (g.Keys.Allowed() || !b.Keys.Allowed()) && g.Require.covers(b.Require)
}

func (r Require) covers(b Require) bool {
	switch {
	case r.MFA == MFAAsserted && b.MFA != MFAAsserted, r.MFA == MFARequired && b.MFA == MFANotRequired:
		return false
	case len(r.ACR) > 0 && (len(b.ACR) == 0 || slices.ContainsFunc(b.ACR, func(class string) bool { return !slices.Contains(r.ACR, class) })):
		return false
	case r.MaxAuthAge > 0 && (b.MaxAuthAge == 0 || b.MaxAuthAge > r.MaxAuthAge):
		return false
	case !coversClaims(r.Claims, b.Claims):
		return false
	}
	return r.Binding == "" || r.Binding == b.Binding
}

// admits reports whether the grant covers one of another grant's entries of each
// list.
func (g Grant) admits(to Selector, r ResourcePattern, m ModelPattern, action string, workloads []string) bool {
	return slices.Contains(g.Actions, action) && modelsCover(g.Models, m) &&
		slices.ContainsFunc(g.To, func(s Selector) bool { return s.covers(to, workloads) }) &&
		slices.ContainsFunc(g.Resources, func(p ResourcePattern) bool { return p.covers(r) })
}
