package agent

import (
	"context"
	"crypto/ed25519"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"iap/tunnel"
)

// TestARelayDoesNotWearOutTheAgentsKeys: one that was taken over asks for a new key again and again, and gets one an hour. What
// somebody asks for on the agent's own machine is not held to it.
func TestARelayDoesNotWearOutTheAgentsKeys(t *testing.T) {
	up := newUpstream(t)
	relay := startHostileRelay(t)
	var taken atomic.Int64
	relay.rotate = func(context.Context, *tunnel.Session, ed25519.PublicKey) error {
		taken.Add(1)
		return nil
	}
	var ahead atomic.Int64
	_, s := relay.runAs("  - {name: phi3, kind: model, upstream: \""+up.URL+"\"}\n", func(a *Agent) {
		a.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	must(t, s.AskRotation(within(t)))
	refusedFor := func(why string) {
		t.Helper()
		if err := s.AskRotation(within(t)); tunnel.CodeOf(err) != tunnel.CodeOverloaded || !strings.Contains(err.Error(), "once an hour") {
			t.Errorf("%s: %v", why, err)
		}
	}
	for range 3 {
		refusedFor("at once")
	}
	ahead.Store(int64(askedEvery - time.Minute))
	refusedFor("within the hour")
	if n := taken.Load(); n != 1 {
		t.Errorf("the key was changed %d times", n)
	}
}

// TestARelayThatTakesNoKeyWearsOutNoneEither: each try that it refuses is made with one and the same next key.
func TestARelayThatTakesNoKeyWearsOutNoneEither(t *testing.T) {
	up := newUpstream(t)
	relay := startHostileRelay(t)
	shown := make(chan string, 8)
	relay.rotate = func(_ context.Context, _ *tunnel.Session, next ed25519.PublicKey) error {
		shown <- string(next)
		return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: "no"}
	}
	var ahead atomic.Int64
	a, s := relay.runAs("  - {name: phi3, kind: model, upstream: \""+up.URL+"\"}\n", func(a *Agent) {
		a.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	before := a.keys().Current
	for i := range 3 {
		if err := s.AskRotation(within(t)); tunnel.CodeOf(err) != tunnel.CodeRefused {
			t.Errorf("try %d: %v", i, err)
		}
		if err := s.AskRotation(within(t)); tunnel.CodeOf(err) != tunnel.CodeOverloaded {
			t.Errorf("again at once after try %d: %v", i, err)
		}
		ahead.Add(int64(askedAgain))
	}
	close(shown)
	first := <-shown
	for next := range shown {
		if next != first {
			t.Error("a refused try made another key")
		}
	}
	if !a.keys().Current.Equal(before) {
		t.Error("the agent lost the key that the relay believes")
	}
}
