package dev

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// grant is what a person gave a client: one login and all tokens that come of it. A refresh token is "handle.secret"; the
// handle finds the grant, the secret is good once. An old secret under a known handle is a second use of a spent token: the
// grant ends (RFC 9700, section 4.14.2). It is op.RefreshTokenRequest.
type grant struct {
	handle, secret string
	sid            string
	client         string
	subject        string
	scopes         []string
	amr            []string
	acr            string
	authTime       time.Time
	ended          bool
}

func (g *grant) GetAMR() []string            { return g.amr }
func (g *grant) GetAudience() []string       { return []string{g.client} }
func (g *grant) GetAuthTime() time.Time      { return g.authTime }
func (g *grant) GetClientID() string         { return g.client }
func (g *grant) GetScopes() []string         { return g.scopes }
func (g *grant) GetSubject() string          { return g.subject }
func (g *grant) SetCurrentScopes(s []string) { g.scopes = s }

func (g *grant) refreshToken() string { return g.handle + "." + g.secret }

// accessToken is one issued access token, spelled out so that a presented one can be compared.
type accessToken struct {
	id, grant string
	client    string
	subject   string
	scopes    []string
	expires   time.Time
	text      string
}

// issuance remembers, within one request to the token endpoint, the grant whose tokens are being made: op asks for the ID token's claims
// after the access token, and its own device request has no room for a session id.
type issuance struct{ grant grant }

type issuanceKey struct{}

func withIssuance(ctx context.Context) context.Context {
	return context.WithValue(ctx, issuanceKey{}, &issuance{})
}

// CreateAccessToken serves a login that asked for no refresh token.
func (s *store) CreateAccessToken(ctx context.Context, request op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.beginGrantLocked(request)
	if err != nil {
		return "", time.Time{}, err
	}
	g.secret = ""
	return s.issueLocked(ctx, g)
}

// CreateAccessAndRefreshTokens begins a grant or, with a refresh token, carries one on under a new secret.
func (s *store) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, refresh string) (
	id, next string, expires time.Time, err error,
) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var g *grant
	if refresh == "" {
		g, err = s.beginGrantLocked(request)
	} else if g, err = s.spendLocked(refresh); err == nil {
		g.secret = randomID()
		s.grants.put(g.handle, g, time.Now().Add(s.options.RefreshLifetime))
	}
	if err != nil {
		return "", "", time.Time{}, oidc.ErrInvalidGrant().WithParent(err)
	}
	id, expires, err = s.issueLocked(ctx, g)
	return id, g.refreshToken(), expires, err
}

func (s *store) beginGrantLocked(request op.TokenRequest) (*grant, error) {
	g := &grant{
		handle: randomID(), secret: randomID(), sid: randomID(),
		subject: request.GetSubject(), scopes: slices.Clone(request.GetScopes()),
	}
	who, ok := request.(op.IDTokenRequest)
	if !ok {
		return nil, fmt.Errorf("issue tokens for %T: not a login", request)
	}
	g.client, g.amr, g.authTime = who.GetClientID(), who.GetAMR(), who.GetAuthTime()
	if _, err := s.userLocked(g.subject); err != nil {
		return nil, err
	}
	g.acr = s.classes[g.subject]
	s.grants.put(g.handle, g, time.Now().Add(s.options.RefreshLifetime))
	return g, nil
}

// issueLocked registers an access token of g; op asks accessTokens for its text next.
func (s *store) issueLocked(ctx context.Context, g *grant) (string, time.Time, error) {
	if i, ok := ctx.Value(issuanceKey{}).(*issuance); ok {
		i.grant = *g
	}
	t := &accessToken{
		id: randomID(), grant: g.handle, client: g.client, subject: g.subject, scopes: g.scopes,
		expires: time.Now().Add(s.options.AccessLifetime),
	}
	s.tokens.put(t.id, t, t.expires)
	return t.id, t.expires, nil
}

// spendLocked finds the grant of a refresh token that may be used now.
func (s *store) spendLocked(refresh string) (*grant, error) {
	handle, secret, _ := strings.Cut(refresh, ".")
	g, ok := s.grants.get(handle, time.Now())
	switch {
	case !ok || g.ended:
		return nil, errors.New("refresh token unknown, expired or revoked")
	case secret == "" || g.secret != secret:
		s.log.Warn("development provider: refresh token used twice, grant revoked", "subject", g.subject)
		s.endLocked(g)
		return nil, errors.New("refresh token used before: its grant is revoked")
	}
	if _, err := s.userLocked(g.subject); err != nil {
		return nil, err
	}
	return g, nil
}

// endLocked revokes a grant with its access tokens.
func (s *store) endLocked(g *grant) {
	g.ended = true
	s.tokens.each(func(id string, t *accessToken) bool {
		if t.grant == g.handle {
			s.tokens.remove(id)
		}
		return true
	})
}

