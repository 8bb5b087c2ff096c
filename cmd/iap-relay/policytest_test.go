package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPolicyTestRunsTheTableBesideTheGrants(t *testing.T) {
	dir, file, _ := initialised(t, "--group", "ml-eng", "--resource", "llama")
	table := filepath.Join(dir, "policy_test.yaml")
	const good = "cases:\n  - {name: chat, who: {user: corp/a, groups: [ml-eng]}, resource: llama, action: chat, model: m, want: allow, grant: first-users}\n"
	must(t, os.WriteFile(table, []byte(good), 0o600))
	text, err := command(t, "", "policy", "test", "--config", file)
	if err != nil || !strings.HasPrefix(text, "ok      chat ("+table+":2)") {
		t.Errorf("%v\n%s", err, text)
	}
	must(t, os.WriteFile(table, []byte(strings.Replace(good, "want: allow", "want: deny", 1)), 0o600))
	text, err = command(t, "", "policy", "test", "--config", file)
	if err == nil || !strings.Contains(err.Error(), "1 of 1") || !strings.Contains(text, "want deny by first-users\n        got  allow by first-users\n") {
		t.Errorf("%v\n%s", err, text)
	}
	text, _ = command(t, "", "policy", "test", "--config", file, "-o", "json")
	var all policyTests
	if json.Unmarshal([]byte(text), &all) != nil || len(all.Cases) != 1 || all.Cases[0].Passed || len(all.Tests) != 0 {
		t.Errorf("%s", text)
	}
	must(t, os.WriteFile(table, []byte(good+"    wants: deny\n"), 0o600))
	if _, err = command(t, "", "policy", "test", "--config", file); err == nil || !strings.Contains(err.Error(), table+":3") {
		t.Errorf("a mistake in the table: %v", err)
	}
	if _, err = command(t, "", "policy", "test", "--config", file, "README.md"); err == nil {
		t.Error("a text was taken for a test")
	}
}

func TestCheckWarnsOfAGrantThatNeverDecides(t *testing.T) {
	dir, file, _ := initialised(t)
	const two = "grants:\n  - {name: a, to: [\"any:corp\"], resources: [\"*\"], actions: [chat]}\n  - {name: b, to: [\"group:corp/x\"], resources: [phi3], actions: [chat]}\n"
	must(t, os.WriteFile(filepath.Join(dir, "grants.yaml"), []byte(two), 0o600))
	const want = "grants.yaml:3: grant b never decides: grant a on line 2 already allows all of it\n"
	text, err := command(t, "", "policy", "check", "--config", file)
	if err != nil || !strings.HasPrefix(text, "ok: 2 grants") || !strings.Contains(text, want) {
		t.Errorf("%v\n%s", err, text)
	}
	text, _ = command(t, "", "check", "--config", file) // other parts may be out of order
	if !strings.Contains(text, "warning policy") || !strings.Contains(strings.Join(strings.Fields(text), " "), strings.TrimSpace(want)) {
		t.Errorf("%s", text)
	}
}
