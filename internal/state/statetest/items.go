package statetest

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/internal/state"
)

func testReadBack(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	expires := time.Now().Add(time.Hour)
	for _, value := range [][]byte{nil, {}, {0}, []byte("text"), bytes.Repeat([]byte{0xff, 0}, 500)} {
		key := "k/" + strconv.Itoa(len(value)) + "/" + strconv.FormatBool(value == nil)
		version, err := s.Swap(ctx, key, 0, value, expires)
		if err != nil {
			t.Fatal(err)
		}
		item, err := s.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		if item.Key != key || !bytes.Equal(item.Value, value) || item.Version != version || !item.Expires.Equal(expires) {
			t.Errorf("wrote %q %q %d %v, read %+v", key, value, version, expires, item)
		}
	}
	put(t, s, "forever", "x", 0)
	if item, err := s.Get(ctx, "forever"); err != nil || !item.Expires.IsZero() {
		t.Errorf("item without end: %+v, %v", item, err)
	}
	if _, err := s.Get(ctx, "none"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("get of nothing: %v, want ErrNotFound", err)
	}
}

func testSwapVersions(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	refuse := func(version int64) {
		t.Helper()
		if _, err := s.Swap(ctx, "k", version, []byte("bad"), time.Time{}); !errors.Is(err, state.ErrConflict) {
			t.Errorf("swap at %d: %v, want ErrConflict", version, err)
		}
	}
	refuse(7)
	first := put(t, s, "k", "a", 0)
	refuse(0)
	second := put(t, s, "k", "b", first)
	refuse(first)
	refuse(second + 1)
	if item, err := s.Get(ctx, "k"); err != nil || string(item.Value) != "b" || item.Version != second {
		t.Errorf("after refused swaps: %+v, %v", item, err)
	}
}

func testVersionsRise(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	first := put(t, s, "k", "a", 0)
	if first <= 0 {
		t.Fatalf("first version is %d", first)
	}
	other := put(t, s, "other", "a", 0)
	if err := s.Delete(ctx, "k", first); err != nil {
		t.Fatal(err)
	}
	again := put(t, s, "k", "a", 0)
	if other <= first || again <= other+1 {
		t.Errorf("versions %d, %d, (deletion), %d do not rise", first, other, again)
	}
	if _, err := s.Swap(ctx, "k", first, nil, time.Time{}); !errors.Is(err, state.ErrConflict) {
		t.Errorf("swap at the version of the item's predecessor: %v, want ErrConflict", err)
	}
}

func testRacingSwaps(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	version := int64(0)
	for round := range 5 {
		version = race(ctx, t, s, version)
		if version == 0 {
			t.Fatalf("round %d had no single winner", round)
		}
	}
}

// race swaps 50 times at once from version and returns the winner's version, 0 if there was not exactly one.
func race(ctx context.Context, t *testing.T, s state.Store, version int64) int64 {
	const racers = 50
	versions, errs := make([]int64, racers), make([]error, racers)
	start := make(chan struct{})
	var all sync.WaitGroup
	for i := range racers {
		all.Go(func() {
			<-start
			versions[i], errs[i] = s.Swap(ctx, "prize", version, []byte(strconv.Itoa(i)), time.Time{})
		})
	}
	close(start)
	all.Wait()
	winner := int64(0)
	for i, err := range errs {
		switch {
		case err == nil && winner != 0:
			t.Errorf("two swaps of version %d won", version)
			return 0
		case err == nil:
			winner = versions[i]
			if item, err := s.Get(ctx, "prize"); err != nil || string(item.Value) != strconv.Itoa(i) || item.Version != winner {
				t.Errorf("racer %d won version %d, the store has %+v, %v", i, winner, item, err)
			}
		case !errors.Is(err, state.ErrConflict):
			t.Errorf("losing swap: %v, want ErrConflict", err)
		}
	}
	return winner
}

