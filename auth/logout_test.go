package auth

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// logoutClaims are those of an honest logout token; changes are laid over them, nil removes.
func logoutClaims(changes map[string]any) map[string]any {
	all := map[string]any{
		"sid": "s1", "jti": "j1", "events": map[string]any{logoutEvent: map[string]any{}},
	}
	for name, value := range changes {
		all[name] = value
	}
	return all
}

func TestLogoutTokensAreReadByTheRulesOfBackChannelLogout(t *testing.T) {
	p, foreign := newProvider(t, "https://idp.test"), newProvider(t, "https://idp.test")
	c := p.issuerConfig()
	v := newVerifier(t, c)
	now := time.Now().Unix()
	for what, test := range map[string]struct {
		changes map[string]any
		code    string
	}{
		"honest":                     {nil, ""},
		"sub alone":                  {map[string]any{"sid": nil}, ""},
		"sid alone":                  {map[string]any{"sub": nil}, ""},
		"Keycloak's kind":            {map[string]any{"typ": "Logout"}, ""},
		"neither sub nor sid":        {map[string]any{"sub": nil, "sid": nil}, CodeLogoutInvalid},
		"a nonce":                    {map[string]any{"nonce": "n"}, CodeLogoutInvalid},
		"an empty nonce":             {map[string]any{"nonce": nil, "Nonce": "n"}, ""}, // names are exact
		"no events":                  {map[string]any{"events": nil}, CodeLogoutInvalid},
		"events as a list":           {map[string]any{"events": []string{logoutEvent}}, CodeLogoutInvalid},
		"another event":              {map[string]any{"events": map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}}, CodeLogoutInvalid},
		"an event that is no object": {map[string]any{"events": map[string]any{logoutEvent: true}}, CodeLogoutInvalid},
		"no jti":                     {map[string]any{"jti": nil}, CodeLogoutInvalid},
		"a jti that is a number":     {map[string]any{"jti": 7}, CodeLogoutInvalid},
		"a long jti":                 {map[string]any{"jti": strings.Repeat("j", 300)}, CodeLogoutInvalid},
		"a sid with a line break":    {map[string]any{"sid": "a\nb"}, CodeLogoutInvalid},
		"a sub with a quote":         {map[string]any{"sub": `a"b`}, CodeSubjectInvalid},
		"an identity token's kind":   {map[string]any{"typ": "ID"}, CodeTypeRefused},
		"no iat":                     {map[string]any{"iat": nil}, CodeClaimsInvalid},
		"no exp":                     {map[string]any{"exp": nil}, CodeClaimsInvalid},
		"iat as text":                {map[string]any{"iat": "now"}, CodeClaimsInvalid},
		"expired":                    {map[string]any{"iat": now - 90, "exp": now - 60}, CodeTokenExpired},
		"of the future":              {map[string]any{"iat": now + 120}, CodeTokenNotYetValid},
		"old":                        {map[string]any{"iat": now - 3600, "exp": now + 3600}, CodeLogoutTooOld},
		"for another client":         {map[string]any{"aud": "other"}, CodeAudienceMismatch},
		"for others as well":         {map[string]any{"aud": []string{c.Audiences[0], "other"}}, CodeAudienceMismatch},
		"for nobody":                 {map[string]any{"aud": nil}, CodeAudienceMismatch},
		"of another issuer":          {map[string]any{"iss": "https://other.test"}, CodeIssuerUnknown},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := v.VerifyLogout(t.Context(), p.mint(logoutClaims(test.changes)))
			var refused *TokenError
			if errors.As(err, &refused); test.code == "" && err != nil || test.code != "" && (refused == nil || refused.Code != test.code) {
				t.Errorf("%+v, %v; want %q", got, err, test.code)
			}
		})
	}
	if _, err := v.VerifyLogout(t.Context(), foreign.mint(logoutClaims(nil))); err == nil {
		t.Error("a logout token signed by somebody else was accepted")
	}
	if _, err := v.VerifyLogout(t.Context(), p.mint(nil)); err == nil {
		t.Error("an identity token was accepted as a logout token")
	}
	if _, err := v.Verify(t.Context(), p.mint(logoutClaims(nil)), UseTunnel); err == nil {
		t.Error("a logout token was accepted as an identity token")
	}
}

func TestLogoutSaysWhoWhichSessionAndWhen(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	v := newVerifier(t, p.issuerConfig())
	got, err := v.VerifyLogout(t.Context(), p.mint(logoutClaims(nil)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := v.VerifyLogout(t.Context(), p.mint(logoutClaims(map[string]any{"jti": "j2"})))
	if err != nil {
		t.Fatal(err)
	}
	if got.Issuer != "corp" || got.Subject != "8a7f3c" || got.SessionID != "s1" || got.IssuedAt.IsZero() || len(got.ID) != 64 || got.ID == other.ID {
		t.Errorf("%+v, %+v", got, other)
	}
}

func TestLogoutIsNotForPrograms(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	c := p.issuerConfig()
	c.Workload, c.ClientID = true, ""
	v := newVerifier(t, c)
	if got, err := v.VerifyLogout(t.Context(), p.mint(logoutClaims(nil))); err == nil {
		t.Errorf("%+v", got)
	}
}
