package dev

import (
	"crypto/subtle"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// scopes are those that mean something here; others are dropped from a request.
func scopes() []string { return []string{"openid", "profile", "email", "groups", "offline_access"} }

// registered shows a Client to op in the terms that op asks for.
type registered struct {
	Client
	idLifetime time.Duration
}

func (c *registered) GetID() string { return c.ID }

func (c *registered) RedirectURIs() []string {
	if len(c.Client.RedirectURIs) > 0 {
		return c.Client.RedirectURIs
	}
	return []string{
		"http://127.0.0.1/callback", "http://[::1]/callback", "http://localhost/callback",
		"http://127.0.0.1/", "http://[::1]/", "http://localhost/",
		"http://127.0.0.1", "http://[::1]", "http://localhost",
	}
}

// ApplicationType is native even for a client with a secret: this is the kind some providers give to desktop programs, where the
// secret is none and PKCE protects the code.
func (c *registered) ApplicationType() op.ApplicationType { return op.ApplicationTypeNative }

func (c *registered) AuthMethod() oidc.AuthMethod {
	if c.Secret == "" {
		return oidc.AuthMethodNone
	}
	return oidc.AuthMethodBasic // op takes it from the form as well
}

// accepts compares a presented secret; a client without one accepts none but the empty.
func (c *registered) accepts(secret string) bool {
	return subtle.ConstantTimeCompare([]byte(c.Secret), []byte(secret)) == 1
}

func (c *registered) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}

func (c *registered) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeDeviceCode}
}

// LoginURL is where op sends a browser that wants a code.
func (c *registered) LoginURL(requestID string) string { return loginPath + "?id=" + requestID }

// AccessTokenType is op's opaque kind on purpose: accessTokens turns it into a JWT with the type and claims of RFC 9068.
func (c *registered) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeBearer }

func (c *registered) IDTokenLifetime() time.Duration { return c.idLifetime }
func (c *registered) DevMode() bool                  { return false }
func (c *registered) ClockSkew() time.Duration       { return 0 }

func (c *registered) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(s []string) []string { return s }
}

func (c *registered) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(s []string) []string { return s }
}

func (c *registered) IsScopeAllowed(scope string) bool { return slices.Contains(scopes(), scope) }

// IDTokenUserinfoClaimsAssertion puts e-mail and name into the ID token, where the relay reads them.
func (c *registered) IDTokenUserinfoClaimsAssertion() bool { return true }

func (c *registered) PostLogoutRedirectURIs() []string { return nil }