func testIncrements(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	const workers, each = 8, 10
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			for range each {
				if err := increment(ctx, s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if item, err := s.Get(ctx, "n"); err != nil || string(item.Value) != strconv.Itoa(workers*each) {
		t.Errorf("%d increments gave %q, %v", workers*each, item.Value, err)
	}
}

func increment(ctx context.Context, s state.Store) error {
	for {
		item, err := s.Get(ctx, "n")
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		n, _ := strconv.Atoi(string(item.Value)) // "" counts as 0
		_, err = s.Swap(ctx, "n", item.Version, []byte(strconv.Itoa(n+1)), time.Time{})
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
}

func testDelete(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	version := put(t, s, "k", "a", 0)
	if err := s.Delete(ctx, "k", version+1); !errors.Is(err, state.ErrConflict) {
		t.Errorf("delete at another version: %v, want ErrConflict", err)
	}
	if err := s.Delete(ctx, "k", version); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := s.Get(ctx, "k"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("get of a deleted item: %v, want ErrNotFound", err)
	}
	if err := s.Delete(ctx, "k", -1); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("delete of nothing: %v, want ErrNotFound", err)
	}
	put(t, s, "k", "b", 0)
	if err := s.Delete(ctx, "k", -1); err != nil {
		t.Errorf("delete at any version: %v", err)
	}
}

func testBounds(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	full := bytes.Repeat([]byte("v"), state.MaxValue)
	longest := strings.Repeat("k", state.MaxKey)
	if _, err := s.Swap(ctx, longest, 0, full, time.Time{}); err != nil {
		t.Errorf("largest key and value: %v", err)
	}
	if item, err := s.Get(ctx, longest); err != nil || !bytes.Equal(item.Value, full) {
		t.Errorf("largest item read back: %d bytes, %v", len(item.Value), err)
	}
	if _, err := s.Swap(ctx, "k", 0, append(full, 'v'), time.Time{}); !errors.Is(err, state.ErrInvalid) {
		t.Errorf("value too large: %v, want ErrInvalid", err)
	}
	for _, key := range []string{"", longest + "k", "a\x00b", "a\nb", "a\xffb"} {
		_, swap := s.Swap(ctx, key, 0, nil, time.Time{})
		_, get := s.Get(ctx, key)
		for _, err := range []error{swap, get, s.Delete(ctx, key, -1)} {
			if !errors.Is(err, state.ErrInvalid) {
				t.Errorf("key %.20q: %v, want ErrInvalid", key, err)
			}
		}
	}
}

func testExpiry(t *testing.T, b Backend) {
	c := newClock()
	s := b.New(t)(c.Now)
	defer s.Close()
	ctx := background(t)
	version, err := s.Swap(ctx, "k", 0, []byte("a"), c.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	c.Advance(time.Minute - 1)
	if _, err := s.Get(ctx, "k"); err != nil {
		t.Errorf("a nanosecond before its end: %v", err)
	}
	c.Advance(1)
	if _, err := s.Get(ctx, "k"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("get of an expired item: %v, want ErrNotFound", err)
	}
	if page, err := s.List(ctx, "", "", 0); err != nil || len(page) != 0 {
		t.Errorf("list shows expired items: %v, %v", page, err)
	}
	if _, err := s.Swap(ctx, "k", version, []byte("b"), time.Time{}); !errors.Is(err, state.ErrConflict) {
		t.Errorf("swap at the version of an expired item: %v, want ErrConflict", err)
	}
	if err := s.Delete(ctx, "k", -1); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("delete of an expired item: %v, want ErrNotFound", err)
	}
	if again := put(t, s, "k", "c", 0); again <= version {
		t.Errorf("version %d of the successor does not exceed %d", again, version)
	}
	c.Advance(1000 * time.Hour)
	if item, err := s.Get(ctx, "k"); err != nil || string(item.Value) != "c" {
		t.Errorf("successor without end: %+v, %v", item, err)
	}
}
