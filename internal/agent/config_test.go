package agent

import (
	"crypto/ed25519"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/config"
	"iap/internal/modelapi"
)

func goodConfig(t testing.TB) string {
	return "relay: iap.example.com\nagent_id: agent-1\nrelay_key: " + base64.StdEncoding.EncodeToString(newKey(t).Public().(ed25519.PublicKey)) +
		"\nresources:\n  - {name: phi3, kind: model, upstream: \"http://127.0.0.1:11434\"}\n"
}

func loadText(t testing.TB, text string) (*Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent.yaml")
	must(t, os.WriteFile(file, []byte(text), 0o600))
	return LoadConfig(file)
}

func TestEveryMistakeInTheConfigurationNamesItsField(t *testing.T) {
	good := goodConfig(t)
	if c, err := loadText(t, good); err != nil || !filepath.IsAbs(c.KeyFile) {
		t.Fatalf("the good one: %+v, %v", c, err)
	}
	upstream := `upstream: "http://127.0.0.1:11434"`
	for _, one := range []struct{ field, old, new string }{
		{"relay:", "relay: iap.example.com", `relay: ""`},
		{"agent_id:", "agent_id: agent-1", `agent_id: ""`},
		{"relay_key:", "relay_key: ", "relay_key: x"},
		{"resources:", "resources:\n  - {name: phi3, kind: model, " + upstream + "}", "resources: []"},
		{"resources[0]: name:", "name: phi3", `name: ""`},
		{"resources[0]: kind:", "kind: model", "kind: udp"},
		{`resources[0]: actions: "chatt"`, "kind: model", "kind: model, actions: [chat, chatt]"},
		{"resources[0]: upstream:", upstream, `upstream: ""`},
		{"resources[0]: upstream:", upstream, `upstream: "127.0.0.1:11434"`},
		{"resources[0]: upstream:", upstream, `upstream: "ftp://127.0.0.1"`},
		{"resources[0]: upstream:", upstream, `upstream: "file:///etc/passwd"`},
		{"resources[0]: upstream:", upstream, `upstream: "http://user:pw@127.0.0.1"`},
		{"resources[0]: upstream:", upstream, `upstream: "http://127.0.0.1/?x=y"`},
		{"resources[0]: upstream:", upstream, `upstream: "http://127.0.0.1/#x"`},
		{"resources[0]: upstream:", "kind: model, " + upstream, `kind: tcp, upstream: "http://127.0.0.1:5432"`},
		{"resources[0]: upstream:", "kind: model, " + upstream, `kind: tcp, upstream: ":5432"`},
		{"server", "kind: model", "kind: http, server: ollama"},
		{"models", "kind: model", `kind: http, models: [phi3]`},
		{"resources[0]: server:", "kind: model", "kind: model, server: magic"},
		{"api_key_file:", "kind: model", "kind: model, api_key_file: none.key"},
		{"api_key_env: IAP_TEST_NO_SUCH_KEY holds no key", "kind: model", "kind: model, api_key_env: IAP_TEST_NO_SUCH_KEY"},
		{"only one of them", "kind: model", "kind: model, api_key_env: HOME, api_key_file: x"},
		{"capacity:", "kind: model", "kind: model, capacity: -1"},
		{"capacity:", "kind: model", "kind: model, capacity: 10001"},
		{"capacity", "kind: model", "kind: http, capacity: 1"},
		{"queue: nobody waits", "kind: model", "kind: model, queue: {max: 3}"},
		{"queue: max:", "kind: model", "kind: model, capacity: 1, queue: {max: 1025}"},
		{"queue: max:", "kind: model", "kind: model, capacity: 1, queue: {max: -1}"},
		{"queue: per_principal:", "kind: model", "kind: model, capacity: 1, queue: {max: 4, per_principal: 5}"},
		{"queue: max_wait:", "kind: model", "kind: model, capacity: 1, queue: {max_wait: 100ms}"},
		{"queue: max_wait:", "kind: model", "kind: model, capacity: 1, queue: {max_wait: 2h}"},
		{`unknown key "max_age"`, "kind: model", "kind: model, capacity: 1, queue: {max_age: 1m}"},
		{"leads to itself", "kind: model", "kind: model, aliases: {default: default}"},
		{"leads to itself", "kind: model", `kind: model, aliases: {default: "Default:latest"}`},
		{"is an alias itself", "kind: model", "kind: model, aliases: {a: b, b: c}"},
		{"are one name", "kind: model", "kind: model, aliases: {a: c, A: c}"},
		{"no name for a model", "kind: model", `kind: model, aliases: {" a": c}`},
		{"no name of a model", "kind: model", `kind: model, aliases: {a: ""}`},
		{"which models does not list", "kind: model", `kind: model, models: [phi3], aliases: {a: llama3}`},
		{"aliases", "kind: model", "kind: http, aliases: {a: b}"},
		{`unknown key "upstraem"`, "upstream:", "upstraem:"},
		{`did you mean "upstream"`, "upstream:", "upstraem:"},
		{"stands there twice", "resources:\n", "resources:\n  - {name: phi3, kind: model, " + upstream + "}\n"},
	} {
		text := strings.Replace(good, one.old, one.new, 1)
		if text == good {
			t.Fatalf("%s: nothing was edited", one.field)
		}
		if _, err := loadText(t, text); err == nil || !strings.Contains(err.Error(), one.field) || !strings.Contains(err.Error(), "agent.yaml") {
			t.Errorf("%s: got %v", one.field, err)
		}
	}
}

