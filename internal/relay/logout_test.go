package relay

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/dev"
	"iap/tunnel"
)

// postLogout posts a form as a provider does.
func (s *system) postLogout(form string) (*http.Response, string) {
	s.t.Helper()
	r, body, err := s.door(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s",
		logoutPath, s.name, len(form), form))
	must(s.t, err)
	return r, body
}

func (s *system) logout(claims map[string]any, options ...dev.MintOptions) (*http.Response, string) {
	s.t.Helper()
	return s.postLogout(url.Values{"logout_token": {s.provider.LogoutToken(claims, options...)}}.Encode())
}

// at are the claims of a login that long from now, laid over others.
func at(from time.Duration, others ...map[string]any) map[string]any {
	when := time.Now().Add(from).Unix()
	all := map[string]any{"iat": when, "auth_time": when}
	for _, o := range others {
		maps.Copy(all, o)
	}
	return all
}

// awaitSessions waits until n sessions are entered: a client knows of its session a moment before the relay's list.
func (s *system) awaitSessions(n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("%d sessions of users are open", n), func() bool {
		return len(s.relay.sessions.all(func(s *session) bool { return s.identity().agent == nil })) == n
	})
}

func TestBackChannelLogoutEndsTheLoginUntilANewOne(t *testing.T) {
	r := startRunning(t)
	s := r.s
	old := s.user(at(-time.Minute, map[string]any{"sid": "s1"}))
	oldSession := old.open(tunnel.Bulk)
	s.awaitSessions(3)
	before := at(-time.Second)
	token := s.provider.LogoutToken(nil) // names alice alone: all of hers
	answer, body := s.postLogout("logout_token=" + token)
	if answer.StatusCode != 200 || body != "" || answer.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%s %q %v", answer.Status, body, answer.Header)
	}
	r.alice.cut(t, tunnel.CodeLoginRequired)
	await(t, r.alice.session.Done(), "alice's session ends")
	await(t, oldSession.Done(), "her other login's session ends")
	if got := tunnel.CodeOf(oldSession.Err()); got != tunnel.CodeLoginRequired {
		t.Errorf("the session ended with %v", oldSession.Err())
	}
	r.whole(t, r.bob)
	e := s.awaitEvent("the logout", func(e audit.Event) bool { return e.Reason == "provider_logout" })
	if e.Principal != "corp/alice" || e.Detail["sessions"] != "2" || e.Via != viaLogout || e.Source == "" {
		t.Errorf("%+v", e)
	}
	s.awaitEvent("outcome login_required", func(e audit.Event) bool {
		return e.Kind == audit.KindOutcome && e.Principal == "corp/alice" && e.Resource == "phi3" && e.Ended == "login_required"
	})

	fresh := s.user(at(3 * time.Second))
	again := fresh.open(tunnel.Interactive)
	check := func(when string) {
		t.Helper()
		old.claims = map[string]any{"auth_time": nil, "iat": time.Now().Unix() + 5} // refreshed since, by what the provider left alive
		if _, err := old.present(tunnel.Interactive, old.token()); tunnel.CodeOf(err) != tunnel.CodeLoginRequired {
			t.Errorf("%s, the key that was logged out: %v", when, err)
		}
		if _, err := s.user(before).present(tunnel.Interactive, s.user(before).token()); tunnel.CodeOf(err) != tunnel.CodeLoginRequired {
			t.Errorf("%s, a token from before under a new key: %v", when, err)
		}
		if r, body := s.ask("/r/phi3/v1/models", s.bearer(before)); r.StatusCode != 401 || !strings.Contains(body, "login_required") {
			t.Errorf("%s, a bearer's token from before: %s %s", when, r.Status, body)
		}
		if r, body := s.ask("/r/phi3/v1/models", s.bearer(at(3*time.Second))); strings.Contains(body, "login_required") || r.StatusCode == 401 {
			t.Errorf("%s, a bearer's new token: %s %s", when, r.Status, body)
		}
	}
	check("after the logout")
	if answer, body := s.postLogout("logout_token=" + token); answer.StatusCode != 400 || !strings.Contains(body, `"error":"invalid_request"`) || !strings.Contains(body, "logout_replayed") {
		t.Errorf("replayed: %s %s", answer.Status, body)
	}
	if again.Err() != nil {
		t.Errorf("the new login ended: %v", again.Err())
	}
	must(t, s.end())
	s.start()
	check("after a restart")
	fresh.open(tunnel.Interactive)
}

