package relay

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/dev"
	"iap/internal/relay/settings"
)

// goodConfig is a relay.yaml with every part that is required.
const goodConfig = `name: iap.example.com
tls: {cert_file: tls.crt, key_file: tls.key}
policy: {grants: grants.yaml}
issuers:
  - {name: corp, url: "https://idp.example.com", client_id: iapctl}
`

// TestSetupWritesWhatLoads is the way of a first user: what init writes passes check and starts.
func TestSetupWritesWhatLoads(t *testing.T) {
	provider, err := dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { provider.Close() })
	for _, s := range []settings.Setup{
		{},
		{Group: "ml-eng", Resource: "llama"},
		{Group: `odd "group"`},
		{Group: "with space/and slash"},
		{Alias: "google"},
		{Alias: "123"},
	} {
		dir, err := os.MkdirTemp("", "iap")
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		files, err := dev.Certificates(dir, "localhost", "127.0.0.1")
		must(t, err)
		s.Dir, s.Name, s.Listen, s.Data = dir, "localhost:8443", "127.0.0.1:0", filepath.Join(dir, "data")
		s.Issuer, s.ClientID, s.CertFile, s.KeyFile = provider.Issuer(), provider.ClientID(), files.Cert, files.Key
		file, err := s.Write()
		if err != nil {
			t.Errorf("%+v: %v", s, err)
			continue
		}
		for _, r := range settings.Check(within(t), file) {
			if r.Problem != "" {
				t.Errorf("alias %q, group %q: %s: %s", s.Alias, s.Group, r.Name, r.Problem)
			}
		}
		cfg, err := settings.Load(file)
		if err != nil {
			continue // said by Check
		}
		if r, err := New(context.Background(), cfg, Options{}); err == nil {
			must(t, r.Close())
		} else {
			t.Errorf("alias %q, group %q does not start: %v", s.Alias, s.Group, err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if _, err := s.Write(); err == nil {
			t.Error("a second set-up wrote over the first")
		}
	}
	if _, err := (settings.Setup{Name: "x"}).Write(); err == nil {
		t.Error("a set-up without issuer was written")
	}
}

// TestCheckFindsWhatAStartWouldRefuse breaks one thing at a time: what New refuses, check must have said.
func TestCheckFindsWhatAStartWouldRefuse(t *testing.T) {
	provider, err := dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { provider.Close() })
	second := "\n  - {name: %s, url: \"https://other.example.com\", client_id: iapctl, audiences: [other]%s}\n"
	for what, breakIt := range map[string]func(dir, text string) string{
		"nothing": func(_, text string) string { return text },
		"certificate": func(dir, text string) string {
			must(t, os.WriteFile(filepath.Join(dir, "tls.crt"), []byte("x"), 0o600))
			return text
		},
		"key missing": func(dir, text string) string { must(t, os.Remove(filepath.Join(dir, "tls.key"))); return text },
		"grants": func(dir, text string) string {
			must(t, os.WriteFile(filepath.Join(dir, "grants.yaml"), []byte("x: 1"), 0o600))
			return text
		},
		"no grants": func(dir, text string) string { must(t, os.Remove(filepath.Join(dir, "grants.yaml"))); return text },
		"same alias twice": func(_, text string) string {
			return text + strings.ReplaceAll(strings.Replace(second, "%s", "corp", 1), "%s", "")
		},
		"programs with people's audience": func(_, text string) string {
			return strings.TrimRight(text, "\n") + "\n  - {name: robots, url: \"" + provider.Issuer() + "\", workload: true, audiences: [iapctl], authorized_parties: [nightly]}\n"
		},
		"no keys file": func(_, text string) string {
			return strings.Replace(text, "client_id:", "keys_file: missing.jwks\n    client_id:", 1)
		},
		"state of no kind": func(_, text string) string { return text + "state: mysql://x\n" },
		"bad algorithm": func(_, text string) string {
			return strings.Replace(text, "client_id:", "algorithms: [none]\n    client_id:", 1)
		},
		"one audience twice": func(_, text string) string {
			return strings.Replace(text, "client_id:", "bearer_audiences: [iapctl]\n    client_id:", 1)
		},
		"mfa of no kind": func(_, text string) string {
			return strings.Replace(text, "client_id:", "mfa: maybe\n    client_id:", 1)
		},
		"groups no pointer": func(_, text string) string {
			return strings.Replace(text, "client_id:", "groups: groups\n    client_id:", 1)
		},
		"claims no pointer": func(_, text string) string {
			return strings.Replace(text, "client_id:", "claims: {repo: repository}\n    client_id:", 1)
		},
		"socket path too long": func(_, text string) string { return text + "admin_socket: /tmp/" + strings.Repeat("x", 120) + "\n" },
	} {
		dir, err := os.MkdirTemp("", "iap")
		must(t, err)
		t.Cleanup(func() { os.RemoveAll(dir) })
		files, err := dev.Certificates(dir, "localhost")
		must(t, err)
		must(t, os.Rename(files.Cert, filepath.Join(dir, "tls.crt")))
		must(t, os.Rename(files.Key, filepath.Join(dir, "tls.key")))
		must(t, os.WriteFile(filepath.Join(dir, "grants.yaml"), []byte(allowAll), 0o600))
		text := strings.Replace(goodConfig, `{name: corp, url: "https://idp.example.com", client_id: iapctl}`,
			"name: corp\n    url: \""+provider.Issuer()+"\"\n    client_id: iapctl", 1)
		text = "name: localhost\nlisten: \"127.0.0.1:0\"\ndata: data\n" + strings.TrimPrefix(text, "name: iap.example.com\n")
		file := filepath.Join(dir, "relay.yaml")
		must(t, os.WriteFile(file, []byte(breakIt(dir, text)), 0o600))
		var problems []string
		for _, r := range settings.Check(within(t), file) {
			if r.Problem != "" {
				problems = append(problems, r.Name+": "+r.Problem)
			}
		}
		starts := startOnce(t, file)
		if (starts == nil) != (len(problems) == 0) {
			t.Errorf("%s: check says %q, a start says %v", what, problems, starts)
		}
		if (what == "nothing") != (starts == nil) {
			t.Errorf("%s: start: %v", what, starts)
		}
		if _, err := os.Stat(filepath.Join(dir, "data")); what != "nothing" && starts != nil && err == nil {
			continue // a start that failed may have made its folder
		}
	}
}

