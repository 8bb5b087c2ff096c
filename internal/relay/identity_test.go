package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/dev"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// refusedWith is the code the relay refused a handshake with.
func refusedWith(t testing.TB, session *tunnel.Session, err error) tunnel.Code {
	t.Helper()
	if err == nil {
		_ = session.Close(tunnel.CodeNone, "")
		return tunnel.CodeNone
	}
	var dial *tunnel.DialError
	if !errors.As(err, &dial) {
		t.Fatalf("no refusal: %v", err)
	}
	return dial.Code
}

func TestTokenBelongsToTheFirstKeyThatPresentsIt(t *testing.T) {
	s := newSystem(t, allowAll)
	alice := s.user(nil)
	token := alice.token()
	first, err := alice.present(tunnel.Interactive, token)
	must(t, err)
	defer first.Close(tunnel.CodeNone, "")
	second, err := alice.present(tunnel.Bulk, token) // the same key may come again
	must(t, err)
	defer second.Close(tunnel.CodeNone, "")
	thief, err := s.user(nil).present(tunnel.Interactive, token)
	if got := refusedWith(t, thief, err); got != tunnel.CodePopFailed {
		t.Errorf("another key with the same token: %v", err)
	}
	s.awaitEvent("the theft", func(e audit.Event) bool {
		return e.Kind == audit.KindLogin && e.Decision == audit.Deny && e.Reason == "pop_failed"
	})
	if n := s.events(func(e audit.Event) bool { return e.Kind == audit.KindLogin && e.Detail["new_key"] == "true" }); len(n) != 1 {
		t.Errorf("a principal's new key was recorded %d times", len(n))
	}
}

func TestOfManyKeysRacingForOneTokenOneWins(t *testing.T) {
	s := newSystem(t, allowAll)
	token := s.user(nil).token()
	var racing sync.WaitGroup
	var mu sync.Mutex
	got := map[tunnel.Code]int{}
	for range 20 {
		thief := s.user(nil)
		racing.Go(func() {
			session, err := thief.present(tunnel.Interactive, token)
			code := refusedWith(t, session, err)
			mu.Lock()
			defer mu.Unlock()
			got[code]++
		})
	}
	racing.Wait()
	if got[tunnel.CodeNone] != 1 || got[tunnel.CodePopFailed] != 19 {
		t.Errorf("got %v, want one winner and 19 pop_failed", got)
	}
}

func TestRespelledTokenStaysBound(t *testing.T) {
	s := newSystem(t, allowAll)
	alice := s.user(nil)
	token := alice.token()
	session, err := alice.present(tunnel.Interactive, token)
	must(t, err)
	defer session.Close(tunnel.CodeNone, "")
	parts := strings.Split(token, ".")
	for name, other := range map[string]string{
		"padding": token + "=", "newline": token + "\n", "blank": " " + token, "other signature bits": parts[0] + "." + parts[1] + "." + flipLast(parts[2]),
		"four parts": token + ".x",
	} {
		thief, err := s.user(nil).present(tunnel.Interactive, other)
		if got := refusedWith(t, thief, err); got != tunnel.CodeTokenInvalid && got != tunnel.CodePopFailed {
			t.Errorf("%s: %v (%v)", name, got, err)
		}
	}
}

// flipLast changes the unused bits of the last base64 digit.
func flipLast(s string) string {
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(digits, s[len(s)-1])
	return s[:len(s)-1] + string(digits[i^1])
}

func TestTokenThatNamesItsKeyIsBoundByNonce(t *testing.T) {
	s := newSystem(t, allowAll)
	alice := s.user(nil)
	alice.claims = map[string]any{"nonce": auth.NonceForKey(alice.key.Public().(ed25519.PublicKey))}
	who, err := api(t, alice.open(tunnel.Interactive)).Whoami(within(t))
	must(t, err)
	if who.Binding != auth.BindingNonce {
		t.Errorf("binding %q", who.Binding)
	}
	alice.claims = nil // refreshed tokens have no nonce
	who, err = api(t, alice.open(tunnel.Bulk)).Whoami(within(t))
	must(t, err)
	if who.Binding != auth.BindingNonce {
		t.Errorf("after the refresh the binding is %q", who.Binding)
	}
	who, err = api(t, s.user(nil).open(tunnel.Interactive)).Whoami(within(t))
	must(t, err)
	if who.Binding != auth.BindingFirstUse {
		t.Errorf("a token without nonce has binding %q", who.Binding)
	}
}

func TestTokenThatNamesAnotherKeyIsRefused(t *testing.T) {
	s := newSystem(t, allowAll)
	alice := s.user(nil)
	alice.claims = map[string]any{"nonce": auth.NonceForKey(alice.key.Public().(ed25519.PublicKey))}
	token := alice.token()
	thief, err := s.user(nil).present(tunnel.Interactive, token) // before alice has
	if got := refusedWith(t, thief, err); got != tunnel.CodePopFailed {
		t.Errorf("a stolen token that names alice's key let another key in: %v", err)
	}
}

