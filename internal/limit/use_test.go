package limit_test

import (
	"errors"
	"testing"
	"time"

	"iap/internal/limit"
)

func cut(t *testing.T, err error, code string) *limit.Exceeded {
	t.Helper()
	var exceeded *limit.Exceeded
	if !errors.As(err, &exceeded) || exceeded.Code != code {
		t.Fatalf("use: %v, want %s", err, code)
	}
	return exceeded
}

func TestOutputIsWhatTheBudgetLeaves(t *testing.T) {
	for _, test := range []struct {
		name    string
		limit   int64
		ask     limit.Ask
		want    int64 // -2: refused
		bounded bool
	}{
		{"all of it", 10_000, limit.Ask{Input: 100, Output: 4096, Unstated: true}, 4096, false},
		{"exactly", 4196, limit.Ask{Input: 100, Output: 4096}, 4096, false},
		{"less, by our word", 4195, limit.Ask{Input: 100, Output: 4096, Unstated: true}, 4095, true},
		{"less, by the caller's", 1000, limit.Ask{Input: 100, Output: 4096}, 900, true},
		{"the least of one", 116, limit.Ask{Input: 100, Output: 4096}, 16, true},
		{"too little for one", 115, limit.Ask{Input: 100, Output: 4096}, -2, false},
		{"little was asked", 105, limit.Ask{Input: 100, Output: 5}, 5, false},
		{"and there is less", 104, limit.Ask{Input: 100, Output: 5}, -2, false},
		{"the least of four", 164, limit.Ask{Input: 100, Output: 4096, Choices: 4}, 64, true},
		{"too little for four", 163, limit.Ask{Input: 100, Output: 4096, Choices: 4}, -2, false},
		{"choices beyond reason", 163, limit.Ask{Input: 100, Output: 4096, Choices: 1 << 62}, -2, false},
		{"no output", 100, limit.Ask{Input: 100}, 0, false},
		{"no room for the input", 99, limit.Ask{Input: 100}, -2, false},
		{"beyond all sums", 1 << 49, limit.Ask{Input: 1 << 62, Output: 1 << 62}, -2, false},
		{"below zero", 100, limit.Ask{Input: -1 << 63, Output: -1 << 63}, 0, false},
	} {
		c := newClock()
		b := book(t, memory(t, c), c, "relay-1")
		test.ask.Rules = []limit.Rule{engineers(perDay(test.limit), limit.Rate{N: 1 << 49, Per: time.Hour})}
		r, err := b.Reserve(background(t), test.ask)
		if err != nil {
			if cut(t, err, "budget_exceeded"); test.want != -2 {
				t.Errorf("%s: %v, want %d", test.name, err, test.want)
			}
			continue
		}
		if r.Output() != test.want {
			t.Errorf("%s: output %d, want %d", test.name, r.Output(), test.want)
		}
		if err := r.Use(max(0, test.ask.Input), r.Output()); (err != nil) != test.bounded {
			t.Errorf("%s: using all of it: %v", test.name, err)
		}
		r.Settle(-1, -1)
		if s := standing(t, b, test.ask.Rules[0]); s.Used != max(0, test.ask.Input)+test.want {
			t.Errorf("%s: used %d by a request that told nothing", test.name, s.Used)
		}
	}
}

func TestRequestWithoutTokenLimitIsNotBound(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers()
	rule.Requests = []limit.Rate{perMinute(3)}
	warned := engineers(perDay(1))
	warned.Warn = true
	for _, rules := range [][]limit.Rule{nil, {rule}, {warned}, {rule, warned}} {
		r := reserve(t, b, limit.Ask{Rules: rules, Input: 1e6, Output: 1e6})
		if r.Output() != -1 {
			t.Errorf("output %d, want -1", r.Output())
		}
		if err := r.Use(1e9, 1e9); err != nil {
			t.Error(err)
		}
		r.Settle(10, 10)
	}
}

