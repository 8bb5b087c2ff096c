package auth

import "time"

// Principal is a verified identity. Issuer and Subject together name it; nothing
// else in it is unique or stable, least of all Email.
type Principal struct {
	Issuer    string // alias of the issuer in the relay's configuration, without a slash
	IssuerURL string // the verified "iss"
	Subject   string // the verified "sub": 1 to 255 bytes without control characters

	Groups []string // exactly as the provider spells them
	// GroupsUnknown says that the provider only referenced the groups or sent
	// them in a shape that is no list of strings. Whoever decides must deny:
	// a rule that excludes a group cannot be evaluated.
	GroupsUnknown bool

	Email         string // for display and for X-IAP-Email; never an identity
	EmailVerified bool
	DisplayName   string

	Claims map[string][]string // the claims named in IssuerConfig.Claims, by that name

	MFA      MFA
	ACR      string    // the class of the login, as the provider states it; empty: not stated
	AuthTime time.Time // zero: the provider did not say
	// Binding says how the token belongs to the session key: BindingNonce,
	// BindingFirstUse or BindingNone. The verifier knows it for workloads only
	// (BindingNone); otherwise the relay sets it once the key's proof is checked.
	Binding  string
	Workload bool // a program of a workload issuer, not a person
}

// How a token is bound to a session key (Principal.Binding).
const (
	BindingNonce    = "nonce"     // the token's nonce is NonceForKey of the key
	BindingFirstUse = "first-use" // the first key that presented the token owns it
	BindingNone     = "none"      // processes of a workload share the token
)

// ID returns issuer alias and subject in one string, "corp/8a7f3c". The alias has
// no slash, so two principals never share an ID.
func (p Principal) ID() string { return p.Issuer + "/" + p.Subject }

// MFA says whether more than one factor was used, and who says so.
type MFA struct {
	Asserted bool
	Source   string // "amr", "acr", "acrs" (claims), "issuer_policy" (configuration) or ""
}

// Where MFA.Asserted comes from.
const (
	MFASourceAMR          = "amr"
	MFASourceACR          = "acr"
	MFASourceACRS         = "acrs"
	MFASourceIssuerPolicy = "issuer_policy"
)

// Token is what a verified token says, beside its principal.
type Token struct {
	Principal Principal
	// PayloadHash is the SHA-256 of the decoded, verified payload. Unlike a hash
	// of the token's text it does not change with the token's spelling.
	PayloadHash [32]byte
	Nonce       string // empty: none; compare with NonceForKey
	IssuedAt    time.Time
	Expires     time.Time
	AMR         []string
	SessionID   string // "sid", for back-channel logout
}

// Use says at which door a token is presented. The audiences of the two are
// disjoint, so that a token for one is worth nothing at the other.
type Use int

const (
	UseTunnel Use = iota // in the hello of a session, with the proof of a key
	UseBearer            // in an Authorization header at the front door
)

func (u Use) String() string {
	if u == UseBearer {
		return "bearer"
	}
	return "tunnel"
}
