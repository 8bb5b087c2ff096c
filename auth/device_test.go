package auth

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func (p *provider) login() *Login {
	return &Login{Issuer: p.issuer, ClientID: testClient, HTTPClient: p.client()}
}

// wantLogin checks that an error is a *LoginError of a code, fit for a terminal.
func wantLogin(t testing.TB, err error, code string) *LoginError {
	t.Helper()
	var failed *LoginError
	if !errors.As(err, &failed) || failed.Code != code {
		t.Errorf("error is %#v (%v), want code %s", err, err, code)
		return &LoginError{}
	}
	if failed.Public == "" || strings.ContainsAny(failed.Error(), "\x1b\n\r") {
		t.Errorf("not fit to print: %q", failed.Error())
	}
	return failed
}

func gaps(start time.Time, polls []time.Time) []int {
	var out []int
	for _, p := range polls {
		out = append(out, int(p.Sub(start)/time.Second))
		start = p
	}
	return out
}

// ID-21.
func TestID21DevicePollsAtTheProvidersPace(t *testing.T) {
	device := func(change func(map[string]any)) map[string]any {
		d := map[string]any{"device_code": "device-1", "user_code": "AB", "verification_uri": "https://idp.test/go", "expires_in": 600, "interval": 5}
		change(d)
		return d
	}
	unchanged := func(map[string]any) {}
	for name, test := range map[string]struct {
		device map[string]any
		poll   []string
		gaps   []int
		code   string
	}{
		"approved at once": {device(unchanged), []string{""}, []int{5}, ""},
		"pending, slower, expired": {
			device(unchanged),
			[]string{"authorization_pending", "authorization_pending", "slow_down", "slow_down", "slow_down", "authorization_pending", "expired_token"},
			[]int{5, 5, 5, 10, 15, 20, 20},
			CodeLoginExpired,
		},
		"no interval":   {device(func(d map[string]any) { delete(d, "interval") }), []string{"authorization_pending", ""}, []int{5, 5}, ""},
		"interval zero": {device(func(d map[string]any) { d["interval"] = 0 }), []string{""}, []int{5}, ""},
		"negative":      {device(func(d map[string]any) { d["interval"] = -3 }), []string{""}, []int{5}, ""},
		"its own":       {device(func(d map[string]any) { d["interval"] = 2 }), []string{"authorization_pending", "slow_down", ""}, []int{2, 2, 7}, ""},
		"denied":        {device(unchanged), []string{"authorization_pending", "access_denied"}, []int{5, 5}, CodeLoginDenied},
		"connections lost": {
			device(unchanged),
			[]string{"authorization_pending", "drop", "drop", "drop", "authorization_pending", ""},
			[]int{5, 5, 10, 20, 40, 5},
			"",
		},
		"lost after slow_down": {device(unchanged), []string{"slow_down", "drop", "status 503", "authorization_pending", ""}, []int{5, 10, 20, 40, 10}, ""},
		"back-off is bounded":  {device(func(d map[string]any) { d["expires_in"] = 400 }), slices.Repeat([]string{"drop"}, 50), []int{5, 10, 20, 40, 60, 60, 60, 60, 60}, CodeLoginExpired},
		"never after expiry":   {device(func(d map[string]any) { d["expires_in"] = 12 }), slices.Repeat([]string{"authorization_pending"}, 50), []int{5, 5}, CodeLoginExpired},
		"expiry at a poll":     {device(func(d map[string]any) { d["expires_in"] = 10 }), slices.Repeat([]string{"authorization_pending"}, 50), []int{5}, CodeLoginExpired},
		"policy while polling": {device(unchanged), []string{"invalid_grant 53003"}, []int{5}, CodeLoginMethodBlocked},
		"method while polling": {device(unchanged), []string{"unauthorized_client"}, []int{5}, CodeLoginMethodBlocked},
		"anything else":        {device(unchanged), []string{"invalid_request"}, []int{5}, CodeLoginFailed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newProvider(t, "https://idp.test")
				p.device, p.poll = test.device, test.poll
				start := time.Now()
				tokens, err := p.login().Device(t.Context(), func(DevicePrompt) {})
				if got := gaps(start, p.polls); !slices.Equal(got, test.gaps) {
					t.Errorf("gaps %v, want %v", got, test.gaps)
				}
				if test.code == "" {
					if err != nil || tokens.Token == "" || tokens.Token != tokens.IDToken || tokens.RefreshToken == "" || tokens.Subject != "8a7f3c" || tokens.Expires.IsZero() {
						t.Errorf("%+v, %v", tokens, err)
					}
					return
				}
				wantLogin(t, err, test.code)
			})
		})
	}
}

