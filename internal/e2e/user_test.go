package e2e

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// user is one person with an iapctl configuration of their own.
type user struct {
	t       *testing.T
	system  *system
	subject string
	env     []string
}

// user makes a person who is not logged in.
func (s *system) user(subject string, env ...string) *user {
	s.t.Helper()
	home, err := os.MkdirTemp(s.dir, "user-"+subject+"-")
	if err != nil {
		s.t.Fatal(err)
	}
	base := append(baseEnv(home), "IAP_CONFIG_DIR="+filepath.Join(home, "iap"))
	return &user{t: s.t, system: s, subject: subject, env: append(base, env...)}
}

// loggedIn is a person after a device login.
func (s *system) loggedIn(subject string, env ...string) *user {
	s.t.Helper()
	u := s.user(subject, env...)
	u.login()
	return u
}

// with is the same person in a terminal with further variables.
func (u *user) with(env ...string) *user {
	other := *u
	other.env = append(append([]string(nil), u.env...), env...)
	return &other
}

// run runs iapctl to its end.
func (u *user) run(args ...string) result {
	u.t.Helper()
	return run(u.t, u.env, "iapctl", args...)
}

// ok runs iapctl -o json, which must succeed, and reads its document into v, which may be nil.
func (u *user) ok(v any, args ...string) {
	u.t.Helper()
	got := u.run(append(args, "-o", "json")...)
	if got.code != 0 {
		u.t.Fatalf("iapctl %v: exit status %d\n%s", args, got.code, got.errOut)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(got.out), v); err != nil {
		u.t.Fatalf("iapctl %v printed %q: %v", args, got.out, err)
	}
}

// failureDocument is what iapctl -o json says on stderr when it fails.
type failureDocument struct {
	Error struct {
		Code, Message, Next string
		Exit                int
	}
}

// fails runs iapctl -o json, which must end with the exit status and the code. It returns the message.
func (u *user) fails(exit int, code string, args ...string) string {
	u.t.Helper()
	return failed(u.t, u.run(append([]string{"-o", "json"}, args...)...), exit, code)
}

func failed(t *testing.T, got result, exit int, code string) string {
	t.Helper()
	var doc failureDocument
	for line := range strings.Lines(got.errOut) { // narration may stand before it
		if strings.HasPrefix(line, "{") {
			_ = json.Unmarshal([]byte(line), &doc) // what is no such document leaves it empty
		}
	}
	if got.code != exit || doc.Error.Code != code {
		t.Errorf("exit status %d and code %q, want %d and %q\nstdout: %s\nstderr: %s", got.code, doc.Error.Code, exit, code, got.out, got.errOut)
	}
	if doc.Error.Next == "" {
		t.Errorf("code %q names no next step: %s", doc.Error.Code, got.errOut)
	}
	return doc.Error.Message
}

// login logs in with a device code, which the person approves on the provider's page.
func (u *user) login() {
	u.t.Helper()
	if got := u.tryLogin("login", u.system.name, "--ca-file", u.system.ca); got.code != 0 {
		u.t.Fatalf("iapctl login: exit status %d\n%s", got.code, got.errOut)
	}
}

// tryLogin runs a login and approves what it shows.
func (u *user) tryLogin(args ...string) result {
	u.t.Helper()
	p := start(u.t, u.env, "iapctl", append(args, "--no-open", "-o", "json")...)
	ctx, cancel := limited(u.t)
	defer cancel()
	said, err := p.err.await(ctx, 0, "\n", 1)
	var prompt struct {
		Code string `json:"user_code"`
	}
	for lines := bufio.NewScanner(strings.NewReader(said)); lines.Scan(); {
		_ = json.Unmarshal(lines.Bytes(), &prompt) // narration is no document
	}
	if prompt.Code != "" {
		if err := u.system.provider.Approve(ctx, prompt.Code, u.subject); err != nil {
			u.t.Fatalf("approve the login: %v", err)
		}
	} else if err == nil {
		u.t.Logf("iapctl login showed no code: %s", said)
	}
	code := p.wait()
	return result{code, p.out.text(), p.err.text()}
}

// connection is a running `iapctl connect`.
type connection struct {
	*process
	report report
}

// report is what `iapctl connect -o json` prints once it is ready.
type report struct {
	Principal   string
	Detached    bool
	PID         int
	Connections []struct {
		Resource, Kind string
		Online         bool
		Already        bool
		PID, Port      int
		Listen         []string
		URL            string
		OpenAI         string `json:"openai_base_url"`
		LocalKey       string `json:"local_key"`
		Moved          string
	}
}

// connect makes one resource local, on a port of the test's choice.
func (u *user) connect(resource string, args ...string) *connection {
	u.t.Helper()
	_, port, _ := net.SplitHostPort(freeAddress(u.t))
	return u.connectAll(append([]string{resource, "--port", port}, args...)...)
}

// connectAll runs `iapctl connect` and waits for its report.
func (u *user) connectAll(args ...string) *connection {
	u.t.Helper()
	c := &connection{process: start(u.t, u.env, "iapctl", append([]string{"connect", "-o", "json"}, args...)...)}
	if line := c.awaitLine(); json.Unmarshal([]byte(line), &c.report) != nil || len(c.report.Connections) == 0 {
		u.t.Fatalf("iapctl connect %v printed %q", args, line)
	}
	return c
}

// url is the base URL of the first resource.
func (c *connection) url() string { return "http://" + c.address() }

// address is where the first resource listens.
func (c *connection) address() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.report.Connections[0].Port))
}
