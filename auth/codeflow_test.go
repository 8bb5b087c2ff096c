package auth

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// browse plays the browser: it follows the login page's redirect to the loopback port.
func browse(t *testing.T, last *http.Response, body *string) func(string) error {
	return func(address string) error {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get(address)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		page, _ := io.ReadAll(resp.Body)
		if last != nil {
			*last, *body = *resp, string(page)
		}
		return nil
	}
}

func browserLogin(p *provider) *Login { return &Login{Issuer: p.issuer, ClientID: testClient} }

func TestBrowserLoginNamesTheKey(t *testing.T) {
	p := listen(t)
	pub, _, _ := ed25519.GenerateKey(nil)
	nonce := NonceForKey(pub)
	var last http.Response
	var body string
	for _, host := range []string{"", "localhost"} {
		l := browserLogin(p)
		l.RedirectHost = host
		tokens, err := l.Browser(t.Context(), nonce, browse(t, &last, &body))
		if err != nil {
			t.Fatal(err)
		}
		claims, err := unverifiedClaims(tokens.Token)
		if got, _ := claims.text("nonce"); err != nil || got != nonce {
			t.Errorf("nonce %q, %v", got, err)
		}
	}
	if last.StatusCode != 200 || last.Header.Get("Cache-Control") != "no-store" || !strings.Contains(last.Header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("page %d %v", last.StatusCode, last.Header)
	}
	if strings.Contains(body, "code-1") || strings.Contains(last.Request.URL.Host, "0.0.0.0") {
		t.Errorf("page %q", body)
	}
}

func TestBrowserLoginRefusesForeignAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		change func(p *provider)
		code   string
	}{
		"another issuer": {func(p *provider) { p.responseIn = func(q url.Values) { q.Set("iss", "https://evil.test") } }, CodeProviderMisbehaves},
		"no issuer":      {func(p *provider) { p.responseIn = func(q url.Values) { q.Del("iss") } }, CodeProviderMisbehaves},
		"two issuers":    {func(p *provider) { p.responseIn = func(q url.Values) { q.Add("iss", "https://evil.test") } }, CodeProviderMisbehaves},
		"two codes":      {func(p *provider) { p.responseIn = func(q url.Values) { q.Add("code", "x") } }, CodeProviderMisbehaves},
		"no code":        {func(p *provider) { p.responseIn = func(q url.Values) { q.Del("code") } }, CodeProviderMisbehaves},
		"foreign code":   {func(p *provider) { p.responseIn = func(q url.Values) { q.Set("code", "stolen") } }, CodeLoginFailed},
		"denied":         {func(p *provider) { p.responseIn = func(q url.Values) { q.Set("error", "access_denied") } }, CodeLoginDenied},
		"refused client": {func(p *provider) { p.responseIn = func(q url.Values) { q.Set("error", "unauthorized_client") } }, CodeLoginMethodBlocked},
		"failed":         {func(p *provider) { p.responseIn = func(q url.Values) { q.Set("error", "server\x1b_error") } }, CodeLoginFailed},
		"other nonce":    {func(p *provider) { p.claims = map[string]any{}; p.override["/token"] = grantWith(p, "other") }, CodeProviderMisbehaves},
		"no nonce":       {func(p *provider) { p.override["/token"] = grantWith(p, "") }, CodeProviderMisbehaves},
		"token for others": {func(p *provider) {
			p.claims = map[string]any{"aud": "other"}
		}, CodeProviderMisbehaves},
	} {
		t.Run(name, func(t *testing.T) {
			p := listen(t)
			test.change(p)
			_, err := browserLogin(p).Browser(t.Context(), "nonce-1", browse(t, nil, nil))
			wantLogin(t, err, test.code)
		})
	}
}

func grantWith(p *provider, nonce string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grant(w, nonce)
	}
}

func TestIssuerInResponseIsOptionalWhereNotPromised(t *testing.T) {
	p := listen(t)
	p.discovery = func(doc map[string]any) { delete(doc, "authorization_response_iss_parameter_supported") }
	p.responseIn = func(q url.Values) { q.Del("iss") }
	if _, err := browserLogin(p).Browser(t.Context(), "nonce-1", browse(t, nil, nil)); err != nil {
		t.Error(err)
	}
	p.responseIn = func(q url.Values) { q.Set("iss", "https://evil.test") }
	_, err := browserLogin(p).Browser(t.Context(), "nonce-1", browse(t, nil, nil))
	wantLogin(t, err, CodeProviderMisbehaves)
}

// Any page in the user's browser can send requests to the loopback port.
func TestBrowserLoginOutlivesStrayRequests(t *testing.T) {
	p := listen(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	status := func(method, address string) int {
		req, _ := http.NewRequestWithContext(t.Context(), method, address, nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			return 0
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	_, err := browserLogin(p).Browser(t.Context(), "nonce-1", func(address string) error {
		u, _ := url.Parse(address)
		redirect, state := u.Query().Get("redirect_uri"), u.Query().Get("state")
		if !strings.HasPrefix(redirect, "http://127.0.0.1:") || len(state) < 43 {
			t.Errorf("redirect %s, state %s", redirect, state)
		}
		for _, stray := range []struct {
			method, query string
			status        int
		}{
			{"GET", "?code=evil&state=guess", 400},
			{"GET", "?code=evil", 400},
			{"GET", "?code=evil&state=x&state=" + state, 400},
			{"POST", "?code=evil&state=" + state, 405},
			{"GET", "/../x", 404},
		} {
			if got := status(stray.method, redirect+stray.query); got != stray.status {
				t.Errorf("%s %s: %d, want %d", stray.method, stray.query, got, stray.status)
			}
		}
		if err := browse(t, nil, nil)(address); err != nil {
			return err
		}
		if got := status("GET", redirect+"?code=evil&state="+state); got != http.StatusGone {
			t.Errorf("second answer: %d", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestBrowserLoginEndsWithItsContext(t *testing.T) {
	p := listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := browserLogin(p).Browser(ctx, "nonce-1", func(string) error { cancel(); return nil })
	wantLogin(t, err, CodeLoginCanceled)
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = browserLogin(p).Browser(ctx, "nonce-1", func(string) error { return nil })
	wantLogin(t, err, CodeLoginTimeout)
	_, err = browserLogin(p).Browser(t.Context(), "nonce-1", func(string) error { return errors.New("no display") })
	wantLogin(t, err, CodeBrowserUnavailable)
	_, err = browserLogin(p).Browser(t.Context(), "", nil)
	wantLogin(t, err, CodeLoginFailed)
}
