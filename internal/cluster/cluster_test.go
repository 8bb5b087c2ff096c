package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func memory(t *testing.T) state.Store {
	t.Helper()
	s, err := state.Open(t.Context(), "sqlite::memory:")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// member runs a relay's part until the test ends.
func member(t *testing.T, s state.Store, id string, answer func(kind string) (any, error)) *Cluster {
	t.Helper()
	c := New(Options{Store: s, Instance: id, Answer: func(_ context.Context, kind string, _ json.RawMessage) (any, error) { return answer(kind) }})
	if err := c.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return c
}

func TestInstanceIDStaysTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "instance")
	first, err := Instance(path, "")
	if err != nil || CheckInstance(first) != nil {
		t.Fatal(first, err)
	}
	if again, err := Instance(path, ""); err != nil || again != first {
		t.Errorf("read again: %q, %v; want %q", again, err, first)
	}
	if named, err := Instance(path, "eu-1"); err != nil || named != "eu-1" {
		t.Errorf("named: %q, %v", named, err)
	}
	for _, bad := range []string{"EU", "a b", "-a", "a/b", "a-"} {
		if _, err := Instance(path, bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestQuestionReachesEveryOtherRelay(t *testing.T) {
	s := memory(t)
	one := member(t, s, "one", func(string) (any, error) { return "not asked", nil })
	member(t, s, "two", func(kind string) (any, error) { return kind + " of two", nil })
	member(t, s, "three", func(kind string) (any, error) { return kind + " of three", nil })
	answers, silent, err := one.Ask(t.Context(), "sessions", nil)
	if err != nil || len(silent) != 0 || len(answers) != 2 {
		t.Fatalf("answers %v, silent %v, %v", answers, silent, err)
	}
	for _, a := range answers {
		if want := `"sessions of ` + a.Relay + `"`; string(a.Body) != want {
			t.Errorf("%s says %s, want %s", a.Relay, a.Body, want)
		}
	}
}

// TestRelayThatDoesNotAnswerIsNamed has one that died a moment ago and one that cannot answer.
func TestRelayThatDoesNotAnswerIsNamed(t *testing.T) {
	s := memory(t)
	one := member(t, s, "one", nil)
	member(t, s, "two", func(string) (any, error) { return nil, errors.New("no") })
	if err := New(Options{Store: s, Instance: "dead"}).Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	answers, silent, err := one.Ask(t.Context(), "sessions", nil)
	slices.Sort(silent)
	if err != nil || len(answers) != 0 || !slices.Equal(silent, []string{"dead", "two"}) {
		t.Errorf("answers %v, silent %v, %v", answers, silent, err)
	}
}

func TestRelayThatLeavesIsOffTheList(t *testing.T) {
	s := memory(t)
	c := New(Options{Store: s, Instance: "one", Describe: func() Member { return Member{Policy: "r1"} }})
	if err := c.Beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := c.Members(t.Context()); err != nil || len(all) != 1 || all[0].Policy != "r1" || all[0].Instance != "one" {
		t.Errorf("members %+v, %v", all, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	c.Run(ended)
	if all, err := c.Members(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("after leaving: %+v, %v", all, err)
	}
}

func TestTwoProcessesUnderOneIDAreFound(t *testing.T) {
	s := memory(t)
	first, second := New(Options{Store: s, Instance: "one"}), New(Options{Store: s, Instance: "one"})
	for _, c := range []*Cluster{first, second, first} {
		if err := c.Beat(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if first.Problem() == "" || second.Problem() != "" {
		t.Errorf("first %q, second %q: the one that started last has the name", first.Problem(), second.Problem())
	}
}

// TestFollowTellsOfEverythingOnceInOrder lists and then hears, without a gap between.
func TestFollowTellsOfEverythingOnceInOrder(t *testing.T) {
	s := memory(t)
	if _, err := s.Swap(t.Context(), "p/a", 0, []byte("1"), time.Time{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan string, 10)
	var following sync.WaitGroup
	following.Go(func() {
		Follow(ctx, s, "p/", func(items []state.Item) {
			for _, item := range items {
				heard <- "there " + item.Key
			}
		}, func(item state.Item, deleted bool) {
			if deleted {
				heard <- "gone " + item.Key
				return
			}
			heard <- "now " + item.Key
		})
	})
	if got := <-heard; got != "there p/a" {
		t.Error(got)
	}
	if _, err := s.Swap(t.Context(), "p/b", 0, nil, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), "p/a", -1); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"now p/b", "gone p/a"} {
		if got := <-heard; got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	cancel()
	following.Wait()
}
