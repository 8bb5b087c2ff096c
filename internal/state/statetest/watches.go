package statetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"iap/internal/state"
)

func testWatchOrder(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	put(t, s, "w/before", "", 0)
	changes, err := s.Watch(ctx, "w/")
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 10
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			key, version := fmt.Sprintf("w/%d", w), int64(0)
			for i := range each {
				next, err := s.Swap(ctx, key, version, []byte(strconv.Itoa(i)), time.Time{})
				if err != nil {
					t.Error(err)
				}
				version = next
				if _, err := s.Swap(ctx, fmt.Sprintf("v/%d/%d", w, i), 0, nil, time.Time{}); err != nil {
					t.Error(err)
				}
			}
			if err := s.Delete(ctx, key, version); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	next, last := map[string]int{}, int64(0)
	for range writers * (each + 1) {
		c, ok := receive(t, changes)
		if !ok || c.Resync {
			t.Fatalf("got %+v, open %v", c, ok)
		}
		if c.Item.Version <= last {
			t.Errorf("version %d came after %d", c.Item.Version, last)
		}
		last = c.Item.Version
		if n := next[c.Item.Key]; c.Deleted != (n == each) || !c.Deleted && string(c.Item.Value) != strconv.Itoa(n) {
			t.Errorf("change %d of %s is %+v", n, c.Item.Key, c)
		}
		next[c.Item.Key]++
	}
	if len(changes) != 0 || len(next) != writers {
		t.Errorf("%d changes too many, of %d keys", len(changes), len(next))
	}
}

func testWatchEnds(t *testing.T, b Backend) {
	s := b.New(t)(time.Now)
	ctx, cancel := context.WithCancel(background(t))
	mine, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	other, err := s.Watch(background(t), "")
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if c, ok := receive(t, mine); ok {
		t.Errorf("watch of an ended context got %+v", c)
	}
	put(t, s, "k", "", 0)
	if c, ok := receive(t, other); !ok || c.Item.Key != "k" {
		t.Errorf("the other watch got %+v, %v", c, ok)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if c, ok := receive(t, other); ok {
		t.Errorf("watch of a closed store got %+v", c)
	}
}

// testSlowWatcher writes without reading until the watcher must have lost changes, then checks that what it was told
// leads it to the truth: every change is either reported or followed by a Resync.
func testSlowWatcher(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	changes, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	const writes = 1200 // more than any reasonable buffer
	version := int64(0)
	for i := range writes {
		version = put(t, s, "k", strconv.Itoa(i), version)
	}
	resync := false
	for len(changes) > 0 {
		c, _ := receive(t, changes)
		if resync {
			t.Fatalf("%+v was queued behind a Resync", c)
		}
		resync = c.Resync
	}
	if !resync {
		t.Fatal("changes were lost and the watcher was not told")
	}
	put(t, s, "k", "last", version)
	if c, ok := receive(t, changes); !ok || string(c.Item.Value) != "last" {
		t.Errorf("after the Resync the watcher got %+v, %v", c, ok)
	}
}

func testContext(t *testing.T, b Backend) {
	s := open(t, b)
	ended, cancel := context.WithCancel(background(t))
	cancel()
	_, get := s.Get(ended, "k")
	_, swap := s.Swap(ended, "k", 0, nil, time.Time{})
	_, all := s.SwapAll(ended, []state.Write{{Key: "k"}})
	_, list := s.List(ended, "", "", 0)
	for op, err := range map[string]error{"get": get, "swap": swap, "swap all": all, "list": list, "delete": s.Delete(ended, "k", -1)} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended context: %v, want context.Canceled", op, err)
		}
	}
	if _, err := s.Get(background(t), "k"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a swap with an ended context wrote: %v", err)
	}
}

func testClosed(t *testing.T, b Backend) {
	s := b.New(t)(time.Now)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	ctx := background(t)
	_, get := s.Get(ctx, "k")
	_, swap := s.Swap(ctx, "k", 0, nil, time.Time{})
	_, all := s.SwapAll(ctx, []state.Write{{Key: "k"}})
	_, list := s.List(ctx, "", "", 0)
	_, watch := s.Watch(ctx, "")
	for op, err := range map[string]error{"get": get, "swap": swap, "swap all": all, "list": list, "watch": watch, "delete": s.Delete(ctx, "k", -1)} {
		if !errors.Is(err, state.ErrUnavailable) {
			t.Errorf("%s on a closed store: %v, want ErrUnavailable", op, err)
		}
	}
}

func testReopen(t *testing.T, b Backend) {
	if b.Volatile {
		t.Skip("nothing outlives this store")
	}
	reopen := b.New(t)
	s := reopen(time.Now)
	first := put(t, s, "k", "a", 0)
	second := put(t, s, "gone", "b", 0)
	if err := s.Delete(background(t), "gone", second); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(time.Now)
	defer s.Close()
	if item, err := s.Get(background(t), "k"); err != nil || string(item.Value) != "a" || item.Version != first {
		t.Errorf("after reopening: %+v, %v", item, err)
	}
	if again := put(t, s, "gone", "c", 0); again <= second+1 {
		t.Errorf("version %d was given again after reopening (deletion had %d)", again, second+1)
	}
}
