package limit_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iap/internal/limit"
	"iap/internal/state"
)

// use is an amount used at a moment that really passed, whatever the clock showed.
type use struct {
	at time.Duration
	n  int64
}

// most returns the most that was used within any span of length per, both ends included.
func most(uses []use, per time.Duration) int64 {
	worst := int64(0)
	for i, first := range uses {
		sum := int64(0)
		for _, u := range uses[i:] {
			if u.at-first.at <= per {
				sum += u.n
			}
		}
		worst = max(worst, sum)
	}
	return worst
}

func TestNoWindowHoldsMoreThanTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		store, err := state.OpenWith(context.Background(), "sqlite::memory:", state.Options{Now: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		per := time.Duration(rapid.SampledFrom([]int64{1e9, 7e9 + 13, 60e9}).Draw(t, "window"))
		n, many := rapid.Int64Range(1, 40).Draw(t, "requests"), rapid.Int64Range(50, 300).Draw(t, "tokens")
		rule := engineers(limit.Rate{N: many, Per: per})
		rule.Requests = []limit.Rate{{N: n, Per: per}}
		var books [2]*limit.Book
		for i := range books {
			if books[i], err = limit.Open(context.Background(), limit.Options{Store: store, Holder: holder(i), Now: c.Now}); err != nil {
				t.Fatal(err)
			}
			defer books[i].Close(context.Background())
		}
		w := &windows{t: t, clock: c, books: books[:], rule: rule, per: per}
		t.Repeat(map[string]func(*rapid.T){
			"reserve":  w.reserve,
			"reserve2": w.reserve,
			"settle":   w.settle,
			"advance":  w.advance,
			"set back": w.setBack,
			"flush":    w.flush,
		})
		if got := most(w.requests, per); got > n {
			t.Errorf("%d requests within %v, allowed are %d", got, per, n)
		}
		if got := most(w.tokens, per); got > many {
			t.Errorf("%d tokens within %v, allowed are %d", got, per, many)
		}
	})
}

type windows struct {
	t     *rapid.T
	clock *clock
	books []*limit.Book
	rule  limit.Rule
	per   time.Duration

	real             time.Duration // since the beginning
	requests, tokens []use
	open             []running
}

type running struct {
	limit.Reservation
	n int64
}

func (w *windows) reserve(t *rapid.T) {
	n := rapid.Int64Range(1, 100).Draw(t, "n")
	b := w.books[rapid.IntRange(0, 1).Draw(t, "relay")]
	r, err := b.Reserve(context.Background(), limit.Ask{Rules: []limit.Rule{w.rule}, Input: n})
	var exceeded *limit.Exceeded
	switch {
	case err == nil:
		w.requests = append(w.requests, use{w.real, 1})
		w.open = append(w.open, running{r, n})
	case !errors.As(err, &exceeded):
		t.Fatal(err)
	}
}

// settle ends a request that has used all it had, some of it just now: what was used before is older.
func (w *windows) settle(t *rapid.T) {
	if len(w.open) == 0 {
		return
	}
	i := rapid.IntRange(0, len(w.open)-1).Draw(t, "which")
	w.tokens = append(w.tokens, use{w.real, w.open[i].n})
	w.open[i].Settle(w.open[i].n, 0)
	w.open = append(w.open[:i], w.open[i+1:]...)
}