func TestDeviceWithoutExpiryEndsAnyway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, expires := range []any{nil, 0, 1 << 40} {
			p := newProvider(t, "https://idp.test")
			p.device = map[string]any{"device_code": "device-1", "user_code": "AB", "verification_uri": "https://idp.test/go", "expires_in": expires}
			p.poll = slices.Repeat([]string{"authorization_pending"}, 1000)
			start := time.Now()
			_, err := p.login().Device(t.Context(), func(DevicePrompt) {})
			wantLogin(t, err, CodeLoginExpired)
			if took := time.Since(start); took > deviceLifetimeMax {
				t.Errorf("expires_in %v: gave up after %s", expires, took)
			}
		}
	})
}

func TestRefusedDeviceFlowNamesTheBrowser(t *testing.T) {
	refuse := func(body map[string]any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { answer(w, 400, body) }
	}
	for name, handler := range map[string]http.HandlerFunc{
		"unauthorized_client":    refuse(map[string]any{"error": "unauthorized_client"}),
		"unsupported_grant_type": refuse(map[string]any{"error": "unsupported_grant_type"}),
		"access_denied":          refuse(map[string]any{"error": "access_denied", "error_description": "policy\x1b[2J"}),
		"conditional access":     refuse(map[string]any{"error": "invalid_grant", "error_codes": []int{53003}}),
		"device code policy":     refuse(map[string]any{"error": "invalid_request", "error_codes": []int{530036}}),
		"interrupted":            refuse(map[string]any{"error": "interaction_required", "error_codes": []int{50199}}),
		"public flows off":       refuse(map[string]any{"error": "invalid_client", "error_codes": []int{7000218}}),
	} {
		p := newProvider(t, "https://idp.test")
		p.override["/device"] = handler
		_, err := p.login().Device(t.Context(), func(DevicePrompt) { t.Errorf("%s: a prompt was shown", name) })
		if failed := wantLogin(t, err, CodeLoginMethodBlocked); failed.Hint != "iapctl login --browser" {
			t.Errorf("%s: hint %q", name, failed.Hint)
		}
	}
	p := newProvider(t, "https://idp.test")
	p.discovery = func(doc map[string]any) { delete(doc, "device_authorization_endpoint") }
	_, err := p.login().Device(t.Context(), nil)
	wantLogin(t, err, CodeLoginMethodBlocked)
}

func TestDeviceTellsAProviderInTroubleFromARefusal(t *testing.T) {
	for code, handler := range map[string]http.HandlerFunc{
		CodeProviderUnreachable: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) },
		CodeClientRefused: func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 401, map[string]any{"error": "invalid_client"})
		},
		CodeProviderMisbehaves: func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, map[string]any{"user_code": "A"}) },
	} {
		p := newProvider(t, "https://idp.test")
		p.override["/device"] = handler
		_, err := p.login().Device(t.Context(), nil)
		wantLogin(t, err, code)
	}
	p := newProvider(t, "https://idp.test")
	p.override["/.well-known/openid-configuration"] = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	_, err := p.login().Device(t.Context(), nil)
	wantLogin(t, err, CodeProviderUnreachable)
}

func TestDeviceEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		ctx, cancel := context.WithCancel(t.Context())
		_, err := p.login().Device(ctx, func(DevicePrompt) { cancel() })
		wantLogin(t, err, CodeLoginCanceled)
		if len(p.polls) != 0 {
			t.Error("the provider was asked after the cancel")
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		p.override["/device"] = func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); panic(http.ErrAbortHandler) }
		_, err = p.login().Device(ctx, nil)
		wantLogin(t, err, CodeLoginTimeout)
	})
}

