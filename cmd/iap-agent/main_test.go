package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/admin"
	"iap/internal/dev"
	"iap/internal/relay"
	"iap/internal/relay/settings"
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
	return commandUntil(ctx, stdin, args...)
}

func commandUntil(ctx context.Context, stdin string, args ...string) (string, error) {
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
	missing := filepath.Join(t.TempDir(), "agent.yaml")
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	must(t, err)
	defer null.Close()
	out, errOut := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = null, null
	defer func() { os.Stdout, os.Stderr = out, errOut }()
	for _, one := range []struct {
		want int
		args []string
	}{
		{0, []string{"version"}},
		{0, []string{"--help"}},
		{1, []string{"run", "--config", missing}},
		{1, []string{"check", "--config", missing}},
		{1, []string{"join", "iapjoin1.damaged", "--config", missing}},
		{2, []string{"nonsense"}},
		{2, []string{"run", "--nonsense"}},
		{2, []string{"run", "extra"}},
		{2, []string{"join"}},
		{2, []string{"join", "a", "b"}},
		{2, []string{"join", "x", "--upstream", "phi3"}},
		{2, []string{"run", "--config", missing, "--log", "xml"}},
	} {
		if got := run(one.args); got != one.want {
			t.Errorf("iap-agent %s: exit status %d, want %d", strings.Join(one.args, " "), got, one.want)
		}
	}
}

func TestUpstreamFlagsAreParsed(t *testing.T) {
	all, err := parseUpstreams([]string{"phi3=http://127.0.0.1:11434/?a=b", "db=127.0.0.1:5432"})
	if err != nil || all["phi3"] != "http://127.0.0.1:11434/?a=b" || all["db"] != "127.0.0.1:5432" {
		t.Errorf("%v, %v", all, err)
	}
	for _, bad := range []string{"phi3", "phi3=", "=x"} {
		if all, err := parseUpstreams([]string{bad}); err == nil && bad != "=x" {
			t.Errorf("%q: %v", bad, all)
		}
	}
}

// startRelay runs a relay and returns its admin API and the file with its authority.
func startRelay(t *testing.T) (*admin.Client, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "iap") // short: a socket's path has its limit
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	provider, err := dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { provider.Close() })
	files, err := dev.Certificates(dir, "localhost", "127.0.0.1")
	must(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	file, err := settings.Setup{
		Dir: dir, Name: l.Addr().String(), Listen: l.Addr().String(), Issuer: provider.Issuer(), ClientID: provider.ClientID(),
		CertFile: files.Cert, KeyFile: files.Key, Data: filepath.Join(dir, "data"),
	}.Write()
	must(t, err)
	cfg, err := settings.Load(file)
	must(t, err)
	r, err := relay.New(context.Background(), cfg, relay.Options{})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done, force := make(chan error, 1), make(chan struct{})
	go func() { done <- r.Run(ctx, force) }()
	c := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", r.AdminSocket())
	})
	t.Cleanup(func() {
		c.Close()
		cancel()
		close(force)
		if err := <-done; err != nil {
			t.Errorf("relay: %v", err)
		}
	})
	return c, files.CA
}

