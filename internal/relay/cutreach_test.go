package relay

import (
	"context"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"iap/tunnel"
)

// TestRevocationReachesRequestsThatWaitInAnAgentsQueue: they end with the reason, by session and by token, give their place back,
// and the model never sees them. Who was before them goes on.
func TestRevocationReachesRequestsThatWaitInAnAgentsQueue(t *testing.T) {
	slow := newSlowChat()
	up := httptest.NewServer(ollama(slow.serve))
	t.Cleanup(up.Close)
	s := newSystem(t, aliceAndBob)
	a := s.startAs("ollama", up.URL, "capacity: 1", "queue: {max: 2, per_principal: 2}")
	bob := s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive)
	before := startChats(t, bob, 1)
	await(t, slow.begun, "bob's answer begins")

	alice := s.user(nil).open(tunnel.Interactive)
	queued := make(chan string, 1)
	go func() {
		r, err := postChat(client(t, alice, tunnel.Header{Resource: "phi3"}), chatBody("phi3", true))
		if err != nil {
			queued <- err.Error()
			return
		}
		defer r.Body.Close()
		text, _ := io.ReadAll(r.Body) // cut, so that it looks like no finished answer
		queued <- string(text)
	}()
	door := s.doorChats(s.bearer(nil))
	waiting := func() (n int) {
		s.relay.agents.mu.Lock()
		defer s.relay.agents.mu.Unlock()
		_, n = s.relay.agents.members[a.id].loads["phi3"].Reported()
		return n
	}
	eventually(t, "both wait", func() bool { return waiting() == 2 })
	must(t, errorOf(s.admin.RevokePrincipal(within(t), "corp/alice", "")))
	select {
	case got := <-queued:
		if !strings.Contains(got, `"code":"revoked"`) {
			t.Errorf("in the session: %s", got)
		}
	case <-within(t).Done():
		t.Error("a request of a session waits on")
	}
	select {
	case got := <-door[0]:
		if !strings.Contains(got, `"code":"revoked"`) {
			t.Errorf("at the front door: %s", got)
		}
	case <-within(t).Done():
		t.Error("a request at the front door waits on")
	}
	eventually(t, "their places are free", func() bool { return waiting() == 0 })
	close(slow.release)
	if text, err := io.ReadAll(before[0]); err != nil || !strings.HasSuffix(string(text), "[DONE]\n\n") {
		t.Errorf("bob's answer ended with %q, %v", text, err)
	}
	if n := len(slow.begun); n != 0 {
		t.Errorf("the model saw %d requests of a revoked principal", n)
	}
}

// TestAVerbIsRefusedOnASessionWhoseTimeIsOver though its timer has not fired yet: an administrator's call asks before each act, and
// a tail again and again.
func TestAVerbIsRefusedOnASessionWhoseTimeIsOver(t *testing.T) {
	clock := &shiftedClock{}
	s := prepareSystem(t, desks)
	s.now = clock.now
	s.start()
	_, open := s.as("root")
	live := s.relay.sessions.await(within(t), open.ID())
	// The session as the gate sees it, which nobody has come to end yet.
	asleep := newSession(context.Background(), live.tunnel, live.identity(), live.source)
	defer asleep.end(nil)
	gate := &adminGate{s.relay, asleep}
	if err := gate.May(within(t), "iap:sessions.ls"); err != nil {
		t.Errorf("in time: %v", err)
	}
	clock.advance(2 * time.Hour)
	if err := gate.May(within(t), "iap:sessions.ls"); refusalOf(err) != "session_ended" {
		t.Errorf("after its end: %v", err)
	}
}
