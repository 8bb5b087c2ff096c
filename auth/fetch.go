package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// GitHubJob is what a job of GitHub Actions has to ask its runner for a token: the
// variables of the same names, which exist with the permission id-token: write.
type GitHubJob struct {
	RequestURL   string // ACTIONS_ID_TOKEN_REQUEST_URL
	RequestToken string // ACTIONS_ID_TOKEN_REQUEST_TOKEN
	HTTPClient   *http.Client
}

// Fetch asks for a token that names audience. Errors are of type *LoginError.
func (j GitHubJob) Fetch(ctx context.Context, audience string) (string, error) {
	if j.RequestURL == "" || j.RequestToken == "" {
		return "", unavailable("this is no job of GitHub Actions that may have a token", "give the job permissions: id-token: write", nil)
	}
	u, err := parseEndpoint(j.RequestURL)
	if err != nil {
		return "", unavailable("ACTIONS_ID_TOKEN_REQUEST_URL is no address", "", err)
	}
	q := u.Query()
	q.Set("audience", audience)
	u.RawQuery = q.Encode()
	body, err := j.get(ctx, u)
	if err != nil {
		return "", unavailable("the runner gave no token", "try again in a moment", err)
	}
	var answer struct {
		Value string `json:"value"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", unavailable("the runner's answer makes no sense", "try again in a moment", errors.New("no JSON object with a value"))
	}
	return oneToken("the runner's answer", []byte(answer.Value))
}

// get is fetch with the job's own credential, which no error repeats.
func (j GitHubJob) get(ctx context.Context, u *url.URL) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+j.RequestToken)
	req.Header.Set("Accept", "application/json")
	client := newClient(j.HTTPClient, commandTimeout)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return errRedirect }
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	return io.ReadAll(resp.Body)
}

// Program is a client of an identity provider that logs in by itself (RFC 6749
// section 4.4).
type Program struct {
	Issuer                 string
	ClientID, ClientSecret string
	Scopes                 []string
	Audience               string // where the provider wants one (Auth0)
	HTTPClient             *http.Client
}

// Fetch asks the provider for an access token. Errors are of type *LoginError.
func (p Program) Fetch(ctx context.Context) (string, error) {
	client := newClient(p.HTTPClient, commandTimeout)
	m, err := discover(ctx, client, p.Issuer)
	if err != nil {
		return "", requestFailed(ctx, err)
	}
	if m.TokenURL == "" {
		return "", unavailable("the identity provider has no token endpoint", "check the issuer", nil)
	}
	c := clientcredentials.Config{ClientID: p.ClientID, ClientSecret: p.ClientSecret, TokenURL: m.TokenURL, Scopes: p.Scopes}
	if p.Audience != "" {
		c.EndpointParams = url.Values{"audience": {p.Audience}}
	}
	token, err := c.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	var refused *LoginError
	switch {
	case err == nil:
		return oneToken("the provider's answer", []byte(token.AccessToken))
	case errors.As(grantFailed(ctx, err), &refused) && refused.Code == CodeClientRefused:
		refused.Hint = "check client id and secret"
		return "", refused
	}
	return "", grantFailed(ctx, err)
}

func unavailable(public, hint string, err error) *LoginError {
	return &LoginError{Code: CodeTokenUnavailable, Public: public, Hint: hint, Err: err}
}
