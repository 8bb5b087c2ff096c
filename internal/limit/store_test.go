package limit_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"iap/internal/limit"
	"iap/internal/state"
)

// mood is how a flaky store answers.
type mood int

const (
	well   mood = iota
	away        // nothing is read or written
	unsaid      // a write happens, and an error is returned all the same; then it is away
	hung        // every call waits for its context
)

// flaky is a store between a book and the real one.
type flaky struct {
	state.Store
	mu     sync.Mutex
	mood   mood   // guarded by mu
	during func() // guarded by mu: called once before a write, by the book's own goroutine
	calls  int    // guarded by mu
	writes int    // guarded by mu: items written
}

func (f *flaky) set(m mood) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mood = m
}

// before has f called before the next write.
func (f *flaky) before(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.during = do
}

func (f *flaky) counted() (calls, writes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls, f.writes
}

func (f *flaky) call(writes int) mood {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	m := f.mood
	if m == well {
		f.writes += writes
	}
	if m == unsaid && writes > 0 {
		f.mood = away
	}
	return m
}

var errAway = fmt.Errorf("%w: the test took it away", state.ErrUnavailable)

func (f *flaky) Get(ctx context.Context, key string) (state.Item, error) {
	switch f.call(0) {
	case away:
		return state.Item{}, errAway
	case hung:
		<-ctx.Done()
		return state.Item{}, ctx.Err()
	}
	return f.Store.Get(ctx, key)
}

func (f *flaky) SwapAll(ctx context.Context, writes []state.Write) ([]int64, error) {
	f.mu.Lock()
	during := f.during
	f.during = nil
	f.mu.Unlock()
	if during != nil {
		during()
	}
	switch f.call(len(writes)) {
	case away:
		return nil, errAway
	case unsaid:
		if _, err := f.Store.SwapAll(ctx, writes); err != nil {
			return nil, err
		}
		return nil, errAway
	case hung:
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return f.Store.SwapAll(ctx, writes)
}

func TestWhatIsLeasedIsSpentWithoutTheStore(t *testing.T) {
	c := newClock()
	s := &flaky{Store: memory(t, c)}
	b := book(t, s, c, "relay-1")
	ask := limit.Ask{Rules: []limit.Rule{engineers(perDay(1_000_000))}, Input: 100, Output: 900}
	const before = 6
	for range before { // each time the lease is used up, twice as much is leased
		reserve(t, b, ask).Settle(100, 900)
	}
	s.set(away)
	served := int64(0)
	for {
		r, err := b.Reserve(background(t), ask)
		if err != nil {
			if !errors.Is(err, limit.ErrUnavailable) {
				t.Errorf("with the lease used up: %v, want ErrUnavailable", err)
			}
			break
		}
		r.Settle(100, 900)
		served++
	}
	if served == 0 || served > 1_000_000/1000/8 {
		t.Errorf("%d requests were served from the lease", served)
	}
	s.set(well)
	reserve(t, b, ask).Settle(100, 900) // it recovers by itself
	flush(t, b)
	if got := standing(t, b, ask.Rules[0]); got.Used != (before+served+1)*1000 || got.Held != 0 {
		t.Errorf("used %d, held %d after %d requests", got.Used, got.Held, before+served+1)
	}
}

func TestNothingIsGrantedThatCannotBeCounted(t *testing.T) {
	c := newClock()
	s := &flaky{Store: memory(t, c)}
	b := book(t, s, c, "relay-1")
	s.set(away)
	rule := engineers(perDay(1_000_000))
	for range 2 {
		if r, err := b.Reserve(background(t), limit.Ask{Rules: []limit.Rule{rule}, Input: 1}); !errors.Is(err, limit.ErrUnavailable) {
			t.Errorf("reserve: %v, %v; want ErrUnavailable", r, err)
		}
	}
	rule.Warn = true
	reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 1}).Settle(1, 0) // a limit that refuses nothing needs no store
	s.set(well)
}

