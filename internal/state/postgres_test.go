package state_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/state"
	"iap/internal/state/statetest"
)

func TestPostgresKeepsTheContract(t *testing.T) {
	statetest.Run(t, statetest.Backend{New: func(t *testing.T) func(func() time.Time) state.Store {
		url := postgres.URL(t)
		return func(now func() time.Time) state.Store { return openAt(t, url, now) }
	}})
}

// next waits for a watcher's next change.
func next(t *testing.T, changes <-chan state.Change) state.Change {
	t.Helper()
	select {
	case c, ok := <-changes:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return c
	case <-time.After(30 * time.Second):
		t.Fatal("no change arrived")
	}
	panic("unreachable")
}

// TestStoresOfOneDatabaseHearEachOtherInOrder has two relays write at once: each watcher hears of all of it, by version.
func TestStoresOfOneDatabaseHearEachOtherInOrder(t *testing.T) {
	const each = 100
	url := postgres.URL(t)
	stores := []state.Store{openAt(t, url, nil), openAt(t, url, nil)}
	var watches []<-chan state.Change
	for _, s := range stores {
		defer s.Close()
		w, err := s.Watch(t.Context(), "w/")
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, w)
	}
	var writers sync.WaitGroup
	for i, s := range stores {
		writers.Go(func() {
			for n := range each {
				for _, key := range []string{"w/", "unwatched/"} {
					if _, err := s.Swap(t.Context(), fmt.Sprintf("%s%d/%d", key, i, n), 0, []byte("v"), time.Time{}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	writers.Wait()
	for i, w := range watches {
		last := int64(0)
		for range 2 * each {
			c := next(t, w)
			if c.Resync || c.Item.Version <= last || string(c.Item.Value) != "v" {
				t.Fatalf("store %d heard %+v after version %d", i, c, last)
			}
			last = c.Item.Version
		}
	}
}

// TestRacingRelaysHaveOneWinner is what join tokens and the first use of a token rest on.
func TestRacingRelaysHaveOneWinner(t *testing.T) {
	url := postgres.URL(t)
	stores := []state.Store{openAt(t, url, nil), openAt(t, url, nil)}
	defer stores[0].Close()
	defer stores[1].Close()
	for round := range 20 {
		var won atomic.Int32
		var racers sync.WaitGroup
		for _, s := range append(stores, stores...) {
			racers.Go(func() {
				switch _, err := s.Swap(t.Context(), fmt.Sprint("prize/", round), 0, nil, time.Time{}); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, state.ErrConflict):
					t.Error(err)
				}
			})
		}
		racers.Wait()
		if won.Load() != 1 {
			t.Fatalf("round %d has %d winners", round, won.Load())
		}
	}
}

// TestFirstUseIsMadeOnce has several relays start on an empty database.
func TestFirstUseIsMadeOnce(t *testing.T) {
	url := postgres.URL(t)
	var relays sync.WaitGroup
	for range 4 {
		relays.Go(func() {
			s, err := state.Open(t.Context(), url)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, err := s.Get(t.Context(), "none"); !errors.Is(err, state.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	relays.Wait()
}

func TestNewerLayoutOfTheDatabaseIsRefused(t *testing.T) {
	url := postgres.URL(t)
	openAt(t, url, nil).Close()
	postgres.Exec(t, url, "UPDATE iap.store SET schema = 99")
	if _, err := state.Open(t.Context(), url); err == nil || !strings.Contains(err.Error(), "layout 99") {
		t.Errorf("open of a newer layout: %v", err)
	}
}

// TestForgetfulDatabaseIsNotWrittenTo is a failover that lost commits: a version must not be given twice.
func TestForgetfulDatabaseIsNotWrittenTo(t *testing.T) {
	url := postgres.URL(t)
	s := openAt(t, url, nil)
	defer s.Close()
	for i := range 10 {
		if _, err := s.Swap(t.Context(), fmt.Sprint(i), 0, nil, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	postgres.Exec(t, url, "UPDATE iap.store SET version = 5")
	_, err := s.Swap(t.Context(), "k", 0, nil, time.Time{})
	if !errors.Is(err, state.ErrUnavailable) || !strings.Contains(err.Error(), "older than what this relay has seen") {
		t.Errorf("write to a database that went back: %v", err)
	}
}

// lossy stands before the server and loses answers on demand.
type lossy struct {
	dir   string
	lose  atomic.Bool  // the next answer, and the connection with it
	lost  atomic.Int32 // how many were
	held  atomic.Bool  // no answer comes through; what is held is lost when this ends
	conns sync.WaitGroup
}

func newLossy(t *testing.T, real string) (*lossy, string) {
	t.Helper()
	u, err := url.Parse(real)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	l := &lossy{dir: t.TempDir()}
	listener, err := net.Listen("unix", filepath.Join(l.dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	server := filepath.Join(q.Get("host"), ".s.PGSQL.5432")
	l.conns.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			l.conns.Go(func() { l.carry(client, server) })
		}
	})
	t.Cleanup(l.conns.Wait)
	t.Cleanup(func() { listener.Close() })
	q.Set("host", l.dir)
	u.RawQuery = q.Encode()
	return l, u.String()
}

func (l *lossy) carry(client net.Conn, path string) {
	defer client.Close()
	server, err := net.Dial("unix", path)
	if err != nil {
		return
	}
	defer server.Close()
	l.conns.Go(func() {
		_, _ = io.Copy(server, client)
		server.Close()
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if l.held.Load() {
			continue
		}
		if l.lose.CompareAndSwap(true, false) {
			l.lost.Add(1)
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestWriteWhoseAnswerWasLostIsDoneOnce loses the answer to a commit: the store asks again, and the write counts once.
func TestWriteWhoseAnswerWasLostIsDoneOnce(t *testing.T) {
	l, url := newLossy(t, postgres.URL(t))
	s := openAt(t, url, nil)
	defer s.Close()
	version := int64(0)
	for i := range 5 {
		l.lose.Store(true)
		next, err := s.Swap(t.Context(), "k", version, []byte{byte(i)}, time.Time{})
		if err != nil || version != 0 && next != version+1 {
			t.Fatalf("swap %d at %d: version %d, %v", i, version, next, err)
		}
		version = next
	}
	if l.lost.Load() < 5 {
		t.Errorf("%d answers were lost", l.lost.Load())
	}
}

// TestHungDatabaseIsUnavailable has the network swallow every answer: whoever would wait for ever does not, and when it is
// over all goes on.
func TestHungDatabaseIsUnavailable(t *testing.T) {
	l, url := newLossy(t, postgres.URL(t))
	s := openAt(t, url, nil)
	defer s.Close()
	l.held.Store(true)
	if _, err := s.Get(t.Context(), "k"); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("get from a database that hangs: %v", err)
	}
	l.held.Store(false)
	if _, err := s.Swap(t.Context(), "k", 0, nil, time.Time{}); err != nil {
		t.Errorf("swap when it answers again: %v", err)
	}
}

// TestWatchersMissNothingWhileTheDatabaseIsAway kills the server, and has another relay write as soon as it is back.
func TestWatchersMissNothingWhileTheDatabaseIsAway(t *testing.T) {
	url := postgres.URL(t)
	s, other := openAt(t, url, nil), openAt(t, url, nil)
	defer s.Close()
	defer other.Close()
	changes, err := s.Watch(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	before, err := other.Swap(t.Context(), "before", 0, nil, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	postgres.Kill(t)
	if _, err := s.Get(t.Context(), "before"); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("get while the database is away: %v", err)
	}
	if _, err := s.Swap(t.Context(), "k", 0, nil, time.Time{}); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("swap while the database is away: %v", err)
	}
	postgres.Restart(t)
	after, err := other.Swap(t.Context(), "after", 0, nil, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{before, after} {
		if c := next(t, changes); c.Item.Version != want {
			t.Errorf("heard %+v, want version %d", c, want)
		}
	}
}

func TestDatabaseURLRules(t *testing.T) {
	for text, want := range map[string]string{
		"postgres://u:secret@db.example/iap?sslmode=wrong":   "sslmode",
		"postgres://u:secret@127.0.0.1:1/iap?nonsense=1&a=b": "127.0.0.1", // read, and nobody is there
	} {
		_, err := state.Open(t.Context(), text)
		if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), want) {
			t.Errorf("open %q: %v", text, err)
		}
	}
}

// TestProbeSaysWhatAStartWouldFind and changes nothing.
func TestProbeSaysWhatAStartWouldFind(t *testing.T) {
	url := postgres.URL(t)
	for range 2 {
		if found, warnings, err := state.Probe(t.Context(), url); err != nil || !strings.Contains(found, "empty") || len(warnings) > 0 {
			t.Errorf("a new database: %q, %v, %v", found, warnings, err)
		}
	}
	openAt(t, url, nil).Close()
	if found, _, err := state.Probe(t.Context(), url); err != nil || !strings.Contains(found, "layout 1") {
		t.Errorf("a database in use: %q, %v", found, err)
	}
	postgres.Exec(t, url, "UPDATE iap.store SET schema = 99")
	if _, _, err := state.Probe(t.Context(), url); err == nil || !strings.Contains(err.Error(), "layout 99") {
		t.Errorf("a newer layout: %v", err)
	}
	if _, _, err := state.Probe(t.Context(), "postgres://u:secret@127.0.0.1:1/iap"); !errors.Is(err, state.ErrUnavailable) || strings.Contains(err.Error(), "secret") {
		t.Errorf("nobody there: %v", err)
	}
}
