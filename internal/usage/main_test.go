package usage

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/state"
)

func TestMain(m *testing.M) {
	_ = flag.Set("rapid.checks", "40") // the race detector makes each dear; -rapid.checks asks for more
	goleak.VerifyTestMain(m)
}

var noon = time.Date(2026, 11, 23, 12, 30, 20, 0, time.UTC)

// clock is a time that tests set.
type clock struct{ at atomic.Int64 }

func newClock(t time.Time) *clock {
	c := &clock{}
	c.set(t)
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) set(t time.Time)         { c.at.Store(t.UnixNano()) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

var errStore = fmt.Errorf("%w: broken for a test", state.ErrUnavailable)

// faulty is a store that fails when it is told to.
type faulty struct {
	state.Store
	reads   bool // Get and List fail
	writes  bool // nothing is written
	answers bool // it is written, and the answer is lost
}

func (f *faulty) Get(ctx context.Context, key string) (state.Item, error) {
	if f.reads {
		return state.Item{}, errStore
	}
	return f.Store.Get(ctx, key)
}

func (f *faulty) List(ctx context.Context, prefix, after string, limit int) ([]state.Item, error) {
	if f.reads {
		return nil, errStore
	}
	return f.Store.List(ctx, prefix, after, limit)
}

func (f *faulty) SwapAll(ctx context.Context, w []state.Write) ([]int64, error) {
	if f.writes {
		return nil, errStore
	}
	v, err := f.Store.SwapAll(ctx, w)
	if f.answers {
		return nil, errors.Join(err, errStore)
	}
	return v, err
}

func openStore(t testing.TB, c *clock) *faulty {
	t.Helper()
	s, err := state.OpenWith(t.Context(), "sqlite::memory:", state.Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &faulty{Store: s}
}

func openBook(t testing.TB, s state.Store, holder string, c *clock) *Book {
	t.Helper()
	b, err := Open(Options{Store: s, Holder: holder, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		gone, cancel := context.WithCancel(context.Background())
		cancel()
		_ = b.Close(gone) // those that tests end well are closed already
	})
	return b
}

// fatal is what tests and properties have in common.
type fatal interface {
	Helper()
	Fatalf(format string, args ...any)
}

func ask(t fatal, b *Book, q Query) Report {
	t.Helper()
	if q.From.IsZero() {
		q.From = b.now().Add(-300 * day)
	}
	r, err := b.Query(context.Background(), q)
	if err != nil {
		t.Fatalf("ask %+v: %v", q, err)
	}
	if r.Incomplete {
		t.Fatalf("ask %+v: incomplete", q)
	}
	return r
}

func flush(t fatal, b *Book) {
	t.Helper()
	if err := b.Flush(context.Background()); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// crash ends a book as kill -9 does.
func crash(b *Book) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	b.take(context.Background())
	b.mu.Lock()
	b.fresh, b.pending = map[int64]*table{}, map[itemKey]*delta{}
	b.mu.Unlock()
	b.give()
	_ = b.Close(gone)
}

func chat(principal, model string) Entry {
	return Entry{
		Principal: principal, Groups: []string{"ml", "staff"}, Resource: "phi3", Model: model, Action: "chat", Grant: "engineers",
		TokensIn: 10, TokensOut: 100, TTFT: 80 * time.Millisecond, Duration: 2 * time.Second,
	}
}
