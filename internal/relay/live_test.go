package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/tunnel"
)

func TestPO07ReloadThatDeniesEndsEveryLiveStream(t *testing.T) {
	chat := newSlowChat()
	s := newSystem(t, aliceAndBob)
	s.startAgent(served{"phi3", "model", newModelServer(t, chat.serve).URL})
	running := startChats(t, s.user(nil).open(tunnel.Interactive), 10)
	for range running {
		await(t, chat.begun, "an answer begins")
	}
	old := s.relay.policy.Revision()
	s.setPolicy(bobOnly)
	for i, body := range running {
		if text, err := io.ReadAll(body); err == nil || !strings.Contains(string(text), `"code":"policy_changed"`) {
			t.Errorf("stream %d ended with %v and %q", i, err, text)
		}
	}
	eventually(t, "every stream has its end record", func() bool {
		return len(s.events(func(e audit.Event) bool {
			return e.Kind == audit.KindOutcome && e.Action == "chat" && e.Ended == "policy_changed" && e.Revision == old
		})) == len(running)
	})
}

func TestID25WhatTheProviderTakesBackEndsStreams(t *testing.T) {
	t.Run("refresh refused", func(t *testing.T) {
		r := startRunning(t)
		must(t, r.alice.session.Withdraw(tunnel.CodeLoginRequired))
		r.alice.cut(t, tunnel.CodeLoginRequired)
		r.whole(t, r.bob)
		e := r.s.awaitEvent("the withdrawal", func(e audit.Event) bool { return e.Reason == "withdrawn" })
		if e.Principal != "corp/alice" || e.Session != r.alice.session.ID() {
			t.Errorf("%+v", e)
		}
		r.s.awaitEvent("the outcome", func(e audit.Event) bool {
			return e.Kind == audit.KindOutcome && e.Principal == "corp/alice" && e.Resource == "phi3" && e.Ended == "login_required"
		})
	})
	t.Run("groups changed", func(t *testing.T) {
		chat := newSlowChat()
		s := newSystem(t, allowAll)
		s.startAgent(served{"phi3", "model", newModelServer(t, chat.serve).URL})
		u := s.user(nil)
		session := u.open(tunnel.Interactive)
		running := startChats(t, session, 1)
		u.claims = map[string]any{"groups": []string{"guests"}}
		if _, err := session.Refresh(within(t), u.token()); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(running[0]); err == nil || !strings.Contains(string(text), `"code":"policy_changed"`) {
			t.Errorf("the answer ended with %v and %q", err, text)
		}
		if _, reply, err := openStream(within(t), session, tunnel.Header{Resource: "phi3"}); err != nil || reply.OK {
			t.Errorf("the old groups open a stream: %+v, %v", reply, err)
		}
	})
}

// TestFI21ExpiredSessionIsNotHonouredThoughItsTimerHasNotFired sets the relay's clock behind the session's end, as a process
// that was stopped and goes on finds it: what comes before any timer is refused, and what runs ends.
func TestFI21ExpiredSessionIsNotHonouredThoughItsTimerHasNotFired(t *testing.T) {
	chat := newSlowChat()
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/models") {
			fmt.Fprint(w, `{"object":"list","data":[]}`)
			return
		}
		chat.serve(w, r)
	})
	s := prepareSystem(t, aliceAndBob)
	var ahead atomic.Int64
	s.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	s.start()
	s.startAgent(served{"phi3", "model", m.URL}, served{"db", "tcp", echo(t)})
	session := s.user(nil).open(tunnel.Interactive)
	c := client(t, session, tunnel.Header{Resource: "phi3"})
	running := startChats(t, session, 1)
	splice := mustOpen(t, session, "db")
	ping(t, splice)
	live := s.relay.sessions.find(session.ID())
	live.expiry.Stop() // it would fire an hour from now; the process was stopped until then

	ahead.Store(int64(time.Hour))
	if no := s.relay.refusal(live.identity()); no == nil || no.Code != tunnel.CodeSessionExpired {
		t.Errorf("the session is honoured after its end: %v", no)
	}
	answer, err := c.Get("http://phi3/v1/models")
	if err == nil {
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "session_expired") {
			t.Errorf("a request: %s %s", answer.Status, body)
		}
	}
	if _, reply, err := openStream(within(t), session, tunnel.Header{Resource: "db"}); err == nil && reply.OK {
		t.Error("a stream was opened")
	}
	if text, err := io.ReadAll(running[0]); err == nil || !strings.Contains(string(text), `"code":"session_expired"`) {
		t.Errorf("what ran ended with %v and %q", err, text)
	}
	stop := context.AfterFunc(within(t), func() { splice.Abort(tunnel.CodeTimeout) })
	defer stop()
	if _, err := io.ReadAll(splice); tunnel.CodeOf(err) != tunnel.CodeSessionExpired {
		t.Errorf("the tcp stream ended with %v", err)
	}
	await(t, session.Done(), "the session ends")
}

// TestTCPStreamEndsWithItsDecision opens a stream whose grant holds for another moment.
func TestTCPStreamEndsWithItsDecision(t *testing.T) {
	s := newSystem(t, strings.Replace(aliceAndBob, "    actions:", "    require: {max_auth_age: 1h}\n    actions:", 1))
	s.startAgent(served{"db", "tcp", echo(t)})
	u := s.user(map[string]any{"auth_time": time.Now().Add(-time.Hour + 3*time.Second).Unix()})
	st := mustOpen(t, u.open(tunnel.Bulk), "db")
	ping(t, st)
	spared := mustOpen(t, s.user(nil).open(tunnel.Bulk), "db")
	stop := context.AfterFunc(within(t), func() { st.Abort(tunnel.CodeTimeout) })
	defer stop()
	if _, err := io.ReadAll(st); tunnel.CodeOf(err) != tunnel.CodeLoginRequired {
		t.Errorf("the stream ended with %v", err)
	}
	ping(t, spared)
	s.awaitEvent("the outcome", func(e audit.Event) bool {
		return e.Kind == audit.KindOutcome && e.Resource == "db" && e.Ended == "login_required"
	})
}
