package configure

import (
	"encoding/json"
	"strings"
	"testing"
)

var phi3 = Target{Resource: "phi3", Base: "http://127.0.0.1:11434", Key: "iap-no-key-needed", Model: "phi3:mini", Models: []string{"phi3:mini", "qwen3:4b"}}

func tool(t *testing.T, name string) Tool {
	t.Helper()
	for _, one := range Tools() {
		if one.Name == name {
			return one
		}
	}
	t.Fatalf("no tool %q", name)
	return Tool{}
}

func TestEditKeepsWhatIsNotOurs(t *testing.T) {
	for name, c := range map[string]struct{ tool, before, after string }{
		"claude, no file": {"claude", "", `{
  "env": {
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:11434",
    "ANTHROPIC_AUTH_TOKEN": "iap-no-key-needed",
    "ANTHROPIC_MODEL": "phi3:mini",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL": "phi3:mini"
  }
}
`},
		"claude, others' settings": {"claude", `{
    // mine
    "permissions": {"allow": ["Bash(ls:*)"]},
    "env": {
        "ANTHROPIC_BASE_URL": "https://old", /* once */
        "FOO": "{\"env\": 1}"
    }
}`, `{
    // mine
    "permissions": {"allow": ["Bash(ls:*)"]},
    "env": {
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:11434", /* once */
        "FOO": "{\"env\": 1}",
        "ANTHROPIC_AUTH_TOKEN": "iap-no-key-needed",
        "ANTHROPIC_MODEL": "phi3:mini",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "phi3:mini"
    }
}`},
		"claude, one line": {"claude", `{"env": {"A": "b"}}`, `{"env": {"A": "b", "ANTHROPIC_BASE_URL": "http://127.0.0.1:11434", ` +
			`"ANTHROPIC_AUTH_TOKEN": "iap-no-key-needed", "ANTHROPIC_MODEL": "phi3:mini", "ANTHROPIC_DEFAULT_HAIKU_MODEL": "phi3:mini"}}`},
		"opencode, trailing comma and a model of the user's": {"opencode", `{
  "model": "anthropic/x", // stays
  "theme": "tokyonight",
}
`, `{
  "model": "anthropic/x", // stays
  "theme": "tokyonight",
  "provider": {
    "iap-phi3": {
      "npm": "@ai-sdk/openai-compatible",
      "name": "phi3 (iap)",
      "options": {
        "baseURL": "http://127.0.0.1:11434/v1",
        "apiKey": "iap-no-key-needed"
      },
      "models": {
        "phi3:mini": {
          "name": "phi3:mini"
        },
        "qwen3:4b": {
          "name": "qwen3:4b"
        }
      }
    }
  }
}
`},
		"codex, no file": {"codex", "", `model_provider = "iap-phi3"
model = "phi3:mini"

[model_providers.iap-phi3]
name = "phi3 (iap)"
base_url = "http://127.0.0.1:11434/v1"
wire_api = "responses"
`},
		"codex, others' settings": {"codex", `# my settings
model = "gpt-5.6" # the usual
notify = [
  "[model]",
]
text = """
model = "not this one"
[model_providers.not_this]
"""

[model_providers.iap-phi3]
base_url = "http://old"

# about mcp
[mcp_servers.docs]
command = "docs"
model = "theirs"
`, `# my settings
model = "phi3:mini"
notify = [
  "[model]",
]
text = """
model = "not this one"
[model_providers.not_this]
"""
model_provider = "iap-phi3"

[model_providers.iap-phi3]
name = "phi3 (iap)"
base_url = "http://127.0.0.1:11434/v1"
wire_api = "responses"

# about mcp
[mcp_servers.docs]
command = "docs"
model = "theirs"
`},
		"continue, no file": {"continue", "", `name: Local
version: 0.0.1
schema: v1
models:
  - name: "phi3:mini (phi3, iap)"
    provider: "openai"
    model: "phi3:mini"
    apiBase: "http://127.0.0.1:11434/v1"
    apiKey: "iap-no-key-needed"
`},
		"continue, others' models": {"continue", `name: Mine
version: 1.0.0
schema: v1
models: # all of them
- name: GPT
  provider: openai # key in .env
  roles:
  - chat
- name: phi3:mini (phi3, iap)
  apiBase: http://old
# the rest
context:
- provider: code
`, `name: Mine
version: 1.0.0
schema: v1
models: # all of them
- name: GPT
  provider: openai # key in .env
  roles:
  - chat
- name: "phi3:mini (phi3, iap)"
  provider: "openai"
  model: "phi3:mini"
  apiBase: "http://127.0.0.1:11434/v1"
  apiKey: "iap-no-key-needed"
# the rest
context:
- provider: code
`},
	} {
		got, err := tool(t, c.tool).Edit(c.before, phi3)
		if err != nil || got != c.after {
			t.Errorf("%s: %v\n%s", name, err, got)
			continue
		}
		if again, err := tool(t, c.tool).Edit(got, phi3); err != nil || again != got {
			t.Errorf("%s: a second time changes it: %v\n%s", name, err, again)
		}
	}
}

