package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"iap/internal/config"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// doorChats has a chat run at the front door with each credential, and returns how each ends. All answers have begun by then: one
// that is cut before its head has left is a plain refusal.
func (s *system) doorChats(credentials ...string) []<-chan string {
	s.t.Helper()
	var ends []<-chan string
	body := chatBody("phi3", true)
	for _, one := range credentials {
		r, closing, err := s.beginAtDoor(fmt.Sprintf("POST /r/phi3/v1/chat/completions HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.name, one, len(body), body))
		must(s.t, err)
		if r.StatusCode != http.StatusOK {
			s.t.Fatalf("the chat was answered %s", r.Status)
		}
		end := make(chan string, 1)
		go func() {
			defer closing()
			text, err := io.ReadAll(r.Body)
			end <- fmt.Sprintf("%s, %v", text, err)
		}()
		ends = append(ends, end)
	}
	return ends
}

// doorFixture is a relay with a model that goes on and on, a bearer's token and a program's key.
func doorFixture(t *testing.T, clock *shiftedClock) (s *system, chat *slowChat, session *tunnel.Session, bearer, key string) {
	t.Helper()
	chat = newSlowChat()
	m := newModelServer(t, chat.serve)
	s = prepareSystem(t, keyGrants)
	s.now = clock.now
	s.start()
	s.startAgent(served{"phi3", "model", m.URL})
	session = s.user(nil).open(tunnel.Interactive)
	created := s.newKey(api(t, session), program("editor"))
	return s, chat, session, s.bearer(map[string]any{"exp": time.Now().Add(time.Hour).Unix()}), "Authorization: Bearer " + created.Text
}

func wantEnd(t *testing.T, end <-chan string, code string) {
	t.Helper()
	select {
	case got := <-end:
		if !strings.Contains(got, `"code":"`+code+`"`) || strings.HasSuffix(got, "<nil>") {
			t.Errorf("the answer ended with %s, want %s", got, code)
		}
	case <-within(t).Done():
		t.Errorf("the answer goes on, want %s", code)
	}
}

// TestAnswersAtTheDoorEndWithTheirCredentialThoughNoTimerFired sets the relay's clock past the ends of a token and a key, as a
// machine that slept finds it: timers stand still meanwhile.
func TestAnswersAtTheDoorEndWithTheirCredentialThoughNoTimerFired(t *testing.T) {
	clock := &shiftedClock{}
	s, chat, _, bearer, key := doorFixture(t, clock)
	ends := s.doorChats(bearer, key)
	for range ends {
		await(t, chat.begun, "an answer begins")
	}
	clock.advance(2 * time.Hour)
	wantEnd(t, ends[0], "token_expired")
	clock.advance(30 * 24 * time.Hour)
	wantEnd(t, ends[1], "key_expired")
}

// TestWithoutTheStateNothingRunsOnWhateverItRestsOn: after five minutes without the database nobody knows who was revoked, which
// is as true of tokens and keys at the front door as of sessions.
func TestWithoutTheStateNothingRunsOnWhateverItRestsOn(t *testing.T) {
	clock := &shiftedClock{}
	s, chat, session, bearer, key := doorFixture(t, clock)
	running := startChats(t, session, 1)
	ends := s.doorChats(bearer, key)
	for range 3 {
		await(t, chat.begun, "an answer begins")
	}
	seen := s.relay.now()
	must(t, s.relay.store.Close())
	s.spoilt = true
	clock.advance(stateLimit - time.Minute)
	if s.relay.lookAtState(seen); session.Err() != nil || s.relay.stateLost.Load() {
		t.Errorf("ended before its time: %v", session.Err())
	}
	clock.advance(time.Minute)
	s.relay.lookAtState(seen)
	for _, end := range ends {
		wantEnd(t, end, "state_unavailable")
	}
	if text, err := io.ReadAll(running[0]); err == nil || !strings.Contains(string(text), `"code":"state_unavailable"`) {
		t.Errorf("the session's answer ended with %q, %v", text, err)
	}
	await(t, session.Done(), "the session ends")
	for _, header := range []string{bearer, key} {
		r, body := s.ask("/r/phi3/v1/models", header)
		if r.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "state_unavailable") || r.Header.Get("Retry-After") == "" {
			t.Errorf("a new request: %s %s", r.Status, body)
		}
	}
}

// TestStateThatComesBackLetsTheDoorServeAgain also counts the time that the machine slept.
func TestStateThatComesBackLetsTheDoorServeAgain(t *testing.T) {
	s, _ := newDoor(t, allowAll)
	s.relay.stateLost.Store(true)
	if r, body := s.ask("/r/phi3/v1/models", s.bearer(nil)); r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("while it is away: %s %s", r.Status, body)
	}
	s.relay.lookAtState(s.relay.now().Add(-time.Hour))
	if r, body := s.ask("/r/phi3/v1/models", s.bearer(nil)); r.StatusCode != http.StatusOK {
		t.Errorf("when it is back: %s %s", r.Status, body)
	}
}

// TestTCPStreamEndsWithItsDecisionThoughItsTimerStoodStill does for a decision's end what a sleeping machine does.
func TestTCPStreamEndsWithItsDecisionThoughItsTimerStoodStill(t *testing.T) {
	clock := &shiftedClock{}
	s := prepareSystem(t, strings.Replace(aliceAndBob, "    actions:", "    require: {max_auth_age: 1h}\n    actions:", 1), func(c *settings.Config) {
		setMaxAge(c, 10*time.Hour)
		c.Sessions.MaxTokenAge = config.Duration(10 * time.Hour)
	})
	s.now = clock.now
	s.start()
	s.startAgent(served{"db", "tcp", echo(t)})
	u := s.user(nil)
	session, err := u.present(tunnel.Bulk, u.issued(0))
	must(t, err)
	t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	st := mustOpen(t, session, "db")
	ping(t, st)
	clock.advance(2 * time.Hour)
	stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
	defer stop()
	if _, err := io.ReadAll(st); tunnel.CodeOf(err) != tunnel.CodeLoginRequired {
		t.Errorf("the stream ended with %v", err)
	}
	if session.Err() != nil {
		t.Errorf("the session ended with it: %v", session.Err())
	}
}
