package relay

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// keyGrants let engineers do some things with keys and some without.
const keyGrants = `version: 1
grants:
  - name: with-keys
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    actions: [chat, list-models, embed]
    keys: {max_ttl: 90d}
  - name: without-keys
    to: ["group:corp/ml-eng"]
    resources: [phi3, secret]
    actions: [chat, tokenize]
admins: ["user:corp/root"]
`

// program is what a key is asked for that the tests use most.
func program(name string) admin.NewKey {
	return admin.NewKey{Name: name, Resources: []string{"phi3"}, Actions: []string{"chat", "list-models"}, TTL: int64((24 * time.Hour).Seconds())}
}

func (s *system) newKey(c *admin.Client, q admin.NewKey) admin.KeyCreated {
	s.t.Helper()
	k, err := c.CreateKey(within(s.t), q)
	must(s.t, err)
	return k
}

// postKey sends a chat with a key.
func (s *system) postKey(header, path, body string) (*http.Response, string) {
	s.t.Helper()
	r, text, err := s.door(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, s.name, header, len(body), body))
	must(s.t, err)
	return r, text
}

func (s *system) chatWith(key string) (*http.Response, string) {
	return s.postKey("Authorization: Bearer "+key, "/r/phi3/v1/chat/completions", chatBody("phi3", false))
}

func TestKeyDoesWhatItsListAndItsOwnerMayDo(t *testing.T) {
	s, m := newDoor(t, keyGrants)
	c := api(t, s.user(nil).open(tunnel.Interactive))
	k := s.newKey(c, program("openwebui"))
	if k.URL != "https://"+s.name+"/r/" || k.Owner != "corp/alice" || k.State != "good" {
		t.Errorf("%+v", k)
	}
	for _, header := range []string{"Authorization: Bearer " + k.Text, "X-Api-Key: " + k.Text, "Authorization: Bearer " + k.Text + "\r\nX-Api-Key: " + k.Text} {
		r, text := s.postKey(header, "/r/phi3/v1/chat/completions", chatBody("phi3", false))
		if r.StatusCode != 200 || !strings.Contains(text, `"corp/alice"`) {
			t.Errorf("%s: %s %s", header[:14], r.Status, text) // the upstream is told the owner and sees no credential
		}
	}
	e := s.awaitEvent("the decision", func(e audit.Event) bool { return e.Kind == audit.KindDecision && e.Via == "key" })
	if e.Decision != audit.Allow || e.Principal != "corp/alice" || e.Detail["key"] != k.ID || e.Grant != "with-keys" {
		t.Errorf("%+v", e)
	}
	before := m.hits.Load()
	for name, refused := range map[string]struct{ path, body, reason string }{
		"an action of the owner's alone":   {"/r/phi3/v1/embeddings", `{"model":"phi3","input":"x"}`, "key_scope"},
		"a resource of the owner's alone":  {"/r/secret/v1/chat/completions", chatBody("phi3", false), "key_scope"},
		"a resource of nobody's":           {"/r/absent/v1/chat/completions", chatBody("phi3", false), "key_scope"},
		"an action of a grant without key": {"/r/phi3/tokenize", `{"content":"x"}`, "key_scope"},
	} {
		r, text := s.postKey("X-Api-Key: "+k.Text, refused.path, refused.body)
		if r.StatusCode < 400 || !strings.Contains(text, refused.reason) && r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s %s", name, r.Status, text)
		}
	}
	if n := m.hits.Load(); n != before {
		t.Errorf("%d requests went upstream", n-before)
	}
	if r, text := s.ask("/r/phi3/v1/models", "X-Api-Key: "+k.Text); r.StatusCode != 200 || !strings.Contains(text, "phi3") {
		t.Errorf("%s %s", r.Status, text)
	}
}

func TestKeyForModelsReachesThoseAlone(t *testing.T) {
	s, _ := newDoor(t, keyGrants)
	q := program("one-model")
	q.Models = []string{"Phi3"}
	k := s.newKey(api(t, s.user(nil).open(tunnel.Interactive)), q)
	header := "X-Api-Key: " + k.Text
	if r, text := s.postKey(header, "/r/phi3/v1/chat/completions", chatBody("phi3", false)); r.StatusCode != 200 {
		t.Errorf("%s %s", r.Status, text)
	}
	for _, body := range []string{chatBody("phi4", false), `{"messages":[{"role":"user","content":"x"}]}`} {
		if r, text := s.postKey(header, "/r/phi3/v1/chat/completions", body); r.StatusCode < 400 || strings.Contains(text, "choices") {
			t.Errorf("%s: %s %s", body, r.Status, text)
		}
	}
}

