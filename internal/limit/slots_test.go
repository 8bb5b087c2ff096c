package limit_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"iap/internal/limit"
	"iap/internal/state"
)

func atOnce(n int) limit.Ask {
	rule := engineers()
	rule.Concurrent = n
	return limit.Ask{Rules: []limit.Rule{rule}}
}

func TestConcurrentRequestsAreBoundedAcrossRelays(t *testing.T) {
	c := newClock()
	s := file(t, c)
	books := []*limit.Book{book(t, s, c, "relay-1"), book(t, s, c, "relay-2")}
	var now, most atomic.Int64
	race(t, 100, func(i int) {
		r, err := books[i%2].Reserve(background(t), atOnce(5))
		if err != nil {
			return
		}
		n := now.Add(1)
		for seen := most.Load(); n > seen && !most.CompareAndSwap(seen, n); seen = most.Load() {
		}
		now.Add(-1)
		r.Settle(0, 0)
	})
	if most.Load() > 5 || most.Load() == 0 {
		t.Errorf("%d ran at once, 5 may", most.Load())
	}
	for _, b := range books {
		flush(t, b)
	}
	c.Add(6 * time.Second)
	for _, b := range books {
		flush(t, b)
	}
	var all []limit.Reservation
	for i := range 5 {
		all = append(all, reserve(t, books[i%2], atOnce(5)))
	}
	c.Add(time.Second)
	refused(t, books[0], atOnce(5), "concurrency_exceeded")
	refused(t, books[1], atOnce(5), "concurrency_exceeded")
	all[0].Release()
	reserve(t, books[0], atOnce(5))
}

func TestSlotsOfADeadRelayComeBack(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	die(t, s, c, atOnce(3), 3)
	other := book(t, s, c, "relay-2")
	refused(t, other, atOnce(3), "concurrency_exceeded")
	c.Add(59 * time.Second)
	refused(t, other, atOnce(3), "concurrency_exceeded")
	c.Add(time.Second)
	for range 3 {
		reserve(t, other, atOnce(3))
	}
}

func TestRestartedRelayHasItsSlotsBackAtOnce(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	die(t, s, c, atOnce(3), 3)
	b := book(t, s, c, "relay-1")
	for range 3 {
		reserve(t, b, atOnce(3))
	}
	refused(t, b, atOnce(3), "concurrency_exceeded")
}

func TestLivingRelayKeepsItsSlots(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	b, other := book(t, s, c, "relay-1"), book(t, s, c, "relay-2")
	for range 3 {
		reserve(t, b, atOnce(3))
	}
	for range 10 {
		c.Add(20 * time.Second)
		flush(t, b) // what the ticker does
		refused(t, other, atOnce(3), "concurrency_exceeded")
	}
}

// die makes relay-1 take n reservations and end without a word.
func die(t *testing.T, real state.Store, c *clock, ask limit.Ask, n int) {
	t.Helper()
	s := &flaky{Store: real}
	b, err := limit.Open(background(t), limit.Options{Store: s, Holder: "relay-1", Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		reserve(t, b, ask)
	}
	s.set(away)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_ = b.Close(gone)
}

func TestBudgetSurvivesARestart(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	rule := engineers(perDay(10_000))
	b := book(t, s, c, "relay-1")
	reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 5000}).Settle(3000, 0)
	left := reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 1000}) // still open when it closes
	closeBook(t, b)
	left.Settle(1, 0) // too late: nobody will read it
	if _, err := b.Reserve(background(t), limit.Ask{Rules: []limit.Rule{rule}}); !errors.Is(err, limit.ErrUnavailable) {
		t.Errorf("reserve after close: %v", err)
	}
	if err := b.Flush(background(t)); !errors.Is(err, limit.ErrUnavailable) {
		t.Errorf("flush after close: %v", err)
	}
	b = book(t, s, c, "relay-1")
	if got := standing(t, b, rule); got.Used != 4000 {
		t.Errorf("after the restart %d are used, want what was settled and what was open: 4000", got.Used)
	}
	refused(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 6001}, "budget_exceeded")
	reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 6000}).Settle(6000, 0)
}