// TestJoinCheckRunAndRevoke walks an agent's whole life by its commands.
func TestJoinCheckRunAndRevoke(t *testing.T) {
	relayAdmin, ca := startRelay(t)
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		for {
			conn, err := upstream.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { upstream.Close(); <-accepted })
	created, err := relayAdmin.CreateJoinToken(t.Context(), admin.NewJoinToken{Name: "db-1", Resources: []admin.JoinResource{{Name: "db", Kind: "tcp"}}})
	must(t, err)
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if _, err := command(t, created.Token+"\n", "join", "-", "--config", filepath.Join(t.TempDir(), "agent.yaml")); err == nil || !strings.Contains(err.Error(), "--ca-file") {
		t.Errorf("an authority that nobody knows: %v", err)
	}
	text, err := command(t, created.Token+"\n", "join", "-", "--config", file, "--ca-file", ca, "--upstream", "db="+upstream.Addr().String())
	if err != nil || !strings.Contains(text, "iap-agent run --config "+file) || strings.Contains(text, "guess") || strings.Contains(text, created.Token) {
		t.Fatalf("%v\n%s", err, text)
	}
	if _, err := command(t, "", "join", created.Token, "--config", filepath.Join(t.TempDir(), "b.yaml"), "--ca-file", ca); refusal(err) != "join_refused" {
		t.Errorf("a used token: %v", err)
	}
	text, err = command(t, "", "check", "--config", file)
	if err != nil || strings.Contains(text, " fail ") || !strings.Contains(text, "knows this agent") {
		t.Errorf("%v\n%s", err, text)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { _, err := commandUntil(ctx, "", "run", "--config", file, "--log", "json"); ended <- err }()
	id := ""
	waitUntil(t, "the agent is online", func() bool {
		all, err := relayAdmin.Agents(t.Context())
		if err == nil && len(all) == 1 {
			id = all[0].ID
		}
		return err == nil && len(all) == 1 && all[0].Sessions == 2
	})
	checkAndRotate(t, relayAdmin, file)
	stop()
	if err := <-ended; err != nil {
		t.Errorf("a stopped agent ends with %v", err)
	}
	_, err = relayAdmin.RevokeAgent(t.Context(), id)
	must(t, err)
	text, err = command(t, "", "check", "--config", file)
	if err == nil || !regexp.MustCompile(`(?m)^session +fail `).MatchString(text) {
		t.Errorf("a revoked agent passes its check: %v\n%s", err, text)
	}
	revoked := make(chan error, 1)
	go func() { _, err := command(t, "", "run", "--config", file, "--log", "json"); revoked <- err }()
	select {
	case err := <-revoked:
		if err == nil || !strings.Contains(err.Error(), "join again") {
			t.Errorf("a revoked agent ends with %v", err)
		}
	case <-time.After(patience):
		t.Error("a revoked agent tries for ever")
	}
}

// checkAndRotate does both beside the agent that runs.
func checkAndRotate(t *testing.T, relayAdmin *admin.Client, file string) {
	t.Helper()
	text, err := command(t, "", "check", "--config", file, "-o", "json")
	var doc checkDocument
	if err != nil || json.Unmarshal([]byte(text), &doc) != nil || doc.Schema != "iap-agent/v1" || !doc.OK {
		t.Fatalf("%v\n%s", err, text)
	}
	names := ""
	for _, s := range doc.Stages {
		names += s.Stage + " " + s.Verdict + "; "
	}
	want := "configuration ok; name ok; proxy ok; tcp ok; tls ok; upgrade ok; clock ok; session ok; announce ok; witness ok; upstream db ok; "
	if names != want {
		t.Errorf("%s", names)
	}
	before, err := relayAdmin.Agents(t.Context())
	must(t, err)
	if text, err := command(t, "", "rotate", "--config", file); err != nil || !strings.Contains(text, "SHA256:") {
		t.Fatalf("%v\n%s", err, text)
	}
	if _, err := command(t, "", "run", "--config", file); err == nil || !strings.Contains(err.Error(), "another iap-agent runs with this key") {
		t.Errorf("a second process with the key: %v", err)
	}
	waitUntil(t, "the agent is online with its new key", func() bool {
		all, err := relayAdmin.Agents(t.Context())
		return err == nil && len(all) == 1 && all[0].Sessions == 2 && all[0].Key != before[0].Key
	})
}

func refusal(err error) string {
	var refused *admin.Error
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// waitUntil waits for a state that nothing announces.
func waitUntil(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// TestAG03JoinTokenComesFromAFileOfItsOwners keeps the token out of the process list and of others' eyes.
func TestAG03JoinTokenComesFromAFileOfItsOwners(t *testing.T) {
	dir := t.TempDir()
	file, config := filepath.Join(dir, "token"), filepath.Join(dir, "agent.yaml")
	must(t, os.WriteFile(file, []byte("iapjoin1.nonsense\n"), 0o600))
	if _, err := command(t, "", "join", "--token-file", file, "--config", config); err == nil || strings.Contains(err.Error(), "chmod") || strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a token that is none: %v", err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o644} {
		must(t, os.Chmod(file, mode))
		if _, err := command(t, "", "join", "--token-file", file, "--config", config); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if _, err := command(t, "", "join", "iapjoin1.x", "--token-file", file); err == nil || !strings.Contains(err.Error(), "one join token") {
		t.Errorf("both: %v", err)
	}
	if _, err := command(t, "", "join", "--token-file", dir, "--config", config); err == nil {
		t.Error("a folder was read")
	}
}