func TestRefreshKeepsWhatTheProviderDropsAndNothingOfOthers(t *testing.T) {
	s := newSystem(t, allowAll)
	login := time.Now().Add(-time.Hour).Truncate(time.Second)
	alice := s.user(map[string]any{"auth_time": login.Unix(), "amr": []string{"pwd", "mfa"}})
	session := alice.open(tunnel.Interactive)
	c := api(t, session)
	alice.claims = map[string]any{"auth_time": nil, "amr": nil}
	before := session.Expires()
	expires, err := session.Refresh(within(t), alice.token())
	must(t, err)
	if expires.Before(before) {
		t.Errorf("the session's end went from %s to %s", before, expires)
	}
	who, err := c.Whoami(within(t))
	must(t, err)
	if !who.MFA || who.AuthTime == nil || !who.AuthTime.Equal(login) {
		t.Errorf("after the refresh: mfa %t, auth_time %v, want true and %s", who.MFA, who.AuthTime, login)
	}
	bob := s.user(map[string]any{"sub": "bob"})
	if _, err := session.Refresh(within(t), bob.token()); tunnel.CodeOf(err) != tunnel.CodeTokenInvalid {
		t.Errorf("bob's token in alice's session: %v", err)
	}
	// A later login without a second factor takes it away; one that is not asserted does not come back.
	alice.claims = map[string]any{"auth_time": time.Now().Unix(), "amr": []string{"pwd"}}
	_, err = session.Refresh(within(t), alice.token())
	must(t, err)
	if who, err = c.Whoami(within(t)); err != nil || who.MFA {
		t.Errorf("a new login without a second factor kept the old one: %+v, %v", who, err)
	}
}

func TestRefreshWithAStolenTokenIsRefused(t *testing.T) {
	s := newSystem(t, allowAll)
	token := s.user(nil).token()
	victim := s.user(nil)
	session, err := victim.present(tunnel.Interactive, token)
	must(t, err)
	defer session.Close(tunnel.CodeNone, "")
	other := s.user(nil).open(tunnel.Interactive) // the same person, another key
	_, err = api(t, other).Whoami(within(t))
	must(t, err)
	if _, err := other.Refresh(within(t), token); tunnel.CodeOf(err) != tunnel.CodePopFailed {
		t.Errorf("got %v", err)
	}
}

func TestRefreshRightAfterTheHandshakeIsServed(t *testing.T) {
	s := newSystem(t, allowAll, func(c *settings.Config) { c.Sessions.SessionsPerPrincipal = 200 })
	var refreshing sync.WaitGroup
	for range 50 {
		alice := s.user(nil)
		refreshing.Go(func() {
			session, err := alice.present(tunnel.Interactive, alice.token())
			if err != nil {
				t.Error(err)
				return
			}
			defer session.Close(tunnel.CodeNone, "")
			if _, err := session.Refresh(context.Background(), alice.token()); err != nil {
				t.Errorf("refresh of a new session: %v", err)
			}
		})
	}
	refreshing.Wait()
}

func TestOneKeyIsOnePrincipal(t *testing.T) {
	s := newSystem(t, allowAll)
	alice := s.user(nil)
	alice.open(tunnel.Interactive)
	alice.claims = map[string]any{"sub": "bob"}
	session, err := alice.present(tunnel.Bulk, alice.token())
	if got := refusedWith(t, session, err); got != tunnel.CodePopFailed {
		t.Errorf("a key that was alice's became bob's: %v", err)
	}
}

func TestWorkloadTokenIsSharedByManyKeys(t *testing.T) {
	ci, err := dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { ci.Close() })
	s := newSystem(t, allowAll, func(c *settings.Config) {
		c.Issuers = append(c.Issuers, settings.IssuerConfig{Name: "ci", URL: ci.Issuer(), Workload: true, Audiences: []string{"relay"}})
		c.Issuers[1].Token = "id_token"
	})
	token := ci.Mint(map[string]any{"aud": "relay", "azp": nil, "sub": "repo:1", "amr": nil})
	for range 2 {
		session, err := s.user(nil).present(tunnel.Interactive, token)
		must(t, err)
		defer session.Close(tunnel.CodeNone, "")
		who, err := api(t, session).Whoami(within(t))
		must(t, err)
		if who.Binding != auth.BindingNone || who.Principal != "ci/repo:1" {
			t.Errorf("got %+v", who)
		}
	}
}

