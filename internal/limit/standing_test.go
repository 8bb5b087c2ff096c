package limit_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"iap/internal/limit"
)

func TestAStandingSaysWhenThereIsMore(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers(limit.Rate{N: 1000, Per: time.Hour})
	if s := standing(t, b, rule); s.Used != 0 || !s.Next.IsZero() {
		t.Errorf("nothing is used: %+v", s)
	}
	began := c.Now()
	reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 300}).Settle(300, 0)
	c.Add(20 * time.Minute)
	reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 500}).Settle(500, 0)
	running := reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 50})
	defer running.Release()
	check := func(what string, rule limit.Rule, n, free int64) {
		t.Helper()
		s := standing(t, b, rule)
		if s.Limit != n || s.Used != 800 || s.Held != 50 || s.NextFree != free {
			t.Errorf("%s: %+v, want %d left at the next time", what, s, free)
		}
		if d := s.Next.Sub(began); d < time.Hour || d > time.Hour+2*time.Minute {
			t.Errorf("%s: there is more after %s", what, d)
		}
	}
	check("the limit that holds", rule, 1000, 450)
	// Another limit on the same counter, which the counter is not held to now.
	warned := engineers(limit.Rate{N: 900, Per: time.Hour})
	warned.Warn = true
	check("one that warns", warned, 900, 350)
	// One that is overdrawn has more only when all that is too much is gone.
	tight := engineers(limit.Rate{N: 400, Per: time.Hour})
	if s := standing(t, b, tight); s.NextFree != 350 || s.Next.Sub(began) < 80*time.Minute {
		t.Errorf("overdrawn: %+v", s)
	}
}

func TestEveryLimitOfManyRulesIsLookedUp(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	var rules []limit.Rule
	for i := range 150 {
		rule := engineers(perDay(int64(1000 + i)))
		rule.Who = fmt.Sprintf("corp/%d", i)
		rules = append(rules, rule)
		reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: int64(i + 1)}).Settle(int64(i+1), 0)
	}
	all, err := b.Usage(background(t), rules)
	if err != nil || len(all) != len(rules) {
		t.Fatalf("%d of %d, %v", len(all), len(rules), err)
	}
	for i, s := range all {
		if s.Limit != int64(1000+i) || s.Used != int64(i+1) || s.Rule.Who != rules[i].Who {
			t.Errorf("%d: %+v", i, s)
		}
	}
}

func TestHoldersOfAGrantAreThoseWhoUsedIt(t *testing.T) {
	c := newClock()
	s := memory(t, c)
	b, other := book(t, s, c, "relay-1"), book(t, s, c, "relay-2")
	for _, who := range []limit.Holder{{Per: "principal", Who: "corp/bob"}, {Per: "group", Who: "corp/ml"}, {Per: "principal", Who: "corp/ann"}} {
		rule := engineers(perDay(1000))
		rule.Per, rule.Who = who.Per, who.Who
		reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 10}).Settle(10, 0)
	}
	another := engineers(perDay(1000))
	another.Grant, another.Who = "another", "corp/eve"
	reserve(t, b, limit.Ask{Rules: []limit.Rule{another}, Input: 10}).Settle(10, 0)
	flush(t, b)
	want := []limit.Holder{{Per: "group", Who: "corp/ml"}, {Per: "principal", Who: "corp/ann"}, {Per: "principal", Who: "corp/bob"}}
	grant := engineers().Grant
	for _, from := range []*limit.Book{b, other} {
		if got, more, err := from.Holders(background(t), grant, 3); err != nil || more || !slices.Equal(got, want) {
			t.Errorf("got %v, %t, %v", got, more, err)
		}
		if got, more, err := from.Holders(background(t), grant, 2); err != nil || !more || !slices.Equal(got, want[:2]) {
			t.Errorf("got %v, %t, %v", got, more, err)
		}
	}
}
