package policy

import "time"

// Sources of the statement that a principal used a second factor.
const (
	MFASourceAMR          = "amr"           // the token's amr claim
	MFASourceACR          = "acr"           // the token's acr claim
	MFASourceACRS         = "acrs"          // Entra's acrs claim
	MFASourceIssuerPolicy = "issuer_policy" // the provider demands it of everybody; no claim says so
)

// BindingNonce is the binding of a token whose nonce names the session key:
// the login itself was made for this key.
const BindingNonce = "nonce"

// The ways by which a question comes.
const (
	ViaTunnel = "tunnel" // a session of iapctl
	ViaBearer = "bearer" // a token at the front door
	ViaKey    = "key"    // a program's key at the front door, with the rights of its owner
	ViaLocal  = "local"  // root on the relay's own socket
)

// Kinds of input besides text.
const (
	MediaImage = "image"
	MediaAudio = "audio"
	MediaVideo = "video"
	MediaFile  = "file"
)

// Media lists the kinds of input that a grant may name.
func Media() []string { return []string{MediaImage, MediaAudio, MediaVideo, MediaFile} }

// Principal is a verified identity: issuer and subject, with what its token
// says about it. Every field comes from a verified token; none from a request.
type Principal struct {
	Issuer        string              `json:"issuer"`  // alias of a configured issuer, no '/'
	Subject       string              `json:"subject"` // the token's sub
	Groups        []string            `json:"groups,omitempty"`
	GroupsUnknown bool                `json:"groups_unknown,omitempty"` // the provider only referenced the groups: deny before asking
	Claims        map[string][]string `json:"claims,omitempty"`         // by the names of the issuer's configuration
	MFA           bool                `json:"mfa,omitempty"`            // a second factor is known by MFASource, whichever source that is
	MFASource     string              `json:"mfa_source,omitempty"`     // a MFASource… constant; any other value counts as no MFA
	ACR           string              `json:"acr,omitempty"`            // the token's acr claim: the class of the login
	AuthTime      time.Time           `json:"auth_time,omitzero"`       // when the person logged in; zero: not known
	Binding       string              `json:"binding,omitempty"`        // nonce | first-use | none
	Workload      bool                `json:"workload,omitempty"`       // a program, not a person
}

// ID is issuer and subject in one string, unambiguous because an alias has no '/'.
func (p Principal) ID() string { return p.Issuer + "/" + p.Subject }

// Resource is what a principal wants to reach.
type Resource struct {
	Name   string            `json:"name"`
	Kind   string            `json:"kind,omitempty"` // model | http | tcp
	Labels map[string]string `json:"labels,omitempty"`
}

// Input is one question to the policy.
type Input struct {
	Principal Principal `json:"principal"`
	Resource  Resource  `json:"resource"`
	Action    string    `json:"action"`           // one of Actions, or ActionAny
	Model     string    `json:"model,omitempty"`  // canonical name such as phi3:latest; empty: the request names none
	Egress    bool      `json:"egress,omitempty"` // the model would send the prompt on to another host
	Media     []string  `json:"media,omitempty"`  // kinds of input besides text: a Media… constant each
	Via       string    `json:"via,omitempty"`    // a Via… constant
	Now       time.Time `json:"now,omitzero"`     // the clock of this decision; zero: the engine's
}
