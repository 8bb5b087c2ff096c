package policy

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
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
	ReasonMFARequired        = "mfa_required"
	ReasonAuthTooOld         = "auth_too_old"
	ReasonBindingRequired    = "binding_required"
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
	Limits   Limits    `json:"limits,omitzero"`
	Priority int       `json:"priority,omitempty"`
	Until    time.Time `json:"until,omitzero"` // ask again from this moment; zero: time alone does not change it
	Revision string    `json:"revision,omitempty"`
}

// Limits is how much a grant allows. A zero field does not limit.
type Limits struct {
	Requests        []Rate `json:"requests,omitempty"`
	Tokens          []Rate `json:"tokens,omitempty"`
	Concurrent      int    `json:"concurrent,omitempty"`
	MaxOutputTokens int    `json:"max_output_tokens,omitempty"`
}

// Rate is an amount within a window of time, written 60/1m.
type Rate struct {
	N   int64
	Per time.Duration
}

// Bounds of a rate. A window shorter than a second is no limit that a person
// would notice, one longer than a year outlives every counter.
const (
	minRateWindow = time.Second
	maxRateWindow = 366 * 24 * time.Hour
	maxRateAmount = int64(1e15) // exact as a float64, so every JSON reader agrees
)

// ParseRate reads an amount and a window, such as 60/1m or 200000/24h.
func ParseRate(text string) (Rate, error) {
	amount, window, found := strings.Cut(text, "/")
	if !found {
		return Rate{}, fmt.Errorf("rate %q is not of the form 60/1m", text)
	}
	n, err := strconv.ParseInt(amount, 10, 64)
	if err != nil || n <= 0 || n > maxRateAmount || strings.HasPrefix(amount, "+") {
		return Rate{}, fmt.Errorf("rate %q: the amount must be a whole number from 1 to %d", text, maxRateAmount)
	}
	per, err := time.ParseDuration(window)
	if err != nil || per < minRateWindow || per > maxRateWindow {
		return Rate{}, fmt.Errorf("rate %q: the window must be a time from 1s to 8784h, such as 1m or 24h", text)
	}
	return Rate{N: n, Per: per}, nil
}

// String writes the rate as ParseRate reads it.
func (r Rate) String() string { return strconv.FormatInt(r.N, 10) + "/" + shortDuration(r.Per) }

// MarshalJSON writes the text form.
func (r Rate) MarshalJSON() ([]byte, error) { return json.Marshal(r.String()) }

// UnmarshalJSON reads the text form.
func (r *Rate) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf("read rate: %w", err)
	}
	parsed, err := ParseRate(text)
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// shortDuration drops the zero parts that Duration.String appends: 24h, not 24h0m0s.
func shortDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