func TestAnswerThatOutgrowsItsReservationIsCutWhenTheBudgetEnds(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers(perDay(2000))
	r := reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 100, Output: 100})
	used := int64(0)
	for ; used < 5000; used += 10 { // the model server heeds no cap
		err := r.Use(100, used)
		if err == nil {
			flush(t, b) // the store answers between two tokens
			continue
		}
		cut(t, err, "budget_exceeded")
		break
	}
	if used < 1900 || used > 1900+20 {
		t.Errorf("cut after %d tokens of output, the budget has 1900 for it", used)
	}
	r.Settle(100, used)
	if s := standing(t, b, rule); s.Used != 100+used || s.Held != 0 {
		t.Errorf("used %d, held %d; want %d: what was generated is charged", s.Used, s.Held, 100+used)
	}
	refused(t, b, limit.Ask{Rules: []limit.Rule{rule}}, "budget_exceeded")
}

func TestAnswerThatOutgrowsItsReservationIsCutWhenTheStoreIsAway(t *testing.T) {
	c := newClock()
	s := &flaky{Store: memory(t, c)}
	b := book(t, s, c, "relay-1")
	r := reserve(t, b, limit.Ask{Rules: []limit.Rule{engineers(perDay(1_000_000))}, Input: 100, Output: 100})
	c.Add(time.Second) // what is known of the store is old
	s.set(away)
	if err := r.Use(100, 5000); err != nil {
		t.Fatalf("before the store was asked: %v", err)
	}
	_ = b.Flush(background(t))
	cut(t, r.Use(100, 5000), "limits_unavailable")
	s.set(well)
	r.Settle(100, 5000)
}

func TestUseNeverWaitsForTheStore(t *testing.T) {
	c := newClock()
	s := &flaky{Store: memory(t, c)}
	b := book(t, s, c, "relay-1")
	r := reserve(t, b, limit.Ask{Rules: []limit.Rule{engineers(perDay(1_000_000))}, Input: 100, Output: 100})
	release := make(chan struct{})
	entered := make(chan struct{})
	c.Add(time.Second)
	s.before(func() { close(entered); <-release })
	for used := int64(201); used < 400; used++ {
		if err := r.Use(100, used); err != nil {
			t.Fatal(err)
		}
	}
	<-entered // the store was asked, and nobody has waited for it
	close(release)
	r.Settle(100, 400)
}

func TestUseIsFree(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	r := reserve(t, b, limit.Ask{Rules: []limit.Rule{engineers(perDay(1_000_000))}, Input: 100, Output: 1000})
	defer r.Release()
	if n := testing.AllocsPerRun(100, func() { _ = r.Use(100, 900) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestReservationEndsOnce(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers(perDay(1000))
	rule.Requests = []limit.Rate{perMinute(10)}
	rule.Concurrent = 2
	ask := limit.Ask{Rules: []limit.Rule{rule}, Input: 100}
	r := reserve(t, b, ask)
	race(t, 20, func(i int) {
		if i%2 == 0 {
			r.Settle(100, 0)
		} else {
			r.Settle(-1, -1)
		}
		r.Release()
		_ = r.Use(1, 1)
	})
	released := reserve(t, b, ask)
	released.Release()
	released.Settle(100, 0)
	all, err := b.Usage(background(t), []limit.Rule{rule})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int64{1, 100, 0} { // requests, tokens, concurrent
		if all[i].Used+all[i].Held != want && i != 1 || i == 1 && all[i].Used > want {
			t.Errorf("%s: used %d, held %d; want %d", all[i].Kind, all[i].Used, all[i].Held, want)
		}
	}
}

// A request that the relay itself refused after all is not counted, also if its reservation had been written.
func TestReleasedRequestIsNotCounted(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers()
	rule.Requests = []limit.Rate{perMinute(1)}
	ask := limit.Ask{Rules: []limit.Rule{rule}}
	for range 5 {
		r := reserve(t, b, ask)
		refused(t, b, ask, "rate_limited")
		flush(t, b)
		r.Release()
	}
	reserve(t, b, ask).Settle(0, 0)
	refused(t, b, ask, "rate_limited")
}
