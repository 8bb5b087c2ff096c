package policy

// Explanation says how a decision came about, grant by grant.
type Explanation struct {
	Decision Decision         `json:"decision"`
	Grants   []ExplainedGrant `json:"grants"`
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
	Allows   bool     `json:"allows"`
	Decides  bool     `json:"decides"` // the first that allows
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
