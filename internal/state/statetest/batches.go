package statetest

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"iap/internal/state"
)

func testSwapAll(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	changes, err := s.Watch(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	old := put(t, s, "old", "a", 0)
	other := put(t, s, "other", "a", 0)
	expires := time.Now().Add(time.Hour)
	versions, err := s.SwapAll(ctx, []state.Write{
		{Key: "new", Value: []byte("1"), Expires: expires},
		{Key: "old", Version: old, Value: []byte("2")},
		{Key: "other", Version: other + 100, Value: []byte("bad")},
		{Key: "other", Version: 0, Value: []byte("bad")},
		{Key: "none", Version: old, Value: []byte("bad")},
		{Key: "new", Version: 0, Value: []byte("bad")}, // the first of these writes has made it
	})
	if err != nil || len(versions) != 6 {
		t.Fatalf("versions %v, %v", versions, err)
	}
	if versions[0] <= other || versions[1] <= versions[0] || !slices.Equal(versions[2:], []int64{0, 0, 0, 0}) {
		t.Errorf("versions %v after %d: want two that rise and four conflicts", versions, other)
	}
	for key, want := range map[string]string{"new": "1", "old": "2", "other": "a", "none": ""} {
		if item, err := s.Get(ctx, key); string(item.Value) != want || (err != nil) != (want == "") {
			t.Errorf("%s holds %q, %v; want %q", key, item.Value, err, want)
		}
	}
	if item, err := s.Get(ctx, "new"); err != nil || !item.Expires.Equal(expires) || item.Version != versions[0] {
		t.Errorf("written %+v, %v", item, err)
	}
	for _, want := range []int64{old, other, versions[0], versions[1]} {
		if c, ok := receive(t, changes); !ok || c.Item.Version != want {
			t.Errorf("a watcher heard of %+v, want version %d", c, want)
		}
	}
	last := put(t, s, "last", "a", 0)
	if c, ok := receive(t, changes); !ok || c.Item.Version != last {
		t.Errorf("a watcher heard of a conflict: %+v", c)
	}
}

func testSwapAllBounds(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	if versions, err := s.SwapAll(ctx, nil); err != nil || len(versions) != 0 {
		t.Errorf("no writes: %v, %v", versions, err)
	}
	var writes []state.Write
	for i := range state.MaxBatch {
		writes = append(writes, state.Write{Key: "k" + strconv.Itoa(i)})
	}
	for name, bad := range map[string][]state.Write{
		"a write too many": append(slices.Clone(writes), state.Write{Key: "more"}),
		"an empty key":     {{Key: "fine"}, {Key: ""}},
		"a large value":    {{Key: "fine"}, {Key: "k", Value: make([]byte, state.MaxValue+1)}},
	} {
		if _, err := s.SwapAll(ctx, bad); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if page, err := s.List(ctx, "", "", 0); err != nil || len(page) != 0 {
		t.Errorf("a refused batch left %d items, %v", len(page), err)
	}
	versions, err := s.SwapAll(ctx, writes)
	if err != nil || len(versions) != state.MaxBatch || slices.Contains(versions, 0) {
		t.Errorf("the largest batch: %d versions, %v", len(versions), err)
	}
}
