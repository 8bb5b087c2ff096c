package e2e

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"iap/internal/dev"
)

// strictGrants want more of a login than a password.
const strictGrants = `version: 1
grants:
  - name: careful
    to: ["group:dev/ml-eng"]
    resources: ["phi3"]
    actions: [chat]
    require: {acr: [gold], max_auth_age: 12h}
  - name: everybody
    to: ["group:dev/ml-eng"]
    resources: ["phi3"]
    actions: [list-models]
  - name: locked
    to: ["group:dev/ml-eng"]
    resources: ["vault"]
    actions: [chat]
    require: {acr: [gold]}
`

// strictSystem has a provider that remembers alice since long ago and can ask her for more.
func strictSystem(t *testing.T) *system {
	t.Helper()
	alice := dev.DefaultUsers()[0]
	alice.AMR, alice.Classes = []string{"pwd"}, map[string][]string{"gold": {"pwd", "mfa"}}
	s := newSystem(t, options{grants: strictGrants, provider: dev.ProviderOptions{Users: []dev.User{alice}}})
	s.provider.RememberLogin("alice", time.Now().Add(-24*time.Hour))
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url, "vault=model": up.url})
	return s
}

func TestDenialThatALoginWouldChangeNamesTheLogin(t *testing.T) {
	t.Parallel()
	s := strictSystem(t)
	alice := s.loggedIn("alice")
	const command = "iapctl login --acr 'gold' --max-age 12h"
	got := alice.run("chat", "phi3", "hello")
	if got.code != 4 || !strings.Contains(got.errOut, command) || !strings.Contains(got.errOut, "acr_required") {
		t.Errorf("chat: %+v", got)
	}
	for _, args := range [][]string{{"chat", "vault", "hello"}, {"connect", "vault"}, {"connect", "vault", "--detach"}} {
		if got := alice.run(args...); got.code != 4 || !strings.Contains(got.errOut, "login --acr 'gold'") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	if f := alice.finds(4, "policy", "acr_required", "vault"); !strings.Contains(f.Next, "login --acr 'gold'") {
		t.Errorf("doctor: %+v", f)
	}
	if got := alice.run("resources"); got.code != 0 || !strings.Contains(got.out, "locked") || !strings.Contains(got.out, "--acr 'gold'") {
		t.Errorf("resources: %+v", got)
	}
	c := alice.connect("phi3")
	web := newCaller(t, c.url())
	body := chatBody("demo", "through the listener", false, 2)
	if got := web.ask("POST", "/v1/chat/completions", body); got.status != 403 || got.code() != "acr_required" {
		t.Errorf("a request in the tunnel: %+v", got)
	}
	c.awaitText(0, command, 1)

	if got := alice.tryLogin("login"); got.code != 0 {
		t.Fatalf("login: %+v", got)
	}
	if got := alice.run("chat", "phi3", "hello"); got.code != 4 {
		t.Errorf("after a login that is no better: %+v", got)
	}
	if got := alice.tryLogin("login", "--acr", "gold", "--max-age", "12h"); got.code != 0 {
		t.Fatalf("login: %+v", got)
	}
	if got := alice.run("chat", "phi3", "hello"); got.code != 0 || got.out == "" {
		t.Errorf("after the login that was named: %+v", got)
	}
	eventually(t, "the listener uses the new login", func() bool { return web.ask("POST", "/v1/chat/completions", body).status == 200 })
}

var shownCode = regexp.MustCompile(`enter the code\s+(?:\x1b\[[0-9;]*m)*([A-Z]{4}-[A-Z]{4})`)

func TestOnATerminalTheLoginIsOfferedAndTheWorkGoesOn(t *testing.T) {
	t.Parallel()
	var shell string
	for _, tool := range []string{"script", "mkfifo", "sh"} {
		var err error
		if shell, err = exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: no terminal to be had", tool)
		}
	}
	s := strictSystem(t)
	alice := s.loggedIn("alice")
	keys := filepath.Join(s.dir, "keyboard")
	// The answer lies in the terminal before it is asked for; descriptor 3 keeps the keyboard from ending.
	const typing = `mkfifo "$1" && exec 3<>"$1" && echo y >&3 && exec script -qefc "$2" /dev/null <&3`
	p := start(t, append(alice.env, "TERM=dumb"), shell, "-c", typing, "sh", keys, program("iapctl")+" chat phi3 hello")
	ctx, cancel := limited(t)
	defer cancel()
	said, err := p.out.await(ctx, 0, "Confirm it only", 1)
	if err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	code := shownCode.FindStringSubmatch(said)
	if code == nil || !strings.Contains(said, "Log in again now?") {
		t.Fatalf("no code is shown:\n%s", said)
	}
	if err := s.provider.Approve(ctx, code[1], "alice"); err != nil {
		t.Fatal(err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("status %d:\n%s", status, p.out.text())
	}
}
