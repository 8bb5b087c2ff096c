package relay

import (
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/config"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// issued is a token of u that was issued so long ago and lives for long.
func (u *user) issued(ago time.Duration) string {
	now := time.Now()
	claims := map[string]any{"iat": now.Add(-ago).Unix(), "exp": now.Add(10 * time.Hour).Unix(), "auth_time": now.Add(-ago).Unix()}
	for name, value := range u.claims {
		claims[name] = value
	}
	return u.s.provider.Mint(claims)
}

// near reports whether a session's end is where it must be, but for the seconds that tokens are written in.
func near(got, want time.Time) bool {
	return got.Sub(want).Abs() < 10*time.Second
}

func TestSessionEndsByTheAgeOfItsTokenWhateverTheProviderSays(t *testing.T) {
	s := newSystem(t, allowAll, func(c *settings.Config) {
		setMaxAge(c, 3*time.Hour)
		c.Sessions.MaxTokenAge = config.Duration(2 * time.Hour)
	})
	u, now := s.user(nil), time.Now()
	token := u.issued(90 * time.Minute)
	session, err := u.present(tunnel.Interactive, token)
	must(t, err)
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	if got := session.Expires(); !near(got, now.Add(30*time.Minute)) {
		t.Errorf("a token of 90 minutes opened a session until %s from now", got.Sub(now))
	}
	if until, err := session.Refresh(within(t), token); err != nil || !near(until, now.Add(30*time.Minute)) {
		t.Errorf("the same token moved the end to %s from now, %v", until.Sub(now), err)
	}
	if until, err := session.Refresh(within(t), u.issued(60*time.Minute)); err != nil || !near(until, now.Add(60*time.Minute)) {
		t.Errorf("a token of an hour moved the end to %s from now, %v", until.Sub(now), err)
	}
	if _, err := session.Refresh(within(t), u.issued(80*time.Minute)); tunnel.CodeOf(err) != tunnel.CodeTokenInvalid {
		t.Errorf("a token older than the session's was taken: %v", err)
	}
	if until, err := session.Refresh(within(t), u.token()); err != nil || !near(until, now.Add(15*time.Minute)) {
		t.Errorf("the provider's own expiry counts where it is sooner; the end is %s from now, %v", until.Sub(now), err)
	}
	_, err = s.user(nil).present(tunnel.Interactive, s.user(nil).issued(121*time.Minute))
	if tunnel.CodeOf(err) != tunnel.CodeTokenInvalid || !strings.Contains(err.Error(), "token_too_old") {
		t.Errorf("a token older than any session opened one: %v", err)
	}
}

func TestTokenThatTheSessionHasGivesItNoMoreTime(t *testing.T) {
	s := newSystem(t, allowAll)
	u := s.user(nil)
	token := u.token()
	session, err := u.present(tunnel.Interactive, token)
	must(t, err)
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	end := session.Expires()
	for range 3 {
		if until, err := session.Refresh(within(t), token); err != nil || !until.Equal(end) {
			t.Errorf("the end moved from %s to %s, %v", end, until, err)
		}
	}
}

func TestRefusedRefreshIsRecorded(t *testing.T) {
	s := newSystem(t, allowAll)
	session := s.user(nil).open(tunnel.Interactive)
	if _, err := session.Refresh(within(t), s.provider.Mint(map[string]any{"sub": "bob"})); tunnel.CodeOf(err) != tunnel.CodeTokenInvalid {
		t.Errorf("somebody else's token: %v", err)
	}
	e := s.awaitEvent("the refused refresh", func(e audit.Event) bool { return e.Detail["asked"] == "refresh" })
	if e.Decision != audit.Deny || e.Principal != "corp/alice" || e.Session != session.ID() || e.Reason != "token_invalid" {
		t.Errorf("%+v", e)
	}
}
