package auth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestJobAsksItsRunnerForATokenOfTheAudience(t *testing.T) {
	status, body := http.StatusOK, ""
	runner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-job" || r.URL.Query().Get("api-version") != "2.0" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if body == "" {
			answer(w, status, map[string]string{"value": "token.for." + r.URL.Query().Get("audience")})
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	defer runner.Close()
	job := GitHubJob{RequestURL: runner.URL + "/token?api-version=2.0", RequestToken: "of-the-job"}
	if token, err := job.Fetch(t.Context(), "https://relay.test/a b&c"); err == nil {
		t.Errorf("a token with a space: %q", token) // the fake repeats the audience
	}
	if token, err := job.Fetch(t.Context(), "https://relay.test"); err != nil || token != "token.for.https://relay.test" {
		t.Errorf("got %q, %v", token, err)
	}
	for name, bad := range map[string]struct {
		status int
		body   string
	}{
		"refused": {403, "{}"}, "no JSON": {200, "<html>"}, "no value": {200, "{}"}, "an empty value": {200, `{"value":""}`}, "two lines": {200, `{"value":"a\nb"}`},
		"endless": {200, strings.Repeat(" ", maxDocumentBytes+1)},
	} {
		status, body = bad.status, bad.body
		_, err := job.Fetch(t.Context(), "x")
		if wantLogin(t, err, CodeTokenUnavailable); err != nil && strings.Contains(err.Error(), "of-the-job") {
			t.Errorf("%s: the job's credential is in the error: %v", name, err)
		}
	}
	for _, no := range []GitHubJob{{}, {RequestURL: runner.URL}, {RequestToken: "x"}, {RequestURL: "http://runner.test/", RequestToken: "x"}} {
		_, err := no.Fetch(t.Context(), "x")
		wantLogin(t, err, CodeTokenUnavailable)
	}
}

func TestProgramLogsInWithItsSecret(t *testing.T) {
	p := newProvider(t, "https://idp.test")
	var seen []string
	p.override["/token"] = func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		id, secret, basic := r.BasicAuth()
		if !basic {
			id, secret = r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
		}
		if id != "nightly" || secret != "s3cret" {
			answer(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
			return
		}
		seen = append(seen, strings.Join([]string{r.PostForm.Get("grant_type"), r.PostForm.Get("scope"), r.PostForm.Get("audience")}, " "))
		answer(w, 200, map[string]any{"access_token": "a.b.c", "token_type": "Bearer", "expires_in": 300})
	}
	program := Program{Issuer: p.issuer, ClientID: "nightly", ClientSecret: "s3cret", Scopes: []string{"models"}, Audience: "relay", HTTPClient: p.client()}
	token, err := program.Fetch(t.Context())
	if err != nil || token != "a.b.c" || len(seen) != 1 || seen[0] != "client_credentials models relay" {
		t.Errorf("got %q, %v, %q", token, err, seen)
	}
	program.ClientSecret = "wrong"
	_, err = program.Fetch(t.Context())
	if wantLogin(t, err, CodeClientRefused); err != nil && strings.Contains(err.Error(), "wrong") {
		t.Errorf("the secret is in the error: %v", err)
	}
	program.Issuer = "https://idp.test/"
	_, err = program.Fetch(t.Context())
	wantLogin(t, err, CodeProviderMisbehaves)
}