// advance lets time pass, in steps between which both relays renew their leases, as their tickers would.
func (w *windows) advance(t *rapid.T) {
	d := time.Duration(rapid.Int64Range(0, int64(w.per)*3/4).Draw(t, "advance"))
	for _, part := range []time.Duration{d / 3, d / 3, d - 2*(d/3)} {
		w.real += part
		w.clock.Add(part)
		for _, b := range w.books {
			if err := b.Flush(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// setBack moves the clock back. (Setting it right again would be a step forward, and that only a monotonic reading, which
// times made by hand do not have, tells from time that passes.)
func (w *windows) setBack(t *rapid.T) {
	w.clock.Add(-time.Duration(rapid.Int64Range(0, int64(2*w.per)).Draw(t, "back")))
}

func (w *windows) flush(t *rapid.T) {
	if err := w.books[rapid.IntRange(0, 1).Draw(t, "relay")].Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestBudgetComesFreeWhenItHasSlidOut(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers()
	rule.Requests = []limit.Rate{perMinute(3)}
	ask := limit.Ask{Rules: []limit.Rule{rule}}
	for i := range 3 {
		reserve(t, b, ask).Settle(0, 0)
		c.Add(time.Duration(i) * 10 * time.Second)
	}
	e := refused(t, b, ask, "rate_limited") // 30 s after the first two
	c.Add(e.RetryAfter - time.Millisecond)
	refused(t, b, ask, "rate_limited")
	c.Add(time.Millisecond)
	reserve(t, b, ask).Settle(0, 0)
	reserve(t, b, ask).Settle(0, 0)
	refused(t, b, ask, "rate_limited")
	c.Add(2 * time.Minute)
	for range 3 {
		reserve(t, b, ask).Settle(0, 0)
	}
}

func TestClockSetBackFreesNothing(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	b := book(t, s, c, "relay-1")
	ask := limit.Ask{Rules: []limit.Rule{engineers(perMinute(100))}, Input: 100}
	reserve(t, b, ask).Settle(100, 0)
	c.Add(-time.Hour)
	refused(t, b, ask, "budget_exceeded")
	c.Add(time.Hour)
	refused(t, b, ask, "budget_exceeded")
	closeBook(t, b)
	c.Add(-time.Hour) // a restart with a clock that is behind: what it sees in the future counts as of now
	b = book(t, s, c, "relay-1")
	refused(t, b, ask, "budget_exceeded")
	c.Add(59 * time.Second)
	refused(t, b, ask, "budget_exceeded")
	c.Add(2 * time.Second)
	reserve(t, b, ask).Settle(100, 0)
}

// A request that runs for longer than the window holds what it reserved until it ends.
func TestLongRequestKeepsItsReservation(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	b, other := book(t, s, c, "relay-1"), book(t, s, c, "relay-2")
	ask := limit.Ask{Rules: []limit.Rule{engineers(perMinute(1000))}, Input: 600}
	long := reserve(t, b, ask)
	for range 20 {
		c.Add(15 * time.Second)
		flush(t, b) // what the ticker does
	}
	refused(t, b, ask, "budget_exceeded")
	refused(t, other, ask, "budget_exceeded")
	long.Settle(600, 0)
	refused(t, b, ask, "budget_exceeded")
	c.Add(61 * time.Second)
	reserve(t, b, ask).Settle(600, 0)
}

func TestSeveralRatesHoldAtOnceAndARefusalTakesNothing(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	group := limit.Rule{Grant: "engineers-chat", Per: "group", Who: "corp/ml-eng", Tokens: []limit.Rate{perDay(500)}, Concurrent: 9}
	mine := engineers(perMinute(1000), perDay(10_000))
	mine.Requests = []limit.Rate{perMinute(10)}
	for i := range 5 {
		if i > 0 {
			refused(t, b, limit.Ask{Rules: []limit.Rule{mine, group}, Input: 501}, "budget_exceeded")
			continue
		}
		reserve(t, b, limit.Ask{Rules: []limit.Rule{mine, group}, Input: 400}).Settle(300, 0)
	}
	all, err := b.Usage(background(t), []limit.Rule{mine, group})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range all {
		got += fmt.Sprintf("%s %s/%s %s %d of %d, held %d\n", s.Rule.Per, s.Kind, s.Window, s.Rule.Who, s.Used, s.Limit, s.Held)
	}
	if want := `principal requests/1m0s corp/8a7f3c 1 of 10, held 0
principal tokens/1m0s corp/8a7f3c 300 of 1000, held 0
principal tokens/24h0m0s corp/8a7f3c 300 of 10000, held 0
group tokens/24h0m0s corp/ml-eng 300 of 500, held 0
group concurrent/0s corp/ml-eng 0 of 9, held 0
`; got != want {
		t.Errorf("standings:\n%swant:\n%s", got, want)
	}
}

func TestCountersOfDifferentNamesAreDifferent(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	names := [][3]string{
		{"ab", "principal", "c"},
		{"a", "principal", "bc"},
		{"a/b", "principal", "c"},
		{"a", "principal", "b/c"},
		{"", "principal", "abc"},
		{"abc", "principal", ""},
		{"ab", "group", "c"},
		{"ab", "grant", "c"},
		{"a\x00b", "principal", "c"},
		{"a\n", "principal", "b"},
	}
	for _, name := range names {
		rule := limit.Rule{Grant: name[0], Per: name[1], Who: name[2], Tokens: []limit.Rate{perDay(10)}}
		reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 10}).Settle(10, 0)
		flush(t, b)
		rule.Tokens = []limit.Rate{perMinute(10)}
		reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 10}).Settle(10, 0)
		refused(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 1}, "budget_exceeded")
	}
}

func TestLimitsOnOneCounterAreOne(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	ask := limit.Ask{Rules: []limit.Rule{engineers(perDay(100)), engineers(perDay(70), perDay(90))}, Input: 35}
	reserve(t, b, ask).Settle(35, 0)
	reserve(t, b, ask).Settle(35, 0)
	refused(t, b, ask, "budget_exceeded")
	if s := standing(t, b, engineers(perDay(100))); s.Used != 70 {
		t.Errorf("used %d, want 70: each request counts once", s.Used)
	}
	reserve(t, b, limit.Ask{Rules: []limit.Rule{engineers(perDay(110))}, Input: 40}).Settle(0, 0) // a raised limit keeps the count
	refused(t, b, limit.Ask{Rules: []limit.Rule{engineers(perDay(110))}, Input: 41}, "budget_exceeded")
}