func startOnce(t *testing.T, file string) error {
	t.Helper()
	cfg, err := settings.Load(file)
	if err != nil {
		return err
	}
	r, err := New(context.Background(), cfg, Options{})
	if err != nil {
		return err
	}
	must(t, r.Close())
	return nil
}

func TestCheckNamesWhatIsWrongWithTheCertificate(t *testing.T) {
	s := prepareSystem(t, allowAll)
	file := filepath.Join(s.dir, "relay.yaml")
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, os.WriteFile(file, []byte(strings.Replace(string(text), s.name, "iap.other.example:443", 1)), 0o600))
	found := false
	for _, r := range settings.Check(within(t), file) {
		found = found || r.Name == "certificate" && strings.Contains(r.Problem, "is not for iap.other.example")
	}
	if !found {
		t.Errorf("%+v", settings.Check(within(t), file))
	}
	if _, err := os.Stat(filepath.Join(s.dir, "data")); err == nil {
		t.Error("check left a data folder behind")
	}
}

func TestFailedStartLeavesNothingOpen(t *testing.T) {
	s := newSystem(t, allowAll) // holds the port
	cfg := *s.cfg
	cfg.Data = filepath.Join(s.dir, "other")
	cfg.State, cfg.Audit.Dir, cfg.AdminSocket = "sqlite:"+filepath.Join(s.dir, "other.db"), filepath.Join(s.dir, "other-audit"), filepath.Join(s.dir, "o.sock")
	if r, err := New(context.Background(), &cfg, Options{}); err == nil {
		r.Close()
		t.Fatal("two relays on one port")
	}
	cfg.Listen = "127.0.0.1:0"
	r, err := New(context.Background(), &cfg, Options{}) // the audit log is locked by one process at a time
	must(t, err)
	must(t, r.Close())
}

func TestFI19ReloadKeepsTheOldCertificateWhenTheNewIsBroken(t *testing.T) {
	s := newSystem(t, allowAll)
	good, err := os.ReadFile(s.cfg.TLS.CertFile)
	must(t, err)
	must(t, os.WriteFile(s.cfg.TLS.CertFile, []byte("broken"), 0o600))
	if err := s.relay.Reload(within(t)); err == nil {
		t.Error("a broken certificate was loaded")
	}
	s.user(nil).open("interactive")
	must(t, os.WriteFile(s.cfg.TLS.CertFile, good, 0o600))
	must(t, s.relay.Reload(within(t)))
}
