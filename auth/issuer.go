package auth

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// IssuerConfig describes one identity provider to a Verifier.
type IssuerConfig struct {
	Name string // alias in policies and logs: lower-case letters, digits, '-', '_', '.'; required
	URL  string // exactly the provider's "iss"; https, or http on a loopback host; required

	ClientID     string // the client of iapctl at this provider; tokens' azp must name it
	ClientSecret string // the "secret" some providers hand to public clients; not secret, not used here

	// Audiences are accepted in the tunnel, BearerAudiences at the front door.
	// No string may stand in both, over all issuers; one of the two lists must
	// not be empty.
	Audiences       []string
	BearerAudiences []string
	// ExtraAudiences may stand in a token beside ours ("account" of Keycloak).
	// Any other further audience refuses the token.
	ExtraAudiences []string
	// AuthorizedParties may stand in azp, client_id, cid or appid beside ClientID.
	// A workload issuer without ClientID and AuthorizedParties leaves them to policy.
	AuthorizedParties []string

	Algorithms []string // default RS256, ES256, EdDSA, PS256; never a symmetric one
	TokenTypes []string // accepted "typ" headers, ignoring case; default "", JWT, at+jwt
	Scopes     []string // what iapctl asks for; not used by the verifier

	GroupsClaim string            // JSON pointer (RFC 6901) to the groups; default /groups
	Claims      map[string]string // name in policies → JSON pointer

	// MFA is "" or "asserted" (only the token's amr, acr and acrs count) or
	// "by-provider" (the provider is configured to demand it of everyone).
	MFA string
	// MFARequireClaim limits by-provider to tokens with this claim,
	// "connector_id=corp": a name of Claims, a JSON pointer or a top-level claim.
	MFARequireClaim string
	// MFAValues count as several factors in amr, acr and acrs; default
	// DefaultMFAValues.
	MFAValues []string

	// KeysURL is where the keys are if the discovery document cannot be reached or
	// names an address that is refused; KeysFile holds them as a JWKS, read anew with
	// each refresh. Either takes the place of discovery; not both.
	KeysURL, KeysFile string

	Workload    bool          // its subjects are programs: no key binding, MFA never holds
	MaxTokenAge time.Duration // refuse tokens whose iat is longer ago; 0: no limit but exp
	HTTPClient  *http.Client  // nil: a client with our limits; its redirect rule is always ours
}

// DefaultMFAValues are the values of amr and acr that count as more than one factor:
// RFC 8176 and the OpenID values for phishing-resistant login. Passwords, mail, SMS
// and a bare software key are not among them.
func DefaultMFAValues() []string {
	return []string{
		"mfa", "otp", "hwk", "sc", "fido", "phr", "phrh",
		"http://schemas.openid.net/pape/policies/2007/06/multi-factor",
	}
}

const googleIssuer = "https://accounts.google.com"

// issuer is an IssuerConfig made ready: checked, defaults filled in, names resolved.
type issuer struct {
	IssuerConfig
	parties []string // who a token may have been issued to; empty: anyone (workloads)
	types   []string // lower case
	groups  jsontext.Pointer
	named   map[string]jsontext.Pointer
	mfaAt   jsontext.Pointer // by-provider only with …
	mfaWant string           // … this value here; mfaAt empty: always
	keys    *keySet
	beside  []*issuer // the others of this URL
	sharing bool      // there are others
}

var (
	issuerName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	claimName  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)
)

// compileIssuer checks one issuer's configuration; the error names the field.
func compileIssuer(c IssuerConfig) (*issuer, error) {
	i := &issuer{IssuerConfig: c, named: make(map[string]jsontext.Pointer)}
	for _, check := range []func() error{
		i.checkName, i.checkKeys, i.checkAudiences, i.checkAlgorithms, i.fillParties, i.resolveClaims, i.resolveMFA,
	} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("issuer %q: %w", c.Name, err)
		}
	}
	i.types = []string{"", "jwt", "at+jwt"}
	if c.TokenTypes != nil {
		i.types = nil
		for _, t := range c.TokenTypes {
			i.types = append(i.types, mediaType(t))
		}
	}
	return i, nil
}

// mediaType puts a "typ" header into the one form RFC 7515 4.1.9 gives it.
func mediaType(t string) string { return strings.TrimPrefix(strings.ToLower(t), "application/") }

func (i *issuer) checkName() error {
	if !issuerName.MatchString(i.Name) {
		return errors.New("name: lower-case letters, digits, '.', '_' and '-' only")
	}
	u, err := parseEndpoint(i.URL)
	if err != nil {
		return fmt.Errorf("url %q: %w", i.URL, err)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("url %q: an issuer has no query and no fragment", i.URL)
	}
	return nil
}

