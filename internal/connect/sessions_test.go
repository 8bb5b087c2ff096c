package connect

import (
	"context"
	"crypto/ed25519"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"iap/auth"
	"iap/tunnel"
)

func TestBothClassesAreOpenedAheadOfNeed(t *testing.T) {
	relay := newTestRelay(t, echo)
	run(t, relay.config(), tunnel.Interactive, tunnel.Bulk)
	seen := map[tunnel.Class]bool{}
	for len(seen) < 2 {
		select {
		case s := <-relay.came:
			seen[s.Class()] = true
		case <-within(t).Done():
			t.Fatalf("only %v came up", seen)
		}
	}
}

func TestSessionIsRenewedInPlaceBeforeItEnds(t *testing.T) {
	relay := newTestRelay(t, echo)
	relay.life = 2 * time.Second
	cfg := relay.config()
	login, _ := cfg.Login(context.Background())
	fresh := make(chan struct{}, 100)
	login.Refresh = func(context.Context) (string, error) {
		relay.mu.Lock()
		relay.life = time.Hour
		relay.mu.Unlock()
		fresh <- struct{}{}
		return token("alice-2"), nil
	}
	cfg.Login = func(context.Context) (Login, error) { return login, nil }
	sessions := run(t, cfg, tunnel.Interactive, tunnel.Bulk)
	first, err := sessions.Session(within(t), tunnel.Interactive)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-fresh:
	case <-within(t).Done():
		t.Fatal("no renewal")
	}
	for sessions.Expires().Before(time.Now().Add(time.Minute)) {
		if err := within(t).Err(); err != nil {
			t.Fatal("expiry did not move")
		}
		select {
		case <-first.Done():
			t.Fatal("the session ended instead of being renewed")
		case <-time.After(time.Millisecond):
		}
	}
	if again, err := sessions.Session(within(t), tunnel.Interactive); err != nil || again != first {
		t.Errorf("another session after the renewal (%v)", err)
	}
	if n := len(fresh); n != 0 {
		t.Errorf("%d tokens more than needed were obtained", n)
	}
}

func TestRefusedLoginFailsAtOnceAndRecoversWithTheNext(t *testing.T) {
	relay := newTestRelay(t, echo)
	relay.setRefusal(&tunnel.Refusal{Code: tunnel.CodeRevoked, Message: "revoked"})
	cfg := relay.config()
	id := loginIn(&cfg)
	sessions := run(t, cfg, tunnel.Bulk)
	if _, err := sessions.Session(within(t), tunnel.Bulk); !NeedsLogin(err) || tunnel.CodeOf(err) != tunnel.CodeRevoked {
		t.Fatalf("err = %v", err)
	}
	relay.setRefusal(nil)
	id.Store("2") // somebody has run iapctl login
	ctx := within(t)
	for {
		if _, err := sessions.Session(ctx, tunnel.Bulk); err == nil {
			return
		} else if ctx.Err() != nil {
			t.Fatal(err)
		}
		select {
		case <-relay.came:
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestTokenThatTheRelayCallsInvalidIsRenewedOnce(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	login, _ := cfg.Login(context.Background())
	relay.setRefusal(&tunnel.Refusal{Code: tunnel.CodeTokenInvalid})
	login.Refresh = func(context.Context) (string, error) {
		relay.setRefusal(nil)
		return token("alice-2"), nil
	}
	cfg.Login = func(context.Context) (Login, error) { return login, nil }
	s, err := Once(within(t), cfg, tunnel.Interactive)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close(tunnel.CodeCanceled, "done")
	if got := relay.tokens[len(relay.tokens)-1]; got != token("alice-2") {
		t.Errorf("presented %q", got)
	}
}

func TestChangedRelayKeyIsRefused(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	cfg.CheckRelay = func(ed25519.PublicKey, [][]byte) error { return ErrRelayChanged }
	if _, err := Once(within(t), cfg, tunnel.Interactive); !errors.Is(err, ErrRelayChanged) {
		t.Fatalf("err = %v", err)
	}
	if len(relay.tokens) != 0 {
		t.Log("the token was shown before the key was checked; the handshake decides that")
	}
}

func TestWaitForASessionEndsWithItsContext(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	relay.stop()
	sessions := run(t, cfg, tunnel.Bulk)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(ErrNoSession)
	if _, err := sessions.Session(ctx, tunnel.Bulk); err == nil {
		t.Fatal("a session with nobody there")
	}
}

func TestModelsUseTheInteractiveSession(t *testing.T) {
	for kind, want := range map[string]tunnel.Class{"model": tunnel.Interactive, "http": tunnel.Bulk, "tcp": tunnel.Bulk} {
		if got := ClassOf(kind); got != want {
			t.Errorf("%s uses %s", kind, got)
		}
	}
}

// loginIn lets a test change who is logged in.
func loginIn(cfg *Config) *atomic.Value {
	var id atomic.Value
	id.Store("1")
	plain := cfg.Login
	cfg.Login = func(ctx context.Context) (Login, error) {
		l, err := plain(ctx)
		if l.ID = id.Load().(string); l.ID == "" {
			return l, auth.ErrNotFound
		}
		return l, err
	}
	cfg.LoginID = func() string { return id.Load().(string) }
	return &id
}

func TestNewLoginReplacesTheSessionAndRunningStreamsEndInPeace(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	id := loginIn(&cfg)
	sessions := run(t, cfg, tunnel.Bulk)
	addr := forward(t, &Forward{Resource: "db", Kind: "tcp", Sessions: sessions})
	c := dialLocal(t, addr)
	ping := func() {
		t.Helper()
		_, _ = c.Write([]byte("a"))
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	ping()
	<-relay.came
	id.Store("2")
	select {
	case <-relay.came:
	case <-within(t).Done():
		t.Fatal("no session with the new login")
	}
	ping()
}

func TestLogoutEndsWhatRuns(t *testing.T) {
	relay := newTestRelay(t, echo)
	cfg := relay.config()
	id := loginIn(&cfg)
	sessions := run(t, cfg, tunnel.Bulk)
	s, err := sessions.Session(within(t), tunnel.Bulk)
	if err != nil {
		t.Fatal(err)
	}
	id.Store("")
	select {
	case <-s.Done():
	case <-within(t).Done():
		t.Fatal("the session goes on after the logout")
	}
	ctx := within(t)
	for {
		if _, err := sessions.Session(ctx, tunnel.Bulk); NeedsLogin(err) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
