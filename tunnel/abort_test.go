package tunnel

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"
)

// Thousands of aborts while data flows: each is read as what it is, with its code, and no writer stays behind.
func TestEveryAbortUnderLoadIsTyped(t *testing.T) {
	client, server := pair(t)
	var codes sync.Map // stream id → code
	serve(t, server, func(_ context.Context, st *Stream, _ Header) {
		code := Code(1 + st.ID()%20)
		codes.Store(st.ID(), code)
		buf := make([]byte, 8<<10)
		for range 1 + st.ID()%7 {
			if _, err := st.Write(buf); err != nil {
				return
			}
		}
		st.Abort(code)
	})
	const workers, each = 50, 60
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				if err := provokeAbort(client, &codes); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	waitUntilIdle(t, client)
	waitUntilIdle(t, server)
}

// provokeAbort writes into a stream that nobody reads until the peer aborts it.
func provokeAbort(client *Session, codes *sync.Map) error {
	st, err := client.Open(context.Background(), Header{}, nil)
	if err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			if _, err := st.Write(buf); err != nil {
				wrote <- err
				return
			}
		}
	}()
	_, readErr := io.Copy(io.Discard, st)
	want, _ := codes.Load(st.ID())
	for _, err := range []error{readErr, <-wrote} {
		var abort *AbortError
		if !errors.As(err, &abort) || abort.Code != want || !abort.Remote {
			return errors.Join(errors.New("not the abort that was sent"), err)
		}
	}
	return nil
}

func waitUntilIdle(t testing.TB, s *Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.DrainWait(ctx); err != nil {
		t.Fatalf("%d streams are left: %v", s.NumStreams(), err)
	}
}

func TestAbortFreesItsOwnBlockedReaderAndWriter(t *testing.T) {
	client, server := pair(t)
	a, _ := streams(t, client, server)()
	ends := make(chan error, 2)
	go func() { _, err := a.Read(make([]byte, 1)); ends <- err }()
	go func() { _, err := a.Write(make([]byte, 1<<20)); ends <- err }() // more than the window
	a.Abort(CodeLimitReached)
	for range 2 {
		wantCode(t, wait(t, ends, "the end of a call"), CodeLimitReached)
	}
}

func TestAbortLeavesNothingInTheMultiplexer(t *testing.T) {
	client, server := pair(t)
	release := make(chan struct{})
	serve(t, server, func(context.Context, *Stream, Header) { <-release })
	for range 300 { // more than may be unacknowledged at once
		st, err := client.Open(context.Background(), Header{}, nil)
		must(t, err)
		st.Abort(CodeCanceled)
	}
	close(release)
	waitUntilIdle(t, client)
	deadline := time.Now().Add(patience)
	for client.mux.NumStreams() > 1 {
		if time.Now().After(deadline) {
			t.Fatalf("yamux holds %d streams", client.mux.NumStreams())
		}
		must(t, probe(client))
	}
	if n := len(client.opens); n != 0 {
		t.Fatalf("%d places are not given back", n)
	}
}

func probe(s *Session) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.Probe(ctx)
}

func TestAbortAfterTheEndDoesNothing(t *testing.T) {
	client, server := pair(t)
	a, b := streams(t, client, server)()
	must(t, a.CloseWrite())
	must(t, b.CloseWrite())
	_, err := io.ReadAll(a)
	must(t, err)
	wait(t, a.Done(), "the end")
	a.Abort(CodeInternal)
	must(t, a.Err())
}

func TestHalfCloseEachWay(t *testing.T) {
	client, server := pair(t)
	open := streams(t, client, server)
	for _, first := range []string{"opener", "acceptor"} {
		t.Run(first, func(t *testing.T) {
			a, b := open()
			if first == "acceptor" {
				a, b = b, a
			}
			must(t, a.CloseWrite())
			got, err := io.ReadAll(b)
			must(t, err)
			if len(got) != 0 || !b.FinReceived() {
				t.Fatal("no clean end")
			}
			_, err = b.Write([]byte("still here"))
			must(t, err)
			must(t, b.CloseWrite())
			got, err = io.ReadAll(a)
			must(t, err)
			if string(got) != "still here" {
				t.Fatalf("got %q", got)
			}
			wait(t, a.Done(), "the end")
			wait(t, b.Done(), "the end")
			must(t, errors.Join(a.Err(), b.Err()))
		})
	}
}

// The end of both directions is no end of the stream while bytes wait to be read.
func TestStreamLivesUntilItIsRead(t *testing.T) {
	client, server := pair(t)
	a, b := streams(t, client, server)()
	_, err := b.Write([]byte("unread"))
	must(t, err)
	must(t, b.CloseWrite())
	must(t, a.CloseWrite())
	_, err = io.ReadAll(b)
	must(t, err)
	roundTrip(t, client)
	select {
	case <-a.Done():
		t.Fatal("over before it was read")
	default:
	}
	got, err := io.ReadAll(a)
	must(t, err)
	if string(got) != "unread" {
		t.Fatalf("got %q", got)
	}
	wait(t, a.Done(), "the end")
}

func TestCloseStillDeliversWhatWasWritten(t *testing.T) {
	client, server := pair(t)
	a, b := streams(t, client, server)()
	want := 200 << 10
	_, err := b.Write(make([]byte, want))
	must(t, err)
	must(t, b.Close())
	n, err := io.Copy(io.Discard, a)
	must(t, err)
	if int(n) != want {
		t.Fatalf("got %d bytes", n)
	}
}

func TestUnreadStreamHoldsUpNoOther(t *testing.T) {
	client, server := pair(t)
	block := make(chan struct{})
	serve(t, server, func(ctx context.Context, st *Stream, h Header) {
		if h.Resource == "stuck" {
			<-ctx.Done()
			return
		}
		echo(ctx, st, h)
	})
	stuck, err := client.Open(context.Background(), Header{Resource: "stuck"}, nil)
	must(t, err)
	go func() { defer close(block); stuck.Write(make([]byte, 4<<20)) }()
	for range 20 {
		st, err := client.Open(context.Background(), Header{}, []byte("ping"))
		must(t, err)
		must(t, st.CloseWrite())
		got, err := io.ReadAll(st)
		must(t, err)
		if string(got) != "ping" {
			t.Fatalf("got %q", got)
		}
	}
	must(t, stuck.Close())
	wait(t, block, "the end of the write")
}
