package statetest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"iap/internal/state"
)

func testListPages(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	var want []string
	for i := range 25 {
		want = append(want, fmt.Sprintf("item/%03d", i))
	}
	for i := len(want) - 1; i >= 0; i-- {
		put(t, s, want[i], want[i], 0)
	}
	put(t, s, "other", "x", 0)
	var got []string
	after := ""
	for pages := 0; ; pages++ {
		page, err := s.List(ctx, "item/", after, 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		if len(page) > 7 || pages > len(want) {
			t.Fatalf("page %d has %d items", pages, len(page))
		}
		for _, item := range page {
			if string(item.Value) != item.Key || item.Version == 0 {
				t.Errorf("listed %+v", item)
			}
			got = append(got, item.Key)
		}
		after = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v", got)
	}
}

func testListPrefix(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	for _, key := range []string{"a", "a/", "a/b", "a/%", "a/_", "a0", "A/b", "a/é", "a/\U0010ffff", "b"} {
		put(t, s, key, "", 0)
	}
	for prefix, want := range map[string][]string{
		"":    {"A/b", "a", "a/", "a/%", "a/_", "a/b", "a/é", "a/\U0010ffff", "a0", "b"},
		"a/":  {"a/", "a/%", "a/_", "a/b", "a/é", "a/\U0010ffff"},
		"a/%": {"a/%"},
		"a/b": {"a/b"},
		"c":   nil,
	} {
		var got []string
		for item, err := range state.All(ctx, s, prefix) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, item.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("below %q: %q, want %q", prefix, got, want)
		}
	}
	if page, err := s.List(ctx, "a/", "A", 1); err != nil || len(page) != 1 || page[0].Key != "a/" {
		t.Errorf("after a key before the prefix: %v, %v", page, err)
	}
	if page, err := s.List(ctx, "a/", "b", 0); err != nil || len(page) != 0 {
		t.Errorf("after a key behind the prefix: %v, %v", page, err)
	}
}

func testListLarge(t *testing.T, b Backend) {
	s, ctx := open(t, b), background(t)
	const items = 40
	value := bytes.Repeat([]byte("v"), state.MaxValue)
	for i := range items {
		if _, err := s.Swap(ctx, fmt.Sprintf("big/%02d", i), 0, value, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := s.List(ctx, "big/", "", 0)
	if err != nil || len(page) == 0 || len(page) >= items {
		t.Errorf("one page holds %d of %d largest items, %v", len(page), items, err)
	}
	seen := 0
	for _, err := range state.All(ctx, s, "big/") {
		if err != nil {
			t.Fatal(err)
		}
		seen++
	}
	if seen != items {
		t.Errorf("all pages hold %d items, want %d", seen, items)
	}
}