func TestKeysAreMadeWithinTheOwnersGrantsOnly(t *testing.T) {
	s, _ := newDoor(t, keyGrants)
	c := api(t, s.user(nil).open(tunnel.Interactive))
	for reason, change := range map[string]func(*admin.NewKey){
		"keys_not_granted":     func(q *admin.NewKey) { q.Actions = []string{"tokenize"} },
		"action_not_granted":   func(q *admin.NewKey) { q.Actions = []string{"chat", "manage-model"} },
		"resource_not_granted": func(q *admin.NewKey) { q.Resources = []string{"phi3", "absent"} },
		"key_lifetime":         func(q *admin.NewKey) { q.TTL = int64((91 * 24 * time.Hour).Seconds()) },
		"bad_request":          func(q *admin.NewKey) { q.Actions = []string{"connect"} },
	} {
		q := program("refused")
		change(&q)
		_, err := c.CreateKey(within(t), q)
		var no *admin.Error
		if !errors.As(err, &no) || no.Code != reason {
			t.Errorf("%s: %v", reason, err)
		}
	}
	for name, change := range map[string]func(*admin.NewKey){
		"no name": func(q *admin.NewKey) { q.Name = "" }, "a name of two words": func(q *admin.NewKey) { q.Name = "a b" },
		"no resource": func(q *admin.NewKey) { q.Resources = nil }, "all resources": func(q *admin.NewKey) { q.Resources = []string{"*"} },
		"no action": func(q *admin.NewKey) { q.Actions = nil }, "all actions": func(q *admin.NewKey) { q.Actions = []string{"*"} },
		"no time": func(q *admin.NewKey) { q.TTL = 1 }, "less than no time": func(q *admin.NewKey) { q.TTL = -1 << 62 }, "for ever": func(q *admin.NewKey) { q.TTL = 1 << 62 },
		"a glob of models": func(q *admin.NewKey) { q.Models = []string{"phi*"} },
	} {
		q := program("refused")
		change(&q)
		if _, err := c.CreateKey(within(t), q); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if all, err := c.Keys(within(t)); err != nil || len(all) != 0 {
		t.Errorf("%+v %v", all, err)
	}
	e := s.awaitEvent("a refused creation", func(e audit.Event) bool { return e.Action == "iap:keys.create" && e.Decision == audit.Deny })
	if e.Principal != "corp/alice" || e.Reason == "" {
		t.Errorf("%+v", e)
	}
	q := program("no-time-asked")
	q.TTL = 0
	if k := s.newKey(c, q); k.Expires.Sub(k.Created) != defaultKeyTTL {
		t.Errorf("lives for %s", k.Expires.Sub(k.Created))
	}
}

func TestKeysHaveOneNameEachAndAreNotMany(t *testing.T) {
	s := newSystem(t, keyGrants, func(c *settings.Config) { c.Keys.PerPrincipal = 2 })
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s.startAgent(served{"phi3", "model", m.URL})
	c := api(t, s.user(nil).open(tunnel.Interactive))
	s.newKey(c, program("one"))
	for i, want := range []string{"key_exists", "", "limit_reached"} {
		_, err := c.CreateKey(within(t), program([]string{"one", "two", "three"}[i]))
		var no *admin.Error
		if want == "" && err != nil || want != "" && (!errors.As(err, &no) || no.Code != want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	_, err := c.RevokeKey(within(t), "one")
	must(t, err)
	s.newKey(c, program("one"))
}

func TestKeysAreTheirOwnersToSeeAndToRevoke(t *testing.T) {
	s, _ := newDoor(t, keyGrants)
	alice := api(t, s.user(nil).open(tunnel.Interactive))
	bob := api(t, s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive))
	root := api(t, s.user(map[string]any{"sub": "root", "groups": []string{}}).open(tunnel.Interactive))
	k := s.newKey(alice, program("mine"))
	if all, err := bob.Keys(within(t)); err != nil || len(all) != 0 {
		t.Errorf("bob sees %+v %v", all, err)
	}
	if _, err := bob.AdminKeys(within(t)); err == nil {
		t.Error("bob sees everybody's keys")
	}
	for _, which := range []string{"mine", k.ID} {
		if _, err := bob.RevokeKey(within(t), which); err == nil {
			t.Errorf("bob revoked %s", which)
		}
	}
	if r, _ := s.chatWith(k.Text); r.StatusCode != 200 {
		t.Error(r.Status)
	}
	all, err := root.AdminKeys(within(t))
	if err != nil || len(all) != 1 || all[0].Owner != "corp/alice" {
		t.Errorf("%+v %v", all, err)
	}
	if _, err := root.RevokeKey(within(t), k.ID); refusalOf(err) != "unknown_key" {
		t.Errorf("an administrator's own keys are everybody's: %v", err)
	}
	must(t, root.AdminRevokeKey(within(t), k.ID))
	if r, text := s.chatWith(k.Text); r.StatusCode != http.StatusUnauthorized || !strings.Contains(text, "key_invalid") {
		t.Errorf("%s %s", r.Status, text)
	}
	e := s.awaitEvent("the revocation", func(e audit.Event) bool { return e.Action == "iap:keys.revoke" })
	if e.Principal != "corp/root" || !strings.Contains(e.Detail["target"], k.ID) {
		t.Errorf("%+v", e)
	}
}

func TestRefusedKeysTellNothingAndAreRecorded(t *testing.T) {
	s, m := newDoor(t, keyGrants)
	k := s.newKey(api(t, s.user(nil).open(tunnel.Interactive)), program("mine"))
	other := auth.NewProgramKey()
	wrong, unknown := other, auth.NewProgramKey()
	wrong.ID = k.ID // the right name with another secret
	var answers []string
	for _, text := range []string{wrong.Text(), unknown.Text()} {
		r, body := s.chatWith(text)
		answers = append(answers, fmt.Sprint(r.StatusCode, r.Header["X-Iap-Decision"], body))
	}
	if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "401") {
		t.Errorf("%q", answers)
	}
	for _, text := range []string{k.Text[:len(k.Text)-1], k.Text + "x", strings.ToUpper(k.Text), auth.ProgramKeyPrefix} {
		if r, body := s.chatWith(text); r.StatusCode != 401 {
			t.Errorf("%s %s", r.Status, body)
		}
	}
	e := s.awaitEvent("the refusal", func(e audit.Event) bool {
		return e.Kind == audit.KindLogin && e.Decision == audit.Deny && e.Detail["key"] == k.ID
	})
	if e.Reason != "key_invalid" || e.Via != "key" {
		t.Errorf("%+v", e)
	}
	if m.hits.Load() != 0 {
		t.Errorf("%d requests went upstream", m.hits.Load())
	}
	// Nothing that is kept holds a secret.
	must(t, s.end())
	secret := k.Text[len(auth.ProgramKeyPrefix)+9:]
	must(t, filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(secret[:20])) {
			t.Errorf("%s holds the key", path)
		}
		return err
	}))
}

