package configure

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// Target is what a tool shall use.
type Target struct {
	Resource string
	Base     string // http://127.0.0.1:11434
	Key      string // never empty: tools refuse an empty one
	Secret   bool   // Key is one that requests must carry
	Model    string
	Models   []string // at least Model
}

// Tool is a program whose settings can be edited.
type Tool struct {
	Name string
	Then string // what its user does next
	file func(env func(string) string, home string) string
	edit func(text string, t Target) (string, error)
}

// Tools lists those we know, by name.
func Tools() []Tool {
	return []Tool{
		{"claude", "start claude; /status shows the base URL", claudeFile, editClaude},
		{"codex", "start codex", codexFile, editCodex},
		{"continue", "choose the model in the editor", continueFile, editContinue},
		{"opencode", "start opencode; /models lists the model", opencodeFile, editOpencode},
	}
}

// Plain reports whether a model's name is a mere name in every file. Names come from model servers, and the tools replace {env:…},
// {file:…} and ${{…}} in their settings: such a name would send the user's secrets to its server.
func Plain(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._:/@+-~ ,()=", r)
	})
}

// File is where the tool's settings lie.
func (t Tool) File(env func(string) string, home string) string { return t.file(env, home) }

// Edit returns the settings with the target in them. Empty text is a file that does not exist.
func (t Tool) Edit(text string, target Target) (string, error) {
	for _, name := range append([]string{target.Model}, target.Models...) {
		if !Plain(name) {
			return "", fmt.Errorf("edit settings of %s: a model is called %q, which such a file could take for something else", t.Name, name)
		}
	}
	out, err := t.edit(text, target)
	if err != nil {
		return "", fmt.Errorf("edit settings of %s: %w", t.Name, err)
	}
	return out, nil
}

// provider is the name under which a resource stands in tools that have several providers.
func (t Target) provider() string {
	return "iap-" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '-'
	}, t.Resource)
}

func claudeFile(env func(string) string, home string) string {
	if dir := env("CLAUDE_CONFIG_DIR"); dir != "" {
		return filepath.Join(dir, "settings.json")
	}
	return filepath.Join(home, ".claude", "settings.json")
}

// editClaude sets the environment that Claude Code gives itself. The small model does its background work.
func editClaude(text string, t Target) (string, error) {
	var err error
	for _, v := range [][2]string{
		{"ANTHROPIC_BASE_URL", t.Base},
		{"ANTHROPIC_AUTH_TOKEN", t.Key},
		{"ANTHROPIC_MODEL", t.Model},
		{"ANTHROPIC_DEFAULT_HAIKU_MODEL", t.Model},
	} {
		if text, err = setJSON(text, []string{"env", v[0]}, quoteJSON(v[1])); err != nil {
			return "", err
		}
	}
	return text, nil
}

func opencodeFile(env func(string) string, home string) string {
	dir := env("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(home, ".config")
	}
	dir = filepath.Join(dir, "opencode")
	if withComments := filepath.Join(dir, "opencode.jsonc"); exists(withComments) {
		return withComments
	}
	return filepath.Join(dir, "opencode.json")
}

// editOpencode adds a provider, and makes its model the usual one where none is.
func editOpencode(text string, t Target) (string, error) {
	fresh := strings.TrimSpace(text) == ""
	var err error
	set := func(value string, path ...string) {
		if err == nil {
			text, err = setJSON(text, path, value)
		}
	}
	if fresh {
		set(quoteJSON("https://opencode.ai/config.json"), "$schema")
	}
	set(quoteJSON("@ai-sdk/openai-compatible"), "provider", t.provider(), "npm")
	set(quoteJSON(t.Resource+" (iap)"), "provider", t.provider(), "name")
	set(quoteJSON(t.Base+"/v1"), "provider", t.provider(), "options", "baseURL")
	set(quoteJSON(t.Key), "provider", t.provider(), "options", "apiKey")
	for _, model := range t.Models {
		set(quoteJSON(model), "provider", t.provider(), "models", model, "name")
	}
	if err == nil && !hasJSON(text, "model") {
		set(quoteJSON(t.provider()+"/"+t.Model), "model")
	}
	return text, err
}

func codexFile(env func(string) string, home string) string {
	if dir := env("CODEX_HOME"); dir != "" {
		return filepath.Join(dir, "config.toml")
	}
	return filepath.Join(home, ".codex", "config.toml")
}

// editCodex adds a provider and makes it the usual one. Codex speaks the Responses API alone, and sends no key unless it is told one.
func editCodex(text string, t Target) (string, error) {
	lines := []string{
		"name = " + quoteTOML(t.Resource+" (iap)"),
		"base_url = " + quoteTOML(t.Base+"/v1"),
		`wire_api = "responses"`,
	}
	if t.Secret {
		lines = append(lines, "experimental_bearer_token = "+quoteTOML(t.Key))
	}
	text, err := setTOMLTable(text, []string{"model_providers", t.provider()}, lines)
	if err != nil {
		return "", err
	}
	if text, err = setTOMLKey(text, "model_provider", quoteTOML(t.provider())); err != nil {
		return "", err
	}
	return setTOMLKey(text, "model", quoteTOML(t.Model))
}

func continueFile(env func(string) string, home string) string {
	dir := env("CONTINUE_GLOBAL_DIR")
	if dir == "" {
		dir = filepath.Join(home, ".continue")
	}
	return filepath.Join(dir, "config.yaml")
}

// editContinue adds one entry to the list of models.
func editContinue(text string, t Target) (string, error) {
	if strings.TrimSpace(text) == "" {
		text = "name: Local\nversion: 0.0.1\nschema: v1\n"
	}
	return setYAMLItem(text, "models", [][2]string{
		{"name", t.Model + " (" + t.Resource + ", iap)"},
		{"provider", "openai"},
		{"model", t.Model},
		{"apiBase", t.Base + "/v1"},
		{"apiKey", t.Key},
	})
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
