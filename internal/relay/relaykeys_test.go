package relay

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/agent"
	"iap/internal/audit"
	"iap/internal/relaykey"
	"iap/tunnel"
)

// TestRelayChangesItsKeyAndIsStillBelieved walks a rotation: announced to who is there, in force when its time comes,
// also across a restart; who was away follows the chain, and a token from before enrols.
func TestRelayChangesItsKeyAndIsStillBelieved(t *testing.T) {
	clock := &shiftedClock{}
	s := startedAt(t, clock)
	there := s.startAgent(served{"there", "tcp", echo(t)})
	away := s.startAgent(served{"away", "tcp", echo(t)})
	must(t, away.stop())
	token := s.joinToken(false, served{"late", "tcp", ""})
	first := s.relay.ring.Public()
	plan, err := s.admin.RotateRelay(within(t), admin.NewRelayKey{Overlap: "5m"})
	must(t, err)
	if _, err := s.admin.RotateRelay(within(t), admin.NewRelayKey{}); adminCode(err) != "rotation_under_way" {
		t.Errorf("a second rotation: %v", err)
	}
	pinFile := filepath.Join(filepath.Dir(there.file), "agent.pin")
	eventually(t, "the agent has heard of it", func() bool { _, err := os.Stat(pinFile); return err == nil })
	if !s.relay.ring.Public().Equal(first) {
		t.Error("the next key is in force before its time")
	}
	clock.advance(5*time.Minute + time.Second)
	must(t, s.end())
	s.start()
	eventually(t, "the next key is in force", func() bool { return relaykey.ID(s.relay.ring.Public()) == plan.Next && plan.Key == relaykey.ID(first) })
	s.awaitOnline(there.id, 2)
	must(t, there.stop())
	_, err = s.admin.RotateRelay(within(t), admin.NewRelayKey{Overlap: "0s"})
	must(t, err)
	s.runAgent(away.file) // missed two rotations
	s.awaitOnline(away.id, 2)
	s.runAgent(there.file)
	s.awaitOnline(there.id, 2)
	joined, err := agent.Join(within(t), agent.JoinOptions{
		Token: token.Token, Config: filepath.Join(s.dir, "late", "agent.yaml"), CAFile: s.caFile, Upstreams: map[string]string{"late": echo(t)},
	})
	must(t, err)
	s.runAgent(joined.Config)
	s.awaitOnline(joined.AgentID, 2)
	s.awaitEvent("the new key", func(e audit.Event) bool { return e.Reason == "key_activated" && e.Detail["key"] == plan.Next })
	for _, bad := range []string{"x", "-1s", "721h"} {
		if _, err := s.admin.RotateRelay(within(t), admin.NewRelayKey{Overlap: bad}); adminCode(err) != "bad_request" {
			t.Errorf("overlap %q: %v", bad, err)
		}
	}
}

// TestRestoredRelayKeyIsRefused: the data folder of before the rotation.
func TestRestoredRelayKeyIsRefused(t *testing.T) {
	s := newSystem(t, allowAll)
	a := s.startAgent(served{"db", "tcp", echo(t)})
	old, err := os.ReadFile(filepath.Join(s.cfg.Data, "relay.key"))
	must(t, err)
	_, err = s.admin.RotateRelay(within(t), admin.NewRelayKey{Overlap: "0s"})
	must(t, err)
	must(t, a.stop())
	again := s.runAgent(a.file)
	s.awaitOnline(a.id, 2)
	must(t, again.stop())
	must(t, s.end())
	must(t, os.WriteFile(filepath.Join(s.cfg.Data, "relay.key"), old, 0o600))
	must(t, os.Remove(filepath.Join(s.cfg.Data, "relay.key.chain")))
	s.start()
	cfg, err := agent.LoadConfig(a.file)
	must(t, err)
	if _, err := agent.Rotate(within(t), a.file); !errors.Is(err, relaykey.ErrRetired) || tunnel.CodeOf(err) != tunnel.CodeRelayUntrusted {
		t.Errorf("a relay with an old key: %v", err)
	}
	key, err := auth.LoadKey(cfg.KeyFile)
	must(t, err)
	if rec := s.agentRecord(a.id); !ed25519.PublicKey(rec.PublicKey).Equal(key.Public()) {
		t.Error("the agent's key changed at a relay that it does not believe")
	}
}
