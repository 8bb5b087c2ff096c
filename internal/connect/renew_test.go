package connect

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/auth"
	"iap/tunnel"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestRenewalLeavesRoomForSeveralTries(t *testing.T) {
	for life, want := range map[time.Duration]time.Duration{
		time.Hour:        48 * time.Minute,
		5 * time.Minute:  4 * time.Minute,
		90 * time.Second: 45 * time.Second, // a fifth would be less than one try that hangs
		10 * time.Second: 5 * time.Second,
	} {
		if got := renewTime(noon, noon.Add(life)).Sub(noon); got != want {
			t.Errorf("a session of %v is renewed after %v, want %v", life, got, want)
		}
	}
}

func TestSessionIsRenewedAtTheRelaysIntervalWhileItCarriesStreams(t *testing.T) {
	hour := term{expires: noon.Add(time.Hour), learnt: noon, asked: noon}
	endless := term{learnt: noon, asked: noon}
	late := hour
	late.notYet = noon.Add(50 * time.Minute)
	for name, test := range map[string]struct {
		term   term
		every  time.Duration
		active bool
		want   time.Duration // after noon; negative: never
	}{
		"streams":                 {hour, 5 * time.Minute, true, 5 * time.Minute},
		"no streams":              {hour, 5 * time.Minute, false, 48 * time.Minute},
		"an older relay":          {hour, 0, true, 48 * time.Minute},
		"an interval of its own":  {hour, 2 * time.Hour, true, 48 * time.Minute},
		"no end":                  {endless, 5 * time.Minute, true, 5 * time.Minute},
		"no end and no interval":  {endless, 0, true, -1},
		"no end and no streams":   {endless, 5 * time.Minute, false, -1},
		"put off after a failure": {late, 5 * time.Minute, true, 50 * time.Minute},
	} {
		at, ok := test.term.due(test.every, test.active)
		if ok != (test.want >= 0) || ok && at.Sub(noon) != test.want {
			t.Errorf("%s: due %v, %v", name, at, ok)
		}
	}
}

func TestFailedRenewalIsTriedAgainInTime(t *testing.T) {
	far := term{expires: noon.Add(time.Hour)}
	var waits []time.Duration
	for range 6 {
		far.fail(noon)
		waits = append(waits, far.notYet.Sub(noon))
	}
	if waits[0] != renewAgain || waits[1] != 2*renewAgain || waits[5] != renewAgainMax {
		t.Errorf("far from the end it waits %v", waits)
	}
	near := term{expires: noon.Add(8 * time.Second), failed: 6}
	if near.fail(noon); near.notYet.Sub(noon) != 2*time.Second {
		t.Errorf("8 s before the end it waits %v", near.notYet.Sub(noon))
	}
}

// clock is a wall clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// renewals is a login whose renewals a test hands out one by one, and the clock by which they come due.
type renewals struct {
	*clock
	asked chan struct{}
	give  chan func(context.Context) (string, error)
	wake  func()
}

func (r renewals) refresh(ctx context.Context) (string, error) {
	select {
	case r.asked <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	select {
	case next := <-r.give:
		return next(ctx)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// next lets time pass until a renewal is tried and says how it goes.
func (r renewals) next(t *testing.T, how func(context.Context) (string, error)) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx := within(t); ; {
		select {
		case <-r.asked:
			r.give <- how
			return
		case <-tick.C:
			r.pass(time.Minute)
			r.wake()
		case <-ctx.Done():
			t.Fatal("no renewal is tried")
		}
	}
}

func gives(text string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token(text), nil }
}

func fails(err error) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return "", err }
}

// renewed is a relay, and sessions to it whose clock and tokens are the test's.
func renewed(t *testing.T, handle func(context.Context, *tunnel.Stream, tunnel.Header)) (*testRelay, *Sessions, renewals, func(id string)) {
	t.Helper()
	relay := newTestRelay(t, handle)
	r := renewals{&clock{now: time.Now().Round(0)}, make(chan struct{}), make(chan func(context.Context) (string, error)), nil}
	relay.life, relay.now = time.Hour, r.time
	cfg := relay.config()
	plain, refresh := cfg.Login, r.refresh
	cfg.Login = func(ctx context.Context) (Login, error) {
		l, err := plain(ctx)
		l.Refresh = refresh
		return l, err
	}
	id := loginIn(&cfg)
	cfg.Now = r.time
	s := run(t, cfg, tunnel.Interactive)
	r.wake = s.wakeRenewal
	return relay, s, r, func(text string) { id.Store(text) }
}