func TestEditRefusesWhatItDoesNotUnderstand(t *testing.T) {
	for _, c := range []struct{ tool, text string }{
		{"claude", `[]`},
		{"claude", `{"env": "x"}`},
		{"claude", `{"env": {}, "env": {}}`},
		{"claude", `{"env": {"a": 1}} trailing`},
		{"claude", `{"env": {`},
		{"claude", `{"a": 'b'}`},
		{"claude", `{ /* open `},
		{"claude", strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)},
		{"codex", "model_providers = { a = {} }\n"},
		{"codex", "model_providers.iap-phi3.name = \"x\"\n"},
		{"codex", "[model_providers]\niap-phi3 = { name = \"x\" }\n"},
		{"codex", "nonsense\n"},
		{"codex", "a = [\n"},
		{"continue", "models: [{name: a}]\n"},
		{"continue", "models: &all\n- name: a\n"},
		{"continue", "{models: []}\n"},
		{"continue", "models:\n\t- name: a\n"},
		{"continue", "a: [\n"},
		{"continue", "text: |\n  x\nmodels: |\n  - name: a\n"},
	} {
		if got, err := tool(t, c.tool).Edit(c.text, phi3); err == nil {
			t.Errorf("%s, %q became\n%s", c.tool, c.text, got)
		}
	}
}

func TestToolsReadTheirSettingsWhereTheySaySo(t *testing.T) {
	none := func(string) string { return "" }
	for name, want := range map[string]string{
		"claude": "/home/a/.claude/settings.json", "codex": "/home/a/.codex/config.toml",
		"continue": "/home/a/.continue/config.yaml", "opencode": "/home/a/.config/opencode/opencode.json",
	} {
		if got := strings.ReplaceAll(tool(t, name).File(none, "/home/a"), `\`, "/"); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
	elsewhere := func(string) string { return "/else" }
	for name, want := range map[string]string{
		"claude": "/else/settings.json", "codex": "/else/config.toml", "continue": "/else/config.yaml", "opencode": "/else/opencode/opencode.json",
	} {
		if got := strings.ReplaceAll(tool(t, name).File(elsewhere, "/home/a"), `\`, "/"); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestDiffShowsChangesWithALittleAround(t *testing.T) {
	var b strings.Builder
	for _, l := range Diff("a\nb\nc\nd\ne\nf\ng\n", "a\nb\nc\nd\nX\nf\ng\nh\n") {
		b.WriteString(string(l.Sign) + l.Text + "|")
	}
	if b.String() != " c| d|-e|+X| f| g|+h|" {
		t.Error(b.String())
	}
	if d := Diff("a\n", "a\n"); len(d) != 0 {
		t.Errorf("%v", d)
	}
}

func FuzzSetJSON(f *testing.F) {
	f.Add(`{"env": {"a": 1,}, /* x */ }`)
	f.Add("{\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := setJSON(text, []string{"env", "X"}, `"v"`)
		if err != nil {
			return
		}
		again, err := setJSON(got, []string{"env", "X"}, `"v"`)
		if err != nil || again != got {
			t.Fatalf("%q became %q, then %q, %v", text, got, again, err)
		}
		var before, after map[string]any
		if json.Unmarshal([]byte(text), &before) == nil {
			if err := json.Unmarshal([]byte(got), &after); err != nil || len(after) < len(before) {
				t.Fatalf("%q became %q: %v", text, got, err)
			}
		}
	})
}