// TokenRequestByRefreshToken returns a copy of the grant for op to narrow and read.
func (s *store) TokenRequestByRefreshToken(_ context.Context, refresh string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, err := s.spendLocked(refresh)
	if err != nil {
		return nil, err
	}
	copied := *g
	if slices.Contains(s.options.DropAtRefresh, "amr") {
		copied.amr = nil
	}
	if slices.Contains(s.options.DropAtRefresh, "auth_time") {
		copied.authTime = time.Time{}
	}
	return &copied, nil
}

// GetRefreshTokenInfo tells op's revocation what it was given. A spent refresh token counts as one: revoking it ends the grant.
func (s *store) GetRefreshTokenInfo(_ context.Context, _, token string) (subject, id string, err error) {
	handle, _, isRefresh := strings.Cut(token, ".")
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.grants.get(handle, time.Now())
	if !isRefresh || !ok {
		return "", "", op.ErrInvalidRefreshToken
	}
	return g.subject, token, nil
}

// RevokeToken ends a grant by its refresh token or one access token by its id. What is unknown is as good as revoked (RFC 7009, section 2.2).
func (s *store) RevokeToken(_ context.Context, token, _, clientID string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	handle, _, _ := strings.Cut(token, ".")
	if g, ok := s.grants.get(handle, now); ok {
		if g.client != clientID {
			return oidc.ErrInvalidClient().WithDescription("token of another client")
		}
		s.endLocked(g)
		return nil
	}
	if t, ok := s.tokens.get(token, now); ok {
		if t.client != clientID {
			return oidc.ErrInvalidClient().WithDescription("token of another client")
		}
		s.tokens.remove(token)
	}
	return nil
}

// TerminateSession ends all a user gave a client.
func (s *store) TerminateSession(_ context.Context, subject, clientID string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grants.each(func(_ string, g *grant) bool {
		if g.subject == subject && g.client == clientID {
			s.endLocked(g)
		}
		return true
	})
	return nil
}

// accessTokens is the op.Crypto that gives access tokens their text. op hands it "id:subject" and would encrypt it; here it becomes a
// JWT of type at+jwt (RFC 9068). All else op encrypts, authorization codes, goes to the inner one.
type accessTokens struct {
	op.Crypto
	store *store
}

func (a accessTokens) Encrypt(plain string) (string, error) {
	id, _, ok := strings.Cut(plain, ":")
	if !ok {
		return a.Crypto.Encrypt(plain)
	}
	s := a.store
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens.get(id, time.Now())
	if !ok {
		return "", fmt.Errorf("spell access token %q: unknown", id)
	}
	claims, err := s.accessClaimsLocked(t)
	if err != nil {
		return "", err
	}
	key := s.keys.current()
	header := map[string]any{"alg": algorithmOf(key, nil), "kid": key.id, "typ": "at+jwt"}
	input := encode(mustJSON(header)) + "." + encode(mustJSON(claims))
	signature, err := sign(key, []byte(input))
	if err != nil {
		return "", err
	}
	t.text = input + "." + encode(signature)
	return t.text, nil
}

func (s *store) accessClaimsLocked(t *accessToken) (map[string]any, error) {
	u, err := s.userLocked(t.subject)
	if err != nil {
		return nil, err
	}
	claims := map[string]any{
		"iss": s.issuer, "sub": t.subject, "aud": s.clients[t.client].AccessAudience, "client_id": t.client, "jti": t.id,
		"iat": time.Now().Unix(), "exp": t.expires.Unix(), "scope": strings.Join(t.scopes, " "),
	}
	if g, ok := s.grants.get(t.grant, time.Now()); ok {
		claims["sid"], claims["auth_time"] = g.sid, g.authTime.Unix()
		if len(g.amr) > 0 {
			claims["amr"] = g.amr
		}
		if g.acr != "" {
			claims["acr"] = g.acr
		}
	}
	if slices.Contains(t.scopes, "groups") {
		claims["groups"] = groupsOf(u)
	}
	return claims, nil
}

// Decrypt reads back what Encrypt wrote: the token must be, to the letter, one that is still alive here.
func (a accessTokens) Decrypt(text string) (string, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return a.Crypto.Decrypt(text)
	}
	var claims struct {
		ID string `json:"jti"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		return "", fmt.Errorf("read access token: %w", err)
	}
	a.store.mu.Lock()
	defer a.store.mu.Unlock()
	t, ok := a.store.tokens.get(claims.ID, time.Now())
	if !ok || t.text != text {
		return "", errors.New("read access token: not one of ours, expired or revoked")
	}
	return t.id + ":" + t.subject, nil
}