func (i *issuer) checkKeys() error {
	if i.KeysURL == "" {
		return nil
	}
	if i.KeysFile != "" {
		return errors.New("keys_url and keys_file: one of them only")
	}
	if _, err := parseEndpoint(i.KeysURL); err != nil {
		return fmt.Errorf("keys_url %q: %w", i.KeysURL, err)
	}
	return nil
}

func (i *issuer) checkAudiences() error {
	if len(i.Audiences)+len(i.BearerAudiences) == 0 {
		return errors.New("audiences: empty; a token of any client would be accepted")
	}
	all := slices.Concat(i.Audiences, i.BearerAudiences, i.ExtraAudiences)
	if slices.ContainsFunc(all, func(a string) bool { return strings.TrimSpace(a) == "" }) {
		return errors.New("audiences: an empty string among them")
	}
	return nil
}

func (i *issuer) checkAlgorithms() error {
	if i.Algorithms == nil {
		i.Algorithms = []string{"RS256", "ES256", "EdDSA", "PS256"}
	}
	known := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	for _, a := range i.Algorithms {
		if !slices.Contains(known, a) {
			return fmt.Errorf("algorithms: %q is no asymmetric signature algorithm this relay has", a)
		}
	}
	if len(i.Algorithms) == 0 {
		return errors.New("algorithms: empty")
	}
	return nil
}

func (i *issuer) fillParties() error {
	if i.ClientID != "" {
		i.parties = append(i.parties, i.ClientID)
	}
	i.parties = append(i.parties, i.AuthorizedParties...)
	if len(i.parties) == 0 && !i.Workload {
		i.parties = slices.Concat(i.Audiences, i.BearerAudiences)
	}
	if i.MaxTokenAge < 0 {
		return errors.New("max_token_age: negative")
	}
	return nil
}

func (i *issuer) resolveClaims() error {
	i.groups = "/groups"
	if i.GroupsClaim != "" {
		i.groups = jsontext.Pointer(i.GroupsClaim)
	}
	if !validPointer(i.groups) {
		return fmt.Errorf("groups_claim: %q is no JSON pointer (/name or /name/member)", i.groups)
	}
	for name, at := range i.Claims {
		if !claimName.MatchString(name) {
			return fmt.Errorf("claims: name %q: letters, digits, '.', '_' and '-' only", name)
		}
		p := jsontext.Pointer(at)
		if !validPointer(p) {
			return fmt.Errorf("claims: %s: %q is no JSON pointer (/name or /name/member)", name, at)
		}
		i.named[name] = p
	}
	return nil
}

func validPointer(p jsontext.Pointer) bool { return p != "" && p.IsValid() }

func (i *issuer) resolveMFA() error {
	if i.MFAValues == nil {
		i.MFAValues = DefaultMFAValues()
	}
	switch i.MFA {
	case "", "asserted":
		if i.MFARequireClaim != "" {
			return errors.New("mfa_require_claim: only with mfa: by-provider")
		}
		return nil
	case "by-provider":
	default:
		return fmt.Errorf("mfa: %q is neither asserted nor by-provider", i.MFA)
	}
	if i.Workload {
		return errors.New("mfa: by-provider cannot hold for a workload issuer")
	}
	if i.MFARequireClaim == "" {
		return nil
	}
	name, want, ok := strings.Cut(i.MFARequireClaim, "=")
	if !ok || name == "" || want == "" {
		return fmt.Errorf("mfa_require_claim: %q is not name=value", i.MFARequireClaim)
	}
	i.mfaWant, i.mfaAt = want, i.named[name]
	if i.mfaAt == "" && strings.HasPrefix(name, "/") {
		i.mfaAt = jsontext.Pointer(name)
	} else if i.mfaAt == "" {
		i.mfaAt = jsontext.Pointer("").AppendToken(name)
	}
	if !i.mfaAt.IsValid() {
		return fmt.Errorf("mfa_require_claim: %q is no JSON pointer", name)
	}
	return nil
}

// spellings are the values of "iss" that mean this issuer. Google documents two.
func (i *issuer) spellings() []string {
	if i.URL == googleIssuer {
		return []string{i.URL, strings.TrimPrefix(i.URL, "https://")}
	}
	return []string{i.URL}
}

// audiences returns ours at one door.
func (i *issuer) audiences(use Use) []string {
	if use == UseBearer {
		return i.BearerAudiences
	}
	return i.Audiences
}
