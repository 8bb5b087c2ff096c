package limit_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/limit"
	"iap/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what would otherwise hang.
const patience = 30 * time.Second

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func newClock() *clock { return &clock{now: time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// memory opens a store that shares the clock.
func memory(t testing.TB, c *clock) state.Store {
	t.Helper()
	return openStore(t, "sqlite::memory:", c)
}

func openStore(t testing.TB, url string, c *clock) state.Store {
	t.Helper()
	s, err := state.OpenWith(context.Background(), url, state.Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func file(t testing.TB, c *clock) state.Store {
	t.Helper()
	return openStore(t, "sqlite:"+filepath.Join(t.TempDir(), "state.db"), c)
}

func book(t testing.TB, s state.Store, c *clock, holder string) *limit.Book {
	t.Helper()
	return bookWith(t, limit.Options{Store: s, Holder: holder, Now: c.Now})
}

func bookWith(t testing.TB, o limit.Options) *limit.Book {
	t.Helper()
	b, err := limit.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeBook(t, b) })
	return b
}

func closeBook(t testing.TB, b *limit.Book) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Close(ctx); err != nil {
		t.Errorf("close: %v", err)
	}
}

func background(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func flush(t testing.TB, b *limit.Book) {
	t.Helper()
	if err := b.Flush(background(t)); err != nil {
		t.Fatalf("flush: %v", err)
	}
}

// engineers is a rule of one grant for one principal.
func engineers(tokens ...limit.Rate) limit.Rule {
	return limit.Rule{Grant: "engineers-chat", Per: "principal", Who: "corp/8a7f3c", Tokens: tokens, Contact: "#ml-platform"}
}

func perDay(n int64) limit.Rate    { return limit.Rate{N: n, Per: 24 * time.Hour} }
func perMinute(n int64) limit.Rate { return limit.Rate{N: n, Per: time.Minute} }

func reserve(t testing.TB, b *limit.Book, ask limit.Ask) limit.Reservation {
	t.Helper()
	r, err := b.Reserve(background(t), ask)
	if err != nil {
		t.Fatalf("reserve %d+%d: %v", ask.Input, ask.Output, err)
	}
	return r
}

func refused(t testing.TB, b *limit.Book, ask limit.Ask, code string) *limit.Exceeded {
	t.Helper()
	r, err := b.Reserve(background(t), ask)
	var exceeded *limit.Exceeded
	if !errors.As(err, &exceeded) || exceeded.Code != code {
		t.Fatalf("reserve %d+%d: %v, %v; want %s", ask.Input, ask.Output, r, err, code)
	}
	return exceeded
}

// standing is how the first limit of a rule stands.
func standing(t testing.TB, b *limit.Book, rule limit.Rule) limit.Standing {
	t.Helper()
	all, err := b.Usage(background(t), []limit.Rule{rule})
	if err != nil || len(all) == 0 {
		t.Fatalf("usage: %v, %v", all, err)
	}
	return all[0]
}

func TestPO15RaceForTheLastBudgetOvershootsByNothing(t *testing.T) {
	const each, fit, racers = 1000, 37, 200
	c := newClock()
	b := book(t, file(t, c), c, "relay-1")
	rule := engineers(perDay(each*fit + 10)) // ten are left over, too few for anybody
	var won atomic.Int64
	race(t, racers, func(int) {
		r, err := b.Reserve(background(t), limit.Ask{Rules: []limit.Rule{rule}, Input: 990, Output: 10})
		var exceeded *limit.Exceeded
		switch {
		case err == nil:
			won.Add(1)
			r.Settle(990, 10)
		case !errors.As(err, &exceeded):
			t.Errorf("refusal: %v", err)
		}
	})
	if won.Load() != fit {
		t.Errorf("%d of %d requests got in, the budget is for %d", won.Load(), racers, fit)
	}
	if s := standing(t, b, rule); s.Used != each*fit || s.Held != 0 {
		t.Errorf("used %d, held %d; want %d", s.Used, s.Held, each*fit)
	}
}

func TestTwoRelaysShareOneBudget(t *testing.T) {
	const each, fit, racers = 1000, 40, 200
	c := newClock()
	s := file(t, c)
	books := []*limit.Book{book(t, s, c, "relay-1"), book(t, s, c, "relay-2")}
	rule := engineers(perDay(each * fit))
	var won atomic.Int64
	race(t, racers, func(i int) {
		r, err := books[i%2].Reserve(background(t), limit.Ask{Rules: []limit.Rule{rule}, Input: each})
		if err == nil {
			won.Add(1)
			r.Settle(each, 0)
		}
	})
	if n := won.Load(); n > fit {
		t.Errorf("%d requests got in, the budget is for %d", n, fit)
	}
	flush(t, books[0])
	flush(t, books[1])
	for _, b := range books {
		if s := standing(t, b, rule); s.Used != each*won.Load() {
			t.Errorf("used %d by %d requests of %d", s.Used, won.Load(), each)
		}
	}
}

// race runs f n times at once.
func race(t *testing.T, n int, f func(i int)) {
	t.Helper()
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			<-start
			f(i)
		})
	}
	close(start)
	all.Wait()
}
