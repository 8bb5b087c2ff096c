package relay

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

func TestStrangersOfOneSourceLeaveRoomForOthers(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	l := newStrangers(inner, 3, 2)
	accepted := make(chan net.Conn, 8)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() { must(t, inner.Close()); <-done })
	dial := func() net.Conn {
		c, err := net.Dial("tcp", inner.Addr().String())
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	closed := func(c net.Conn) bool {
		_, err := c.Read(make([]byte, 1))
		return err == io.EOF || err != nil
	}
	dial()
	first := <-accepted
	dial()
	second := <-accepted
	if !closed(dial()) {
		t.Fatal("a third stranger of one source was let in")
	}
	first.(*strangerConn).known() // it has proven something: its place is free
	dial()
	third := <-accepted
	first.(*strangerConn).known()
	if !closed(dial()) {
		t.Fatal("a fourth connection was let in, beyond the bound of all")
	}
	for _, c := range []net.Conn{first, second, third} {
		must(t, c.Close())
		_ = c.Close() // twice counts once
	}
	if l.open != 0 || len(l.source) != 0 {
		t.Errorf("%d open, %v: the count is off", l.open, l.source)
	}
}

func TestOneSubscriberIsOneSource(t *testing.T) {
	for remote, want := range map[string]string{
		"192.0.2.7:1234": "192.0.2.7", "[::ffff:192.0.2.7]:1": "192.0.2.7",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::/64", "[2001:db8:1:2::9]:2": "2001:db8:1:2::/64", "[fe80::1%eth0]:3": "fe80::/64",
	} {
		if got := sourceKey(remote); got != want {
			t.Errorf("%s: got %s, want %s", remote, got, want)
		}
	}
}

func TestOnePrincipalsQuestionsWaitForEachOther(t *testing.T) {
	var l line
	leave := make([]func(), 0, laneWidth)
	for range laneWidth {
		f, ok := l.enter(t.Context(), "corp/mallory")
		if !ok {
			t.Fatal("no place in an empty lane")
		}
		leave = append(leave, f)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := l.enter(ended, "corp/mallory"); ok {
		t.Fatal("more questions at once than the lane is wide")
	}
	f, ok := l.enter(ended, "corp/alice")
	if ok { // the lane is free: either case of the select may be taken
		f()
	}
	alice, ok := l.enter(t.Context(), "corp/alice")
	if !ok {
		t.Fatal("one principal waits for another")
	}
	alice()
	for _, f := range leave {
		f()
	}
	if len(l.lanes) != 0 {
		t.Errorf("%d lanes are kept of nobody", len(l.lanes))
	}
}

func TestAttemptsAreCountedInAWindow(t *testing.T) {
	var a attempts
	now := time.Unix(1, 0)
	for range joinTries {
		if !a.allowed("192.0.2.7", now) {
			t.Fatal("refused too early")
		}
		a.fail("192.0.2.7")
	}
	if a.allowed("192.0.2.7", now) || !a.allowed("192.0.2.8", now) {
		t.Error("guesses of one source must not be another's")
	}
	if !a.allowed("192.0.2.7", now.Add(tryWindow)) {
		t.Error("the window does not end")
	}
	var logins attempts
	for range loginTries {
		if !logins.allow("corp/ci", now) {
			t.Fatal("refused too early")
		}
	}
	if logins.allow("corp/ci", now) || !logins.allow("corp/ann", now) {
		t.Error("sessions of one principal must not be another's")
	}
}
