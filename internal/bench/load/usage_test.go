package load

import (
	"os"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestHopsAreReadFromTheCommandLine(t *testing.T) {
	hops, err := ParseHops("relay=12,agent=34")
	if err != nil || !slices.Equal(hops, []Hop{{"relay", 12}, {"agent", 34}}) {
		t.Errorf("hops = %v, %v", hops, err)
	}
	for _, bad := range []string{"relay", "relay=", "relay=x"} {
		if _, err := ParseHops(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestProcessTreeIsFollowedToItsRoot(t *testing.T) {
	parents := map[int]int{2: 1, 3: 2, 4: 3, 9: 0, 10: 11, 11: 10}
	for _, c := range []struct {
		pid, root int
		want      bool
	}{{4, 2, true}, {2, 2, true}, {2, 4, false}, {9, 2, false}, {10, 2, false}} {
		if got := within(c.pid, c.root, parents); got != c.want {
			t.Errorf("within(%d, %d) = %v", c.pid, c.root, got)
		}
	}
}

func TestUsageOfThisProcessIsFound(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc")
	}
	u := usageOf([]Hop{{"me", os.Getpid()}})["me"]
	if u.rssKB == 0 || u.peakKB < u.rssKB/2 {
		t.Errorf("usage = %+v", u)
	}
}

func TestCPUIsToldForWhatATestCounts(t *testing.T) {
	before := map[string]usage{"relay": {cpu: 1}}
	after := map[string]usage{"relay": {cpu: 3, rssKB: 2048, peakKB: 4096}}
	for _, c := range []struct {
		result Result
		unit   string
		per    float64
	}{
		{Result{Done: 4000}, "1k requests", .5},
		{Result{bytes: 4e9}, "GB", .5},
		{Result{Done: 1, TokenDelay: &Spread{Count: 8000}}, "1k tokens", .25},
		{Result{}, "1k requests", 0}, // nothing done: no division
	} {
		c.result.account(before, after)
		if c.result.CPUUnit != c.unit || c.result.CPUPer["relay"] != c.per || c.result.RSSMB["relay"] != 2 || c.result.PeakRSSMB["relay"] != 4 {
			t.Errorf("account = %+v, want %g s per %s", c.result, c.per, c.unit)
		}
	}
	partly := Result{bytes: 1e9, before: map[string]usage{"relay": {cpu: 2}}, after: after}
	if partly.account(before, after); partly.CPU["relay"] != 1 {
		t.Errorf("a test that measured a part of its run was charged %g s", partly.CPU["relay"])
	}
}

func TestPauseEndsWithItsContext(t *testing.T) {
	ctx := t.Context()
	pause(ctx, time.Nanosecond)
	ended, cancel := contextEnded(ctx)
	defer cancel()
	pause(ended, time.Hour)
}
