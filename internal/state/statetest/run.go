package statetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"iap/internal/state"
)

// patience bounds a test that would otherwise hang; no test passes or fails by it on a working store.
const patience = 30 * time.Second

// Backend makes stores to be tested.
type Backend struct {
	// New prepares an empty place and returns what opens the store in it. That may be called again after the store it gave
	// was closed, and must then find what that one kept. now is the store's clock for expiry.
	New func(t *testing.T) func(now func() time.Time) state.Store
	// Volatile says that nothing survives Close; the tests of persistence are skipped.
	Volatile bool
}

// Run tests the contract.
func Run(t *testing.T, b Backend) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, b Backend)
	}{
		{"ItemIsReadBackAsWritten", testReadBack},
		{"SwapNeedsTheCurrentVersion", testSwapVersions},
		{"VersionsOnlyRise", testVersionsRise},
		{"OneOfManyRacingSwapsWins", testRacingSwaps},
		{"EveryIncrementCounts", testIncrements},
		{"SwapAllWritesAllButTheConflicts", testSwapAll},
		{"SwapAllIsBounded", testSwapAllBounds},
		{"DeleteNeedsTheCurrentVersion", testDelete},
		{"SizesAreBounded", testBounds},
		{"ListPagesInKeyOrder", testListPages},
		{"ListPrefixIsExact", testListPrefix},
		{"ListPageOfLargeValuesIsBounded", testListLarge},
		{"ExpiredItemIsGone", testExpiry},
		{"WatchSeesEveryChangeInOrder", testWatchOrder},
		{"WatchEndsWithContextAndStore", testWatchEnds},
		{"SlowWatcherIsToldToListAgain", testSlowWatcher},
		{"EndedContextIsHonoured", testContext},
		{"ClosedStoreIsUnavailable", testClosed},
		{"ReopenedStoreKeepsItemsAndVersions", testReopen},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, b) })
	}
}

// clock is a clock that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time // guarded by mu
}

func newClock() *clock { return &clock{now: time.Unix(1_800_000_000, 0)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t *testing.T, b Backend) state.Store {
	t.Helper()
	s := b.New(t)(time.Now)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func background(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func put(t *testing.T, s state.Store, key, value string, version int64) int64 {
	t.Helper()
	v, err := s.Swap(background(t), key, version, []byte(value), time.Time{})
	if err != nil {
		t.Fatalf("swap %q at %d: %v", key, version, err)
	}
	return v
}

func receive(t *testing.T, changes <-chan state.Change) (state.Change, bool) {
	t.Helper()
	select {
	case c, ok := <-changes:
		return c, ok
	case <-background(t).Done():
		t.Fatal("no change arrived")
		return state.Change{}, false
	}
}
