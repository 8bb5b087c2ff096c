package tunnel

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

func TestBackoffStaysUnderItsCeilings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(0, 0)
		chance := rapid.Float64Range(0, 0.999)
		b := Backoff{Now: func() time.Time { return now }, Rand: func() float64 { return chance.Draw(t, "chance") }}
		for i := range 40 {
			ceiling := min(backoffBase<<min(i, 10), backoffLate)
			if now.Sub(time.Unix(0, 0)) < backoffPhase {
				ceiling = min(ceiling, backoffEarly)
			}
			if wait := b.Next(); wait < 0 || wait > ceiling {
				t.Fatalf("try %d after %v waits %v", i, now.Sub(time.Unix(0, 0)), wait)
			}
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second}).Draw(t, "step"))
		}
	})
}

func TestBackoffReachesItsCeilings(t *testing.T) {
	now := time.Unix(0, 0)
	b := Backoff{Now: func() time.Time { return now }, Rand: func() float64 { return 1 }}
	for _, want := range []time.Duration{250, 500, 1000, 2000, 4000, 4000} {
		if got := b.Next(); got != want*time.Millisecond {
			t.Fatalf("waits %v", got)
		}
	}
	now = now.Add(backoffPhase)
	b.Next()
	if got := b.Next(); got != backoffLate {
		t.Fatalf("waits %v", got)
	}
	b.Reset()
	if got := b.Next(); got != backoffBase {
		t.Fatalf("waits %v after a success", got)
	}
}

// fakeSession has a life but no connection.
func fakeSession() *Session {
	s := newSession(nil, facts{}, false, nil)
	s.table = newStreamTable(s, true, 0)
	go func() { <-s.closing; close(s.done) }()
	return s
}

func TestKeeperRedialsForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		var dials, downs atomic.Int64
		var up []*Session
		k := &Keeper{
			Dial: func(context.Context) (*Session, error) {
				if dials.Add(1) < 30 {
					return nil, errors.New("refused")
				}
				return fakeSession(), nil
			},
			OnUp:   func(s *Session) { up = append(up, s) },
			OnDown: func(error, time.Duration) { downs.Add(1) },
		}
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		s, err := k.Session(ctx)
		must(t, err)
		if dials.Load() != 30 || downs.Load() != 29 {
			t.Fatalf("%d dials, %d downs", dials.Load(), downs.Load())
		}
		s.fail(&SessionError{Code: CodeDead})
		again, err := k.Session(ctx)
		must(t, err)
		if again == s {
			t.Fatal("a dead session is handed out")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if _, err := k.Session(context.Background()); err == nil {
			t.Fatal("a session after the end")
		}
		synctest.Wait()
		if len(up) != 2 || up[1].Err() == nil {
			t.Fatal("a session was left open")
		}
	})
}

func TestKeeperStopsAtAPermanentError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := &Refusal{Code: CodeRevoked}
		k := &Keeper{Dial: func(context.Context) (*Session, error) { return nil, Permanent(cause) }}
		err := k.Run(context.Background())
		if !IsPermanent(err) || CodeOf(err) != CodeRevoked {
			t.Fatal(err)
		}
		_, err = k.Session(context.Background())
		wantCode(t, err, CodeRevoked)
	})
}

func TestKickCutsThePauseShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		dialled := make(chan time.Time, 100)
		k := &Keeper{
			Backoff: Backoff{Rand: func() float64 { return 1 }},
			Dial: func(context.Context) (*Session, error) {
				dialled <- time.Now()
				return nil, errors.New("refused")
			},
		}
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		<-dialled
		<-dialled // after 250 ms
		synctest.Wait()
		before := time.Now()
		k.Kick()
		if at := <-dialled; !at.Equal(before) {
			t.Fatalf("dialled %v later", at.Sub(before))
		}
		cancel()
		<-done
	})
}

func TestKeeperWaitsWithoutASessionAsLongAsTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		k := &Keeper{}
		if _, err := k.Session(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	})
}

// startKeeper runs a Keeper of real sessions to r.
func startKeeper(t *testing.T, r *testRelay) *Keeper {
	cfg := r.clientConfig(t, RoleUser)
	k := &Keeper{Dial: func(ctx context.Context) (*Session, error) {
		conn, err := r.dialer().Dial(ctx)
		if err != nil {
			return nil, err
		}
		return Connect(ctx, conn, cfg)
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

func TestDrainingSessionIsReplacedAndItsStreamsEndInPeace(t *testing.T) {
	r := startRelay(t, nil)
	k := startKeeper(t, r)
	old, err := k.Session(context.Background())
	must(t, err)
	server := wait(t, r.sessions, "the session")
	serve(t, server, echo)
	st, err := old.Open(context.Background(), Header{}, []byte("before"))
	must(t, err)
	before := make([]byte, 6)
	_, err = io.ReadFull(st, before) // it runs
	must(t, err)
	must(t, server.GoAway("restart"))
	wait(t, old.leave, "the news")
	next, err := k.Session(context.Background())
	must(t, err)
	if next == old {
		t.Fatal("a draining session is handed out")
	}
	_, err = st.Write([]byte(" and after"))
	must(t, err)
	must(t, st.CloseWrite())
	got, err := io.ReadAll(st)
	must(t, err)
	if string(before)+string(got) != "before and after" {
		t.Fatalf("got %q", got)
	}
	wait(t, old.Done(), "the drained session's end")
	end(server)
}

func TestSilentSessionIsProbedBeforeUse(t *testing.T) {
	r := startRelay(t, nil)
	k := startKeeper(t, r)
	s, err := k.Session(context.Background())
	must(t, err)
	s.clock.wall.Store(time.Now().Add(-time.Hour).UnixNano()) // the machine slept
	again, err := k.Session(context.Background())
	must(t, err)
	if again != s || silent(s) {
		t.Fatal("a living session was not probed, or was given up")
	}
}

func TestDeadSessionIsNotHandedOut(t *testing.T) {
	client, server, stuck := pipePair(t)
	first := true
	k := &Keeper{Dial: func(ctx context.Context) (*Session, error) {
		if first {
			first = false
			return client, nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	defer func() { cancel(); <-done }()
	_, err := k.Session(ctx)
	must(t, err)
	roundTrip(t, client)
	close(stuck.stop)
	server.Notify(Notice{}) // what the stuck read returns with
	for !silent(client) || client.Err() == nil {
		client.clock.wall.Store(time.Now().Add(-time.Hour).UnixNano())
		short, stop := context.WithTimeout(ctx, 3*probePatience)
		_, err = k.Session(short)
		stop()
		if err != nil {
			break
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	wantCode(t, client.Err(), CodeDead)
}
