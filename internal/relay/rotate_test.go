package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/keyfile"
	"iap/tunnel"
)

// shiftedClock is the time, and as much as the test adds.
type shiftedClock struct{ ahead atomic.Int64 }

func (c *shiftedClock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *shiftedClock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// startedAt starts a system whose relay lives by the clock.
func startedAt(t *testing.T, clock *shiftedClock) *system {
	t.Helper()
	s := prepareSystem(t, allowAll)
	s.now = clock.now
	s.start()
	return s
}

func keysOf(t *testing.T, a *runningAgent) keyfile.Keys {
	t.Helper()
	keys, err := keyfile.File(filepath.Join(filepath.Dir(a.file), "agent.key")).Read()
	must(t, err)
	return keys
}

func (s *system) agentRecord(id string) agentRecord {
	s.t.Helper()
	record, _, err := load[agentRecord](within(s.t), s.relay.store, keyAgent+id)
	must(s.t, err)
	return record
}

// opens reports whether the key opens a session of the agent.
func (s *system) opens(id string, key ed25519.PrivateKey) bool {
	session, err := (&fakeAgent{s: s, id: id, key: key}).connect(tunnel.Bulk)
	if err == nil {
		_ = session.Close(tunnel.CodeNone, "")
	}
	return err == nil
}

// TestRotationDisturbsNobody: a stream runs through it, requests before, during and after it succeed, new sessions have
// the new key, and a copy of the old one opens nothing once the overlap is over.
func TestRotationDisturbsNobody(t *testing.T) {
	clock := &shiftedClock{}
	s := startedAt(t, clock)
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	a := s.startAgent(served{"db", "tcp", echo(t)}, served{"web", "model", m.URL})
	session := s.user(nil).open(tunnel.Interactive)
	running := mustOpen(t, session, "db")
	speak := func() {
		t.Helper()
		buf := make([]byte, 4)
		if _, err := running.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(running, buf); err != nil {
			t.Fatal(err)
		}
	}
	speak()
	web := client(t, session, tunnel.Header{Resource: "web", Kind: "model"})
	ask := func() {
		reply, err := web.Get("http://localhost/v1/models")
		if err != nil {
			t.Errorf("a request failed: %v", err)
			return
		}
		_, _ = io.Copy(io.Discard, reply.Body)
		reply.Body.Close()
		if reply.StatusCode != http.StatusOK {
			t.Errorf("a request failed: %s", reply.Status)
		}
	}
	stop, asked := make(chan struct{}), 0
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				ask()
				asked++
			}
		}
	})
	halt := sync.OnceFunc(func() { close(stop); asking.Wait() })
	defer halt()
	old := keysOf(t, a).Current
	told, err := s.admin.RotateAgent(within(t), a.id)
	must(t, err)
	now := keysOf(t, a)
	if now.Next != nil || told.Key != auth.KeyID(now.Current.Public().(ed25519.PublicKey)) || told.OldKey != auth.KeyID(old.Public().(ed25519.PublicKey)) || told.Key == told.OldKey {
		t.Errorf("%+v", told)
	}
	eventually(t, "both sessions have the new key", func() bool {
		s.relay.agents.mu.Lock()
		defer s.relay.agents.mu.Unlock()
		n := 0
		for _, l := range s.relay.agents.links {
			if now.Current.Public().(ed25519.PublicKey).Equal(l.session.PublicKey()) && l.session.Announced() != nil {
				n++
			}
		}
		return n == 2
	})
	halt()
	if asked == 0 {
		t.Error("nothing was asked meanwhile")
	}
	speak()
	if !s.opens(a.id, old) {
		t.Error("the old key opens nothing within the overlap")
	}
	if again, err := s.admin.RotateAgent(within(t), a.id); adminCode(err) != "rotation_refused" {
		t.Errorf("a second rotation within the overlap: %+v, %v", again, err)
	}
	clock.advance(rotateOverlap)
	if s.opens(a.id, old) {
		t.Error("AG: a stolen old key opens a session after the rotation")
	}
	if !s.opens(a.id, now.Current) {
		t.Error("the new key opens nothing")
	}
	ask()
	speak()
	s.awaitEvent("the rotation", func(e audit.Event) bool {
		return e.Kind == audit.KindAgent && e.Reason == "key_rotated" && e.Agent == a.id && e.Detail["key"] == told.Key && e.Detail["old_key"] == told.OldKey
	})
	s.awaitEvent("the administrator's act", func(e audit.Event) bool {
		return e.Kind == audit.KindAdmin && e.Action == "iap:agents.rotate" && e.Detail["target"] == a.id
	})
}

