package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
)

const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout" // OIDC Back-Channel Logout 2.4
	logoutAge   = 10 * time.Minute                                     // providers that try again do so within minutes
	maxLogoutID = 255                                                  // bytes of jti and of sid
)

// LogoutKept is how long whoever accepted a logout token remembers its ID: longer
// than any copy of it is accepted.
const LogoutKept = logoutAge + 2*clockSkew

// Codes of a TokenError that logout tokens alone have.
const (
	CodeLogoutInvalid = "logout_invalid"
	CodeLogoutTooOld  = "logout_too_old"
)

// Logout is what a provider says in a verified logout token: a login of Subject, or
// the provider's session SessionID, has ended. One of the two may be empty.
type Logout struct {
	Issuer    string // alias
	Subject   string
	SessionID string
	ID        string // hash of issuer and "jti": each is good once
	IssuedAt  time.Time
}

// VerifyLogout reads a logout token by the rules of OpenID Connect Back-Channel Logout
// 1.0, section 2.6, but for the replay of its jti, which the caller remembers. All
// that can be told without a key is refused before the signature is looked at. Errors
// are of type *TokenError.
func (v *Verifier) VerifyLogout(ctx context.Context, raw string) (*Logout, error) {
	l, refused := v.verifyLogout(ctx, raw)
	if refused != nil {
		return nil, refused
	}
	return l, nil
}

func (v *Verifier) verifyLogout(ctx context.Context, raw string) (*Logout, *TokenError) {
	t, refused := parseCompact(raw)
	if refused != nil {
		return nil, refused
	}
	iss, _ := t.claims.text("iss")
	known, ok := v.issuers[iss]
	if !ok {
		return nil, refuse(CodeIssuerUnknown, "issuer %q is not configured", displayText(iss, maxDisplay))
	}
	i := known.ofLogout(t.claims)
	if i == nil {
		return nil, refuse(CodeAudienceMismatch, "the logout token is for none of the clients of issuer %q", known.Name)
	}
	now := v.now()
	for _, check := range []func() *TokenError{
		func() *TokenError { return i.checkLogoutHeader(t.header) },
		func() *TokenError { return checkLogoutKind(t.claims) },
		func() *TokenError { return checkLogoutTimes(t.claims, now) },
		func() *TokenError { return i.checkSignature(ctx, raw, t, now) },
	} {
		if refused := check(); refused != nil {
			return nil, refused
		}
	}
	return i.logout(t.claims)
}

// ofLogout finds, of the issuers of one URL, that of people whose client the token is
// for. Nobody else may stand among the audiences.
func (i *issuer) ofLogout(c claims) *issuer {
	audiences, ok := c.audience()
	if !ok {
		return nil
	}
	for _, one := range append([]*issuer{i}, i.beside...) {
		ours := slices.Concat([]string{one.ClientID}, one.Audiences, one.BearerAudiences)
		theirs := func(a string) bool { return a == "" || !slices.Contains(ours, a) }
		if !one.Workload && !slices.ContainsFunc(audiences, theirs) {
			return one
		}
	}
	return nil
}

// checkLogoutHeader accepts the type of logout tokens, which providers should send,
// and the plain ones, which many do.
func (i *issuer) checkLogoutHeader(h header) *TokenError {
	if !slices.Contains(i.Algorithms, h.algorithm) {
		return refuse(CodeAlgorithmRefused, "algorithm %q is not allowed for issuer %q", displayText(h.algorithm, maxDisplay), i.Name)
	}
	if !slices.Contains([]string{"logout+jwt", "jwt", ""}, mediaType(h.tokenType)) {
		return refuse(CodeTypeRefused, "typ %q is no logout token's", displayText(h.tokenType, maxDisplay))
	}
	return nil
}

// checkLogoutKind tells a logout token from the identity tokens that the same key
// signs: it has the event, and no nonce.
func checkLogoutKind(c claims) *TokenError {
	if kind, _ := c.text("typ"); c.has("typ") && !strings.EqualFold(kind, "logout") { // Keycloak's kind, in the payload
		return refuse(CodeTypeRefused, "payload says typ %q", displayText(kind, maxDisplay))
	}
	if c.has("nonce") {
		return refuse(CodeLogoutInvalid, "nonce is there, which makes it an identity token")
	}
	var events, event claims
	if json.Unmarshal(c["events"], &events) != nil || events == nil {
		return refuse(CodeLogoutInvalid, "events is missing or no object")
	}
	if json.Unmarshal(events[logoutEvent], &event) != nil || event == nil {
		return refuse(CodeLogoutInvalid, "events has no back-channel logout, or one that is no object")
	}
	if !c.has("sub") && !c.has("sid") {
		return refuse(CodeLogoutInvalid, "neither sub nor sid")
	}
	return nil
}

func checkLogoutTimes(c claims, now time.Time) *TokenError {
	exp, hasExp, okExp := c.time("exp")
	iat, hasIat, okIat := c.time("iat")
	switch {
	case !hasIat || !hasExp:
		return refuse(CodeClaimsInvalid, "exp or iat is missing")
	case !okIat || !okExp:
		return refuse(CodeClaimsInvalid, "exp or iat is no plain positive integer")
	case !now.Before(exp.Add(clockSkew)):
		return refuse(CodeTokenExpired, "expired at %s", exp.UTC().Format(time.RFC3339))
	case now.Add(clockSkew).Before(iat):
		return refuse(CodeTokenNotYetValid, "issued in the future, %s", iat.UTC().Format(time.RFC3339))
	case now.Sub(iat) > logoutAge+clockSkew:
		return refuse(CodeLogoutTooOld, "issued %s ago, at most %s is accepted", now.Sub(iat), logoutAge)
	}
	return nil
}

// logout reads the claims of a token whose signature holds.
func (i *issuer) logout(c claims) (*Logout, *TokenError) {
	out := &Logout{Issuer: i.Name}
	out.IssuedAt, _, _ = c.time("iat")
	id, ok := c.text("jti")
	if !ok || !isPlain(id) {
		return nil, refuse(CodeLogoutInvalid, "jti is missing or no short text")
	}
	sum := sha256.Sum256([]byte(i.URL + "\x00" + id))
	out.ID = hex.EncodeToString(sum[:])
	if c.has("sub") {
		if out.Subject, ok = c.text("sub"); !ok || !checkSubject(out.Subject) {
			return nil, refuse(CodeSubjectInvalid, "sub is no subject")
		}
	}
	if c.has("sid") {
		if out.SessionID, ok = c.text("sid"); !ok || !isPlain(out.SessionID) {
			return nil, refuse(CodeLogoutInvalid, "sid is no short text")
		}
	}
	return out, nil
}

// isPlain reports whether a provider's name for something can stand in a record.
func isPlain(s string) bool {
	return s != "" && len(s) <= maxLogoutID && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}
