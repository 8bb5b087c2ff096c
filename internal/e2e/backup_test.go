package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"filippo.io/age"

	"iap/internal/audit"
)

// TestRelayIsRestoredFromABackupTakenUnderLoad: agents come back by themselves, who was revoked stays out, and nothing that
// was good once is good again.
func TestRelayIsRestoredFromABackupTakenUnderLoad(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{config: withFrontDoor})
	up, _ := startDemo(t, 2000)
	a := s.startAgent(map[string]string{"phi3=model": up.url})
	alice := s.loggedIn("alice")
	connection := alice.connect("phi3")
	web := newCaller(t, connection.url())
	s.admin(nil, "principals", "revoke", "--yes", "dev/bob")
	token := s.joinToken("late", "phi3=model")
	key := filepath.Join(s.dir, "key.txt")
	pair, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	s.write(key, "# created by a test\n"+pair.String()+"\n")

	file := filepath.Join(s.dir, "relay.backup")
	command := func(args ...string) result { return run(t, baseEnv(s.dir), "iap-relay", args...) }
	var stop atomic.Bool
	var load sync.WaitGroup
	for range 3 {
		load.Go(func() {
			for !stop.Load() {
				if _, err := web.tryAsk("POST", "/v1/chat/completions", chatBody("demo", "during the backup", true, 8)); err != nil {
					t.Errorf("the backup disturbs: %v", err)
					return
				}
			}
		})
	}
	eventually(t, "there is load", func() bool { return up.count("during the backup") > 5 })
	if got := command("backup", "--config", s.config, "--out", file); got.code != 2 || !strings.Contains(got.errOut, "--recipient") {
		t.Errorf("a backup for everybody: %d %s", got.code, got.errOut)
	}
	if got := command("backup", "--config", s.config, "--out", file, "--recipient", pair.Recipient().String()); got.code != 0 || !strings.Contains(got.out, "Holds") {
		t.Fatalf("backup: %d %s%s", got.code, got.out, got.errOut)
	}
	if got := command("backup", "--config", s.config, "--out", file, "--recipient", pair.Recipient().String()); got.code != 1 || !strings.Contains(got.errOut, "there already") {
		t.Errorf("a second backup of the same name: %d %s", got.code, got.errOut)
	}
	stop.Store(true)
	load.Wait()
	if got := command("backup", "check", file, "--identity", key); got.code != 0 || !strings.Contains(got.out, "Whole") {
		t.Errorf("backup check: %d %s%s", got.code, got.out, got.errOut)
	}
	if data, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(data), "age-encryption.org/v1") {
		t.Errorf("the backup is not sealed: %v", err)
	}
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "after the backup", false, 4)); got.status != http.StatusOK {
		t.Errorf("after the backup: %+v", got)
	}
	s.relay.kill()

	data := filepath.Join(s.dir, "restored")
	if got := command("restore", file, "--data", data); got.code != 2 || !strings.Contains(got.errOut, "--identity") {
		t.Errorf("restore without a key: %d %s", got.code, got.errOut)
	}
	got := command("restore", file, "--data", data, "--identity", key)
	if got.code != 0 || !strings.Contains(got.out, "void now: 1 join token") || !strings.Contains(got.out, "verifies") || !strings.Contains(got.out, "REPEAT") {
		t.Fatalf("restore: %d %s%s", got.code, got.out, got.errOut)
	}
	text, err := os.ReadFile(filepath.Join(data, "config", "relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	old := filepath.Join(filepath.Dir(s.config), "data")
	s.write(s.config, strings.ReplaceAll(string(text), old, data))
	s.startRelay()
	eventually(t, "the agent has come back by itself", func() bool {
		all := s.agents()
		return len(all) == 1 && all[0].Online
	})
	if check := run(t, a.env, "iap-agent", "check", "--config", a.config); check.code != 0 {
		t.Errorf("the agent does not believe the restored relay: %d %s%s", check.code, check.out, check.errOut)
	}
	if late := run(t, a.env, "iap-agent", "join", token, "--ca-file", s.ca, "--config", filepath.Join(s.dir, "late", "agent.yaml"), "--upstream", "phi3="+up.url); late.code == 0 {
		t.Error("a join token from before the backup is good again")
	}
	if status, _ := s.bearer(s.https, "bob", chatBody("demo", "It is me", false, 4)); status == http.StatusOK {
		t.Error("who was revoked is let in")
	}
	alice.login()
	eventually(t, "a new login is served", func() bool {
		got, err := web.tryAsk("POST", "/v1/chat/completions", chatBody("demo", "restored", false, 4))
		return err == nil && got.status == http.StatusOK
	})
	for e, err := range audit.Read(filepath.Join(data, "audit")) {
		if err != nil || e.Seq == 1 && e.Reason != audit.ReasonSegmentStart {
			t.Fatalf("the new log begins with %+v, %v", e, err)
		}
		break
	}
}
