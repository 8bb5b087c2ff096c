package policy

import (
	"encoding/json"
	"time"
)

// Reason codes. They are stable: audit records, error bodies and scripts hold
// them. A replaced policy may add its own.
const (
	ReasonAllowed            = "allowed"
	ReasonNoGrant            = "no_grant"             // no grant names this principal
	ReasonResourceNotGranted = "resource_not_granted" // its grants name other resources
	ReasonModelNotGranted    = "model_not_granted"    // its grants on this resource name other models
	ReasonActionNotGranted   = "action_not_granted"   // its grants on this model name other actions
	ReasonEgressNotGranted   = "egress_not_granted"   // the model leaves the host and no grant says egress: true
	ReasonMediaNotGranted    = "media_not_granted"    // the request carries images, audio or the like and no grant says so
	ReasonKeysNotGranted     = "keys_not_granted"     // a program key asks and no grant has keys:
	ReasonClaimsRequired     = "claims_required"      // the token lacks a claim that the grant demands
	ReasonMFARequired        = "mfa_required"
	ReasonACRRequired        = "acr_required" // the login was not of a class that the grant lists
	ReasonAuthTooOld         = "auth_too_old"
	ReasonBindingRequired    = "binding_required"
	ReasonVerbNotGranted     = "verb_not_granted" // no entry of admins: gives the principal this verb
	ReasonSessionRequired    = "session_required" // verbs are for sessions, not for bearer tokens and programs' keys
	ReasonGroupsUnknown      = "groups_unknown"   // the provider did not send the groups
	ReasonActionUnknown      = "action_unknown"   // the request is in no table
	ReasonInputInvalid       = "input_invalid"    // the question itself is incomplete
	ReasonDeniedByRule       = "denied_by_rule"   // a deny rule of the operator's own module
	ReasonPolicyUndefined    = "policy_undefined" // the policy gave no answer
	ReasonPolicyError        = "policy_error"     // the policy failed or gave a malformed answer
	ReasonPolicyTimeout      = "policy_timeout"   // the policy took too long
)

// Decision is the policy's answer. The zero value denies.
type Decision struct {
	Allow    bool      `json:"allow"`
	Reason   string    `json:"reason"`  // a stable code
	Message  string    `json:"message"` // for a person: what happened and what to do
	Grant    string    `json:"grant,omitempty"`
	Group    string    `json:"group,omitempty"`  // corp/ml-eng: the grant's first group of which the principal is; empty: named otherwise
	Limits   []Limits  `json:"limits,omitempty"` // all hold at once
	Keys     KeyRule   `json:"keys,omitzero"`
	Priority int       `json:"priority,omitempty"`
	Record   bool      `json:"record,omitempty"`  // the request and its answer are recorded, or do not pass
	StepUp   *StepUp   `json:"step_up,omitempty"` // of a denial that a fresh login could cure
	Until    time.Time `json:"until,omitzero"`    // ask again from this moment; zero: time alone does not change it
	Revision string    `json:"revision,omitempty"`
}

// MaxOutputTokens is the least cap on an answer's tokens among the limits that
// are enforced; 0: there is none.
func (d Decision) MaxOutputTokens() int {
	least := 0
	for _, l := range d.Limits {
		if n := l.MaxOutputTokens; n > 0 && l.Mode != ModeWarn && (least == 0 || n < least) {
			least = n
		}
	}
	return least
}

// KeyRule says whether a grant may be used with keys for programs. The zero
// value: no.
type KeyRule struct {
	MaxTTL time.Duration // how long after its creation a key may be used
}

// Allowed reports whether there may be keys at all.
func (k KeyRule) Allowed() bool { return k.MaxTTL > 0 }

// StepUp is what a fresh login would have to be for the grant that came closest.
type StepUp struct {
	MFA     bool          // with a second factor
	ACR     string        // of one of these classes, as acr_values: separated by spaces, the preferred first
	MaxAge  time.Duration // less long ago than this; zero: any age
	Binding string        // BindingNonce: made for this key; "": any
}

type keyRuleText struct {
	MaxTTL durationText `json:"max_ttl,omitzero"`
}

type stepUpText struct {
	MFA     bool         `json:"mfa,omitempty"`
	ACR     string       `json:"acr,omitempty"`
	MaxAge  durationText `json:"max_age,omitzero"`
	Binding string       `json:"binding,omitempty"`
}

// MarshalJSON writes times as a grants file has them.
func (k KeyRule) MarshalJSON() ([]byte, error) {
	return json.Marshal(keyRuleText{durationText(k.MaxTTL)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (k *KeyRule) UnmarshalJSON(data []byte) error {
	var text keyRuleText
	err := json.Unmarshal(data, &text)
	k.MaxTTL = time.Duration(text.MaxTTL)
	return err
}

// MarshalJSON writes times as a grants file has them.
func (s StepUp) MarshalJSON() ([]byte, error) {
	return json.Marshal(stepUpText{s.MFA, s.ACR, durationText(s.MaxAge), s.Binding})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *StepUp) UnmarshalJSON(data []byte) error {
	var text stepUpText
	err := json.Unmarshal(data, &text)
	*s = StepUp{text.MFA, text.ACR, time.Duration(text.MaxAge), text.Binding}
	return err
}
