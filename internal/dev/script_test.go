package dev

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

func mustDecode(t *testing.T, text string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestScriptedPolls(t *testing.T) {
	t.Parallel()
	p, ctx, discovered := startProvider(t, ProviderOptions{})
	device, err := oauthConfig(p, discovered).DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(ctx, device.UserCode, "alice"); err != nil {
		t.Fatal(err)
	}
	p.Script(EndpointDevicePoll, Fault{Times: 2, OAuth: "authorization_pending"}, Fault{OAuth: "slow_down"}, Fault{OAuth: "expired_token"})
	for i, want := range []string{"authorization_pending", "authorization_pending", "slow_down", "expired_token", ""} {
		if _, code := pollOnce(t, p, device.DeviceCode); code != want {
			t.Errorf("poll %d = %q, want %q", i, code, want)
		}
	}
	if got := p.Hits(EndpointDevicePoll); got != 5 || len(p.HitTimes(EndpointDevicePoll)) != 5 {
		t.Errorf("hits = %d", got)
	}
}

func get(t *testing.T, ctx context.Context, target string) (*http.Response, []byte, error) {
	t.Helper()
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer, body, err
}

func TestScriptedKeysAndDiscovery(t *testing.T) {
	t.Parallel()
	p, ctx, _ := startProvider(t, ProviderOptions{})
	keys := p.Issuer() + keysPath
	p.Script(EndpointKeys,
		Fault{Drop: true},
		Fault{Body: []byte("<html>"), Status: http.StatusOK},
		Fault{Status: http.StatusInternalServerError},
		Fault{Size: 3 << 20, ContentType: "application/json"},
		Fault{Redirect: "http://other.example/keys"},
		Fault{Hang: true})
	if _, _, err := get(t, ctx, keys); err == nil {
		t.Error("dropped connection gave an answer")
	}
	if answer, body, err := get(t, ctx, keys); err != nil || string(body) != "<html>" || !strings.HasPrefix(answer.Header.Get("Content-Type"), "text/html") {
		t.Errorf("html = %s, %v", body, err)
	}
	if answer, _, err := get(t, ctx, keys); err != nil || answer.StatusCode != 500 {
		t.Errorf("500 = %v, %v", answer, err)
	}
	if _, body, err := get(t, ctx, keys); err != nil || len(body) != 3<<20 {
		t.Errorf("huge = %d, %v", len(body), err)
	}
	if answer, _, err := get(t, ctx, keys); err != nil || answer.StatusCode != http.StatusFound {
		t.Errorf("redirect = %v, %v", answer, err)
	}
	gone, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, _, err := get(t, gone, keys)
		done <- err
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("a hanging endpoint answered")
	}
	p.Script(EndpointKeys)
	if answer, _, err := get(t, ctx, keys); err != nil || answer.StatusCode != 200 {
		t.Errorf("healed = %v, %v", answer, err)
	}

	p.Script(EndpointDiscovery, Fault{Times: Forever, Edit: func(d map[string]any) { d["issuer"] = "https://other.example" }})
	for range 2 {
		if _, err := oidc.NewProvider(ctx, p.Issuer()); err == nil || !strings.Contains(err.Error(), "other.example") {
			t.Errorf("wrong issuer = %v", err)
		}
	}
}

func TestCloseFreesHangingRequests(t *testing.T) {
	t.Parallel()
	p, ctx, _ := startProvider(t, ProviderOptions{})
	p.Script(EndpointKeys, Fault{Hang: true})
	done := make(chan error, 1)
	go func() {
		_, _, err := get(t, ctx, p.Issuer()+keysPath)
		done <- err
	}()
	if err := p.AwaitHits(ctx, EndpointKeys, 1); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("a hanging request was answered at close")
	}
}

// accepts tells whether go-oidc, with the provider's keys, takes a token.
func accepts(ctx context.Context, p *Provider, token string) error {
	set := oidc.NewRemoteKeySet(ctx, p.Issuer()+keysPath)
	_, err := oidc.NewVerifier(p.Issuer(), set, &oidc.Config{
		ClientID: p.ClientID(), SupportedSigningAlgs: []string{"RS256", "PS256", "ES256", "EdDSA"},
	}).Verify(ctx, token)
	return err
}

func TestMintedTokens(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			p, ctx, _ := startProvider(t, ProviderOptions{Algorithm: algorithm})
			if err := accepts(ctx, p, p.Mint(nil)); err != nil {
				t.Errorf("an honest token: %v", err)
			}
			foreign, err := NewSigningKey(algorithm)
			if err != nil {
				t.Fatal(err)
			}
			bad := map[string]string{
				"foreign key":     p.Mint(nil, MintOptions{Key: foreign}),
				"alg none":        p.Mint(nil, MintOptions{Header: map[string]any{"alg": "none"}, Unsigned: true}),
				"hs256":           p.Mint(nil, MintOptions{Secret: p.PublicKeyPEM()}),
				"unknown kid":     p.Mint(nil, MintOptions{Header: map[string]any{"kid": "nobody"}}),
				"expired":         p.Mint(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}),
				"wrong audience":  p.Mint(map[string]any{"aud": "other"}),
				"wrong issuer":    p.Mint(map[string]any{"iss": p.Issuer() + "/"}),
				"raw payload":     p.Mint(nil, MintOptions{Payload: []byte(`{"sub":"a","sub":"b"}`)}),
				"empty signature": p.Mint(nil, MintOptions{Unsigned: true}),
			}
			for name, token := range bad {
				if err := accepts(ctx, p, token); err == nil {
					t.Errorf("%s was accepted", name)
				}
			}
			if claims := jwtPart(t, p.Mint(map[string]any{"sub": nil, "groups": "admin"}), 1); claims["sub"] != nil || claims["groups"] != "admin" {
				t.Errorf("overlay = %v", claims)
			}
		})
	}
}

func TestRotatedKeysStayUntilForgotten(t *testing.T) {
	t.Parallel()
	p, ctx, _ := startProvider(t, ProviderOptions{})
	old, oldID := p.Mint(nil), p.KeyID()
	if err := p.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	if p.KeyID() == oldID {
		t.Error("the key did not change")
	}
	for _, token := range []string{old, p.Mint(nil)} {
		if err := accepts(ctx, p, token); err != nil {
			t.Errorf("after rotation: %v", err)
		}
	}
	p.ForgetOldKeys()
	if accepts(ctx, p, old) == nil || accepts(ctx, p, p.Mint(nil)) != nil {
		t.Error("forgetting kept the old key or lost the new one")
	}
	_, body, err := get(t, ctx, p.Issuer()+keysPath)
	if err != nil || !strings.Contains(string(body), p.KeyID()) || strings.Contains(string(body), oldID) {
		t.Errorf("published = %s, %v", body, err)
	}
}

func TestProviderOverTLSWithDevelopmentCertificate(t *testing.T) {
	t.Parallel()
	files, err := Certificates(filepath.Join(t.TempDir(), "certs"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := StartProvider(t.Context(), ProviderOptions{Listen: "localhost:0", Algorithm: "ES256", TLS: &tls.Config{Certificates: []tls.Certificate{pair}}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if !strings.HasPrefix(p.Issuer(), "https://localhost:") {
		t.Fatalf("issuer = %s", p.Issuer())
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool(t, files.CA)}}}
	ctx := oidc.ClientContext(t.Context(), client)
	discovered, err := oidc.NewProvider(ctx, p.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	device, err := oauthConfig(p, discovered).DeviceAuth(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Approve(ctx, device.UserCode, "alice"); err != nil {
		t.Error(err)
	}
}