func TestBackChannelLogoutOfOneSessionSparesTheOthers(t *testing.T) {
	s := newSystem(t, allowAll)
	laptop, desktop := s.user(at(-time.Minute, map[string]any{"sid": "laptop"})), s.user(at(-time.Minute, map[string]any{"sid": "desktop"}))
	unnamed, bob := s.user(at(-time.Minute)), s.user(at(-time.Minute, map[string]any{"sub": "bob", "sid": "bobs"}))
	ends, stays, doubtful, other := laptop.open(tunnel.Interactive), desktop.open(tunnel.Interactive), unnamed.open(tunnel.Interactive), bob.open(tunnel.Interactive)
	laptop.claims["sid"] = nil // providers drop it at refresh: the key's record has it still
	if _, err := ends.Refresh(within(t), laptop.token()); err != nil {
		t.Fatal(err)
	}
	if answer, body := s.logout(map[string]any{"sid": "laptop"}); answer.StatusCode != 200 {
		t.Fatalf("%s %s", answer.Status, body)
	}
	await(t, ends.Done(), "the session of this sid ends")
	await(t, doubtful.Done(), "so does one of alice's of which nobody knows whose it is")
	if answer, body := s.logout(map[string]any{"sub": nil, "sid": "bobs"}); answer.StatusCode != 200 {
		t.Fatalf("%s %s", answer.Status, body)
	}
	await(t, other.Done(), "a sid alone ends its session")
	if _, err := stays.Refresh(within(t), desktop.token()); err != nil || stays.Err() != nil {
		t.Errorf("another session of hers was not spared: %v, %v", err, stays.Err())
	}
	for name, u := range map[string]*user{"laptop": laptop, "unnamed": unnamed, "bob": bob} {
		if _, err := u.present(tunnel.Interactive, u.token()); tunnel.CodeOf(err) != tunnel.CodeLoginRequired {
			t.Errorf("%s came back with its key: %v", name, err)
		}
	}
	desktop.open(tunnel.Interactive)
}

func TestForgedLogoutTokensEndNothing(t *testing.T) {
	s := newSystem(t, allowAll)
	session := s.user(at(-time.Minute, map[string]any{"sid": "s1"})).open(tunnel.Interactive)
	stranger, err := dev.NewSigningKey("ES256")
	must(t, err)
	form := func(token string) string { return url.Values{"logout_token": {token}}.Encode() }
	posts := []struct{ form, code string }{
		{form(s.provider.LogoutToken(nil, dev.MintOptions{Key: stranger})), auth.CodeSignatureInvalid},
		{form(s.provider.LogoutToken(nil, dev.MintOptions{Unsigned: true, Header: map[string]any{"alg": "none"}})), auth.CodeTokenMalformed},
		{form(s.provider.LogoutToken(map[string]any{"nonce": "n"})), auth.CodeLogoutInvalid},
		{form(s.provider.Mint(nil)), auth.CodeLogoutInvalid}, // an identity token
		{form(s.provider.LogoutToken(map[string]any{"aud": bearerAudience + "2"})), auth.CodeAudienceMismatch},
		{form(s.provider.LogoutToken(map[string]any{"iat": time.Now().Unix() - 3600})), auth.CodeLogoutTooOld},
		{"", auth.CodeLogoutInvalid},
		{form(s.provider.LogoutToken(nil)) + "&logout_token=x", auth.CodeLogoutInvalid},
		{form(strings.Repeat("x", maxLogoutForm)), auth.CodeLogoutInvalid},
	}
	for _, p := range posts {
		answer, body := s.postLogout(p.form)
		if answer.StatusCode != 400 || !strings.Contains(body, p.code) || answer.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%.60s: %s %s, want %s", p.form, answer.Status, body, p.code)
		}
		s.awaitEvent("the refusal "+p.code, func(e audit.Event) bool {
			return e.Kind == audit.KindLogin && e.Decision == audit.Deny && e.Via == viaLogout && e.Reason == p.code
		})
	}
	if r, _ := s.ask(logoutPath); r.StatusCode != 405 {
		t.Errorf("GET: %s", r.Status)
	}
	for range joinTries - len(posts) {
		s.postLogout("")
	}
	if answer, _ := s.logout(nil); answer.StatusCode != 429 || answer.Header.Get("Retry-After") == "" {
		t.Errorf("a source that guesses is not slowed down: %s", answer.Status)
	}
	if session.Err() != nil {
		t.Errorf("a forged token ended the session: %v", session.Err())
	}
}

