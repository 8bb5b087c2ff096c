package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"iap/internal/dev"
)

func TestConnectRunsACommandAndReturnsItsStatus(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: a command of connect is not proven with it", tool)
		}
	}
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice := s.loggedIn("alice")
	ask := `curl -sS --fail -H "Authorization: Bearer $OPENAI_API_KEY" -H 'Content-Type: application/json' -d "$1" "$OPENAI_BASE_URL/chat/completions"; exit 7`
	got := alice.run("connect", "phi3", "--", "sh", "-c", ask, "sh", chatBody("demo", "from a command", true, 5))
	if got.code != 7 || !strings.Contains(got.out, "[DONE]") {
		t.Errorf("status %d, stdout %q, stderr %q", got.code, got.out, got.errOut)
	}
	// The port is the command's alone: without the key nobody else is served.
	got = alice.run("connect", "phi3", "--", "sh", "-c", `curl -s -o /dev/null -w '%{http_code}' "$OPENAI_BASE_URL/models"`)
	if got.code != 0 || got.out != "401" {
		t.Errorf("without the local key: status %d, stdout %q, stderr %q", got.code, got.out, got.errOut)
	}
	if got := alice.run("connect", "phi3", "--", "no-such-command"); got.code != 125 {
		t.Errorf("a command that does not exist: status %d, %s", got.code, got.errOut)
	}
	if got := alice.run("connect", "phi3", "--", "sh", "-c", "kill -9 $$"); got.code != 137 {
		t.Errorf("a command that was killed: status %d, %s", got.code, got.errOut)
	}
}

func TestDetachedConnectionLivesUntilItIsDisconnected(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice := s.loggedIn("alice")
	t.Cleanup(func() { alice.run("disconnect", "--all") })

	c := alice.connect("phi3", "--detach")
	if code := c.wait(); code != 0 || !c.report.Detached {
		t.Fatalf("connect --detach: status %d, %+v", code, c.report)
	}
	web := newCaller(t, c.url())
	if got := web.ask("GET", "/v1/models", ""); got.status != 200 {
		t.Errorf("through the background: %+v", got)
	}
	var again report
	alice.ok(&again, "connect", "phi3")
	if one := again.Connections[0]; !one.Already || one.Port != c.report.Connections[0].Port || one.PID != c.report.PID {
		t.Errorf("a second connect reports %+v, the first %+v", again, c.report)
	}
	var env struct {
		Connected bool
		Variables map[string]string
	}
	alice.ok(&env, "env", "phi3")
	if !env.Connected || env.Variables["OPENAI_BASE_URL"] != c.url()+"/v1" || env.Variables["OPENAI_API_KEY"] == "" || env.Variables["OLLAMA_HOST"] != c.url() {
		t.Errorf("env = %+v", env)
	}
	web.http.CloseIdleConnections()
	alice.ok(nil, "disconnect", "phi3")
	if conn, err := net.Dial("tcp", c.address()); err == nil {
		conn.Close()
		t.Error("somebody still listens after disconnect")
	}
	if p, err := os.FindProcess(c.report.PID); err == nil {
		eventually(t, "the background process has ended", func() bool { return p.Signal(syscall.Signal(0)) != nil })
	}
	var back report
	c2 := alice.connectAll("phi3", "--detach")
	if back = c2.report; back.Connections[0].Port != c.report.Connections[0].Port {
		t.Errorf("the port was %d and is %d: it is not remembered", c.report.Connections[0].Port, back.Connections[0].Port)
	}
}

func TestTwoResourcesAtOnceEachOnItsPort(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	other := startUpstream(t, newWebApp().handler())
	s.startAgent(map[string]string{"phi3=model": up.url, "app=http": other.url})
	c := s.loggedIn("alice").connectAll("phi3", "app")
	if len(c.report.Connections) != 2 || c.report.Connections[0].Port == c.report.Connections[1].Port {
		t.Fatalf("report %+v", c.report)
	}
	if got := newCaller(t, c.report.Connections[0].URL).ask("GET", "/v1/models", ""); got.status != 200 {
		t.Errorf("the model: %+v", got)
	}
	if got := newCaller(t, c.report.Connections[1].URL).ask("GET", "/large", ""); len(got.body) != largeValue {
		t.Errorf("the application: %d, %d bytes", got.status, len(got.body))
	}
	web := newCaller(t, c.report.Connections[0].URL)
	for _, header := range []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Referer: https://evil.example/page"} {
		if got := web.ask("GET", "/v1/models", "", header); got.status != 403 {
			t.Errorf("a web page's request with %s: %+v", header, got)
		}
	}
	if got := web.ask("GET", "/v1/models", "", "Origin: vscode-webview://1234", "Sec-Fetch-Site: cross-site"); got.status != 200 {
		t.Errorf("an editor's request: %+v", got)
	}
	ctx, cancel := limited(t)
	defer cancel()
	if r, err := web.do(ctx, "GET", "/v1/models", ""); err == nil {
		r.Body.Close()
		r.Request.Host = "evil.example"
		again, err := web.http.Do(r.Request)
		if err != nil {
			t.Fatal(err)
		}
		again.Body.Close()
		if again.StatusCode != 403 {
			t.Errorf("a request for another host: %s", again.Status)
		}
	}
}