// adminCode is the code of an administrator's refused call.
func adminCode(err error) string {
	var refused *admin.Error
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

// TestRotationSurvivesACrashAtEveryStep leaves the disk of the agent and the state of the relay as a kill at each step
// does, starts the agent again, at once and long after, and wants it connected with one key that both know.
func TestRotationSurvivesACrashAtEveryStep(t *testing.T) {
	clock := &shiftedClock{}
	s := startedAt(t, clock)
	for name, step := range map[string]struct{ prepared, stored, promoted bool }{
		"before the new key was written": {},
		"after the new key was written":  {prepared: true},
		"after the relay stored it":      {prepared: true, stored: true},
		"after the agent took it in use": {prepared: true, stored: true, promoted: true},
	} {
		for when, gone := range map[string]time.Duration{"at once": 0, "after the overlap": 2 * rotateOverlap} {
			t.Run(name+", "+when, func(t *testing.T) {
				a := s.startAgent(served{"crash", "tcp", echo(t)})
				must(t, a.stop())
				file := keyfile.File(filepath.Join(filepath.Dir(a.file), "agent.key"))
				crashAt(t, s, a.id, file, step.prepared, step.stored, step.promoted)
				clock.advance(gone)
				back := s.runAgent(a.file)
				s.awaitOnline(a.id, 2)
				eventually(t, "one key that both know", func() bool {
					keys, err := file.Read()
					record := s.agentRecord(a.id)
					return err == nil && keys.Next == nil && keys.Current.Public().(ed25519.PublicKey).Equal(ed25519.PublicKey(record.PublicKey)) && (len(record.Previous) > 0) == step.prepared
				})
				must(t, back.stop())
				_, err := s.admin.RevokeAgent(within(t), a.id)
				must(t, err)
			})
		}
	}
}

// crashAt does the rotation's steps up to the crash.
func crashAt(t *testing.T, s *system, id string, file keyfile.File, prepared, stored, promoted bool) {
	t.Helper()
	keys, err := file.Read()
	must(t, err)
	if !prepared {
		// A write that was cut short leaves a temporary file, never a part of a key.
		must(t, os.WriteFile(filepath.Join(filepath.Dir(string(file)), ".agent.key.next.123"), []byte("-----BEGIN"), 0o600))
		return
	}
	next, err := file.Prepare(within(t))
	must(t, err)
	if !stored {
		return
	}
	session, err := (&fakeAgent{s: s, id: id, key: keys.Current}).connect(tunnel.Interactive)
	must(t, err)
	must(t, session.Rotate(within(t), next))
	if promoted {
		must(t, file.Promote(within(t), next))
	}
	_ = session.Close(tunnel.CodeNone, "")
}

// TestRotationIsRepeatable: the answer of the relay was lost.
func TestRotationIsRepeatable(t *testing.T) {
	clock := &shiftedClock{}
	s := startedAt(t, clock)
	a := s.enrolFake(false, served{"web", "http", ""})
	session, err := a.connect(tunnel.Interactive)
	must(t, err)
	defer session.Close(tunnel.CodeNone, "")
	next, other := newKey(t), newKey(t)
	must(t, session.Rotate(within(t), next))
	until := s.agentRecord(a.id).PreviousUntil
	clock.advance(time.Second)
	again, err := a.connect(tunnel.Interactive) // with the old key: all that an agent knows to be good
	must(t, err)
	defer again.Close(tunnel.CodeNone, "")
	must(t, again.Rotate(within(t), next))
	if got := s.agentRecord(a.id).PreviousUntil; !got.Equal(until) {
		t.Errorf("the overlap grew from %s to %s", until, got)
	}
	// The session that the old key opened, perhaps a thief's, names no further key: neither now nor later.
	for range 2 {
		var refused *tunnel.Refusal
		if err := again.Rotate(within(t), other); !errors.As(err, &refused) {
			t.Errorf("a replaced key named a successor: %v", err)
		}
		clock.advance(2 * rotateOverlap)
	}
	if s.opens(a.id, other) || s.opens(a.id, a.key) || !s.opens(a.id, next) {
		t.Error("another key than the current one opens sessions")
	}
}

func TestRotationGoesByTheRecordAlone(t *testing.T) {
	s := newSystem(t, allowAll)
	a := s.enrolFake(false, served{"web", "http", ""})
	session, err := a.connect(tunnel.Interactive)
	must(t, err)
	defer session.Close(tunnel.CodeNone, "")
	if err := session.Rotate(within(t), a.key); tunnel.CodeOf(err) != tunnel.CodeProtocolError {
		t.Errorf("the old key as the new one: %v", err)
	}
	if got, err := s.admin.RotateAgent(within(t), "agent-none"); adminCode(err) != "unknown_agent" {
		t.Errorf("%+v, %v", got, err)
	}
	idle := s.enrolFake(false, served{"idle", "http", ""})
	if got, err := s.admin.RotateAgent(within(t), idle.id); adminCode(err) != "agent_offline" {
		t.Errorf("%+v, %v", got, err)
	}
	s.closeAudit()
	if err := session.Rotate(within(t), newKey(t)); tunnel.CodeOf(err) != tunnel.CodeAuditUnavailable {
		t.Errorf("without a record: %v", err)
	}
	if record := s.agentRecord(a.id); len(record.Previous) != 0 || !ed25519.PublicKey(record.PublicKey).Equal(a.key.Public()) {
		t.Error("an unrecorded key was stored")
	}
}

// TestRevokedAgentRotatesNothing: what takes rights away wins, also over a session that is just closing.
func TestRevokedAgentRotatesNothing(t *testing.T) {
	now := time.Now()
	old, next, third := []byte("old"), []byte("next"), []byte("third")
	for name, c := range map[string]struct {
		record   agentRecord
		old, new []byte
		want     error
	}{
		"first":            {agentRecord{PublicKey: old}, old, next, nil},
		"revoked":          {agentRecord{PublicKey: old, Revoked: &now}, old, next, &tunnel.Refusal{Code: tunnel.CodeRevoked}},
		"revoked, again":   {agentRecord{PublicKey: next, Previous: old, Revoked: &now}, old, next, &tunnel.Refusal{Code: tunnel.CodeRevoked}},
		"again":            {agentRecord{PublicKey: next, Previous: old, PreviousUntil: now.Add(1)}, old, next, errRotated},
		"from the old key": {agentRecord{PublicKey: next, Previous: old}, old, third, &tunnel.Refusal{Code: tunnel.CodeRefused}},
		"too soon":         {agentRecord{PublicKey: next, Previous: old, PreviousUntil: now.Add(1)}, next, third, &tunnel.Refusal{Code: tunnel.CodeOverloaded}},
		"in time":          {agentRecord{PublicKey: next, Previous: old, PreviousUntil: now}, next, third, nil},
	} {
		got := mayRotate(&c.record, c.old, c.new, now)
		if tunnel.CodeOf(got) != tunnel.CodeOf(c.want) || errors.Is(got, errRotated) != errors.Is(c.want, errRotated) || (got == nil) != (c.want == nil) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestSessionOfAReplacedKeyIsToldToLeave: a copy of the old key that is connected gets no more streams.
func TestSessionOfAReplacedKeyIsToldToLeave(t *testing.T) {
	s := newSystem(t, allowAll)
	a := s.enrolFake(false, served{"web", "http", ""})
	announce := tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true}
	stays := a.serve(tunnel.Interactive, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) { st.Abort(tunnel.CodeRefused) }, announce)
	thief := a.serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) { t.Error("the thief was given a stream") }, announce)
	next := newKey(t)
	must(t, stays.Rotate(within(t), next))
	a.key = next
	fresh := a.serve(tunnel.Interactive, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) { st.Abort(tunnel.CodeRefused) }, announce)
	for _, old := range []*tunnel.Session{stays, thief} {
		await(t, old.Done(), "a session of the old key ends")
	}
	if fresh.Err() != nil || fresh.Draining() {
		t.Errorf("the session of the new key: %v", fresh.Err())
	}
}