func TestKilledWorkloadTokenIsRefusedUnderEveryKey(t *testing.T) {
	ci, err := dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { ci.Close() })
	s := newSystem(t, allowAll, func(c *settings.Config) {
		c.Issuers = append(c.Issuers, settings.IssuerConfig{Name: "ci", URL: ci.Issuer(), Workload: true, Audiences: []string{"relay"}, Token: "id_token"})
	})
	token := ci.Mint(map[string]any{"aud": "relay", "azp": nil, "sub": "repo:1"})
	session, err := s.user(nil).present(tunnel.Interactive, token)
	must(t, err)
	sibling, err := s.user(nil).present(tunnel.Interactive, token)
	must(t, err)
	defer sibling.Close(tunnel.CodeNone, "")
	for _, one := range []*tunnel.Session{session, sibling} {
		_, err = api(t, one).Whoami(within(t))
		must(t, err)
	}
	must(t, errorOf(s.admin.KillSession(within(t), session.ID(), "")))
	await(t, session.Done(), "the session ends")
	await(t, sibling.Done(), "the session of the same token under another key ends")
	refused := func(when string) {
		again, err := s.user(nil).present(tunnel.Interactive, token)
		if err == nil {
			await(t, again.Done(), "the session ends")
			err = again.Err()
		}
		if got := tunnel.CodeOf(err); got != tunnel.CodeRevoked {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("after the kill")
	must(t, s.end())
	s.start()
	refused("after a restart")
	other, err := s.user(nil).present(tunnel.Interactive, ci.Mint(map[string]any{"aud": "relay", "azp": nil, "sub": "repo:1"}))
	must(t, err) // a new token is a new login
	must(t, other.Close(tunnel.CodeNone, ""))
}

func TestKilledKeyIsRefusedUntilANewLoginAlsoAfterARestart(t *testing.T) {
	s := newSystem(t, allowAll)
	alice := s.user(nil)
	interactive, bulk := alice.open(tunnel.Interactive), alice.open(tunnel.Bulk)
	must(t, errorOf(s.admin.KillSession(within(t), interactive.ID(), "")))
	for _, session := range []*tunnel.Session{interactive, bulk} {
		await(t, session.Done(), "both sessions of the key end")
		if got := tunnel.CodeOf(session.Err()); got != tunnel.CodeRevoked {
			t.Errorf("session ended with %v", session.Err())
		}
	}
	refused := func(when string) {
		session, err := alice.present(tunnel.Interactive, alice.token())
		if got := refusedWith(t, session, err); got != tunnel.CodeRevoked {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("after the kill")
	must(t, s.end())
	s.start()
	refused("after a restart")
	s.user(nil).open(tunnel.Interactive) // a new login, a new key
}

func TestTokensOfTheWrongKindAreRefusedAtTheTunnel(t *testing.T) {
	s := newSystem(t, allowAll)
	foreign, err := dev.NewSigningKey("ES256")
	must(t, err)
	for name, token := range map[string]string{
		"front door's audience": s.provider.Mint(map[string]any{"aud": bearerAudience}),
		"wrong audience":        s.provider.Mint(map[string]any{"aud": "other"}),
		"no audience":           s.provider.Mint(map[string]any{"aud": nil}),
		"wrong issuer":          s.provider.Mint(map[string]any{"iss": s.provider.Issuer() + "/"}),
		"expired":               s.provider.Mint(map[string]any{"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()}),
		"alg none":              s.provider.Mint(nil, dev.MintOptions{Header: map[string]any{"alg": "none"}, Unsigned: true}),
		"hmac by public key":    s.provider.Mint(nil, dev.MintOptions{Secret: s.provider.PublicKeyPEM()}),
		"foreign key":           s.provider.Mint(nil, dev.MintOptions{Key: foreign}),
		"not a token":           "x",
	} {
		session, err := s.user(nil).present(tunnel.Interactive, token)
		if got := refusedWith(t, session, err); got != tunnel.CodeTokenInvalid && got != tunnel.CodeProtocolError {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := s.events(func(e audit.Event) bool { return e.Kind == audit.KindLogin && e.Decision == audit.Allow }); len(n) != 0 {
		t.Errorf("%d logins were recorded as allowed", len(n))
	}
}

func TestSessionEndsWithItsTokenAndARefreshProlongsIt(t *testing.T) {
	s := newSystem(t, allowAll, func(c *settings.Config) { setMaxAge(c, 2*time.Second) })
	left, kept := s.user(nil), s.user(nil)
	short, long := left.open(tunnel.Interactive), kept.open(tunnel.Interactive)
	end := long.Expires()
	for range 3 { // each refresh moves the end
		expires, err := long.Refresh(within(t), kept.token())
		must(t, err)
		if expires.Before(end) {
			t.Errorf("refresh moved the end from %s to %s", end, expires)
		}
		end = expires
	}
	await(t, short.Done(), "the session ends")
	if got := tunnel.CodeOf(short.Err()); got != tunnel.CodeSessionExpired {
		t.Errorf("session ended with %v", short.Err())
	}
	if _, err := long.Refresh(within(t), kept.token()); err != nil && tunnel.CodeOf(err) != tunnel.CodeSessionExpired && long.Err() == nil {
		t.Errorf("the refreshed session: %v", err)
	}
}

func TestAgentIdsAreNotToldApart(t *testing.T) {
	s := newSystem(t, allowAll)
	known := s.enrolFake(false, served{"web", "http", ""})
	announce := tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true}
	answer := func(a *fakeAgent) string {
		session, err := a.connect(tunnel.Interactive, announce)
		if err == nil {
			_ = session.Close(tunnel.CodeNone, "")
			t.Error("a stranger was let in as an agent")
			return ""
		}
		return err.Error()
	}
	foreign := answer(&fakeAgent{s: s, id: known.id, key: newKey(t)})
	unknown := answer(&fakeAgent{s: s, id: "agent-000000000000000000000000", key: newKey(t)})
	odd := answer(&fakeAgent{s: s, id: "../join", key: newKey(t)})
	must(t, errorOf(s.admin.RevokeAgent(within(t), known.id)))
	revoked := answer(known)
	if foreign != unknown || unknown != odd || odd != revoked {
		t.Errorf("the answers differ:\n%s\n%s\n%s\n%s", foreign, unknown, odd, revoked)
	}
}

func TestRevokedAgentIsCutAndRefusedAlsoAfterARestart(t *testing.T) {
	s := newSystem(t, allowAll)
	a := s.enrolFake(false, served{"web", "http", ""})
	announce := tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true}
	session := a.serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) {}, announce)
	must(t, errorOf(s.admin.RevokeAgent(within(t), a.id)))
	await(t, session.Done(), "the agent is cut")
	if got := tunnel.CodeOf(session.Err()); got != tunnel.CodeRevoked {
		t.Errorf("cut with %v", session.Err())
	}
	refused := func() {
		again, err := a.connect(tunnel.Bulk, announce)
		if got := refusedWith(t, again, err); got != tunnel.CodeRevoked {
			t.Errorf("a revoked agent came back: %v", err)
		}
	}
	refused()
	must(t, s.end())
	s.start()
	refused()
	if names := s.relay.agents.names(); len(names) != 0 {
		t.Errorf("resources %v outlived their agent", names)
	}
}

func TestRightsAreTakenAwayWithTheDatabaseGone(t *testing.T) {
	s := newSystem(t, allowAll)
	fake := s.enrolFake(false, served{"web", "http", ""})
	agent := fake.serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) {}, tunnel.Announcement{Resource: "web", Kind: "http"})
	alice := s.user(nil)
	session := alice.open(tunnel.Interactive)
	must(t, s.relay.store.Close())
	if err := errorOf(s.admin.KillSession(within(t), session.ID(), "")); err == nil {
		t.Error("the kill did not say that the database is gone")
	}
	if err := errorOf(s.admin.RevokeAgent(within(t), fake.id)); err == nil {
		t.Error("the revocation did not say that the database is gone")
	}
	await(t, session.Done(), "the session ends")
	await(t, agent.Done(), "the agent is cut")
	newcomer, err := s.user(nil).present(tunnel.Interactive, s.user(nil).token())
	if got := refusedWith(t, newcomer, err); got != tunnel.CodeStateUnavailable {
		t.Errorf("a session began without the state: %v", err)
	}
}

// TestSilentHandshakesOfOneAddressKeepNobodyElseOut opens more connections than one address may, and says nothing on them.
func TestSilentHandshakesOfOneAddressKeepNobodyElseOut(t *testing.T) {
	s := newSystem(t, allowAll)
	d := tunnel.Dialer{Address: s.name, TLS: s.tls()}
	for range maxShaking {
		conn, err := d.Dial(within(t))
		must(t, err)
		defer conn.Close()
	}
	if conn, err := d.Dial(within(t)); err == nil {
		conn.Close()
		t.Error("one address may begin any number of handshakes")
	}
	elsewhere := d
	elsewhere.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
		return from.DialContext(ctx, network, address)
	}
	conn, err := elsewhere.Dial(within(t))
	if err != nil {
		t.Fatalf("somebody else is kept out: %v", err)
	}
	alice := s.user(nil)
	session, err := tunnel.Connect(within(t), conn, tunnel.ClientConfig{
		Role: tunnel.RoleUser, Relay: s.name, Key: alice.key, Token: func(context.Context) (string, error) { return alice.token(), nil },
	})
	must(t, err)
	must(t, session.Close(tunnel.CodeNone, ""))
}
