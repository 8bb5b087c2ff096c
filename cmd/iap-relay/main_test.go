package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"iap/internal/admin"
	"iap/internal/dev"
	"iap/internal/relay/settings"
	"iap/internal/screen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for events that must happen; no test passes by it.
const patience = 30 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command runs a command line and returns what it printed.
func command(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	root := newRoot()
	var out bytes.Buffer
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetIn(strings.NewReader(stdin))
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

func TestExitStatusTellsUsageFromFailure(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "relay.yaml")
	for _, one := range []struct {
		want int
		args []string
	}{
		{0, []string{"version"}},
		{0, []string{"--help"}},
		{0, []string{"admin"}},
		{1, []string{"run", "--config", missing}},
		{1, []string{"check", "--config", missing}},
		{1, []string{"admin", "status", "--config", missing}},
		{1, []string{"admin", "status", "--socket", missing}},
		{2, []string{"nonsense"}},
		{2, []string{"run", "--nonsense"}},
		{2, []string{"run", "extra"}},
		{2, []string{"run", "--config", missing, "--log", "xml"}},
		{2, []string{"version", "-o", "yaml"}},
		{2, []string{"init"}},
		{2, []string{"admin", "agents", "revoke"}},
		{2, []string{"admin", "agents", "token", "--name", "a", "--resource", "phi3"}},
		{2, []string{"admin", "agents", "token", "--name", "a"}},
		{2, []string{"admin", "nonsense"}},
		{2, []string{"dev", "--listen", "0.0.0.0:8443"}},
		{2, []string{"dev", "--model-listen", "nowhere"}},
	} {
		if got := silently(t, func() int { return run(one.args) }); got != one.want {
			t.Errorf("iap-relay %s: exit status %d, want %d", strings.Join(one.args, " "), got, one.want)
		}
	}
}

// silently drops what f prints.
func silently(t testing.TB, f func() int) int {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	must(t, err)
	defer null.Close()
	out, errOut := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = null, null
	defer func() { os.Stdout, os.Stderr = out, errOut }()
	return f()
}

func TestVersionIsReadableByPeopleAndPrograms(t *testing.T) {
	text, err := command(t, "", "version")
	if err != nil || !strings.HasPrefix(text, "iap-relay ") {
		t.Errorf("%q, %v", text, err)
	}
	text, err = command(t, "", "version", "-o", "json")
	var v struct{ Version, Go, Platform string }
	if err != nil || json.Unmarshal([]byte(text), &v) != nil || v.Version == "" || v.Go == "" {
		t.Errorf("%q, %v", text, err)
	}
}

// initialised is a folder that init has written, beside a provider that lives and a certificate.
func initialised(t testing.TB, more ...string) (dir, file, printed string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "iap") // short: a socket's path has its limit
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	provider, err := dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { provider.Close() })
	certs, err := dev.Certificates(filepath.Join(dir, "certs"), "localhost")
	must(t, err)
	args := append([]string{
		"init", "--name", "localhost:8443", "--listen", "127.0.0.1:0", "--issuer", provider.Issuer(), "--client-id", provider.ClientID(),
		"--dir", dir, "--data", filepath.Join(dir, "data"), "--cert", certs.Cert, "--key", certs.Key,
	}, more...)
	printed, err = command(t, "", args...)
	must(t, err)
	return dir, filepath.Join(dir, "relay.yaml"), printed
}

