package dev

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

var allScopes = []string{"openid", "profile", "email", "groups", "offline_access"}

// startProvider returns a provider, a context whose HTTP client leaves nothing behind, and go-oidc's view of the provider.
func startProvider(t *testing.T, o ProviderOptions) (*Provider, context.Context, *oidc.Provider) {
	t.Helper()
	if o.Algorithm == "" {
		o.Algorithm = "ES256" // quick to make
	}
	p, err := StartProvider(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close provider: %v", err)
		}
	})
	ctx := oidc.ClientContext(t.Context(), client)
	discovered, err := oidc.NewProvider(ctx, p.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	return p, ctx, discovered
}

func oauthConfig(p *Provider, discovered *oidc.Provider) *oauth2.Config {
	endpoint := discovered.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInParams
	return &oauth2.Config{ClientID: p.ClientID(), Endpoint: endpoint, Scopes: allScopes}
}

type idClaims struct {
	Subject       string   `json:"sub"`
	Email         string   `json:"email"`
	EmailVerified bool     `json:"email_verified"`
	Name          string   `json:"name"`
	Groups        []string `json:"groups"`
	AMR           []string `json:"amr"`
	AuthTime      int64    `json:"auth_time"`
	Nonce         string   `json:"nonce"`
	SessionID     string   `json:"sid"`
}

// verified is what go-oidc makes of the ID token in a token response.
func verified(t *testing.T, ctx context.Context, p *Provider, discovered *oidc.Provider, token *oauth2.Token) idClaims {
	t.Helper()
	raw, _ := token.Extra("id_token").(string)
	id, err := discovered.VerifierContext(ctx, &oidc.Config{ClientID: p.ClientID()}).Verify(ctx, raw)
	if err != nil {
		t.Fatalf("verify %q: %v", raw, err)
	}
	var claims idClaims
	if err := id.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// deviceLogin runs the device flow as alice.
func deviceLogin(t *testing.T, ctx context.Context, p *Provider, config *oauth2.Config) *oauth2.Token {
	t.Helper()
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(ctx, device.UserCode, "alice"); err != nil {
		t.Fatal(err)
	}
	token, err := config.DeviceAccessToken(ctx, device)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestDeviceFlowGivesVerifiableTokens(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second, Algorithm: algorithm})
			token := deviceLogin(t, ctx, p, oauthConfig(p, discovered))
			claims := verified(t, ctx, p, discovered, token)
			if claims.Subject != "alice" || claims.Email != "alice@example.test" || !claims.EmailVerified || claims.Name == "" {
				t.Errorf("who = %+v", claims)
			}
			if !slices.Equal(claims.Groups, []string{"ml-eng", "llm-users"}) || !slices.Equal(claims.AMR, []string{"pwd", "mfa"}) {
				t.Errorf("groups, amr = %+v", claims)
			}
			if claims.SessionID == "" || time.Since(time.Unix(claims.AuthTime, 0)) > time.Minute {
				t.Errorf("sid, auth_time = %+v", claims)
			}
			if header := jwtPart(t, token.AccessToken, 0); header["typ"] != "at+jwt" || header["alg"] != algorithm {
				t.Errorf("access token header = %v", header)
			}
			access := jwtPart(t, token.AccessToken, 1)
			if access["client_id"] != "iapctl" || access["sub"] != "alice" || access["sid"] != claims.SessionID {
				t.Errorf("access token = %v", access)
			}
			info, err := discovered.UserInfo(ctx, oauth2.StaticTokenSource(token))
			if err != nil || info.Subject != "alice" || info.Email != "alice@example.test" {
				t.Errorf("userinfo = %+v, %v", info, err)
			}
		})
	}
}

func jwtPart(t *testing.T, token string, part int) map[string]any {
	t.Helper()
	pieces := strings.Split(token, ".")
	if len(pieces) != 3 {
		t.Fatalf("%q is no JWT", token)
	}
	var out map[string]any
	if err := json.Unmarshal(mustDecode(t, pieces[part]), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDeviceFlowDenied(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second})
	config := oauthConfig(p, discovered)
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Deny(ctx, strings.ToLower(strings.ReplaceAll(device.UserCode, "-", ""))); err != nil {
		t.Fatal(err)
	}
	_, err = config.DeviceAccessToken(ctx, device)
	wantOAuthError(t, err, "access_denied")
	if err := p.Approve(ctx, device.UserCode, "alice"); err == nil {
		t.Error("a denied device was approved afterwards")
	}
}

func wantOAuthError(t *testing.T, err error, code string) {
	t.Helper()
	var retrieve *oauth2.RetrieveError
	if !errors.As(err, &retrieve) || retrieve.ErrorCode != code {
		t.Fatalf("error = %v, want %s", err, code)
	}
}

