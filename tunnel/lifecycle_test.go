package tunnel

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"
)

func TestSilentPeerIsPingedThenGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		role   Role
		active bool
		after  time.Duration
	}{
		"agent": {RoleAgent, false, activeSilence}, "active user": {RoleUser, true, activeSilence}, "idle user": {RoleUser, false, idleSilence},
	} {
		t.Run(name, func(t *testing.T) {
			s := fakeSession()
			defer func() { s.fail(&SessionError{Code: CodeCanceled}); <-s.done }()
			s.hello.Role = c.role
			s.active.Store(c.active)
			start := s.clock.last()
			var watch watchdog
			watch.check(s, start.Add(c.after-time.Millisecond))
			if len(s.control.queue) != 0 {
				t.Fatal("pinged too early")
			}
			watch.check(s, start.Add(c.after))
			if m := <-s.control.queue; m.Type != msgPing {
				t.Fatalf("sent %q", m.Type)
			}
			watch.check(s, start.Add(c.after+pingPatience-time.Millisecond))
			if s.Err() != nil {
				t.Fatal("given up too early")
			}
			watch.check(s, start.Add(c.after+pingPatience))
			wantCode(t, s.Err(), CodeDead)
		})
	}
}

func TestAnyByteIsASignOfLife(t *testing.T) {
	s := fakeSession()
	defer func() { s.fail(&SessionError{Code: CodeCanceled}); <-s.done }()
	s.active.Store(true)
	start := s.clock.last()
	var watch watchdog
	watch.check(s, start.Add(activeSilence))
	s.clock.mono.Store(int64(start.Add(activeSilence + time.Second).Sub(s.clock.base)))
	if next := watch.check(s, start.Add(activeSilence+pingPatience)); next <= 0 || s.Err() != nil {
		t.Fatal("given up though it spoke")
	}
}

// What thousands of streams leave behind, however they ended: nothing.
func TestStreamsLeaveNothingBehind(t *testing.T) {
	client, server := pair(t)
	serve(t, server, func(ctx context.Context, st *Stream, h Header) {
		if h.Action == "abort" {
			st.Abort(CodeLimitReached)
			return
		}
		echo(ctx, st, h)
	})
	roundTrip(t, client)
	before := runtime.NumGoroutine()
	var all sync.WaitGroup
	for worker := range 20 {
		all.Go(func() {
			for i := range 250 {
				useStream(t, client, (worker+i)%4)
			}
		})
	}
	all.Wait()
	waitUntilIdle(t, client)
	waitUntilIdle(t, server)
	for deadline := time.Now().Add(patience); ; runtime.Gosched() {
		goroutines, held := runtime.NumGoroutine(), client.mux.NumStreams()+server.mux.NumStreams()
		server.table.mu.Lock()
		slots, unclaimed := server.table.inbound, len(server.table.unclaimed)+len(server.table.streams)-1
		server.table.mu.Unlock()
		if goroutines <= before && held == 2 && slots == 0 && unclaimed == 0 && len(client.opens) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines (%d before), %d yamux streams, %d slots, %d streams, %d opens",
				goroutines, before, held, slots, unclaimed, len(client.opens))
		}
		client.control.send(controlMessage{Type: msgPing})
	}
}

func useStream(t *testing.T, client *Session, way int) {
	h := Header{}
	if way == 0 {
		h.Action = "abort"
	}
	st, err := client.Open(context.Background(), h, []byte("hello"))
	if err != nil {
		if way != 0 {
			t.Error(err)
		}
		return
	}
	switch way {
	case 1:
		st.Abort(CodeCanceled)
	case 2:
		st.Close()
	default:
		st.CloseWrite()
		io.ReadAll(st)
		st.Close()
	}
}
