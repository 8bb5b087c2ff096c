package limit_test

import (
	"testing"

	"iap/internal/limit"
)

// A policy reload changes the rules of a counter on which answers are running.
func TestALimitThatOnlyWarnsFromNowOnCutsNoRunningAnswer(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers(perDay(1000))
	r := reserve(t, b, limit.Ask{Rules: []limit.Rule{rule}, Input: 100, Output: 4096})
	if r.Output() != 900 {
		t.Fatalf("output %d, want the 900 that are left", r.Output())
	}
	warned := rule
	warned.Warn = true
	reserve(t, b, limit.Ask{Rules: []limit.Rule{warned}, Input: 100, Output: 100}).Settle(100, 100)
	if err := r.Use(100, 950); err != nil {
		t.Errorf("an answer was cut by a limit that only warns: %v", err)
	}
	r.Settle(100, 950)
}

// Who looks at a limit that warns lifts no other one on the same counter.
func TestLookingAtLimitsLiftsNone(t *testing.T) {
	c := newClock()
	b := book(t, memory(t, c), c, "relay-1")
	rule := engineers(perDay(1000))
	warned := engineers(perDay(800))
	warned.Warn = true
	rules := []limit.Rule{rule, warned}
	r := reserve(t, b, limit.Ask{Rules: rules, Input: 100, Output: 4096})
	if _, err := b.Usage(background(t), rules); err != nil {
		t.Fatal(err)
	}
	cut(t, r.Use(100, 950), "budget_exceeded")
	r.Settle(100, 950)
}