func TestInitWritesWhatCheckPassesAndSaysHowToGoOn(t *testing.T) {
	dir, file, printed := initialised(t, "--group", "ml-eng")
	for _, want := range []string{file, "iap-relay check --config " + file, "agents token", "iap-agent join TOKEN", "iapctl login localhost:8443", filepath.Join(dir, "certs")} {
		if !strings.Contains(printed, want) {
			t.Errorf("init does not print %q:\n%s", want, printed)
		}
	}
	if strings.Contains(printed, dir+dir) {
		t.Errorf("a path was joined to a path:\n%s", printed)
	}
	text, err := command(t, "", "check", "--config", file)
	if err != nil || strings.Contains(text, "FAILED") || strings.Count(text, "ok ") != 4 {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = command(t, "", "policy", "check", "--config", file)
	if err != nil || !strings.HasPrefix(text, "ok: 1 grants") {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := command(t, "", "init", "--name", "x", "--issuer", "https://x", "--client-id", "c", "--dir", dir); err == nil || !strings.Contains(err.Error(), "relay.yaml") {
		t.Errorf("init wrote over a configuration: %v", err)
	}
}

func TestCheckFailsLoudlyAndAsJSON(t *testing.T) {
	dir, file, _ := initialised(t)
	must(t, os.WriteFile(filepath.Join(dir, "grants.yaml"), []byte("grants: 7\n"), 0o600))
	text, err := command(t, "", "check", "--config", file)
	if err == nil || !strings.Contains(text, "FAILED  policy") || !strings.Contains(text, "grants.yaml:1") {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = command(t, "", "check", "--config", file, "-o", "json")
	var all []settings.Result
	if err == nil || json.Unmarshal([]byte(text), &all) != nil || len(all) != 4 || all[2].Problem == "" {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestPolicyExplainDecidesAQuestion(t *testing.T) {
	_, file, _ := initialised(t, "--group", "ml-eng", "--resource", "llama")
	question := `{"principal": {"issuer": "corp", "subject": "alice", "groups": ["ml-eng"]}, "resource": {"name": "llama", "kind": "model"}, "action": "chat", "model": "llama3"}`
	text, err := command(t, question, "policy", "explain", "--config", file)
	if err != nil || !strings.HasPrefix(text, "allowed by first-users") {
		t.Errorf("%v\n%s", err, text)
	}
	text, err = command(t, strings.Replace(question, "ml-eng", "guests", 1), "policy", "explain", "--config", file)
	if err != nil || !strings.HasPrefix(text, "denied (no_grant)") {
		t.Errorf("%v\n%s", err, text)
	}
	if _, err := command(t, `{"principle": {}}`, "policy", "explain", "--config", file); err == nil || !strings.Contains(err.Error(), "principle") {
		t.Errorf("an unknown field: %v", err)
	}
}

func TestPolicyTestRunsRegoTests(t *testing.T) {
	dir, file, _ := initialised(t)
	if _, err := command(t, "", "policy", "test", "--config", file); err == nil {
		t.Error("no tests passed as tests")
	}
	for rule, passes := range map[string]bool{"true": true, "1 == 2": false} {
		test := filepath.Join(dir, "x_test.rego")
		must(t, os.WriteFile(test, []byte("package x_test\n\nimport rego.v1\n\ntest_it if { "+rule+" }\n"), 0o600))
		text, err := command(t, "", "policy", "test", "--config", file, test)
		if passes != (err == nil) || passes != strings.Contains(text, "ok ") {
			t.Errorf("%s: %v\n%s", rule, err, text)
		}
	}
}

// TestDevelopmentSystemRunsAndEnds starts everything that dev starts, manages it with the admin commands and stops it.
func TestDevelopmentSystemRunsAndEnds(t *testing.T) {
	dir, err := os.MkdirTemp("", "iap")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "relay", "admin.sock")
	o := devOptions{listen: "127.0.0.1:0", issuerListen: "127.0.0.1:0", modelListen: "127.0.0.1:0", dir: dir, rate: 100}
	for run := range 2 { // the second finds keys, state and agent of the first
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		force := make(chan struct{})
		go func() { done <- runDev(ctx, force, o, slog.New(slog.DiscardHandler)) }()
		var agents string
		waitUntil(t, "the agent is online", done, func() bool {
			agents, err = command(t, "", "admin", "agents", "ls", "--socket", socket)
			return err == nil && strings.Contains(agents, "online, 2 sessions")
		})
		if strings.Count(agents, "demo=model") != 1 {
			t.Errorf("run %d: %s", run, agents)
		}
		status, err := command(t, "", "admin", "status", "--socket", socket)
		if err != nil || !strings.Contains(status, "Audit     ok") || !strings.Contains(status, "Agents    1 agent online") {
			t.Errorf("%v\n%s", err, status)
		}
		report := filepath.Join(dir, fmt.Sprintf("%d.zip", run))
		if _, err := command(t, "", "diag", "--config", filepath.Join(dir, "relay.yaml"), "--file", report); err != nil {
			t.Errorf("diag: %v", err)
		} else if _, text := unpacked(t, report); !strings.Contains(text, `"audit": "ok"`) {
			t.Error("the report of a running relay does not say how it is")
		}
		for _, args := range [][]string{{"sessions", "ls"}, {"policy", "reload"}, {"agents", "ls", "-o", "json"}, {"agents", "token", "--name", "b", "--resource", "x=http", "-o", "json"}} {
			if text, err := command(t, "", append(append([]string{"admin"}, args...), "--socket", socket)...); err != nil || text == "" {
				t.Errorf("%v: %v\n%s", args, err, text)
			}
		}
		_, err = command(t, "", "admin", "agents", "token", "--name", "b", "--resource", "demo=model", "--socket", socket)
		var refused *admin.Error
		if !errors.As(err, &refused) || refused.Code != "resource_taken" || refused.Hint == "" {
			t.Errorf("a taken name: %v", err)
		}
		if _, err := command(t, "", "admin", "sessions", "kill", "nobody", "--socket", socket); err == nil {
			t.Error("nobody was killed")
		}
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("run %d ended with %v", run, err)
			}
		case <-time.After(patience):
			t.Fatal("the development system does not end")
		}
	}
}

// waitUntil waits for a state that nothing announces, or for the end of what would bring it.
func waitUntil(t testing.TB, what string, ended <-chan error, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case err := <-ended:
			t.Fatalf("%s: ended with %v", what, err)
		case <-limit.C:
			t.Fatalf("did not happen: %s", what)
		}
	}
}

func TestEveryHelpTextFitsTheScreen(t *testing.T) {
	var each func(c *cobra.Command)
	each = func(c *cobra.Command) {
		var b bytes.Buffer
		c.SetOut(&b)
		must(t, c.Help())
		for line := range strings.Lines(b.String()) {
			if screen.Columns(strings.TrimRight(line, "\n")) > screen.Width {
				t.Errorf("%s: %q", c.CommandPath(), line)
			}
		}
		for _, sub := range c.Commands() {
			each(sub)
		}
	}
	each(newRoot())
}
