package limit

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"iap/internal/state"
)

func TestIdleCountersLeaveMemoryAndExpireInTheStore(t *testing.T) {
	now := time.Date(2026, 11, 23, 14, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now } // set between rounds only
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := state.OpenWith(ctx, "sqlite::memory:", state.Options{Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	b := &Book{
		log:   slog.New(slog.DiscardHandler),
		store: s, me: lease{Holder: "relay-1", Generation: 1}, now: clock, started: now, counters: make(map[counterKey]*counter),
		next: newRound(), kick: make(chan struct{}, 1), notices: make(chan Notice),
	}
	const callers = 100
	var open Reservation
	for i := range callers {
		rule := Rule{Grant: "g", Per: "principal", Who: fmt.Sprint(i), Tokens: []Rate{{1000, time.Minute}}, Concurrent: 2}
		open = reserveByHand(ctx, t, b, Ask{Rules: []Rule{rule}, Input: 10})
		if i < callers-1 {
			open.Settle(10, 0)
		}
	}
	tick := func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sweep(b.time())
		b.enqueueBusy()
	}
	for range 3 {
		now = now.Add(6 * time.Second)
		tick()
		b.round(ctx)
	}
	if n := len(b.counters); n != 2 { // tokens and slots of the one that runs
		t.Errorf("%d counters are in memory, 2 are in use", n)
	}
	open.Settle(10, 0)
	for range 3 {
		now = now.Add(6 * time.Second)
		tick()
		b.round(ctx)
	}
	now = now.Add(4 * time.Minute)
	if page, err := s.List(ctx, counterPrefix, "", 0); err != nil || len(page) != 0 {
		t.Errorf("%d counters are in the store long after their windows, %v", len(page), err)
	}
}

// reserveByHand reserves on a book whose rounds nobody runs.
func reserveByHand(ctx context.Context, t *testing.T, b *Book, ask Ask) Reservation {
	t.Helper()
	r := &reservation{book: b, ask: ask}
	for range 2 {
		b.mu.Lock()
		wait, err := b.try(r)
		b.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		if wait == nil {
			return r
		}
		b.round(ctx)
		r.waited = true
	}
	t.Fatal("one round is enough for one request")
	return nil
}

func TestDamagedCounterIsRefusedUntilItIsReset(t *testing.T) {
	for _, bad := range []string{
		"", "{", `{"charges":[{"b":5,"n":-1}]}`, `{"charges":[{"b":5,"n":1},{"b":5,"n":1}]}`, `{"leases":[{"n":-5}]}`,
		`{"charges":[{"b":1,"n":2305843009213693952}]}`,
	} {
		if rec, err := decodeRecord([]byte(bad)); err == nil {
			t.Errorf("%s was read as %+v", bad, rec)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s, err := state.Open(ctx, "sqlite::memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rule := Rule{Grant: "g", Per: "principal", Who: "w", Tokens: []Rate{{1000, time.Minute}}}
	key := counterKey{"g", "principal", "w", tokens, time.Minute}
	if _, err := s.Swap(ctx, key.id(), 0, []byte("{"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	b, err := Open(ctx, Options{Store: s, Holder: "relay-1"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close(ctx)
	if r, err := b.Reserve(ctx, Ask{Rules: []Rule{rule}, Input: 1}); err == nil {
		t.Errorf("reserved %v", r)
	}
	if err := b.Reset(ctx, rule); err != nil {
		t.Fatal(err)
	}
	r, err := b.Reserve(ctx, Ask{Rules: []Rule{rule}, Input: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.Settle(1, 0)
}
