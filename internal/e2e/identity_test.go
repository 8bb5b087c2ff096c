package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"iap/internal/dev"
)

var loginPage = regexp.MustCompile(`http://\S+`)

// A login in the browser puts the session key's hash into the token itself.
func TestBrowserLoginBindsTheTokenToItsKeyByName(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	u := s.user("alice")
	login := start(t, u.env, "iapctl", "login", s.name, "--ca-file", s.ca, "--browser", "--no-open")
	page := loginPage.FindString(login.awaitText(0, "code_challenge_method=S256", 1))
	for _, want := range []string{"state=", "nonce=", "code_challenge=", "redirect_uri=http%3A%2F%2F127.0.0.1"} {
		if !strings.Contains(page, want) {
			t.Errorf("the address of the login page has no %s: %s", want, page)
		}
	}
	if err := s.provider.SignIn(t.Context(), page, u.subject); err != nil {
		t.Fatal(err)
	}
	if code := login.wait(); code != 0 {
		t.Fatalf("login --browser ends with %d: %s", code, login.err.text())
	}
	var who struct {
		Principal, Binding string
		MFA                bool
	}
	u.ok(&who, "whoami")
	if who.Principal != "dev/alice" || who.Binding != "nonce" || !who.MFA {
		t.Errorf("whoami = %+v", who)
	}
	other := s.loggedIn("alice")
	other.ok(&who, "whoami")
	if who.Binding != "first-use" {
		t.Errorf("a device login is bound by %q", who.Binding)
	}
}

// Programs come with the token that their platform gave them. They log in nowhere, and share it.
func TestWorkloadsOfASecondProviderShareTheirToken(t *testing.T) {
	t.Parallel()
	ci, err := dev.StartProvider(t.Context(), dev.ProviderOptions{Algorithm: "ES256", Clients: []dev.Client{{ID: "ci"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ci.Close() })
	s := newSystem(t, options{
		config: func(text string) string {
			second := "issuers:\n  - name: ci\n    url: " + ci.Issuer() + "\n    workload: true\n    audiences: [iap]\n    claims: {repo: /repository_id}\n"
			return strings.Replace(text, "issuers:\n", second, 1)
		},
		grants: strings.Replace(usualGrants, `to: ["group:dev/ml-eng"]`, `to: ["claim:ci/repo=1234"]`, 1),
	})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	job := map[string]any{"aud": "iap", "sub": "repo:1234", "repository_id": "1234", "groups": nil}
	shared := ci.Mint(job)
	first, second := s.bearing(shared), s.bearing(shared)
	var who struct{ Principal, Binding string }
	first.ok(&who, "whoami", "--ca-file", s.ca)
	if who.Principal != "ci/repo:1234" || who.Binding != "none" {
		t.Errorf("whoami = %+v", who)
	}
	web := newCaller(t, second.connect("phi3", "--ca-file", s.ca).url())
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "from a job", false, 3)); got.status != 200 {
		t.Errorf("a job's request: %+v", got)
	}
	// A job of GitHub's asks its runner for a token whenever one is needed.
	runner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-job" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"count":1234,"value":%q}`, ci.MintForm(dev.GitHubActions(r.URL.Query().Get("audience"))))
	}))
	t.Cleanup(runner.Close)
	action := s.user("action", "IAP_RELAY="+s.name, "IAP_TOKEN_COMMAND="+program("iapctl")+" auth fetch github-actions --audience iap",
		"ACTIONS_ID_TOKEN_REQUEST_URL="+runner.URL+"/token?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=of-the-job")
	action.ok(&who, "whoami", "--ca-file", s.ca)
	if who.Principal != "ci/repo:octo-org/octo-repo:environment:production" || who.Binding != "none" {
		t.Errorf("whoami = %+v", who)
	}
	action.fails(5, "unknown_resource", "connect", "phi3", "--ca-file", s.ca) // another repository
	job["repository_id"] = "99"
	s.bearing(ci.Mint(job)).fails(5, "unknown_resource", "connect", "phi3", "--ca-file", s.ca)
	// What one provider says of itself is nothing to the other: people of dev have no such claim.
	s.loggedIn("alice").fails(5, "unknown_resource", "connect", "phi3")
	// A token of dev's, signed by ci, is ci's to speak for and nobody else's.
	s.bearing(ci.Mint(map[string]any{"iss": s.provider.Issuer(), "aud": "iapctl"})).fails(4, "token_invalid", "whoami", "--ca-file", s.ca)
}

func TestTokenCommandIsRunAtEachUse(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	u := s.bearing(s.provider.Mint(map[string]any{"jti": "command"}))
	var file string
	for i, kv := range u.env {
		if name, ok := strings.CutPrefix(kv, "IAP_TOKEN_FILE="); ok {
			file, u.env[i] = name, "IAP_TOKEN_COMMAND=cat "+name
		}
	}
	u.ok(nil, "whoami", "--ca-file", s.ca)
	s.write(file, s.provider.Mint(map[string]any{"jti": "next"}))
	u.ok(nil, "whoami", "--ca-file", s.ca)
	var status struct{ Source string }
	u.ok(&status, "auth", "status")
	if status.Source != "token_command" {
		t.Errorf("auth status = %+v", status)
	}
}