// awaitToken waits until the relay has been shown a token.
func (r *testRelay) awaitToken(text string) {
	r.t.Helper()
	for ctx := within(r.t); ; {
		r.mu.Lock()
		last := r.tokens[len(r.tokens)-1]
		r.mu.Unlock()
		if last == token(text) {
			return
		}
		if ctx.Err() != nil {
			r.t.Fatalf("the relay was never shown %s", text)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestProviderInTroubleCostsNoSessionAndIsAskedAgain(t *testing.T) {
	relay, sessions, provider, _ := renewed(t, echo)
	first, err := sessions.Session(within(t), tunnel.Interactive)
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []string{
		auth.CodeProviderUnreachable, auth.CodeProviderMisbehaves, auth.CodeTokenUnavailable, auth.CodeStoreFailed,
		auth.CodeClientRefused, auth.CodeLoginFailed, auth.CodeLoginRequired, auth.CodeLoginTimeout,
	} {
		provider.next(t, fails(&auth.LoginError{Code: code, Public: "trouble"}))
	}
	provider.next(t, gives("alice-2"))
	relay.awaitToken("alice-2")
	if again, err := sessions.Session(within(t), tunnel.Interactive); err != nil || again != first {
		t.Errorf("another session after the trouble (%v)", err)
	}
	if first.Err() != nil {
		t.Errorf("the session ended: %v", first.Err())
	}
}

func TestStreamsHearNothingOfRenewals(t *testing.T) {
	relay, sessions, provider, _ := renewed(t, echo)
	sessions.SetInterval(5 * time.Minute)
	c := dialLocal(t, forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: sessions}))
	say := func() {
		t.Helper()
		_, _ = io.WriteString(c, "POST")
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
	}
	say()
	for _, text := range []string{"a", "b", "c", "d", "e"} {
		provider.next(t, gives(text))
		say()
		relay.awaitToken(text)
	}
	say()
	if n := len(relay.came); n != 1 {
		t.Errorf("%d sessions, want the first alone", n)
	}
}

func TestRevokedLoginEndsWhatRunsIsToldInEachProtocolAndTheNextLoginGoesOn(t *testing.T) {
	relay, sessions, provider, login := renewed(t, answerOK)
	addr := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: sessions})
	first, err := sessions.Session(within(t), tunnel.Interactive)
	if err != nil {
		t.Fatal(err)
	}
	<-relay.came
	provider.next(t, fails(&auth.LoginError{Code: auth.CodeRefreshRefused, Public: "the identity provider has ended this login"}))
	select {
	case why := <-relay.withdrawn:
		if why != tunnel.CodeLoginRequired {
			t.Errorf("withdrawn for %v", why)
		}
	case <-within(t).Done():
		t.Fatal("the relay does not hear of it")
	}
	select {
	case <-first.Done():
	case <-within(t).Done():
		t.Fatal("the session goes on")
	}
	for path, field := range map[string]string{"/v1/chat/completions": "code", "/v1/messages": "type", "/api/chat": ""} {
		status, body := ask(t, addr, path)
		if status != http.StatusUnauthorized || !strings.Contains(body, "iapctl login") || !json.Valid([]byte(body)) || !strings.Contains(body, field) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if n := len(relay.came); n != 0 {
		t.Errorf("%d sessions were made with the token of a login that is over", n)
	}
	login("2") // somebody has run iapctl login
	for ctx := within(t); ; {
		if status, body := ask(t, addr, "/v1/models"); status == http.StatusOK {
			return
		} else if status != http.StatusUnauthorized || ctx.Err() != nil {
			t.Fatalf("after the login: %d %s", status, body)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestSessionIsCutWhereTheRelayDoesNotKnowOfWithdrawals(t *testing.T) {
	t.Parallel()
	relay, sessions, provider, _ := renewed(t, echo)
	relay.deaf = true
	first, err := sessions.Session(within(t), tunnel.Interactive)
	if err != nil {
		t.Fatal(err)
	}
	provider.next(t, fails(&auth.LoginError{Code: auth.CodeRefreshRefused}))
	select {
	case <-first.Done():
	case <-within(t).Done():
		t.Fatal("the session goes on")
	}
	if _, err := sessions.Session(within(t), tunnel.Interactive); !NeedsLogin(err) {
		t.Errorf("err = %v", err)
	}
}

// A provider that is away when a session is to be made: requests wait for it, those in vain are told that it is not the relay.
func TestRequestsWaitForAProviderThatComesBackAndAreToldOfOneThatDoesNot(t *testing.T) {
	relay := newTestRelay(t, answerOK)
	cfg := relay.config()
	login, _ := cfg.Login(context.Background())
	good := login.Token
	var back atomic.Bool
	tried := make(chan struct{}, 1)
	login.Token = func(ctx context.Context) (string, error) {
		if back.Load() {
			return good(ctx)
		}
		select {
		case tried <- struct{}{}:
		default:
		}
		return "", &auth.LoginError{Code: auth.CodeProviderUnreachable, Public: "the identity provider cannot be reached"}
	}
	cfg.Login = func(context.Context) (Login, error) { return login, nil }
	sessions := run(t, cfg, tunnel.Interactive)
	hasty := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: sessions, Wait: 50 * time.Millisecond})
	patient := forward(t, &Forward{Resource: "phi3", Kind: "model", Sessions: sessions, Wait: patience})
	<-tried
	for ctx := within(t); ; {
		status, body := ask(t, hasty, "/v1/models")
		if status != http.StatusServiceUnavailable {
			t.Fatalf("in vain: %d %s", status, body)
		}
		if strings.Contains(body, "provider_unreachable") {
			break
		} else if ctx.Err() != nil { // the first may have come before the first failure was noted
			t.Fatalf("it is not told that it is the provider: %s", body)
		}
	}
	answered := make(chan int, 1)
	go func() {
		status, _ := ask(t, patient, "/v1/models")
		answered <- status
	}()
	back.Store(true)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("a request that waited for the provider: %d", status)
	}
}

// ask sends one request on a connection of its own.
func ask(t *testing.T, addr, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), http.MethodGet, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

// answerOK serves one request with an empty answer.
func answerOK(_ context.Context, st *tunnel.Stream, _ tunnel.Header) {
	if st.WriteReply(tunnel.Reply{OK: true}, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")) == nil {
		_ = st.CloseWrite()
		_, _ = io.Copy(io.Discard, st)
	}
}
