package relay

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/admin"
	"iap/internal/state"
	"iap/tunnel"
)

// brokenStore refuses every deletion while it is broken.
type brokenStore struct {
	state.Store
	broken atomic.Bool
}

func (b *brokenStore) Delete(ctx context.Context, key string, version int64) error {
	if b.broken.Load() {
		return errors.New("the disk is full")
	}
	return b.Store.Delete(ctx, key, version)
}

func TestKeyRevokedWithoutADatabaseCanBeRevokedAgain(t *testing.T) {
	s := prepareSystem(t, keyGrants)
	var store *brokenStore
	s.adjust = func(r *Relay) { store = &brokenStore{Store: r.store}; r.store = store }
	s.start()
	s.startAgent(served{"phi3", "model", newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") }).URL})
	c := api(t, s.user(nil).open(tunnel.Interactive))
	mine, operators := s.newKey(c, program("mine")), s.newKey(c, program("operators"))
	store.broken.Store(true)
	if _, err := c.RevokeKey(within(t), "mine"); err == nil {
		t.Error("a revocation that a restart undoes was called done")
	}
	if s.admin.AdminRevokeKey(within(t), operators.ID) == nil {
		t.Error("a revocation that a restart undoes was called done")
	}
	for _, k := range []admin.KeyCreated{mine, operators} {
		if r, text := s.chatWith(k.Text); r.StatusCode != 401 || !strings.Contains(text, "key_invalid") {
			t.Errorf("%s %s", r.Status, text) // what is in memory holds at once
		}
	}
	if _, err := c.CreateKey(within(t), program("mine")); err != nil {
		t.Errorf("a revoked key keeps its name: %v", err)
	}
	store.broken.Store(false)
	_, err := c.RevokeKey(within(t), mine.ID)
	must(t, err)
	must(t, s.admin.AdminRevokeKey(within(t), operators.ID))
	must(t, s.end())
	s.start()
	for _, k := range []admin.KeyCreated{mine, operators} {
		if r, text := s.chatWith(k.Text); r.StatusCode != 401 || !strings.Contains(text, "key_invalid") {
			t.Errorf("after a restart: %s %s", r.Status, text)
		}
	}
}

// TestOlderTokenDoesNotGiveAKeyWhatANewerOneTook has a session that was opened before its owner left the group.
func TestOlderTokenDoesNotGiveAKeyWhatANewerOneTook(t *testing.T) {
	s, _ := newDoor(t, keyGrants)
	now := time.Now().Unix()
	before := s.user(map[string]any{"iat": now - 60, "auth_time": now - 90})
	old := before.token()
	session, err := before.present(tunnel.Interactive, old)
	must(t, err)
	k := s.newKey(api(t, session), program("first"))
	s.user(map[string]any{"groups": []string{"others"}, "iat": now - 30, "auth_time": now - 90}).open(tunnel.Interactive)
	if r, text := s.chatWith(k.Text); r.StatusCode != http.StatusForbidden {
		t.Fatalf("%s %s", r.Status, text)
	}
	again, err := before.present(tunnel.Interactive, old)
	must(t, err)
	second := s.newKey(api(t, again), program("second")) // within the session's own rights, which last as long as it does
	for _, key := range []string{k.Text, second.Text} {
		if r, text := s.chatWith(key); r.StatusCode != http.StatusForbidden {
			t.Errorf("an older token brought a right back: %s %s", r.Status, text)
		}
	}
	must(t, s.end())
	s.start()
	_, err = before.present(tunnel.Interactive, old)
	must(t, err)
	eventually(t, "phi3 is offered", func() bool { n, _ := s.relay.agents.online("phi3"); return n > 0 })
	if r, text := s.chatWith(k.Text); r.StatusCode != http.StatusForbidden {
		t.Errorf("after a restart: %s %s", r.Status, text)
	}
	s.user(map[string]any{"iat": now, "auth_time": now - 90}).open(tunnel.Interactive) // back in the group
	if r, text := s.chatWith(k.Text); r.StatusCode != http.StatusOK {
		t.Errorf("%s %s", r.Status, text)
	}
}

func TestKeysThatAKilledLoginMadeEndWithIt(t *testing.T) {
	s, _ := newDoor(t, keyGrants)
	stolen := s.user(nil).open(tunnel.Interactive)
	k := s.newKey(api(t, stolen), program("thiefs"))
	mine := s.user(nil).open(tunnel.Interactive)
	kept := s.newKey(api(t, mine), program("kept"))
	must(t, errorOf(s.admin.KillSession(within(t), stolen.ID(), "")))
	check := func() {
		t.Helper()
		if r, text := s.chatWith(k.Text); r.StatusCode != 401 {
			t.Errorf("%s %s", r.Status, text)
		}
		if r, text := s.chatWith(kept.Text); r.StatusCode != 200 {
			t.Errorf("%s %s", r.Status, text)
		}
	}
	check()
	must(t, s.end())
	s.start()
	eventually(t, "phi3 is offered", func() bool { n, _ := s.relay.agents.online("phi3"); return n > 0 })
	check()
}

func TestKeyContinuesNoConversationOfItsOwners(t *testing.T) {
	s := newSystem(t, strings.ReplaceAll(keyGrants, "embed]", "session]"))
	s.startAgent(served{"phi3", "model", newKeeper(t, "a").URL})
	session := s.user(nil).open(tunnel.Interactive)
	q := program("narrow")
	q.Actions = []string{"chat", "session"}
	k := s.newKey(api(t, session), q)
	q.Name = "other"
	other := s.newKey(api(t, session), q)
	eventually(t, "phi3 is known for a vLLM", func() bool { _, a := s.relay.agents.online("phi3"); return a.Server == "vllm" })
	c := client(t, session, tunnel.Header{Resource: "phi3"})
	status, owners, body := respond(t, c, "")
	if status != 200 || owners == "" {
		t.Fatalf("%d %s", status, body)
	}
	ask := func(key, previous string) (int, string) {
		t.Helper()
		r, text := s.postKey("X-Api-Key: "+key, "/r/phi3/v1/responses", `{"model":"phi3","input":"x","previous_response_id":"`+previous+`"}`)
		return r.StatusCode, text
	}
	_, text := s.postKey("X-Api-Key: "+k.Text, "/r/phi3/v1/responses", `{"model":"phi3","input":"x"}`)
	_, rest, _ := strings.Cut(text, `"id":"`)
	own, _, _ := strings.Cut(rest, `"`)
	if status, text := ask(k.Text, own); own == "" || status != 200 {
		t.Errorf("its own: %d %s", status, text)
	}
	if status, text := ask(k.Text, owners); status < 400 {
		t.Errorf("its owner's: %d %s", status, text)
	}
	if status, text := ask(other.Text, own); status < 400 {
		t.Errorf("another key's: %d %s", status, text)
	}
	if r, text := s.ask("/r/phi3/v1/responses/"+owners, "X-Api-Key: "+k.Text); r.StatusCode < 400 {
		t.Errorf("its owner's: %s %s", r.Status, text)
	}
}

func TestKeyIsToldNothingOfResourcesItIsNotFor(t *testing.T) {
	both := strings.Replace(keyGrants, "resources: [phi3]", "resources: [phi3, other]", 1)
	s := newSystem(t, both)
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s.startAgent(served{"phi3", "model", m.URL}, served{"other", "model", m.URL})
	k := s.newKey(api(t, s.user(nil).open(tunnel.Interactive)), program("narrow"))
	for _, path := range []string{"/v1/chat/completions", "/api/chat", "/slots", "/api/tags", "/nothing"} {
		_, there := s.postKey("X-Api-Key: "+k.Text, "/r/other"+path, chatBody("phi3", false))
		_, nowhere := s.postKey("X-Api-Key: "+k.Text, "/r/absent"+path, chatBody("phi3", false))
		if there != strings.ReplaceAll(nowhere, "absent", "other") {
			t.Errorf("%s: %s\n%s", path, there, nowhere)
		}
	}
}