// TestSessionOfAReplacedKeyIsClosedThoughItSaysThatItLeaves: a copy of the old key that calls itself draining stays no longer than
// any other, and what it says of its resources meanwhile is not the agent's word.
func TestSessionOfAReplacedKeyIsClosedThoughItSaysThatItLeaves(t *testing.T) {
	s := newSystem(t, allowAll)
	a := s.enrolFake(false, served{"web", "http", ""})
	nothing := func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) { st.Abort(tunnel.CodeRefused) }
	announce := tunnel.Announcement{Resource: "web", Kind: "http", Healthy: true}
	owner := a.serve(tunnel.Interactive, nothing, announce)
	thief := a.serve(tunnel.Bulk, nothing, announce)
	must(t, thief.GoAway("leaving, some day"))
	eventually(t, "the relay hears of it", func() bool {
		s.relay.agents.mu.Lock()
		defer s.relay.agents.mu.Unlock()
		l := s.relay.agents.links[thief.ID()]
		return l != nil && l.session.Draining()
	})
	next := newKey(t)
	must(t, owner.Rotate(within(t), next))
	a.key = next
	a.serve(tunnel.Interactive, nothing, announce)
	eventually(t, "the thief's session counts as replaced", func() bool { return s.relay.agents.wasReplaced(thief.ID()) || thief.Err() != nil })
	announce.Healthy, announce.Reason = false, "says the thief"
	_ = thief.Announce(within(t), []tunnel.Announcement{announce}) // it may be closed by now
	s.relay.agents.mu.Lock()
	said := s.relay.agents.members[a.id].health["web"].reason
	s.relay.agents.mu.Unlock()
	if said != "" {
		t.Errorf("the agent's resource is %q", said)
	}
	await(t, thief.Done(), "the thief's session ends")
}
