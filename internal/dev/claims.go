package dev

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// groupsOf never returns nil: a user in no group has an empty list, not an absent claim.
func groupsOf(u User) []string { return append([]string{}, u.Groups...) }

// fill writes what the scopes allow.
func fill(info *oidc.UserInfo, u User, asked []string) {
	info.Subject = u.Subject
	for _, scope := range asked {
		switch scope {
		case "profile":
			info.Name, info.PreferredUsername = u.Name, u.Subject
		case "email":
			info.Email, info.EmailVerified = u.Email, oidc.Bool(u.EmailVerified)
		case "groups":
			info.AppendClaims("groups", groupsOf(u))
		}
	}
	for name, value := range u.Claims {
		info.AppendClaims(name, value)
	}
}

// SetUserinfoFromRequest fills the ID token.
func (s *store) SetUserinfoFromRequest(ctx context.Context, info *oidc.UserInfo, request op.IDTokenRequest, asked []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := s.userLocked(request.GetSubject())
	if err != nil {
		return oidc.ErrInvalidGrant().WithParent(err)
	}
	if _, refreshed := request.(op.RefreshTokenRequest); refreshed {
		asked = slices.DeleteFunc(slices.Clone(asked), func(scope string) bool { return slices.Contains(s.options.DropAtRefresh, scope) })
	}
	fill(info, u, asked)
	if i, ok := ctx.Value(issuanceKey{}).(*issuance); ok && i.grant.sid != "" {
		info.AppendClaims("sid", i.grant.sid)
	}
	acr := u.ACR
	if i, ok := ctx.Value(issuanceKey{}).(*issuance); ok {
		acr = i.grant.acr
	}
	if acr != "" {
		info.AppendClaims("acr", acr)
	}
	return nil
}

// SetUserinfoFromScopes is op's older way of asking; SetUserinfoFromRequest answers.
func (s *store) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromToken answers the userinfo endpoint.
func (s *store) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, tokenID, _, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens.get(tokenID, time.Now())
	if !ok {
		return errors.New("token expired or revoked")
	}
	u, err := s.userLocked(t.subject)
	if err != nil {
		return err
	}
	fill(info, u, t.scopes)
	return nil
}

// SetIntrospectionFromToken serves confidential clients only; op has checked the client.
func (s *store) SetIntrospectionFromToken(_ context.Context, answer *oidc.IntrospectionResponse, tokenID, _, _ string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, ok := s.tokens.get(tokenID, time.Now())
	if !ok {
		return errors.New("token expired or revoked")
	}
	answer.Subject, answer.ClientID, answer.Scope = t.subject, t.client, t.scopes
	answer.Expiration = oidc.FromTime(t.expires)
	return nil
}

// GetPrivateClaimsFromScopes is for op's own JWT access tokens, which are not used here.
func (s *store) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}
