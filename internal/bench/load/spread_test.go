package load

import (
	"errors"
	"testing"
	"time"
)

func TestSpreadTellsPercentilesInMicroseconds(t *testing.T) {
	var s samples
	for i := 101; i >= 1; i-- { // backwards: it must sort
		s.add(time.Duration(i) * time.Microsecond)
	}
	want := Spread{Count: 101, P50: 51, P90: 91, P99: 100, Max: 101}
	if got := s.spread(); got != want {
		t.Errorf("spread = %+v, want %+v", got, want)
	}
}

func TestSpreadOfFewSamples(t *testing.T) {
	if got := (samples{}).spread(); got != (Spread{}) {
		t.Errorf("spread of nothing = %+v", got)
	}
	one := samples{3 * time.Microsecond}
	if got := one.spread(); got.P50 != 3 || got.P99 != 3 || got.Max != 3 {
		t.Errorf("spread of one = %+v", got)
	}
}

func TestCollectorKeepsTheFirstFailure(t *testing.T) {
	first := errors.New("first")
	var c collector
	c.fail(first)
	c.fail(errors.New("second"))
	var r Result
	r.finish(7, &c)
	if r.Done != 7 || r.Failed != 2 || r.Error != "first" {
		t.Errorf("result = %+v", r)
	}
}
