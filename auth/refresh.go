package auth

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/oauth2"
)

// Refresh exchanges a refresh token. The answer's RefreshToken is the next one to
// use, which may be the same. Save it before anything else: the old one may be dead,
// and some providers end the whole grant when it comes back.
func (l *Login) Refresh(ctx context.Context, refreshToken string) (*Tokens, error) {
	if refreshToken == "" {
		return nil, loginRequired("there is no refresh token", nil)
	}
	r, err := l.prepare(ctx)
	if err != nil {
		return nil, err
	}
	exchange, cancel := outlive(ctx, refreshGrace)
	defer cancel()
	tok, err := r.config.TokenSource(r.oauthContext(exchange), &oauth2.Token{RefreshToken: refreshToken}).Token()
	if err != nil {
		return nil, refreshFailed(exchange, err)
	}
	return r.tokens(tok, "")
}

// outlive returns a context that ends some time after ctx does. An exchange that is
// cut off may have happened at the provider, and its answer, the next refresh token,
// would be lost.
func outlive(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(grace, cancel)
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() { stop(); cancel() }
}

// refreshFailed tells a grant that is gone, where only a new login helps, from a
// provider that cannot be asked just now.
func refreshFailed(ctx context.Context, err error) *LoginError {
	gone := []string{
		"invalid_grant", "unauthorized_client", "access_denied",
		"interaction_required", "login_required", "consent_required", "invalid_token", "expired_token",
	}
	if a := answerOf(err); a != nil && a.status < http.StatusInternalServerError && slices.Contains(gone, a.code) {
		return &LoginError{Code: CodeRefreshRefused, Public: "the identity provider has ended this login", Hint: "iapctl login", Err: a}
	}
	return grantFailed(ctx, err)
}

// Revoke tells the provider that the tokens are not used any more (RFC 7009): the
// refresh token first, since its end takes the access tokens with it. A token the
// provider does not know counts as revoked. ErrNoRevocation if it has no such
// endpoint.
func (l *Login) Revoke(ctx context.Context, tokens Tokens) error {
	r, err := l.prepare(ctx)
	if err != nil {
		return err
	}
	if r.meta.RevocationURL == "" {
		return ErrNoRevocation
	}
	for _, t := range []struct{ hint, token string }{
		{"refresh_token", tokens.RefreshToken},
		{"access_token", tokens.AccessToken},
	} {
		if t.token == "" {
			continue
		}
		if err := r.revoke(ctx, t.hint, t.token); err != nil {
			return fmt.Errorf("revoke %s: %w", t.hint, err)
		}
	}
	return nil
}

func (r *relying) revoke(ctx context.Context, hint, token string) error {
	form := url.Values{"token": {token}, "token_type_hint": {hint}, "client_id": {r.ClientID}}
	if r.ClientSecret != "" {
		form.Set("client_secret", r.ClientSecret)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.meta.RevocationURL, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := r.client.Do(req)
	if err != nil {
		return requestFailed(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return requestFailed(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var answer struct {
		Code string `json:"error"`
	}
	// An answer that is no JSON has no code.
	_ = json.Unmarshal(body, &answer)
	if answer.Code == "unsupported_token_type" && hint == "access_token" {
		return nil // RFC 7009 2.2.1: this kind cannot be revoked and dies by itself
	}
	return grantFailed(ctx, &oauth2.RetrieveError{Response: resp, Body: body, ErrorCode: answer.Code})
}
