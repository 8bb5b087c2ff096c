package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// RequiredClaim is one entry of require: claims: the token of a principal of this
// issuer must have one of the values in the claim. Of several entries all hold;
// to a principal of another issuer none does.
type RequiredClaim struct {
	Issuer string // alias
	Name   string // of a claim that the issuer's configuration names
	Values []string
}

// String writes the entry as messages name it: ci/environment=production|staging.
func (c RequiredClaim) String() string { return c.Key() + "=" + strings.Join(c.Values, "|") }

// Key is the claim without its values, as it stands in a grants file.
func (c RequiredClaim) Key() string { return c.Issuer + "/" + c.Name }

// Holds reports whether the principal has the claim. Strings match exactly, lists
// by member.
func (c RequiredClaim) Holds(p Principal) bool {
	return c.Issuer == p.Issuer && slices.ContainsFunc(p.Claims[c.Name], func(v string) bool { return slices.Contains(c.Values, v) })
}

// UnmetClaims are the required claims that the principal does not have.
func (r Require) UnmetClaims(p Principal) []RequiredClaim {
	return slices.DeleteFunc(slices.Clone(r.Claims), func(c RequiredClaim) bool { return c.Holds(p) })
}

// coversClaims reports whether whoever has b has a too.
func coversClaims(a, b []RequiredClaim) bool {
	return !slices.ContainsFunc(a, func(wanted RequiredClaim) bool {
		return !slices.ContainsFunc(b, func(c RequiredClaim) bool {
			return c.Key() == wanted.Key() && !slices.ContainsFunc(c.Values, func(v string) bool { return !slices.Contains(wanted.Values, v) })
		})
	})
}

// requiredClaims reads claims: {ISSUER/NAME: value or list of values}, sorted by key.
func (p *grantsParser) requiredClaims(n ast.Node, grant string) []RequiredClaim {
	var all []RequiredClaim
	entries := p.entries(n, grant+": claims")
	for key, value := range entries {
		what := grant + ": claims: " + key
		issuer, name, err := splitIssuer(key, key, p.issuers)
		switch {
		case err != nil:
			p.fail(value, "%s: %v", what, err)
		case name == "" || strings.ContainsAny(name, "=*"):
			p.fail(value, "%s: a claim is named ISSUER/NAME, its value stands behind the colon", what)
		}
		all = append(all, RequiredClaim{Issuer: issuer, Name: name, Values: p.claimValues(value, what)})
	}
	if entries != nil && len(entries) == 0 {
		p.fail(n, "%s: claims must not be empty", grant)
	}
	slices.SortFunc(all, func(a, b RequiredClaim) int { return cmp.Compare(a.Key(), b.Key()) })
	for i := 1; i < len(all); i++ {
		if all[i].Key() == all[i-1].Key() { // once with its issuer in front and once without
			p.fail(n, "%s: claims: %s stands twice", grant, all[i].Key())
		}
	}
	return all
}

// claimValues reads one value or a list of those that will do.
func (p *grantsParser) claimValues(n ast.Node, what string) []string {
	if _, isList := n.(*ast.SequenceNode); isList {
		return eachText(p, n, what, parseClaimValue)
	}
	text, ok := p.text(n, what)
	if !ok {
		return nil
	}
	value, err := parseClaimValue(text)
	if err != nil {
		p.fail(n, "%s: %v", what, err)
	}
	return []string{value}
}

// parseClaimValue refuses what looks like a pattern: it would match itself alone.
func parseClaimValue(text string) (string, error) {
	if text == "" || strings.Contains(text, "*") {
		return "", fmt.Errorf("%q is no value of a claim: values match exactly, a wildcard matches nothing", text)
	}
	return text, nil
}
