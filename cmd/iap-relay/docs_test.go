package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/relay/settings"
	"iap/policy"
	"iap/policy/rego"
)

// block is one fenced block of a page.
type block struct {
	language, text string
	line           int
}

func blocksOf(t *testing.T, page string) []block {
	t.Helper()
	data, err := os.ReadFile(page)
	must(t, err)
	var all []block
	open := false
	for i, line := range strings.Split(string(data), "\n") {
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !open:
			all, open = append(all, block{language: fence, line: i + 1}), true
		case isFence:
			open = false
		case open:
			all[len(all)-1].text += line + "\n"
		}
	}
	return all
}

// Every example of docs/policy.md is loaded, and decides as the page says.
func TestThePolicyPageIsTrue(t *testing.T) {
	dir := t.TempDir()
	cfg := rego.Config{GrantsFile: filepath.Join(dir, "grants.yaml"), Issuers: []string{"corp", "ci"}, Deadline: 30 * time.Second}
	grants, cases := 0, 0
	for _, b := range blocksOf(t, filepath.Join("..", "..", "docs", "policy.md")) {
		file := filepath.Join(dir, fmt.Sprintf("line-%d.%s", b.line, b.language))
		must(t, os.WriteFile(file, []byte(b.text), 0o600))
		switch {
		case b.language == "rego":
			cfg.Modules = []string{file}
		case b.language != "yaml":
		case strings.HasPrefix(b.text, "grants:"):
			must(t, os.WriteFile(cfg.GrantsFile, []byte(b.text), 0o600))
			cfg.Modules = nil
			grants++
			if e, err := rego.New(t.Context(), cfg); err != nil {
				t.Errorf("line %d: %v", b.line, err)
			} else if w := e.Grants().Warnings([]string{"ci"}); len(w) > 0 {
				t.Errorf("line %d: %+v", b.line, w)
			}
		case strings.HasPrefix(b.text, "issuers:"):
			checkRelayExample(t, dir, b)
		case strings.HasPrefix(b.text, "admins:"):
			must(t, os.WriteFile(file, []byte("grants: []\n"+b.text), 0o600))
			if _, err := rego.New(t.Context(), rego.Config{GrantsFile: file, Issuers: cfg.Issuers, Deadline: cfg.Deadline}); err != nil {
				t.Errorf("line %d: %v", b.line, err)
			}
		default:
			if strings.Contains(b.text, "every key there is") { // shows the form; of the grants above it names the one that suits
				must(t, os.WriteFile(cfg.GrantsFile, []byte(`grants: [{name: chat, to: ["any:corp"], resources: [phi3], actions: [chat]}]`), 0o600))
			}
			results, err := rego.TestCases(t.Context(), cfg, file)
			if err != nil {
				t.Errorf("line %d: %v", b.line, err)
			}
			for _, r := range results {
				cases++
				if !r.Passed {
					t.Errorf("line %d: %s: want %s, got %s", b.line, r.Name, r.Want, r.Got)
				}
			}
		}
	}
	if grants < 6 || cases < 25 {
		t.Errorf("%d grants files and %d cases were found", grants, cases)
	}
}

func checkRelayExample(t *testing.T, dir string, b block) {
	t.Helper()
	file := filepath.Join(dir, "relay.yaml")
	text := "name: iap.example.com\ntls: {cert_file: c, key_file: k}\npolicy: {grants: grants.yaml}\n" + b.text
	must(t, os.WriteFile(file, []byte(text), 0o600))
	if _, err := settings.Load(file); err != nil {
		t.Errorf("line %d: %v", b.line, err)
	}
}

// The page lists every key, action and reason that there is.
func TestThePolicyPageIsComplete(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "policy.md"))
	must(t, err)
	page := string(data)
	words := append(policy.Actions(), policy.Media()...)
	words = append(words, policy.ReasonAllowed, policy.ReasonNoGrant, policy.ReasonResourceNotGranted, policy.ReasonModelNotGranted, policy.ReasonActionNotGranted,
		policy.ReasonEgressNotGranted, policy.ReasonMediaNotGranted, policy.ReasonKeysNotGranted, policy.ReasonMFARequired, policy.ReasonACRRequired, policy.ReasonAuthTooOld,
		policy.ReasonBindingRequired, policy.ReasonClaimsRequired, policy.ReasonGroupsUnknown, policy.ReasonActionUnknown, policy.ReasonInputInvalid, policy.ReasonDeniedByRule,
		policy.ReasonPolicyUndefined, policy.ReasonPolicyError, policy.ReasonPolicyTimeout)
	for _, word := range append(words, "max_ttl", "max_auth_age", "max_output_tokens", "concurrent", "contact", "priority", "egress", "per", "mode") {
		if !strings.Contains(page, word) {
			t.Errorf("%s is not on the page", word)
		}
	}
}
