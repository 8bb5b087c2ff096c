package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// AdminEntry is one entry of admins: who may use which verbs of the
// administration, under which conditions.
type AdminEntry struct {
	Line    int // of the grants file
	To      []Selector
	Verbs   []string // empty: every verb
	Require Require
}

// Name is how decisions and records call the entry. No grant's name has a colon.
func (e AdminEntry) Name() string { return fmt.Sprintf("admins:%d", e.Line) }

// Has reports whether the entry is about the verb.
func (e AdminEntry) Has(verb string) bool {
	return slices.Contains(Verbs(), verb) && (len(e.Verbs) == 0 || slices.Contains(e.Verbs, verb))
}

// Names reports whether the entry names the principal. A workload is named by its
// subject alone: a claim, such as that of a repository, is of every job in it.
func (e AdminEntry) Names(p Principal) bool {
	return slices.ContainsFunc(e.To, func(s Selector) bool {
		return s.Kind != SelectAny && (!p.Workload || s.Kind == SelectUser) && s.Matches(p)
	})
}

// IsVerb reports whether name is a verb of the administration.
func IsVerb(name string) bool { return slices.Contains(Verbs(), name) }

// MayAdminister decides whether the principal may use the verb. Grants play no
// part. The first entry that allows decides; a denial is that of the first which
// names principal and verb.
func (g *Grants) MayAdminister(p Principal, verb string, now time.Time) Decision {
	switch {
	case g == nil || p.Issuer == "" || p.Subject == "":
		return Decision{Reason: ReasonInputInvalid, Message: "the request has no verified identity"}
	case p.GroupsUnknown:
		return Decision{Reason: ReasonGroupsUnknown, Message: "the identity provider did not put your groups into the token: ask its administrator to send those of this application"}
	case !IsVerb(verb):
		return Decision{Reason: ReasonActionUnknown, Message: "the relay's administration has no such verb"}
	}
	closest := Decision{Reason: ReasonVerbNotGranted, Message: fmt.Sprintf(
		"%s is not given to you: under admins: in the grants file an administrator can add {to: [%q], verbs: [%q]}", verb, Lines(p)[0], verb)}
	found := false
	for _, e := range g.Admins {
		if !e.Has(verb) || !e.Names(p) {
			continue
		}
		unmet := e.Require.Unmet(p, now)
		if len(unmet) == 0 {
			return e.allows(p)
		}
		if !found {
			closest, found = e.denies(p, unmet[0]), true
		}
	}
	return closest
}

func (e AdminEntry) allows(p Principal) Decision {
	d := Decision{Allow: true, Reason: ReasonAllowed, Message: "allowed by " + e.Name(), Grant: e.Name()}
	if e.Require.MaxAuthAge > 0 {
		d.Until = p.AuthTime.Add(e.Require.MaxAuthAge)
	}
	return d
}

func (e AdminEntry) denies(p Principal, reason string) Decision {
	if reason == ReasonClaimsRequired { // which one is no business of whoever lacks it, and no login adds it
		return Decision{Reason: reason, Grant: e.Name(), Message: fmt.Sprintf("the entry of admins: on line %d wants a claim that your token does not have", e.Line)}
	}
	r := e.Require
	r.Claims = nil
	d := Decision{Reason: reason, Grant: e.Name(), Message: fmt.Sprintf("the entry of admins: on line %d wants %s", e.Line, r)}
	if !p.Workload {
		d.Message += ": run `iapctl login`"
		d.StepUp = &StepUp{MFA: r.MFA != MFANotRequired, ACR: strings.Join(r.ACR, " "), MaxAge: r.MaxAuthAge, Binding: r.Binding}
	}
	return d
}

// VerbsOf lists the verbs that the principal may use now, and those that a fresh
// login would add.
func (g *Grants) VerbsOf(p Principal, now time.Time) (may, stepUp []string) {
	for _, verb := range Verbs() {
		switch d := g.MayAdminister(p, verb, now); {
		case d.Allow:
			may = append(may, verb)
		case d.StepUp != nil:
			stepUp = append(stepUp, verb)
		}
	}
	return may, stepUp
}

func keysOfAdmin() []string { return []string{"to", "verbs", "require"} }

// admins reads the list: selectors, which give every verb, and mappings.
func (p *grantsParser) admins(n ast.Node) []AdminEntry {
	var all []AdminEntry
	lines := map[string]int{} // of the selectors that stand by themselves
	for _, entry := range p.list(n, "admins") {
		e := AdminEntry{}
		e.Line, _ = position(entry)
		if text, isText := entry.(*ast.StringNode); isText {
			if first, twice := lines[text.Value]; twice {
				p.fail(entry, "admins: %q stands on line %d already", text.Value, first)
			}
			lines[text.Value] = e.Line
			s, err := ParseSelector(text.Value, p.issuers)
			if err != nil {
				p.fail(entry, "admins: %v", err)
				continue
			}
			e.To = []Selector{s}
		} else {
			p.admin(entry, &e)
		}
		for _, s := range e.To {
			if s.Kind == SelectAny {
				p.fail(entry, "admins: %q is a wildcard; administrators are named one by one", s)
			}
		}
		all = append(all, e)
	}
	return all
}

// admin reads one mapping.
func (p *grantsParser) admin(n ast.Node, e *AdminEntry) {
	what := fmt.Sprintf("the entry of admins on line %d", e.Line)
	values := p.mapping(n, what, keysOfAdmin())
	if values == nil {
		return
	}
	for _, key := range []string{"to", "verbs"} {
		if values[key] == nil {
			p.fail(n, "%s: key %q is missing", what, key)
		}
	}
	if v := values["to"]; v != nil {
		e.To = p.selectors(v, what+": to")
	}
	if v := values["verbs"]; v != nil {
		e.Verbs = eachText(p, v, what+": verbs", parseVerb)
	}
	if v := values["require"]; v != nil {
		e.Require = p.require(v, what)
	}
}

func parseVerb(name string) (string, error) {
	switch {
	case IsVerb(name):
		return name, nil
	case strings.Contains(name, "*"):
		return "", fmt.Errorf("%q: no wildcard gives verbs: list those that are meant", name)
	}
	return "", fmt.Errorf("unknown verb %q%s; there are %s", name, hint(name, Verbs()), strings.Join(Verbs(), ", "))
}
