package e2e

import (
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
)

// keyGrants are usualGrants with keys.
const keyGrants = `version: 1
grants:
  - name: engineers
    to: ["group:dev/ml-eng"]
    resources: ["*"]
    actions: [chat, complete, embed, tokenize, list-models, inspect-model, health, connect]
    keys: {max_ttl: 90d}
admins: ["user:dev/alice"]
`

// createdKey is what `iapctl keys create -o json` prints.
type createdKey struct{ ID, Name, Key, URL string }

func TestProgramWithAKeyFieldUsesAModelUntilItsKeyIsRevoked(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: keyGrants})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice := s.loggedIn("alice")
	var k createdKey
	alice.ok(&k, "keys", "create", "--name", "openwebui", "--resource", "phi3", "--actions", "chat,list-models", "--ttl", "90d")
	client := openai.NewClient(option.WithBaseURL(k.URL+"phi3/v1"), option.WithAPIKey(k.Key), option.WithMaxRetries(0), option.WithHTTPClient(s.https))
	streamStock(t, client)
	var list struct {
		Keys []struct{ ID, Name, State, Owner string }
	}
	alice.ok(&list, "keys", "ls")
	if len(list.Keys) != 1 || list.Keys[0].ID != k.ID || list.Keys[0].State != "good" || list.Keys[0].Owner != "dev/alice" {
		t.Errorf("keys ls: %+v", list)
	}
	text := alice.run("keys", "ls")
	if strings.Contains(text.out, k.Key) || !strings.Contains(text.out, "openwebui") {
		t.Errorf("keys ls printed %s", text.out)
	}
	for _, line := range strings.Split(text.out, "\n") {
		if len(line) > 80 {
			t.Errorf("a line of %d columns: %s", len(line), line)
		}
	}
	alice.fails(2, "usage", "keys", "create", "--name", "x", "--resource", "phi3")
	alice.fails(2, "usage", "keys", "create", "--name", "x", "--resource", "phi3", "--actions", "chat", "--ttl", "soon")
	alice.fails(5, "key_lifetime", "keys", "create", "--name", "x", "--resource", "phi3", "--actions", "chat", "--ttl", "91d")
	alice.fails(5, "action_not_granted", "keys", "create", "--name", "x", "--resource", "phi3", "--actions", "manage-model")
	alice.ok(nil, "keys", "revoke", "openwebui")
	web := &caller{t: t, http: s.https, base: "https://" + s.name}
	if got := web.ask("GET", "/r/phi3/v1/models", "", "Authorization: Bearer "+k.Key); got.status != 401 || got.code() != "key_invalid" {
		t.Errorf("a revoked key: %+v", got)
	}
	alice.fails(1, "unknown_key", "keys", "revoke", "openwebui")

	alice.ok(&k, "keys", "create", "--name", "ide", "--resource", "phi3", "--actions", "chat")
	var everybodys struct{ Keys []struct{ ID, Owner string } }
	if s.admin(&everybodys, "keys", "ls"); len(everybodys.Keys) != 1 || everybodys.Keys[0].ID != k.ID || everybodys.Keys[0].Owner != "dev/alice" {
		t.Errorf("iap-relay admin keys ls: %+v", everybodys)
	}
	s.admin(nil, "keys", "revoke", k.ID)
	if got := web.ask("GET", "/r/phi3/v1/models", "", "X-Api-Key: "+k.Key); got.status != 401 {
		t.Errorf("a key that the operator revoked: %+v", got)
	}
}