// pollOnce is one request of a device to the token endpoint.
func pollOnce(t *testing.T, p *Provider, deviceCode string) (status int, code string) {
	t.Helper()
	return post(t, p.Issuer()+tokenPath, url.Values{"grant_type": {grantDevice}, "device_code": {deviceCode}, "client_id": {p.ClientID()}})
}

func post(t *testing.T, target string, form url.Values) (status int, code string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.PostForm(target, form)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var body struct{ Error string }
	_ = json.NewDecoder(answer.Body).Decode(&body)
	return answer.StatusCode, body.Error
}

func TestDevicePollsHearTheirErrors(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Hour})
	config := oauthConfig(p, discovered)
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if device.Interval != 3600 {
		t.Errorf("interval = %d", device.Interval)
	}
	for i, want := range []string{"authorization_pending", "slow_down", "slow_down"} {
		if _, code := pollOnce(t, p, device.DeviceCode); code != want {
			t.Errorf("poll %d = %q, want %q", i, code, want)
		}
	}
	if _, code := pollOnce(t, p, "unknown"); code != "invalid_grant" {
		t.Errorf("unknown device code = %q", code)
	}
}

func TestDeviceCodeIsGoodOnce(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second})
	config := oauthConfig(p, discovered)
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(ctx, device.UserCode, "bob"); err != nil {
		t.Fatal(err)
	}
	if status, code := pollOnce(t, p, device.DeviceCode); status != http.StatusOK {
		t.Fatalf("first = %d %s", status, code)
	}
	if _, code := pollOnce(t, p, device.DeviceCode); code != "invalid_grant" {
		t.Errorf("second = %s", code)
	}
}

func TestDeviceCodeExpires(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{DeviceLifetime: time.Nanosecond})
	device, err := oauthConfig(p, discovered).DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p.store.mu.Lock() // kept for as long as it lived, which here is no time at all
	d := p.store.devices.items[device.DeviceCode]
	d.expires = time.Now().Add(time.Hour)
	p.store.devices.items[device.DeviceCode] = d
	p.store.mu.Unlock()
	if _, code := pollOnce(t, p, device.DeviceCode); code != "expired_token" {
		t.Errorf("late poll = %s", code)
	}
	if err := p.Approve(ctx, device.UserCode, "alice"); err == nil {
		t.Error("an expired code was approved")
	}
}

func TestRefreshRotatesAndReuseEndsTheGrant(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second})
	config := oauthConfig(p, discovered)
	first := deviceLogin(t, ctx, p, config)
	second, err := refresh(ctx, config, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken || second.RefreshToken == "" {
		t.Fatal("refresh token did not rotate")
	}
	a, b := verified(t, ctx, p, discovered, first), verified(t, ctx, p, discovered, second)
	if a.SessionID != b.SessionID || a.AuthTime != b.AuthTime || !slices.Equal(a.AMR, b.AMR) || len(b.Groups) == 0 {
		t.Errorf("claims changed at refresh: %+v, %+v", a, b)
	}
	_, err = refresh(ctx, config, first.RefreshToken)
	wantOAuthError(t, err, "invalid_grant")
	_, err = refresh(ctx, config, second.RefreshToken)
	wantOAuthError(t, err, "invalid_grant")
	if _, err := discovered.UserInfo(ctx, oauth2.StaticTokenSource(second)); err == nil {
		t.Error("access token outlived its grant")
	}
}

func refresh(ctx context.Context, config *oauth2.Config, token string) (*oauth2.Token, error) {
	return config.TokenSource(ctx, &oauth2.Token{RefreshToken: token}).Token()
}

func TestRefreshDropsWhatItIsToldTo(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second, DropAtRefresh: []string{"amr", "auth_time", "groups"}})
	config := oauthConfig(p, discovered)
	first := deviceLogin(t, ctx, p, config)
	second, err := refresh(ctx, config, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	claims := jwtPart(t, second.Extra("id_token").(string), 1)
	for _, gone := range []string{"amr", "auth_time", "groups"} {
		if _, there := claims[gone]; there {
			t.Errorf("%s survived: %v", gone, claims)
		}
	}
	if claims["email"] == nil {
		t.Errorf("email gone too: %v", claims)
	}
}

func TestDisabledUserCannotRefreshOrLogIn(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second})
	config := oauthConfig(p, discovered)
	token := deviceLogin(t, ctx, p, config)
	p.DisableUser("alice")
	_, err := refresh(ctx, config, token.RefreshToken)
	wantOAuthError(t, err, "invalid_grant")
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(ctx, device.UserCode, "alice"); err == nil {
		t.Error("a disabled user approved a device")
	}
	p.SetUser(User{Subject: "alice", Groups: []string{"new"}})
	token, err = refresh(ctx, config, token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if claims := verified(t, ctx, p, discovered, token); !slices.Equal(claims.Groups, []string{"new"}) {
		t.Errorf("groups = %v, want the changed ones", claims.Groups)
	}
}

