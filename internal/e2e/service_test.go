package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// setting is the value of a variable of the user's.
func (u *user) setting(name string) string {
	value := ""
	for _, kv := range u.env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			value = v
		}
	}
	return value
}

// list writes the user's config.yaml.
func (u *user) list(text string) {
	u.t.Helper()
	dir := u.setting("IAP_CONFIG_DIR")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		u.t.Fatal(err)
	}
	u.system.write(filepath.Join(dir, "config.yaml"), text)
}

// serviceState is what `iapctl service` says of the service.
type serviceState struct {
	Name, File, Text   string
	Installed, Running bool
	Resources          []string
}

// The unit's command is run as systemd would: without a terminal, before anybody has logged in.
func TestServiceServesTheListOnceSomebodyHasLoggedIn(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	u := s.user("alice")
	u.fails(2, "nothing_listed", "connect")
	_, port, _ := strings.Cut(freeAddress(t), ":")
	u.list("connect:\n  - {resource: gone}\n  - {resource: phi3, port: " + port + ", local_key: true}\n  - {resource: phi3, profile: work}\n")

	var unit serviceState
	u.ok(&unit, "service", "install", "--print")
	env := append([]string(nil), u.env...)
	var command []string
	for line := range strings.Lines(unit.Text) {
		if v, ok := strings.CutPrefix(line, `Environment="`); ok {
			env = append(env, strings.TrimSuffix(strings.TrimSpace(v), `"`))
		}
		if v, ok := strings.CutPrefix(line, "ExecStart="); ok {
			command = strings.Split(strings.Trim(strings.TrimSpace(v), `"`), `" "`) // nothing here needs an escape
		}
	}
	if len(command) < 4 || command[0] != program("iapctl") {
		t.Fatalf("the unit runs %q:\n%s", command, unit.Text)
	}
	p := start(t, env, command[0], command[1:]...)
	p.awaitText(0, "Next: iapctl --profile default login", 1)
	u.login()
	p.awaitText(0, "gone is not served", 1)
	p.awaitLine()
	var served struct {
		Connected bool
		Variables map[string]string
	}
	eventually(t, "the list is served", func() bool { u.ok(&served, "env", "phi3"); return served.Connected })
	web := newCaller(t, "http://127.0.0.1:"+port)
	if got := web.ask("GET", "/v1/models", "", "Authorization: Bearer "+served.Variables["OPENAI_API_KEY"]); got.status != 200 {
		t.Errorf("with the local key: %+v", got)
	}
	if got := web.ask("GET", "/v1/models", ""); got.status != 401 && got.status != 403 {
		t.Errorf("without the local key: %+v", got)
	}
	if key := served.Variables["OPENAI_API_KEY"]; key == "" || strings.Contains(p.out.text()+p.err.text(), key) {
		t.Error("the service's log holds the local key")
	}
	if p.stop(); p.code != 0 {
		t.Errorf("stopped with status %d", p.code)
	}
}

func TestServiceIsInstalledForItsProfileAndRemovedAgain(t *testing.T) {
	t.Parallel()
	s := &system{t: t, dir: shortDir(t)}
	bin := filepath.Join(s.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	calls := filepath.Join(s.dir, "calls")
	if err := os.WriteFile(filepath.Join(bin, "systemctl"), []byte("#!/bin/sh\necho \"$*\" >>"+calls+"\necho ActiveState=active\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	u := s.user("alice", "PATH="+bin+":"+os.Getenv("PATH"), "HTTPS_PROXY=http://me:secret@proxy.test:3128")
	u.list("connect: [{resource: phi3, profile: work}]\n")
	u.fails(2, "nothing_listed", "service", "install")

	var state serviceState
	u.ok(&state, "--profile", "work", "service", "install")
	text, err := os.ReadFile(state.File)
	if err != nil || filepath.Base(state.File) != "iapctl-work.service" || !strings.HasPrefix(state.File, s.dir) || !state.Running {
		t.Errorf("%+v, %v", state, err)
	}
	if strings.Contains(string(text), "secret") || !strings.Contains(string(text), `"IAP_CONFIG_DIR=`) {
		t.Errorf("the unit reads\n%s", text)
	}
	u.system.write(state.File, string(text)+"# mine\n")
	u.fails(1, "service_edited", "--profile", "work", "service", "install")
	u.fails(1, "service_edited", "--profile", "work", "service", "uninstall")
	u.ok(nil, "--profile", "work", "service", "uninstall", "--force")
	if _, err := os.Stat(state.File); !os.IsNotExist(err) {
		t.Errorf("the file is left: %v", err)
	}
	u.fails(1, "service_missing", "--profile", "work", "service", "start")
	asked, _ := os.ReadFile(calls) // none asked is told below
	for _, want := range []string{"enable iapctl-work.service", "restart iapctl-work.service", "disable --now iapctl-work.service"} {
		if !strings.Contains(string(asked), want) {
			t.Errorf("systemctl was not asked to %s:\n%s", want, asked)
		}
	}
}
