package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"iap/auth"
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