func TestProfilesKeepLoginsApart(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	person := s.loggedIn("alice")
	second := *person
	second.subject = "bob"
	if got := second.tryLogin("--profile", "work", "login", s.name, "--ca-file", s.ca); got.code != 0 {
		t.Fatalf("login to a second profile: %d %s", got.code, got.errOut)
	}
	var who struct{ Principal string }
	person.ok(&who, "whoami")
	if who.Principal != "dev/alice" {
		t.Errorf("the first profile is %+v", who)
	}
	person.with("IAP_PROFILE=work").ok(&who, "whoami")
	if who.Principal != "dev/bob" {
		t.Errorf("the second profile is %+v", who)
	}
	var list struct {
		Profiles []struct {
			Name     string
			Current  bool
			LoggedIn bool `json:"logged_in"`
		}
	}
	person.ok(nil, "profile", "use", "work")
	person.ok(&list, "profile", "ls")
	if fmt.Sprint(list.Profiles) != "[{default false true} {work true true}]" {
		t.Errorf("profiles %+v", list.Profiles)
	}
	person.fails(2, "profile_conflict", "login", "other.example.com")
	person.ok(nil, "profile", "use", "default")
	person.ok(nil, "profile", "rm", "work")
	person.fails(2, "profile_unknown", "profile", "use", "work")
	person.ok(&who, "whoami")
}

func TestLogoutRevokesAndForgets(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	alice := s.loggedIn("alice")
	files := credentialFiles(alice)
	if len(files) == 0 {
		t.Error("no file holds the credentials after a login")
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	before := s.provider.Hits(dev.EndpointRevocation)
	var doc struct{ Revoked, Deleted bool }
	alice.ok(&doc, "logout")
	if !doc.Revoked || !doc.Deleted || s.provider.Hits(dev.EndpointRevocation) == before {
		t.Errorf("logout reports %+v after %d revocations", doc, s.provider.Hits(dev.EndpointRevocation)-before)
	}
	alice.fails(4, "login_required", "whoami")
	alice.fails(4, "login_required", "connect", "phi3")
	alice.fails(4, "login_required", "logout")
	alice.login()
	alice.ok(nil, "whoami")
}

func TestExitStatusesTellWhatToDo(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	s.enrol(map[string]string{"phi3=model": "http://127.0.0.1:1"}) // enrolled and never started
	s.user("nobody").fails(4, "login_required", "whoami")
	s.user("nobody").fails(7, "relay_unknown_name", "login", "relay.nowhere.invalid")
	s.user("nobody").fails(7, "relay_certificate", "login", s.name)
	alice := s.loggedIn("alice")
	alice.fails(5, "unknown_resource", "connect", "phi4")
	alice.fails(6, "agent_offline", "chat", "phi3", "hello")
	alice.fails(2, "nothing_listed", "connect")
	alice.fails(2, "usage", "no-such-command")
	alice.fails(2, "usage", "whoami", "--no-such-flag")
	var explained struct {
		Allow  bool
		Reason string
	}
	got := alice.run("policy", "explain", "phi3", "--action", "server-admin", "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &explained); err != nil || got.code != 0 || explained.Allow || explained.Reason == "" {
		t.Errorf("explain = %+v, %v, %+v", explained, err, got)
	}

	waiting := start(t, s.user("alice").env, "iapctl", "login", s.name, "--ca-file", s.ca, "--no-open", "-o", "json")
	waiting.awaitText(0, "user_code", 1)
	waiting.stop()
	failed(t, result{waiting.code, waiting.out.text(), waiting.err.text()}, 3, "canceled")
	denied := start(t, s.user("alice").env, "iapctl", "login", s.name, "--ca-file", s.ca, "--no-open", "-o", "json")
	var prompt struct {
		Code string `json:"user_code"`
	}
	if err := json.Unmarshal([]byte(denied.awaitText(0, "\n", 1)), &prompt); err != nil {
		t.Fatal(err)
	}
	if err := s.provider.Deny(t.Context(), prompt.Code); err != nil {
		t.Fatal(err)
	}
	failed(t, result{denied.wait(), denied.out.text(), denied.err.text()}, 5, "login_denied")

	s.relay.stop()
	alice.fails(7, "relay_unreachable", "whoami")
	alice.fails(7, "relay_unreachable", "connect", "phi3")
}

func TestChatResourcesAndStatusShowWhatIsThere(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice := s.loggedIn("alice")
	var list struct {
		Resources []struct {
			Name, Kind, Server string
			Online             bool
			Models, Actions    []string
		}
	}
	alice.ok(&list, "resources")
	if len(list.Resources) != 1 || list.Resources[0].Name != "phi3" || !list.Resources[0].Online || len(list.Resources[0].Models) != 1 || list.Resources[0].Server != "ollama" {
		t.Errorf("resources = %+v", list)
	}
	var said struct{ Model, Answer string }
	alice.ok(&said, "chat", "phi3", "Tell me about the harbour.")
	if !strings.HasPrefix(said.Model, "demo") || len(strings.Fields(said.Answer)) < 5 {
		t.Errorf("chat = %+v", said)
	}
	c := alice.connect("phi3")
	var status struct {
		Principal   string
		Connections []struct{ Resource string }
		Relay       *struct{ Relay string }
	}
	alice.ok(&status, "status")
	if status.Principal != "dev/alice" || len(status.Connections) != 1 || status.Connections[0].Resource != "phi3" || status.Relay == nil || status.Relay.Relay != s.name {
		t.Errorf("status = %+v", status)
	}
	c.stop()
	if c.code != 3 && c.code != 0 {
		t.Errorf("Ctrl-C ends connect with %d", c.code)
	}
	alice.ok(&status, "status")
	if len(status.Connections) != 0 {
		t.Errorf("status after the end of connect = %+v", status)
	}
	var token struct{ Token string }
	alice.ok(&token, "auth", "token")
	if strings.Count(token.Token, ".") != 2 {
		t.Errorf("auth token = %+v", token)
	}
}
