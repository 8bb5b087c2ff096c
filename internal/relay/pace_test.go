package relay

import (
	"testing"
	"time"

	"iap/internal/relay/settings"
	"iap/tunnel"
)

func TestRefreshesOfASessionArePaced(t *testing.T) {
	s, now := new(session), time.Unix(1_000_000, 0)
	for range refreshBurst {
		if !s.mayRefresh(now) {
			t.Fatal("refused within the burst")
		}
	}
	if s.mayRefresh(now) {
		t.Error("a refresh beyond the burst was let through")
	}
	if !s.mayRefresh(now.Add(settings.MinRefresh)) || s.mayRefresh(now.Add(settings.MinRefresh)) {
		t.Error("one pause gives one refresh")
	}
}

func TestAgentSaysNothingThatIsNotItsToSay(t *testing.T) {
	for _, word := range []string{"client_gone", "completed", "revoked", "session_expired", "policy_changed", "canceled", "none", "", "made up"} {
		if got := agentsCode(tunnel.Reply{Code: word}); got != tunnel.CodeRefused {
			t.Errorf("%q became %s", word, got)
		}
	}
	if got := agentsCode(tunnel.Reply{Code: "upstream_unreachable"}); got != tunnel.CodeUpstreamUnreachable {
		t.Errorf("got %s", got)
	}
}
