package auth

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// readPrincipal fills in who the token speaks of.
func (i *issuer) readPrincipal(c claims, out *Token) *TokenError {
	sub, ok := c.text("sub")
	if !ok || !checkSubject(sub) {
		return refuse(CodeSubjectInvalid, "sub is missing, empty, longer than %d bytes or holds control characters", maxSubject)
	}
	p := &out.Principal
	p.Issuer, p.IssuerURL, p.Subject, p.Workload = i.Name, i.URL, sub, i.Workload
	if i.Workload {
		p.Binding = BindingNone
	}
	authTime, _, ok := c.time("auth_time")
	if !ok || authTime.After(out.IssuedAt.Add(clockSkew)) {
		return refuse(CodeClaimsInvalid, "auth_time is no plain integer or lies after iat")
	}
	p.AuthTime = authTime
	p.Groups, p.GroupsUnknown = i.readGroups(c)
	p.Claims = i.readClaims(c)
	p.MFA = i.readMFA(c)
	if acr, _ := c.text("acr"); len(acr) <= maxACR {
		p.ACR = acr
	}
	p.Email, p.EmailVerified = readEmail(c)
	if name, _ := c.text("name"); name != "" {
		p.DisplayName = displayText(name, maxDisplay)
	} else if name, _ := c.text("preferred_username"); name != "" {
		p.DisplayName = displayText(name, maxDisplay)
	}
	return nil
}

// maxACR is more than any registered class has; a longer one is no class.
const maxACR = 256

// readGroups returns the groups, or unknown if the provider sent a reference to them
// (Entra beyond 200 groups) or anything that is no list of strings.
func (i *issuer) readGroups(c claims) (groups []string, unknown bool) {
	if flag, ok := c["hasgroups"]; ok && flag.Kind() != 'f' {
		return nil, true
	}
	if i.groupsReferenced(c) {
		return nil, true
	}
	v, ok := c.at(i.groups)
	if !ok {
		return nil, false
	}
	groups, ok = stringsOf(v)
	if !ok {
		return nil, true
	}
	return groups, false
}

// groupsReferenced looks for the groups among the distributed claims (OIDC Core
// 5.6.2), which this relay does not fetch.
func (i *issuer) groupsReferenced(c claims) bool {
	v, ok := c["_claim_names"]
	if !ok {
		return false
	}
	names, refused := parseObject("_claim_names", v)
	if refused != nil {
		return true
	}
	for first := range i.groups.Tokens() {
		return names.has(first) || names.has("groups")
	}
	return true
}

func (i *issuer) readClaims(c claims) map[string][]string {
	out := make(map[string][]string, len(i.named))
	for name, at := range i.named {
		if found := i.valuesAt(c, at); found != nil {
			out[name] = found
		}
	}
	return out
}

func (i *issuer) valuesAt(c claims, at jsontext.Pointer) []string {
	v, ok := c.at(at)
	if !ok {
		return nil
	}
	return values(v)
}

// readMFA prefers what the token asserts to what the configuration promises. A
// program has no second factor.
func (i *issuer) readMFA(c claims) MFA {
	if i.Workload {
		return MFA{}
	}
	counts := func(value string) bool { return slices.Contains(i.MFAValues, value) }
	if amr, ok := c.texts("amr"); ok && slices.ContainsFunc(amr, counts) {
		return MFA{Asserted: true, Source: MFASourceAMR}
	}
	if acr, ok := c.text("acr"); ok && counts(acr) {
		return MFA{Asserted: true, Source: MFASourceACR}
	}
	if acrs, ok := c.texts("acrs"); ok && slices.ContainsFunc(acrs, counts) {
		return MFA{Asserted: true, Source: MFASourceACRS}
	}
	if i.MFA == "by-provider" && (i.mfaAt == "" || slices.Contains(i.valuesAt(c, i.mfaAt), i.mfaWant)) {
		return MFA{Asserted: true, Source: MFASourceIssuerPolicy}
	}
	return MFA{}
}

// readEmail returns an address for display. Only the JSON true verifies it: "true"
// in quotes has been seen from providers that let users write the claim.
func readEmail(c claims) (email string, verified bool) {
	email, _ = c.text("email")
	if len(email) > maxDisplay || strings.ContainsAny(email, " ,;<>\"") || displayText(email, maxDisplay) != email {
		return "", false
	}
	return email, email != "" && c["email_verified"].Kind() == 't'
}
