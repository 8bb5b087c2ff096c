package modelapi

import (
	"strings"
	"testing"
)

func TestSpellingsOfOneOllamaModelAreOneName(t *testing.T) {
	for _, name := range []string{
		"llama3", "Llama3", "llama3:latest", "LLAMA3:LATEST", "library/llama3", "registry.ollama.ai/library/llama3",
		"registry.ollama.ai/library/llama3:LATEST", " llama3 ", "https://registry.ollama.ai/library/llama3",
		"HTTP://registry.ollama.ai/library/llama3", "llama3:local", "llama3:latest:local", "Llama3:LOCAL ",
	} {
		got, egress, err := ollamaModel(name)
		if err != nil || got != "llama3:latest" || egress {
			t.Errorf("%q: got %q %v, %v", name, got, egress, err)
		}
	}
	for name, want := range map[string]string{
		"phi3:mini":                      "phi3:mini",
		"user/model":                     "user/model:latest",
		"registry.ollama.ai/user/model":  "user/model:latest",
		"hf.co/Org/Name-GGUF:Q4_K_M":     "hf.co/org/name-gguf:q4_k_m",
		"host:5000/ns/m:t":               "host:5000/ns/m:t",
		"evil.example/library/llama3":    "evil.example/library/llama3:latest",
		"evil.example/library/llama3:v1": "evil.example/library/llama3:v1",
	} {
		if got, _, err := ollamaModel(name); err != nil || got != want {
			t.Errorf("%q: got %q, %v; want %q", name, got, err, want)
		}
	}
}

func TestNamesThatAreNoneAreRefused(t *testing.T) {
	for _, name := range []string{
		"", " ", ":", "a:", ":b", "/a", "a/", "a//b", "../a", "a/../b", "a/..", "..", ".", "a b", "a\x00", "a\nb", "ä", "a@sha256:1",
		"a:b:c", "a:cloud:local", "a:local:local", "-a", "a/b/c/d", "file:///etc/passwd", "ftp://a/b/c", "a\\b", "a?b",
		"http://http://a/b/c", strings.Repeat("a", 81), strings.Repeat("a", 1000), "\u212a",
	} {
		if got, _, err := ollamaModel(name); err == nil {
			t.Errorf("%q: read as %q", name, got)
		}
	}
	for _, name := range []string{"", " a", "a ", "a\n", "\x7f", "\xff", "\ufeffa", strings.Repeat("a", 601)} {
		if validExactName(name) {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestNamesOfHostedModelsAreEgress(t *testing.T) {
	for name, want := range map[string]bool{
		"gpt-oss:120b-cloud": true, "GPT-OSS:120B-Cloud ": true, "qwen:cloud": true, "qwen:480b:cloud": true,
		"foo-cloud": true, "foo-cloud:latest": true, "cloudy": false, "cloud": false, "cloud:7b": false,
	} {
		if _, egress, err := ollamaModel(name); err != nil || egress != want {
			t.Errorf("%q: got %v, %v", name, egress, err)
		}
		if !want {
			continue
		}
		if name = strings.TrimSpace(name); !isCloudName(name) {
			t.Errorf("%q: exact name is no egress", name)
		}
	}
}

func TestAnOnlyModelWithoutAProperNameIsRefused(t *testing.T) {
	for _, only := range []string{"a\nb", "\xff", " a", strings.Repeat("a", MaxName+1)} {
		if _, err := Default().Classify(on(only, post("sglang", "/generate", `{"text":"t"}`))); code(err) != "upstream_invalid" {
			t.Errorf("%q: %v", only, err)
		}
	}
}