// ID-23.
func TestID23DevicePromptIsFitToShowAndToOpen(t *testing.T) {
	long := "https://idp.test/" + strings.Repeat("a", 9000)
	for _, test := range []struct{ uri, complete, shown, open string }{
		{"https://idp.test/go", "https://idp.test/go?c=A-B", "https://idp.test/go", "https://idp.test/go?c=A-B"},
		{"https://idp.test/go", "", "https://idp.test/go", "https://idp.test/go"},
		{"https://idp.test/go", "http://idp.test/go?c=A", "https://idp.test/go", "https://idp.test/go"},
		{"http://127.0.0.1:9000/go", "", "http://127.0.0.1:9000/go", "http://127.0.0.1:9000/go"},
		{"http://idp.test/go", "", "http://idp.test/go", ""},
		{"javascript:alert(1)", "", "javascript:alert(1)", ""},
		{"file:///etc/passwd", "", "file:///etc/passwd", ""},
		{"-flag", "--help", "-flag", ""},
		{"https://x/$(touch pwn)", "", "https://x/$(touch pwn)", ""},
		{"https://x/$(touch${IFS}pwn)", "", "https://x/$(touch${IFS}pwn)", "https://x/%24%28touch%24%7BIFS%7Dpwn%29"},
		{"https://x/\n\x1b]0;title\x07", "", "https://x/]0;title", ""},
		{"https://x/`id`;'\"|<>&b=c", "", "https://x/`id`;'\"|<>&b=c", "https://x/%60id%60%3B%27%22%7C%3C%3E&b=c"},
		{"https://x/\u202etxt", "", "https://x/txt", ""},
		{"https://user@x/", "", "https://user@x/", ""},
		{long, "", long[:maxAddress], ""},
	} {
		p := newProvider(t, "https://idp.test")
		p.device = map[string]any{
			"device_code": "device-1", "user_code": "AB\x1b[31mCD\n" + strings.Repeat("E", 100), "verification_uri": test.uri,
			"verification_uri_complete": test.complete, "expires_in": 600,
		}
		var got DevicePrompt
		ctx, cancel := context.WithCancel(t.Context())
		_, _ = p.login().Device(ctx, func(d DevicePrompt) { got = d; cancel() })
		if got.VerificationURI != test.shown || got.Open != test.open {
			t.Errorf("%.60q: shown %.80q, open %.80q", test.uri, got.VerificationURI, got.Open)
		}
		if got.VerificationURIComplete != "" && got.Open == "" {
			t.Errorf("%.60q: complete %q cannot be opened", test.uri, got.VerificationURIComplete)
		}
		if len(got.UserCode) != maxUserCode || !strings.HasPrefix(got.UserCode, "AB[31mCDEEE") {
			t.Errorf("user code %q", got.UserCode)
		}
		if test.open == "" && OpenBrowser(test.uri) == nil {
			t.Errorf("%.60q was opened", test.uri)
		}
	}
}

func TestDeviceLoginOverARealConnection(t *testing.T) {
	p := listen(t)
	l := p.login()
	l.HTTPClient, l.ClientSecret, l.Scopes = nil, "public", []string{"email"}
	l.Params = map[string]string{"audience": "api"}
	var form map[string][]string
	p.override["/device"] = func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form = r.PostForm
		p.mu.Lock()
		defer p.mu.Unlock()
		answer(w, 200, map[string]any{"device_code": "device-1", "user_code": "A", "verification_url": p.issuer, "expires_in": 60, "interval": 1})
	}
	tokens, err := l.Device(t.Context(), func(DevicePrompt) {})
	if err != nil || tokens.Token == "" {
		t.Fatal(tokens, err)
	}
	if got := http.Header(form); form["client_secret"][0] != "public" || form["scope"][0] != "openid email" || form["audience"][0] != "api" {
		t.Errorf("device request %v", got)
	}
	if f := p.forms[0]; f.Get("client_id") != testClient || f.Get("client_secret") != "public" || f.Get("grant_type") != deviceGrant || f.Get("code") != "" {
		t.Errorf("token request %v", f)
	}
}

func TestPickedAccessTokenIsPresented(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProvider(t, "https://idp.test")
		l := p.login()
		l.Pick = PickAccessToken
		tokens, err := l.Device(t.Context(), func(DevicePrompt) {})
		if err != nil || tokens.Token != tokens.AccessToken || tokens.Token == tokens.IDToken {
			t.Fatal(tokens, err)
		}
		p.override["/token"] = func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, map[string]any{"access_token": "opaque", "token_type": "Bearer"})
		}
		_, err = l.Device(t.Context(), func(DevicePrompt) {})
		wantLogin(t, err, CodeLoginFailed)
		l.Pick = ""
		_, err = l.Device(t.Context(), func(DevicePrompt) {})
		wantLogin(t, err, CodeLoginFailed)
	})
}

func TestLoginRefusesTokensForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, claims := range []map[string]any{{"iss": "https://evil.test"}, {"aud": "other"}, {"aud": nil}} {
			p := newProvider(t, "https://idp.test")
			p.claims = claims
			_, err := p.login().Device(t.Context(), func(DevicePrompt) {})
			wantLogin(t, err, CodeProviderMisbehaves)
		}
	})
}

func TestLoginRefusesParametersOfTheProtocol(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	for _, change := range []func(l *Login){
		func(l *Login) { l.Params = map[string]string{"redirect_uri": "https://evil.test"} },
		func(l *Login) { l.Params = map[string]string{"code_challenge_method": "plain"} },
		func(l *Login) { l.ClientID = "" },
		func(l *Login) { l.Pick = "refresh_token" },
		func(l *Login) { l.RedirectHost = "0.0.0.0" },
	} {
		l := p.login()
		change(l)
		_, err := l.Device(t.Context(), nil)
		wantLogin(t, err, CodeLoginFailed)
	}
}
