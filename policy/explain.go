package policy

import (
	"slices"
	"strings"
)

// Explanation says how a decision came about, grant by grant.
type Explanation struct {
	Decision Decision         `json:"decision"`
	Grants   []ExplainedGrant `json:"grants"`
	Verb     bool             `json:"verb,omitempty"` // of the administration: the rows are entries of admins:
}

// ExplainedGrant is one grant's part in it: a row of a table. Each check is
// made by itself, whatever the others say.
type ExplainedGrant struct {
	Name     string   `json:"name"`
	Line     int      `json:"line"`
	To       []string `json:"to,omitempty"` // the entries that name the principal; empty: none does
	Resource bool     `json:"resource"`
	Model    bool     `json:"model"`
	Action   bool     `json:"action"`
	Egress   bool     `json:"egress"`
	Media    bool     `json:"media"`
	Keys     bool     `json:"keys"`
	Unmet    []string `json:"unmet,omitempty"` // reason codes of requirements that do not hold
	Lacks    []string `json:"lacks,omitempty"` // what keeps it from allowing, each in words
	Allows   bool     `json:"allows"`
	Decides  bool     `json:"decides"` // the first that allows
}

// Closest is the grant that came closest to allowing what was denied: of those that
// fail latest in the order of principal, resource, model, action and the rest, the
// first that lacks the fewest things. Nil where something allows or there are no
// grants.
func (x Explanation) Closest() *ExplainedGrant {
	var best *ExplainedGrant
	for i := range x.Grants {
		g := &x.Grants[i]
		if g.Allows {
			return nil
		}
		if best == nil || g.stage() > best.stage() || g.stage() == best.stage() && len(g.Lacks) < len(best.Lacks) {
			best = g
		}
	}
	return best
}

// stage counts the checks that hold before the first that does not.
func (g ExplainedGrant) stage() int {
	for i, holds := range []bool{len(g.To) > 0, g.Resource, g.Model, g.Action, g.Egress, g.Media, g.Keys} {
		if !holds {
			return i
		}
	}
	if slices.Contains(g.Unmet, ReasonClaimsRequired) {
		return 7
	}
	return 8
}

// Shortfall says in a sentence what the grant would have needed to allow.
func (g ExplainedGrant) Shortfall() string {
	return "grant " + g.Name + " would allow it but for: " + strings.Join(g.Lacks, "; ")
}

// Verdict is the row's last column: what the grant does, or the first thing
// that keeps it from allowing.
func (g ExplainedGrant) Verdict() string {
	switch {
	case g.Decides:
		return "decides"
	case g.Allows:
		return "would allow"
	case len(g.To) == 0:
		return ReasonNoGrant
	case !g.Resource:
		return ReasonResourceNotGranted
	case !g.Model:
		return ReasonModelNotGranted
	case !g.Action:
		return ReasonActionNotGranted
	case !g.Egress:
		return ReasonEgressNotGranted
	case !g.Media:
		return ReasonMediaNotGranted
	case !g.Keys:
		return ReasonKeysNotGranted
	case len(g.Unmet) > 0:
		return g.Unmet[0]
	}
	return ReasonPolicyError
}