func TestRevocationEndsTheGrant(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second})
	config := oauthConfig(p, discovered)
	token := deviceLogin(t, ctx, p, config)
	if status, code := post(t, p.Issuer()+revokePath, url.Values{"token": {token.RefreshToken}, "client_id": {p.ClientID()}}); status != http.StatusOK {
		t.Fatalf("revoke = %d %s", status, code)
	}
	_, err := refresh(ctx, config, token.RefreshToken)
	wantOAuthError(t, err, "invalid_grant")
	if status, _ := post(t, p.Issuer()+revokePath, url.Values{"token": {"nonsense"}, "client_id": {p.ClientID()}}); status != http.StatusOK {
		t.Errorf("revoking the unknown = %d", status)
	}
	token = deviceLogin(t, ctx, p, config)
	if status, _ := post(t, p.Issuer()+revokePath, url.Values{"token": {token.AccessToken}, "client_id": {p.ClientID()}}); status != http.StatusOK {
		t.Errorf("revoking an access token = %d", status)
	}
	if _, err := discovered.UserInfo(ctx, oauth2.StaticTokenSource(token)); err == nil {
		t.Error("a revoked access token still works")
	}
}

func TestDiscoveryDeclaresWhatIsServed(t *testing.T) {
	t.Parallel()
	p, _, discovered := startProvider(t, ProviderOptions{})
	var document struct {
		Iss        bool     `json:"authorization_response_iss_parameter_supported"`
		Device     string   `json:"device_authorization_endpoint"`
		Revocation string   `json:"revocation_endpoint"`
		PKCE       []string `json:"code_challenge_methods_supported"`
		Grants     []string `json:"grant_types_supported"`
	}
	if err := discovered.Claims(&document); err != nil {
		t.Fatal(err)
	}
	if !document.Iss || document.Device != p.Issuer()+deviceAuthPath || document.Revocation != p.Issuer()+revokePath ||
		!slices.Equal(document.PKCE, []string{"S256"}) || !slices.Contains(document.Grants, grantDevice) {
		t.Errorf("discovery = %+v", document)
	}
}

func TestProviderRefusesEverythingButLoopback(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "nonsense"} {
		if p, err := StartProvider(t.Context(), ProviderOptions{Listen: addr, Algorithm: "ES256"}); err == nil {
			p.Close()
			t.Errorf("listening on %q succeeded", addr)
		}
	}
}

func TestForeignHostAndCrossOriginPostAreRefused(t *testing.T) {
	t.Parallel()
	p, _, _ := startProvider(t, ProviderOptions{})
	do := func(method string, change func(*http.Request)) int {
		r, err := http.NewRequestWithContext(t.Context(), method, p.Issuer()+devicePath, nil)
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	if got := do("GET", func(r *http.Request) { r.Host = "rebound.example" }); got != http.StatusMisdirectedRequest {
		t.Errorf("foreign host = %d", got)
	}
	if got := do("POST", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }); got != http.StatusForbidden {
		t.Errorf("cross-site post = %d", got)
	}
}

func TestDevicePageWorksWithoutScript(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{})
	device, err := oauthConfig(p, discovered).DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if device.VerificationURIComplete != p.Issuer()+"/device?user_code="+device.UserCode {
		t.Errorf("verification_uri_complete = %q", device.VerificationURIComplete)
	}
	jar, _ := cookiejar.New(nil)
	client := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, target := range []string{device.VerificationURIComplete, device.VerificationURI, p.Issuer() + "/device?user_code=XXXX-XXXX", p.Issuer() + "/"} {
		answer, err := client.Get(target)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		text := string(body)
		if !strings.Contains(text, "For development only") || strings.Contains(text, "<script") {
			t.Errorf("%s: %s", target, text)
		}
		if target == device.VerificationURIComplete && (!strings.Contains(text, device.UserCode) || !strings.Contains(text, `value="bob"`)) {
			t.Errorf("device page lacks code or users: %s", text)
		}
	}
}

func TestPasswordIsAskedWhereSet(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Users: []User{{Subject: "carol", Password: "correct"}}, Interval: time.Second})
	config := oauthConfig(p, discovered)
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	form := url.Values{"user_code": {device.UserCode}, "subject": {"carol"}, "decision": {"approve"}, "password": {"wrong"}}
	if status, _ := post(t, p.Issuer()+devicePath, form); status != http.StatusForbidden {
		t.Errorf("wrong password = %d", status)
	}
	if err := p.Approve(ctx, device.UserCode, "carol"); err != nil {
		t.Errorf("right password: %v", err)
	}
}