// TestLogoutRacesLoginsOfTheSamePerson opens sessions while the logout arrives: none that began before it is left.
func TestLogoutRacesLoginsOfTheSamePerson(t *testing.T) {
	s := newSystem(t, allowAll)
	var opening sync.WaitGroup
	sessions := make(chan *tunnel.Session, 24)
	begun := make(chan struct{}, cap(sessions))
	for range cap(sessions) {
		u := s.user(at(-time.Minute))
		opening.Go(func() {
			begun <- struct{}{}
			if session, err := u.present(tunnel.Interactive, u.token()); err == nil {
				sessions <- session
			} else if tunnel.CodeOf(err) != tunnel.CodeLoginRequired {
				t.Errorf("refused with %v", err)
			}
		})
	}
	for range cap(sessions) / 2 {
		await(t, begun, "logins are under way")
	}
	if answer, body := s.logout(nil); answer.StatusCode != 200 {
		t.Fatalf("%s %s", answer.Status, body)
	}
	opening.Wait()
	close(sessions)
	for session := range sessions {
		await(t, session.Done(), "a session that raced the logout ends")
	}
}

// TestLogoutHoldsWithTheDatabaseGone ends what runs though nothing can be kept, and asks the provider to come again.
func TestLogoutHoldsWithTheDatabaseGone(t *testing.T) {
	s := newSystem(t, allowAll)
	session := s.user(at(-time.Minute)).open(tunnel.Interactive)
	must(t, s.relay.store.Close())
	s.spoilt = true
	if answer, body := s.logout(nil); answer.StatusCode != 400 || !strings.Contains(body, "logout_failed") {
		t.Errorf("%s %s", answer.Status, body)
	}
	await(t, session.Done(), "the session ends")
	if r, body := s.ask("/r/phi3/v1/models", s.bearer(at(-time.Minute))); r.StatusCode != 401 || !strings.Contains(body, "login_required") {
		t.Errorf("a bearer: %s %s", r.Status, body)
	}
}

func TestLogoutsOfOnePersonAreBounded(t *testing.T) {
	var all logouts
	begin := time.Unix(1_800_000_000, 0)
	for i := range 3 * maxEndedSessions {
		all.add(&auth.Logout{Subject: "alice", SessionID: fmt.Sprint(i), IssuedAt: begin.Add(time.Duration(i) * time.Hour)})
	}
	if len(all.Sessions) != maxEndedSessions {
		t.Fatalf("%d are kept", len(all.Sessions))
	}
	for i := range 3 * maxEndedSessions {
		began := begin.Add(time.Duration(i)*time.Hour - time.Minute)
		if !all.ended(login{began: began, session: sessionHash(fmt.Sprint(i))}) {
			t.Errorf("session %d is no longer known to have ended", i)
		}
	}
	if all.ended(login{began: begin.Add(10 * maxEndedSessions * time.Hour), session: sessionHash("new")}) {
		t.Error("a session that nobody named has ended")
	}
}
