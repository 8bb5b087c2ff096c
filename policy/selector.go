package policy

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"
)

// Kinds of selectors, as written before the colon.
const (
	SelectUser  = "user"
	SelectGroup = "group"
	SelectClaim = "claim"
	SelectAny   = "any"
)

// maxSelector bounds one entry; subjects are at most 255 characters by OpenID Connect.
const maxSelector = 1024

// Selector is one entry of to: or admins:, naming principals of one issuer.
type Selector struct {
	Kind   string
	Issuer string // alias
	Name   string // subject, group or claim name; empty for any
	Value  string // of a claim
}

// String writes the selector in full, with its issuer, as ParseSelector reads it.
func (s Selector) String() string {
	switch s.Kind {
	case SelectAny:
		return SelectAny + ":" + s.Issuer
	case SelectClaim:
		return SelectClaim + ":" + s.Issuer + "/" + s.Name + "=" + s.Value
	}
	return s.Kind + ":" + s.Issuer + "/" + s.Name
}

// Matches reports whether the selector names the principal. Strings match
// exactly, lists by member. any: names people only, never workloads: a public
// CI system gives a token to everybody.
func (s Selector) Matches(p Principal) bool {
	if s.Issuer != p.Issuer {
		return false
	}
	switch s.Kind {
	case SelectUser:
		return s.Name == p.Subject
	case SelectGroup:
		return slices.Contains(p.Groups, s.Name)
	case SelectClaim:
		return slices.Contains(p.Claims[s.Name], s.Value)
	case SelectAny:
		return !p.Workload
	}
	return false
}

// ParseSelector reads an entry such as group:corp/ml-eng against the aliases of
// the configured issuers. See the package documentation for the prefix rule.
func ParseSelector(text string, issuers []string) (Selector, error) {
	kind, rest, found := strings.Cut(text, ":")
	switch {
	case !found || rest == "":
		return Selector{}, fmt.Errorf("%q is not of the form user:…, group:…, claim:NAME=VALUE or any:ISSUER", text)
	case kind != SelectUser && kind != SelectGroup && kind != SelectClaim && kind != SelectAny:
		return Selector{}, fmt.Errorf("%q: unknown kind %q%s", text, kind, hint(kind, []string{SelectUser, SelectGroup, SelectClaim, SelectAny}))
	case len(text) > maxSelector:
		return Selector{}, fmt.Errorf("entry of %d bytes is longer than %d", len(text), maxSelector)
	case strings.ContainsFunc(text, unicode.IsControl):
		return Selector{}, fmt.Errorf("%q contains a control character", text)
	case strings.Contains(rest, "*"):
		return Selector{}, fmt.Errorf("%q: principals match exactly, a wildcard matches nothing (any:ISSUER names everybody of an issuer)", text)
	}
	s := Selector{Kind: kind}
	if kind == SelectAny {
		s.Issuer = rest
		return s, knownIssuer(text, rest, issuers)
	}
	var err error
	if s.Issuer, s.Name, err = splitIssuer(text, rest, issuers); err != nil {
		return Selector{}, err
	}
	if kind == SelectClaim {
		if s.Name, s.Value, found = strings.Cut(s.Name, "="); !found || s.Value == "" {
			return Selector{}, fmt.Errorf("%q: a claim is written claim:ISSUER/NAME=VALUE", text)
		}
	}
	if s.Name == "" {
		return Selector{}, fmt.Errorf("%q names nobody", text)
	}
	return s, nil
}

// splitIssuer takes the alias off the front. With one issuer it may be left
// out; a first segment equal to the alias is then always the alias.
func splitIssuer(text, rest string, issuers []string) (issuer, name string, err error) {
	first, after, slash := strings.Cut(rest, "/")
	if slash && slices.Contains(issuers, first) {
		return first, after, nil
	}
	switch {
	case len(issuers) == 1:
		return issuers[0], rest, nil
	case !slash || strings.Contains(first, "="):
		return "", "", fmt.Errorf("%q needs the name of its issuer in front (%s) since there are several", text, strings.Join(issuers, ", "))
	}
	return "", "", knownIssuer(text, first, issuers)
}

func knownIssuer(text, alias string, issuers []string) error {
	if slices.Contains(issuers, alias) {
		return nil
	}
	return fmt.Errorf("%q: no issuer is called %q%s", text, alias, hint(alias, issuers))
}

// Lines returns the entries that name the principal, ready to be pasted under
// to:, the most particular first.
func Lines(p Principal) []string {
	lines := []string{Selector{Kind: SelectUser, Issuer: p.Issuer, Name: p.Subject}.String()}
	for _, group := range slices.Sorted(slices.Values(p.Groups)) {
		lines = append(lines, Selector{Kind: SelectGroup, Issuer: p.Issuer, Name: group}.String())
	}
	names := make([]string, 0, len(p.Claims))
	for name := range p.Claims {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, value := range p.Claims[name] {
			lines = append(lines, Selector{Kind: SelectClaim, Issuer: p.Issuer, Name: name, Value: value}.String())
		}
	}
	return lines
}
