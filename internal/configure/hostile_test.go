package configure

import (
	"strings"
	"testing"
)

// TestNamesThatAToolWouldReadAsMoreAreRefused has a server whose models are called what a file could take for syntax, or a tool for a
// place to put a secret.
func TestNamesThatAToolWouldReadAsMoreAreRefused(t *testing.T) {
	for _, model := range []string{
		"{env:HOME}", "{file:~/.ssh/id_ed25519}", "${HOME}", "${{ secrets.KEY }}", "$(id)", "`id`", "a\"\n[mcp_servers.x]\ncommand = \"sh\"", "a\\", `"""`, "'''",
		"a\nmodels: []", "&anchor", "*alias", "!!binary x", "a # b", "\u2028", "\x7f", "\x00", "\u0085", "\xff", "",
	} {
		for _, tool := range Tools() {
			for _, target := range []Target{{Model: model, Models: []string{model}}, {Model: "phi3", Models: []string{"phi3", model}}} {
				target.Resource, target.Base, target.Key = "phi3", "http://127.0.0.1:1", "k"
				if text, err := tool.Edit("", target); err == nil {
					t.Errorf("%s, %q:\n%s", tool.Name, model, text)
				}
			}
		}
	}
	for _, model := range []string{"phi3", "qwen3:4b", "hf.co/org/Model-GGUF:Q4_K_M", "org/model@main", "größe", "models/a b (1).gguf", strings.Repeat("x", 256)} {
		for _, tool := range Tools() {
			if _, err := tool.Edit("", Target{Resource: "phi3", Base: "http://127.0.0.1:1", Key: "k", Model: model, Models: []string{model}}); err != nil {
				t.Error(err)
			}
		}
	}
}
