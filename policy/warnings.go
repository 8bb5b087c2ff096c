package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Warning is something in a grants file that is no mistake and yet hardly meant.
type Warning struct {
	Line    int    `json:"line"`
	Grant   string `json:"grant"`
	Message string `json:"message"`
}

// Warnings looks for grants that never decide, because earlier ones allow all they
// allow, and for limits that are never reached. What it says is so; it may miss
// some. workloads are the aliases of the issuers of programs.
func (g *Grants) Warnings(workloads []string) []Warning {
	var all []Warning
	for i, grant := range g.List {
		warn := func(format string, args ...any) {
			all = append(all, Warning{Line: grant.Line, Grant: grant.Name, Message: fmt.Sprintf(format, args...)})
		}
		for _, s := range grant.To {
			if s.Kind == SelectAny && slices.Contains(workloads, s.Issuer) {
				warn("%s names nobody: %s is an issuer of programs, and any: names people", s, s.Issuer)
			}
		}
		for _, c := range grant.Require.Claims {
			for _, s := range grant.To {
				if s.Issuer != c.Issuer {
					warn("%s cannot meet require: claims: %s, which is of another issuer", s, c.Key())
				}
			}
		}
		if by := shadows(g.List[:i], grant, workloads); len(by) > 0 {
			warn("never decides: %s already %s all of it", grantNames(by), map[bool]string{true: "allows", false: "allow"}[len(by) == 1])
		}
		idleLimits(grant, warn)
	}
	return all
}

func grantNames(list []Grant) string {
	names := make([]string, len(list))
	for i, g := range list {
		names[i] = fmt.Sprintf("grant %s on line %d", g.Name, g.Line)
	}
	return strings.Join(names, " and ")
}

// shadows returns the earlier grants that together allow all that g allows; none
// if something of g is left.
func shadows(earlier []Grant, g Grant, workloads []string) []Grant {
	var wider []Grant
	for _, e := range earlier {
		if e.coversConditions(g) {
			wider = append(wider, e)
		}
	}
	models := g.Models
	if len(models) == 0 {
		models = []ModelPattern{""}
	}
	used := map[int]bool{}
	for _, to := range g.To {
		for _, r := range g.Resources {
			for _, m := range models {
				for _, action := range g.Actions {
					first := slices.IndexFunc(wider, func(e Grant) bool { return e.admits(to, r, m, action, workloads) })
					if first < 0 {
						return nil
					}
					used[first] = true
				}
			}
		}
	}
	var by []Grant
	for i, e := range wider {
		if used[i] {
			by = append(by, e)
		}
	}
	return by
}

// idleLimits finds limits that are never reached.
func idleLimits(g Grant, warn func(string, ...any)) {
	tokens := slices.ContainsFunc(g.Actions, countsTokens)
	output := slices.ContainsFunc(g.Actions, func(a string) bool { return countsTokens(a) && a != ActionEmbed && a != ActionRerank })
	groups := slices.ContainsFunc(g.To, func(s Selector) bool { return s.Kind == SelectGroup })
	var seen []limit
	for _, l := range g.Limits {
		if l.Per == PerGroup && !groups {
			warn("limits per: group without a group in to: everybody is counted alone")
		}
		if len(l.Tokens) > 0 && !tokens {
			warn("tokens limits nothing: none of its actions uses any")
		}
		if l.MaxOutputTokens > 0 && !output {
			warn("max_output_tokens limits nothing: none of its actions generates any")
		}
		seen = append(seen, l.each()...)
	}
	for i, one := range seen {
		for j, other := range seen {
			if i != j && other.reachedBefore(one) && (j < i || !one.reachedBefore(other)) {
				warn("the limit of %s is never reached: that of %s is, before it", one, other)
				break
			}
		}
	}
}

// countsTokens reports whether requests of the action may use tokens.
func countsTokens(action string) bool {
	switch action {
	case ActionConnect, ActionListModels, ActionInspectModel, ActionObserve, ActionHealth, ActionUI, ActionServerAdmin:
		return false
	}
	return true
}

// limit is one number of a grant's limits.
type limit struct {
	what      string
	rate      Rate // Per is zero where there is no window
	per, mode string
}

func (l Limits) each() []limit {
	var all []limit
	add := func(what string, r Rate) { all = append(all, limit{what, r, l.Per, l.Mode}) }
	for _, r := range l.Requests {
		add("requests", r)
	}
	for _, r := range l.Tokens {
		add("tokens", r)
	}
	if l.Concurrent > 0 {
		add("concurrent", Rate{N: int64(l.Concurrent)})
	}
	if l.MaxOutputTokens > 0 {
		add("max_output_tokens", Rate{N: int64(l.MaxOutputTokens)})
	}
	return all
}

func (l limit) String() string {
	text := l.what + " "
	if l.rate.Per == 0 {
		text += fmt.Sprint(l.rate.N)
	} else {
		text += l.rate.String()
	}
	if l.per != PerPrincipal {
		text += " per " + l.per
	}
	return text
}

// reachedBefore reports whether l refuses before b can: it is enforced, counts at
// least those whom b counts, and lets no more through in b's window than b would.
func (l limit) reachedBefore(b limit) bool {
	width := map[string]int{PerPrincipal: 0, PerGroup: 1, PerGrant: 2}
	if l.what != b.what || l.mode == ModeWarn || l.what != "max_output_tokens" && width[l.per] < width[b.per] {
		return false
	}
	if b.rate.Per <= l.rate.Per {
		return l.rate.N <= b.rate.N
	}
	windows := int64((b.rate.Per + l.rate.Per - 1) / l.rate.Per)
	return l.rate.N <= b.rate.N/windows
}
