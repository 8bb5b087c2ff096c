package rego

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// slowMachine replaces the production deadline where a test is not about it:
// under the race detector on a busy machine an evaluation may take longer.
const slowMachine = 30 * time.Second

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// write puts a file into a directory of the test and returns its path.
func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// config describes a policy of these grants and modules (file name → text), in
// a directory of its own.
func config(t testing.TB, grants string, modules map[string]string) Config {
	t.Helper()
	cfg := Config{
		GrantsFile: write(t, t.TempDir(), "grants.yaml", grants),
		Issuers:    []string{"corp", "ci"},
		Deadline:   slowMachine,
		Now:        func() time.Time { return noon },
	}
	if len(modules) > 0 {
		dir := t.TempDir()
		for name, text := range modules {
			write(t, dir, name, text)
		}
		cfg.Modules = []string{dir}
	}
	return cfg
}

func newTestEngine(t testing.TB, grants string, modules map[string]string) *Engine {
	t.Helper()
	e, err := New(t.Context(), config(t, grants, modules))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// person is somebody of corp in these groups, logged in an hour ago with a
// second factor.
func person(subject string, groups ...string) policy.Principal {
	return policy.Principal{
		Issuer: "corp", Subject: subject, Groups: groups,
		MFA: true, MFASource: policy.MFASourceAMR, AuthTime: noon.Add(-time.Hour), Binding: "first-use",
	}
}

func chat(p policy.Principal, resource, model string) policy.Input {
	return policy.Input{
		Principal: p, Resource: policy.Resource{Name: resource, Kind: "model"},
		Action: policy.ActionChat, Model: model, Via: "tunnel", Now: noon,
	}
}

// manyGrants gives each of n groups a grant of its own.
func manyGrants(n int) string {
	var b strings.Builder
	b.WriteString("grants:\n")
	for i := range n {
		fmt.Fprintf(&b, `  - name: grant-%d
    to: ["group:corp/team-%d", "user:corp/u%d"]
    resources: [phi3, "gpu-%d-*", "label:team=%d"]
    models: ["phi3:*", "qwen3:0.6b"]
    actions: [chat, embed, list-models]
    require: {mfa: true, max_auth_age: 12h}
    limits: {requests: 60/1m, tokens: 200000/24h, concurrent: 4, max_output_tokens: 2048}
    priority: 10
`, i, i, i, i, i)
	}
	return b.String()
}
