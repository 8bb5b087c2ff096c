package auth

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const maxSubject = 255 // OIDC Core section 2

// checkHeader refuses before any key is looked for: RFC 8725 3.1, 3.2 and 3.11.
func (i *issuer) checkHeader(h header) *TokenError {
	if !slices.Contains(i.Algorithms, h.algorithm) {
		return refuse(CodeAlgorithmRefused, "algorithm %q is not allowed for issuer %q", displayText(h.algorithm, maxDisplay), i.Name)
	}
	if !slices.Contains(i.types, mediaType(h.tokenType)) {
		return refuse(CodeTypeRefused, "typ %q is not allowed for issuer %q", displayText(h.tokenType, maxDisplay), i.Name)
	}
	return nil
}

// checkKind refuses tokens that the provider signed for another purpose: providers
// sign identity, refresh and logout tokens with the same keys (RFC 8725 3.12).
func (i *issuer) checkKind(c claims, _ *Token) *TokenError {
	if c.has("typ") { // Keycloak's kind, in the payload
		kind, ok := c.text("typ")
		if !ok || !slices.Contains([]string{"id", "bearer", "jwt", "at+jwt"}, strings.ToLower(kind)) {
			return refuse(CodeTypeRefused, "payload says typ %q", displayText(kind, maxDisplay))
		}
	}
	if c.has("events") {
		return refuse(CodeTypeRefused, "payload has events: a logout token or a security event")
	}
	if kind, _ := c.text("idtyp"); kind == "app" && !i.Workload {
		return refuse(CodeTypeRefused, "an application's token from an issuer of people")
	}
	if c.has("cnf") {
		// RFC 7800: whoever presents it must prove another key than the session's.
		return refuse(CodeBindingUnsupported, "payload has cnf")
	}
	return nil
}

// checkTimes holds exp, nbf and iat against the relay's clock.
func (i *issuer) checkTimes(c claims, out *Token, now time.Time) *TokenError {
	exp, hasExp, okExp := c.time("exp")
	iat, hasIat, okIat := c.time("iat")
	nbf, hasNbf, okNbf := c.time("nbf")
	switch {
	case !hasExp || !hasIat:
		return refuse(CodeClaimsInvalid, "exp or iat is missing")
	case !okExp || !okIat || !okNbf:
		return refuse(CodeClaimsInvalid, "exp, iat or nbf is no plain positive integer")
	case !now.Before(exp.Add(clockSkew)):
		return refuse(CodeTokenExpired, "expired at %s", exp.UTC().Format(time.RFC3339))
	case hasNbf && now.Add(clockSkew).Before(nbf):
		return refuse(CodeTokenNotYetValid, "valid from %s", nbf.UTC().Format(time.RFC3339))
	case now.Add(clockSkew).Before(iat):
		return refuse(CodeTokenNotYetValid, "issued in the future, %s", iat.UTC().Format(time.RFC3339))
	case exp.Before(iat):
		return refuse(CodeClaimsInvalid, "expires before it was issued")
	case exp.Sub(iat) > maxTokenLifetime:
		return refuse(CodeTokenLifetime, "lives %s, at most %s is accepted", exp.Sub(iat), maxTokenLifetime)
	case i.MaxTokenAge > 0 && now.Sub(iat) > i.MaxTokenAge+clockSkew:
		return refuse(CodeTokenTooOld, "issued %s ago, at most %s is accepted", now.Sub(iat), i.MaxTokenAge)
	}
	out.IssuedAt, out.Expires = iat, exp
	return nil
}

// checkAudience demands one of our audiences at this door and nobody's beside it but
// those configured: a service among several audiences could present the token as if
// it were the user (OIDC Core 3.1.3.7 (3)).
func (i *issuer) checkAudience(c claims, use Use) *TokenError {
	list, ok := c.audience()
	if !ok {
		return refuse(CodeClaimsInvalid, "aud is neither a string nor a list of strings")
	}
	ours := i.audiences(use)
	found := false
	for _, a := range list {
		switch {
		case slices.Contains(ours, a):
			found = true
		case !slices.Contains(i.ExtraAudiences, a):
			return refuse(CodeAudienceMismatch, "audience %q is not accepted here (%s)", displayText(a, maxDisplay), use)
		}
	}
	if !found {
		return refuse(CodeAudienceMismatch, "none of the audiences is ours (%s)", use)
	}
	return nil
}

func (c claims) audience() ([]string, bool) {
	if s, ok := c.text("aud"); ok {
		return []string{s}, s != ""
	}
	list, ok := c.texts("aud")
	return list, ok && len(list) > 0
}

// checkParty looks at whom the token was issued to, under each name providers give
// it: azp (OpenID), client_id (RFC 9068), cid (Okta), appid (Entra, version 1).
func (i *issuer) checkParty(c claims) *TokenError {
	list, _ := c.audience()
	if len(list) > 1 && !c.has("azp") && !c.has("client_id") {
		return refuse(CodePartyMismatch, "several audiences and no azp")
	}
	if i.sharing && i.Workload && !slices.ContainsFunc(partyClaims(), c.has) {
		return refuse(CodePartyMismatch, "nothing says which program it was issued to")
	}
	if len(i.parties) == 0 {
		if len(list) > 1 {
			return refuse(CodePartyMismatch, "several audiences and no authorized party is configured")
		}
		return nil
	}
	for _, name := range partyClaims() {
		if !c.has(name) {
			continue
		}
		party, ok := c.text(name)
		if !ok || !slices.Contains(i.parties, party) {
			return refuse(CodePartyMismatch, "%s %q is not an authorized party", name, displayText(party, maxDisplay))
		}
	}
	return nil
}

func partyClaims() []string { return []string{"azp", "client_id", "cid", "appid"} }

// checkSubject refuses subjects that cannot be a part of a log line, a header or a
// policy without being quoted. A header loses spaces around its value: "ada " would
// arrive as "ada".
func checkSubject(sub string) bool {
	if len(sub) == 0 || len(sub) > maxSubject || !utf8.ValidString(sub) || strings.TrimSpace(sub) != sub {
		return false
	}
	return !strings.ContainsFunc(sub, func(r rune) bool { return r == '"' || !unicode.IsGraphic(r) })
}
