package dev

import (
	"io"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// callback is a client's loopback listener; it passes on the query of each authorization response.
func callback(t *testing.T) (redirectURI string, got <-chan url.Values) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	queries := make(chan url.Values, 4)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		queries <- r.URL.Query()
		_, _ = io.WriteString(w, "done")
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() { server.Close(); <-served })
	return "http://" + listener.Addr().String() + "/callback", queries
}

func TestCodeFlowWithPKCENonceAndIss(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{})
	config := oauthConfig(p, discovered)
	var got <-chan url.Values
	config.RedirectURL, got = callback(t)
	verifier := oauth2.GenerateVerifier()
	target := config.AuthCodeURL("state-1", oauth2.S256ChallengeOption(verifier), oidc.Nonce("nonce-1"))
	if err := p.SignIn(ctx, target, "mallory"); err != nil {
		t.Fatal(err)
	}
	query := <-got
	if query.Get("state") != "state-1" || query.Get("iss") != p.Issuer() {
		t.Fatalf("authorization response = %v", query)
	}
	token, err := config.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	claims := verified(t, ctx, p, discovered, token)
	if claims.Subject != "mallory" || claims.Nonce != "nonce-1" || claims.EmailVerified || claims.SessionID == "" {
		t.Errorf("claims = %+v", claims)
	}
	_, err = config.Exchange(ctx, query.Get("code"), oauth2.VerifierOption(verifier))
	wantOAuthError(t, err, "invalid_grant")
	if _, err := refresh(ctx, config, token.RefreshToken); err != nil {
		t.Errorf("refresh: %v", err)
	}
}

func TestCodeFlowRefusals(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{})
	config := oauthConfig(p, discovered)
	var got <-chan url.Values
	config.RedirectURL, got = callback(t)
	verifier := oauth2.GenerateVerifier()

	if err := p.SignIn(ctx, config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)), ""); err != nil {
		t.Fatal(err)
	}
	if query := <-got; query.Get("error") != "access_denied" || query.Get("iss") != p.Issuer() || query.Get("state") != "s" {
		t.Errorf("cancelled = %v", query)
	}
	if err := p.SignIn(ctx, config.AuthCodeURL("s"), "alice"); err != nil {
		t.Fatal(err)
	}
	if query := <-got; query.Get("error") == "" || query.Has("code") {
		t.Errorf("without PKCE = %v", query)
	}
	if err := p.SignIn(ctx, config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)), "alice"); err != nil {
		t.Fatal(err)
	}
	_, err := config.Exchange(ctx, (<-got).Get("code"), oauth2.VerifierOption(oauth2.GenerateVerifier()))
	wantOAuthError(t, err, "invalid_grant")

	config.RedirectURL = "http://evil.example/callback"
	if err := p.SignIn(ctx, config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)), "alice"); err == nil {
		t.Error("a foreign redirect_uri was accepted")
	}
}

func TestClientWithSecretMustShowIt(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{Interval: time.Second, Clients: []Client{{ID: "desktop", Secret: "known to all"}}})
	config := oauthConfig(p, discovered)
	config.ClientSecret = "wrong"
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(ctx, device.UserCode, "alice"); err != nil {
		t.Fatal(err)
	}
	_, err = config.DeviceAccessToken(ctx, device)
	wantOAuthError(t, err, "invalid_client")
	config.ClientSecret = "known to all"
	for _, style := range []oauth2.AuthStyle{oauth2.AuthStyleInParams, oauth2.AuthStyleInHeader} {
		config.Endpoint.AuthStyle = style
		token := deviceLogin(t, ctx, p, config)
		if _, err := refresh(ctx, config, token.RefreshToken); err != nil {
			t.Errorf("style %v: refresh: %v", style, err)
		}
	}
	var got <-chan url.Values
	config.RedirectURL, got = callback(t)
	verifier := oauth2.GenerateVerifier()
	if err := p.SignIn(ctx, config.AuthCodeURL("s", oauth2.S256ChallengeOption(verifier)), "alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Exchange(ctx, (<-got).Get("code"), oauth2.VerifierOption(verifier)); err != nil {
		t.Errorf("code: %v", err)
	}
}
