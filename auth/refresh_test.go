package auth

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// refreshChildDir makes a run of the test binary a second process that refreshes.
const (
	refreshChildDir    = "AUTH_TEST_REFRESH_DIR"
	refreshChildIssuer = "AUTH_TEST_REFRESH_ISSUER"
	refreshChildStale  = "AUTH_TEST_REFRESH_STALE"
)

func refreshChild(dir string) int {
	s := NewSource(SourceConfig{
		Store: OpenStore(dir, false, nil), LockDir: dir, Name: "default",
		Login: &Login{Issuer: os.Getenv(refreshChildIssuer), ClientID: testClient},
	})
	token, err := s.refresh(context.Background(), os.Getenv(refreshChildStale))
	if err != nil {
		fmt.Println("refresh:", err)
		return 1
	}
	fmt.Print(token)
	return 0
}

// stored puts a login into a store, with a token that ends at a time.
func (p *provider) stored(t testing.TB, s Store, expires time.Time) Credentials {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c := Credentials{Key: key, Tokens: Tokens{Token: "old", RefreshToken: "refresh-1", Expires: expires, Subject: "8a7f3c", Email: "ada@example.com"}}
	if err := s.Save(t.Context(), "default", c); err != nil {
		t.Fatal(err)
	}
	return c
}

// The provider ends the grant when an old refresh token comes back: processes that
// share a login must exchange it once.
func TestProcessesRefreshOnce(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := listen(t)
	dir := t.TempDir()
	p.stored(t, OpenStore(dir, false, nil), time.Now())
	var wg sync.WaitGroup
	outputs := make([]string, 4)
	for n := range outputs {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Env = append(os.Environ(), refreshChildDir+"="+dir, refreshChildIssuer+"="+p.issuer, refreshChildStale+"=old")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("process: %v: %s", err, out)
			}
			outputs[n] = string(out)
		})
	}
	wg.Wait()
	if p.reused != 0 || p.refresh != "refresh-2" {
		t.Errorf("old refresh tokens came back %d times; the grant is at %s", p.reused, p.refresh)
	}
	for _, out := range outputs {
		if out == "" || out != outputs[0] {
			t.Errorf("processes hold different tokens:\n%s\n%s", outputs[0], out)
		}
	}
}

func TestRotatedRefreshTokenIsSavedBeforeUse(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	store := OpenStore(t.TempDir(), false, nil)
	before := p.stored(t, store, time.Now())
	s := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default", Login: p.login()})
	for n := 2; n < 5; n++ {
		token, err := s.Refresh(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c, err := store.Load(t.Context(), "default")
		if err != nil || c.Tokens.Token != token || c.Tokens.RefreshToken != fmt.Sprintf("refresh-%d", n) {
			t.Errorf("stored %+v, %v", c.Tokens, err)
		}
		if !c.Key.Equal(before.Key) || c.Tokens.Email != "ada@example.com" {
			t.Error("the refresh lost the key or the name")
		}
	}
	if got, err := s.Token(t.Context()); err != nil || got == "" || p.hit("/token") != 3 {
		t.Errorf("a fresh token was refreshed: %d exchanges, %v", p.hit("/token"), err)
	}
}

// brokenStore takes nothing for a while.
type brokenStore struct {
	Store
	broken bool
}

func (s *brokenStore) Save(ctx context.Context, name string, c Credentials) error {
	if s.broken {
		return fmt.Errorf("disk full")
	}
	return s.Store.Save(ctx, name, c)
}

func TestTokensAStoreDoesNotTakeAreNotLost(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	store := &brokenStore{Store: OpenStore(t.TempDir(), false, nil)}
	p.stored(t, store, time.Now())
	store.broken = true
	s := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default", Login: p.login()})
	for range 2 {
		if _, err := s.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	store.broken = false
	if _, err := s.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c, _ := store.Load(t.Context(), "default"); c.Tokens.RefreshToken != "refresh-3" || p.reused != 0 {
		t.Errorf("stored %q, %d old tokens came back", c.Tokens.RefreshToken, p.reused)
	}
}

// ID-25: a user who was disabled is told to log in, not that the network is bad.
func TestID25RefreshTellsAnEndedGrantFromAProviderInTrouble(t *testing.T) {
	for code, handler := range map[string]http.HandlerFunc{
		CodeRefreshRefused:      func(w http.ResponseWriter, _ *http.Request) { answer(w, 400, map[string]any{"error": "invalid_grant"}) },
		CodeProviderUnreachable: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		CodeProviderMisbehaves:  func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		CodeClientRefused: func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 401, map[string]any{"error": "invalid_client"})
		},
	} {
		p := newProvider(t, "https://idp.test")
		p.override["/token"] = handler
		store := OpenStore(t.TempDir(), false, nil)
		p.stored(t, store, time.Now())
		s := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default", Login: p.login()})
		_, err := s.Token(t.Context())
		wantLogin(t, err, code)
		if c, _ := store.Load(t.Context(), "default"); c.Tokens.RefreshToken != "refresh-1" {
			t.Errorf("%s: the stored login changed", code)
		}
	}
}

