package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"iap/auth"
	"iap/internal/connect"
	"iap/tunnel"
)

func TestOutageIsToldOnceAndItsEnd(t *testing.T) {
	a, _, stderr := testApp(t)
	w := a.newWatch(context.Background(), nil)
	lost := &tunnel.SessionError{Code: tunnel.CodeDead, Err: errors.New("reset")}
	w.down(tunnel.Bulk, lost, 0)
	if stderr.Len() != 0 {
		t.Errorf("told before the command began: %q", stderr)
	}
	w.begin()
	w.down(tunnel.Bulk, &tunnel.SessionError{Code: tunnel.CodeRelayShutdown}, 0)
	w.down(tunnel.Bulk, &tunnel.SessionError{Code: tunnel.CodeCanceled}, 0)
	if stderr.Len() != 0 {
		t.Errorf("an orderly change is told: %q", stderr)
	}
	for range 3 {
		w.down(tunnel.Bulk, lost, 0)
		w.down(tunnel.Interactive, lost, 0)
	}
	if n := strings.Count(stderr.String(), "Trying again"); n != 1 {
		t.Errorf("told %d times: %q", n, stderr)
	}
	for range 2 {
		w.down(tunnel.Bulk, auth.ErrNotFound, 0)
	}
	if n := strings.Count(stderr.String(), "iapctl login"); n != 1 {
		t.Errorf("login asked for %d times: %q", n, stderr)
	}
}

func TestNeededLoginIsAnEventForScriptsAndForOtherProcesses(t *testing.T) {
	a, _, stderr := testApp(t)
	a.output = "json"
	w := a.newWatch(context.Background(), nil)
	registry := connect.Registry{Dir: t.TempDir()}
	claim, err := registry.Claim("phi3", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = claim.Release() }()
	if err := claim.Publish(connect.Running{Kind: "model"}); err != nil {
		t.Fatal(err)
	}
	w.claims = []*connect.Claim{claim}
	w.begin()
	over := &auth.LoginError{Code: auth.CodeRefreshRefused, Public: "the identity provider has ended this login"}
	for range 2 {
		w.down(tunnel.Bulk, over, 0)
		w.down(tunnel.Interactive, over, 0)
	}
	w.end()
	var e event
	if err := json.Unmarshal(stderr.Bytes(), &e); err != nil { // one document, or it fails
		t.Fatalf("%v: %s", err, stderr)
	}
	if e.Schema != schemaName || e.Event != eventLoginNeeded || e.Code != "refresh_refused" || e.Next != "iapctl login" {
		t.Errorf("%+v", e)
	}
	if run, ok := registry.Lookup("phi3"); !ok || !run.LoginNeeded {
		t.Errorf("other processes find %+v", run)
	}
}

func TestDesktopIsLeftAloneWhereThatIsWanted(t *testing.T) {
	a, _, _ := testApp(t)
	if a.desktop(connectOptions{}) == nil {
		t.Error("nobody would be told")
	}
	if a.desktop(connectOptions{noNotify: true}) != nil {
		t.Error("--no-notify is not heeded")
	}
	a.environ = append(a.environ, "IAP_NO_NOTIFY=1")
	if a.desktop(connectOptions{}) != nil {
		t.Error("IAP_NO_NOTIFY is not heeded")
	}
}

func TestOtherUserIsToldOnce(t *testing.T) {
	a, _, stderr := testApp(t)
	w := a.newWatch(context.Background(), nil)
	w.otherUser()
	w.otherUser()
	if n := strings.Count(stderr.String(), "another user"); n != 1 {
		t.Errorf("told %d times", n)
	}
	w.notice(tunnel.Notice{Text: "evil\x1b[2J"})
	if strings.Contains(stderr.String(), "\x1b") {
		t.Errorf("escape of the relay printed: %q", stderr)
	}
}