func TestWaitingForTheStoreEndsWithTheRequest(t *testing.T) {
	c := newClock()
	s := &flaky{Store: memory(t, c)}
	b := book(t, s, c, "relay-1")
	s.set(hung)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := b.Reserve(ctx, limit.Ask{Rules: []limit.Rule{engineers(perDay(10))}, Input: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("reserve: %v, %v", r, err)
	}
	ended, stop := context.WithCancel(t.Context())
	stop()
	_ = b.Close(ended) // does not wait for the hung store either
}

// A write whose answer was lost is recognised when the store is back, whether it happened or not.
func TestWriteOfUnknownOutcomeIsChargedOnce(t *testing.T) {
	for _, lost := range []mood{unsaid, away} {
		c := newClock()
		s := &flaky{Store: memory(t, c)}
		b := book(t, s, c, "relay-1")
		rule := engineers(perDay(10_000))
		ask := limit.Ask{Rules: []limit.Rule{rule}, Input: 1000}
		reserve(t, b, ask).Settle(700, 0)
		s.set(lost)
		if err := b.Flush(background(t)); !errors.Is(err, limit.ErrUnavailable) {
			t.Errorf("flush: %v", err)
		}
		s.set(well)
		reserve(t, b, ask).Settle(40, 0)
		flush(t, b)
		if got := standing(t, b, rule); got.Used != 740 || got.Held != 0 {
			t.Errorf("used %d, held %d; want 740", got.Used, got.Held)
		}
		if other := standing(t, book(t, s.Store, c, "relay-2"), rule); other.Used != 740 {
			t.Errorf("another relay sees %d used", other.Used)
		}
	}
}

func TestFlushOfManyCountersIsOneCommit(t *testing.T) {
	c := newClock()
	s := &flaky{Store: memory(t, c)}
	b := book(t, s, c, "relay-1")
	const callers = 300
	race(t, callers, func(i int) {
		rule := engineers(perDay(10_000))
		rule.Who = fmt.Sprint("corp/", i)
		r, err := b.Reserve(background(t), limit.Ask{Rules: []limit.Rule{rule}, Input: 10})
		if err != nil {
			t.Error(err)
			return
		}
		r.Settle(10, 0)
	})
	flush(t, b) // whatever the races and the ticker left
	race(t, callers, func(i int) {
		rule := engineers(perDay(10_000))
		rule.Who = fmt.Sprint("corp/", i)
		rule.Warn = true
		r, err := b.Reserve(background(t), limit.Ask{Rules: []limit.Rule{rule}, Input: 10})
		if err != nil {
			t.Error(err)
			return
		}
		r.Settle(10, 0)
	})
	_, before := s.counted()
	flush(t, b)
	if _, after := s.counted(); after-before > callers {
		t.Errorf("%d items were written for %d counters", after-before, callers)
	}
}

func TestIdleLeaseGoesBack(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	one, other := book(t, s, c, "relay-1"), book(t, s, c, "relay-2")
	rule := engineers(perDay(80_000))
	for range 5 {
		reserve(t, one, limit.Ask{Rules: []limit.Rule{rule}, Input: 1000}).Settle(0, 0)
	}
	if held := standing(t, other, rule).Held; held == 0 || held > 80_000/2 {
		t.Errorf("a relay with work holds %d of 80000", held)
	}
	c.Add(6 * time.Second)
	flush(t, one)
	if got := standing(t, other, rule); got.Held != 0 || got.Used != 0 {
		t.Errorf("an idle relay holds %d, used %d", got.Held, got.Used)
	}
	reserve(t, other, limit.Ask{Rules: []limit.Rule{rule}, Input: 80_000}).Settle(80_000, 0)
	c.Add(time.Second)
	refused(t, one, limit.Ask{Rules: []limit.Rule{rule}, Input: 1}, "budget_exceeded")
}

// While a lease is on its way back it is nobody's: another relay may have it already.
func TestReturnedLeaseIsNotSpentMeanwhile(t *testing.T) {
	c := newClock()
	s := &flaky{Store: memory(t, c)}
	b := book(t, s, c, "relay-1")
	ask := limit.Ask{Rules: []limit.Rule{engineers(perDay(80_000))}, Input: 1000}
	for range 6 {
		reserve(t, b, ask).Settle(0, 0)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := b.Reserve(ended, ask)
	if err != nil {
		t.Fatalf("the lease leaves nothing to test with: %v", err)
	}
	r.Settle(0, 0)
	flush(t, b) // so that nothing is left to write but what becomes idle
	tried := false
	s.before(func() {
		tried = true
		if r, err := b.Reserve(ended, ask); err == nil {
			t.Error("a lease was spent while it was returned")
			r.Release()
		}
	})
	c.Add(6 * time.Second)
	flush(t, b)
	if !tried {
		t.Error("nothing was returned")
	}
}

// A relay that cannot reach the store for longer than its leases last finds them booked as used.
func TestRelayCutOffFromTheStoreIsChargedOnce(t *testing.T) {
	c := newClock()
	real := memory(t, c)
	s := &flaky{Store: real}
	one, other := book(t, s, c, "relay-1"), book(t, real, c, "relay-2")
	rule := engineers(perDay(100_000))
	running := reserve(t, one, limit.Ask{Rules: []limit.Rule{rule}, Input: 1000})
	s.set(away)
	c.Add(61 * time.Second)
	if _, err := one.Reserve(background(t), limit.Ask{Rules: []limit.Rule{rule}, Input: 1}); !errors.Is(err, limit.ErrUnavailable) {
		t.Errorf("reserve on a lease that ran out: %v", err)
	}
	reserve(t, other, limit.Ask{Rules: []limit.Rule{rule}, Input: 50}).Settle(50, 0)
	flush(t, other)
	running.Settle(700, 0)
	s.set(well)
	c.Add(6 * time.Second)
	flush(t, one)
	if got := standing(t, other, rule); got.Used != 1050 || got.Held != 0 {
		t.Errorf("used %d, held %d; want the lease of 1000 and 50", got.Used, got.Held)
	}
}