func TestTokenIsPresentedToItsEndWhileTheProviderIsAway(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	p.override["/token"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	store := OpenStore(t.TempDir(), false, nil)
	p.stored(t, store, time.Now().Add(tokenFresh/2))
	s := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default", Login: p.login()})
	if got, err := s.Token(t.Context()); err != nil || got != "old" {
		t.Errorf("%q, %v", got, err)
	}
	_, err := s.Refresh(t.Context())
	wantLogin(t, err, CodeProviderUnreachable)
}

// Whoever leaves in the middle of an exchange must not lose the next refresh token.
func TestExchangeOutlivesItsCaller(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	store := OpenStore(t.TempDir(), false, nil)
	p.stored(t, store, time.Now())
	ctx, cancel := context.WithCancel(t.Context())
	p.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		cancel()
		p.serveToken(w, r)
	}
	s := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default", Login: p.login()})
	if _, err := s.Token(ctx); err != nil {
		t.Error(err)
	}
	if c, _ := store.Load(t.Context(), "default"); c.Tokens.RefreshToken != "refresh-2" {
		t.Errorf("stored %q", c.Tokens.RefreshToken)
	}
}

func TestExchangeDoesNotOutliveItsCallerForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		p.override["/token"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := p.login().Refresh(ctx, "refresh-1")
		wantLogin(t, err, CodeLoginCanceled)
		if took := time.Since(start); took != time.Second+refreshGrace {
			t.Errorf("returned after %s", took)
		}
	})
}

func TestRefreshNeverChangesTheUser(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	p.claims = map[string]any{"sub": "mallory"}
	store := OpenStore(t.TempDir(), false, nil)
	p.stored(t, store, time.Now())
	_, err := NewSource(SourceConfig{Store: store, LockDir: t.TempDir(), Name: "default", Login: p.login()}).Token(t.Context())
	wantLogin(t, err, CodeRefreshRefused)
}

func TestRefreshKeepsATokenTheProviderDoesNotRotate(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	p.override["/token"] = func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": p.mint(nil)})
	}
	tokens, err := p.login().Refresh(t.Context(), "refresh-1")
	if err != nil || tokens.RefreshToken != "refresh-1" {
		t.Errorf("%+v, %v", tokens, err)
	}
	_, err = p.login().Refresh(t.Context(), "")
	wantLogin(t, err, CodeLoginRequired)
}

func TestRevokeEndsBothTokens(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	tokens := Tokens{RefreshToken: "r", AccessToken: "a"}
	if err := p.login().Revoke(t.Context(), tokens); err != nil {
		t.Fatal(err)
	}
	if want := []string{"refresh_token=r", "access_token=a"}; !slices.Equal(p.revoked, want) {
		t.Errorf("revoked %v, want %v", p.revoked, want)
	}
	p.override["/revoke"] = func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.FormValue("token_type_hint"), "access") {
			answer(w, 400, map[string]any{"error": "unsupported_token_type"})
		}
	}
	if err := p.login().Revoke(t.Context(), tokens); err != nil {
		t.Error(err)
	}
	p.override["/revoke"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	wantLogin(t, p.login().Revoke(t.Context(), tokens), CodeProviderUnreachable)
	p.discovery = func(doc map[string]any) { delete(doc, "revocation_endpoint") }
	if err := p.login().Revoke(t.Context(), tokens); err != ErrNoRevocation {
		t.Error(err)
	}
}

func TestTokenRequestsAreNotRedirected(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	p.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	}
	_, err := p.login().Refresh(t.Context(), "refresh-1")
	wantLogin(t, err, CodeProviderMisbehaves)
	if p.hit("/elsewhere") != 0 {
		t.Error("the refresh token was sent on")
	}
}