func TestKeyEndsWithEverythingItRestsOn(t *testing.T) {
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	for name, c := range map[string]struct {
		take   func(*system, *admin.Client, admin.KeyCreated)
		code   string // in the answer that runs
		status int    // of the next one
	}{
		"the key revoked": {func(s *system, c *admin.Client, k admin.KeyCreated) {
			_, err := c.RevokeKey(within(t), "mine")
			must(t, err)
		}, "revoked", 401},
		"the key revoked by the operator": {func(s *system, _ *admin.Client, k admin.KeyCreated) {
			must(t, s.admin.AdminRevokeKey(within(t), k.ID))
		}, "revoked", 401},
		"the owner revoked": {func(s *system, _ *admin.Client, _ admin.KeyCreated) {
			must(t, errorOf(s.admin.RevokePrincipal(within(t), "corp/alice", "")))
		}, "revoked", 401},
		"the grant gone": {func(s *system, _ *admin.Client, _ admin.KeyCreated) {
			s.setPolicy(strings.Replace(keyGrants, "group:corp/ml-eng", "group:corp/others", 2))
		}, "policy_changed", 403},
		"no keys any more": {func(s *system, _ *admin.Client, _ admin.KeyCreated) {
			s.setPolicy(strings.Replace(keyGrants, "    keys: {max_ttl: 90d}\n", "", 1))
		}, "policy_changed", 403},
		"shorter lives only": {func(s *system, _ *admin.Client, _ admin.KeyCreated) {
			s.setPolicy(strings.Replace(keyGrants, "90d", "1h", 1))
		}, "policy_changed", 403},
		"the owner left the group": {func(s *system, _ *admin.Client, _ admin.KeyCreated) {
			s.user(map[string]any{"groups": []string{"others"}}).open(tunnel.Interactive)
		}, "policy_changed", 403},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSystem(t, keyGrants)
			s.startAgent(served{"phi3", "model", m.URL})
			owner := api(t, s.user(nil).open(tunnel.Interactive))
			k := s.newKey(owner, program("mine"))
			r, err := s.h2Client(t).Do(s.doorRequest(within(t), "POST", "/r/phi3/v1/chat/completions", "X-Api-Key: "+k.Text, strings.NewReader(chatBody("phi3", true))))
			must(t, err)
			defer r.Body.Close()
			await(t, chat.begun, "the answer has begun")
			c.take(s, owner, k)
			text := readUntilCut(t, r)
			if !strings.Contains(text, `"code":"`+c.code+`"`) {
				t.Errorf("the answer ended with %s", text)
			}
			await(t, chat.ended, "the model is freed")
			if next, text := s.chatWith(k.Text); next.StatusCode != c.status {
				t.Errorf("the next one: %s %s", next.Status, text)
			}
		})
	}
}

