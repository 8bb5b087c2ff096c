package policy

import "time"

// Grants is a checked grants file. It is immutable: share it freely.
type Grants struct {
	File   string
	List   []Grant      // in file order, which is the order of decision
	Admins []AdminEntry // in file order; user, group and claim only
}

// Grant is one rule: who may do which actions on which resources and models,
// under which conditions, within which limits.
type Grant struct {
	Name      string
	Line      int // of the grants file
	To        []Selector
	Resources []ResourcePattern
	Models    []ModelPattern // empty: every model
	Actions   []string
	Media     []string // kinds of input besides text, of Media(); nil: every kind; empty: text only
	Require   Require
	Limits    []Limits // all hold at once
	Keys      KeyRule
	Priority  int
	Egress    bool // models that send prompts to another host are included
	Record    bool // what is asked and answered under it is recorded for an auditor
}

// Requirement of a second factor.
const (
	MFANotRequired = ""
	MFARequired    = "true"     // by any source, the provider's own policy included
	MFAAsserted    = "asserted" // by a claim of the token
)

// Require is what must hold for a grant to count.
type Require struct {
	MFA        string          // MFANotRequired, MFARequired or MFAAsserted
	ACR        []string        // classes of logins, of which one must be the token's acr; the preferred first; empty: any
	MaxAuthAge time.Duration   // zero: any age
	Binding    string          // "" or BindingNonce
	Claims     []RequiredClaim // all hold; sorted by issuer and name
}

// AgeText writes MaxAuthAge as it stands in a grants file: 12h, not 12h0m0s.
func (r Require) AgeText() string { return FormatDuration(r.MaxAuthAge) }

// IsZero reports whether nothing is required.
func (r Require) IsZero() bool {
	return r.MFA == MFANotRequired && len(r.ACR) == 0 && r.MaxAuthAge == 0 && r.Binding == "" && len(r.Claims) == 0
}

// Group is the first of the grant's groups of which the principal is, as issuer
// and name; "" if none is.
func (g Grant) Group(p Principal) string {
	for _, s := range g.To {
		if s.Kind == SelectGroup && s.Matches(p) {
			return s.Issuer + "/" + s.Name
		}
	}
	return ""
}