func TestQueueHasDefaults(t *testing.T) {
	c, err := loadText(t, strings.Replace(goodConfig(t), "kind: model", "kind: model, capacity: 2", 1))
	must(t, err)
	if got := c.Resources[0].Queue; got != (QueueConfig{Max: 64, PerPrincipal: 16, MaxWait: config.Duration(2 * time.Minute)}) {
		t.Errorf("%+v", got)
	}
}

func TestUpstreamKeysAreReadStrictly(t *testing.T) {
	for content, ok := range map[string]bool{"sk-123\n": true, "": false, "  \n": false, "two words": false, "line\r\nX-Admin: 1": false, strings.Repeat("k", maxKeyFile+1): false, "ключ": false} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "up.key"), []byte(content), 0o600))
		file := filepath.Join(dir, "agent.yaml")
		must(t, os.WriteFile(file, []byte(strings.Replace(goodConfig(t), "kind: model", "kind: model, api_key_file: up.key", 1)), 0o600))
		_, err := LoadConfig(file)
		if ok != (err == nil) {
			t.Errorf("%.20q: %v", content, err)
		}
		if err != nil && strings.Contains(err.Error(), "words") {
			t.Errorf("the key is in the error: %v", err)
		}
	}
}

func TestModelListsMatchWholeNames(t *testing.T) {
	for _, one := range []struct {
		pattern, model string
		want           bool
	}{
		{"phi3", "phi3", true},
		{"phi3", "phi3:latest", true},
		{"phi3", "phi3:mini", false},
		{"phi3:*", "phi3:mini", true},
		{"phi3:*", "phi3:latest", true},
		{"phi3", "xphi3", false},
		{"phi3", "phi33", false},
		{"phi?", "phi4", true},
		{"phi?", "phi44", false},
		{"*", "org/deep/model", true},
		{"org/*", "org/model", true},
		{"org/*", "other/model", false},
		{"Phi3", "PHI3", true},
		{"[a]", "a", false},
		{"[a]", "[a]", true},
		{"phi3*", "evil/phi3", false},
		{`a\*`, "ab", false},
	} {
		r := &ResourceConfig{Kind: modelapi.KindModel, Models: []string{one.pattern}}
		if got := r.servesModel(one.model); got != one.want {
			t.Errorf("%q and %q: %t", one.pattern, one.model, got)
		}
	}
}

func TestTargetsAreTakenToTheUpstreamByteForByte(t *testing.T) {
	c, err := loadText(t, strings.Replace(goodConfig(t), "11434", "11434/base/", 1))
	must(t, err)
	base := c.Resources[0].url
	for target, want := range map[string]string{
		"/v1/models": "/base/v1/models", "/a%2Fb?q=%20": "/base/a%2Fb?q=%20", "/": "/base/", "/x?y?z": "/base/x?y?z",
	} {
		u, err := upstreamURL(base, target)
		must(t, err)
		if got := u.RequestURI(); got != want || u.Host != "127.0.0.1:11434" {
			t.Errorf("%s: %s at %s", target, got, u.Host)
		}
	}
	for _, target := range []string{"", "x", "http://evil/", "//evil/x", "*", "evil:80"} {
		if u, err := upstreamURL(base, target); err == nil {
			t.Errorf("%q became %s", target, u)
		}
	}
}