func readUntilCut(t *testing.T, r *http.Response) string {
	t.Helper()
	var text bytes.Buffer
	if _, err := text.ReadFrom(r.Body); err == nil {
		t.Error("the answer ended as if it were whole")
	}
	return text.String()
}

func TestKeyKnowsItsTimeAndItsOwners(t *testing.T) {
	s := prepareSystem(t, keyGrants)
	var ahead atomic.Int64
	s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s.start()
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s.startAgent(served{"phi3", "model", m.URL})
	owner := s.user(nil)
	session := owner.open(tunnel.Interactive)
	short, long := program("short"), program("long")
	long.TTL = int64((80 * 24 * time.Hour).Seconds())
	one, two := s.newKey(api(t, session), short), s.newKey(api(t, session), long)
	for _, step := range []struct {
		at        time.Duration
		one, two  int
		oneReason string
		twoReason string
	}{
		{23 * time.Hour, 200, 200, "", ""},
		{25 * time.Hour, 401, 200, "key_expired", ""},
		{31 * 24 * time.Hour, 401, 401, "key_expired", "key_owner_unseen"},
	} {
		ahead.Store(int64(step.at))
		a, textA := s.chatWith(one.Text)
		b, textB := s.chatWith(two.Text)
		if a.StatusCode != step.one || b.StatusCode != step.two || !strings.Contains(textA, step.oneReason) || !strings.Contains(textB, step.twoReason) {
			t.Errorf("after %s: %s %s, %s %s", step.at, a.Status, textA, b.Status, textB)
		}
	}
	ahead.Store(0)
	infos, err := api(t, owner.open(tunnel.Interactive)).Keys(within(t))
	must(t, err)
	if len(infos) != 2 || infos[0].LastUsed == nil || infos[1].LastUsed == nil {
		t.Errorf("%+v", infos)
	}
}

func TestKeysOutliveTheRelay(t *testing.T) {
	s, _ := newDoor(t, keyGrants)
	c := api(t, s.user(nil).open(tunnel.Interactive))
	kept, gone := s.newKey(c, program("kept")), s.newKey(c, program("gone"))
	_, err := c.RevokeKey(within(t), "gone")
	must(t, err)
	must(t, s.end())
	s.start()
	eventually(t, "phi3 is offered", func() bool { n, _ := s.relay.agents.online("phi3"); return n > 0 })
	if r, text := s.chatWith(kept.Text); r.StatusCode != 200 {
		t.Errorf("%s %s", r.Status, text)
	}
	if r, _ := s.chatWith(gone.Text); r.StatusCode != 401 {
		t.Error(r.Status)
	}
	eventually(t, "the use is noted", func() bool {
		k, _, err := load[programKey](within(t), s.relay.store, keyProgram+kept.ID)
		return err == nil && !k.LastUsed.IsZero()
	})
}

func TestKeysDoNotPassToAnotherProvidersUserOfTheSameName(t *testing.T) {
	s, _ := newDoor(t, keyGrants)
	k := s.newKey(api(t, s.user(nil).open(tunnel.Interactive)), program("mine"))
	must(t, s.end())
	s.cfg.Issuers[0].URL = "http://127.0.0.1:1/another" // under the same alias
	s.start()
	if r, text := s.chatWith(k.Text); r.StatusCode != 401 || !strings.Contains(text, "key_invalid") {
		t.Errorf("%s %s", r.Status, text)
	}
}
