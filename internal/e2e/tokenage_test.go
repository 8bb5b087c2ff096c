package e2e

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
)

// stale puts a token in the place of the stored one that the provider issued 23 hours ago and that is good for another hour, as
// some providers give them: a laptop that was closed overnight has one.
func (u *user) stale() (file string) {
	u.t.Helper()
	err := filepath.WalkDir(u.system.dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".credentials.json") {
			file = path
		}
		return err
	})
	if err != nil || file == "" {
		u.t.Fatalf("no credentials found: %v", err)
	}
	stored := u.stored(file)
	now := time.Now()
	tokens := stored["tokens"].(map[string]any)
	tokens["token"] = u.system.provider.Mint(map[string]any{"iat": now.Add(-23 * time.Hour).Unix(), "exp": now.Add(time.Hour).Unix(), "auth_time": now.Add(-23 * time.Hour).Unix()})
	tokens["expires"] = now.Add(time.Hour)
	data, err := json.Marshal(stored)
	if err != nil {
		u.t.Fatal(err)
	}
	u.system.write(file, string(data))
	return file
}

func (u *user) stored(file string) (c map[string]any) {
	u.t.Helper()
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	return c
}

// TestStoredTokenThatIsTooOldForTheRelayIsRenewed: the provider says that the token is good for another hour, the relay takes none
// older than its max_token_age. A person has nothing to do with that.
func TestStoredTokenThatIsTooOldForTheRelayIsRenewed(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 5)
	s.startAgent(map[string]string{"phi3=model": up.url})
	u := s.loggedIn("alice")
	file := u.stale()
	before := u.stored(file)["tokens"].(map[string]any)["token"]
	var who struct{ Principal string }
	u.ok(&who, "whoami")
	if after := u.stored(file)["tokens"].(map[string]any)["token"]; who.Principal != "dev/alice" || after == before {
		t.Errorf("%+v; the old token is stored still: %v", who, after == before)
	}
	s.awaitRecord("the old token was refused for its age", func(e audit.Event) bool { return e.Kind == audit.KindLogin && e.Reason == "token_too_old" })

	u.stale()
	web := newCaller(t, u.connect("phi3").url())
	if got := web.ask("GET", "/v1/models", ""); got.status != 200 {
		t.Errorf("connect with an old token: %+v", got)
	}
	u.stale()
	if got := u.run("doctor"); strings.Contains(got.out+got.errOut, "token_too_old") || got.code != 0 {
		t.Errorf("doctor: %d %s %s", got.code, got.out, got.errOut)
	}
}

// TestIapctlFollowsTheRelayThroughChangesOfItsKey: connected through one change, and away for two. A relay that comes back with a
// key that nobody named is refused.
func TestIapctlFollowsTheRelayThroughChangesOfItsKey(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 5)
	s.startAgent(map[string]string{"phi3=model": up.url})
	u, late := s.loggedIn("alice"), s.loggedIn("alice")
	c := u.connect("phi3")
	web := newCaller(t, c.url())
	asks := func(when string) {
		t.Helper()
		eventually(t, when, func() bool { return web.ask("GET", "/v1/models", "").status == 200 })
	}
	asks("before")
	rotate := func() {
		var plan struct{ Key, Next string }
		u.ok(&plan, "relay", "rotate", "--overlap", "0s", "--yes")
		s.awaitRecord("the next key is in force", func(e audit.Event) bool { return e.Reason == "key_activated" && e.Detail["key"] == plan.Next })
		if plan.Key == plan.Next || plan.Next == "" {
			t.Errorf("%+v", plan)
		}
	}
	rotate()
	asks("on the session from before")
	s.relay.stop()
	s.startRelay()
	asks("on a session with the next key")
	u.ok(nil, "whoami") // another process of the same profile
	rotate()
	late.ok(nil, "whoami") // away for both
	u.ok(nil, "whoami")
	if text := c.err.text(); strings.Contains(text, "relay_changed") {
		t.Errorf("the user was troubled: %s", text)
	}

	s.relay.stop()
	keys, err := filepath.Glob(filepath.Join(filepath.Dir(s.config), "data", "relay.key*"))
	if err != nil || len(keys) < 2 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	for _, key := range keys {
		if err := os.Remove(key); err != nil {
			t.Fatal(err)
		}
	}
	s.startRelay()
	late.fails(1, "relay_changed", "whoami")
}
