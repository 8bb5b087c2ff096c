package usage

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"iap/internal/state"
)

func TestAKilledBookLosesNoMoreThanWasAddedSinceTheLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := state.Open(t.Context(), "sqlite::memory:")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b, err := Open(Options{Store: s, Holder: "r"})
		if err != nil {
			t.Fatal(err)
		}
		for range 100 { // one each second
			b.Add(chat("corp/alice", "phi3"))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		crash(b)
		if b, err = Open(Options{Store: s, Holder: "r"}); err != nil {
			t.Fatal(err)
		}
		defer b.Close(context.Background())
		lost := 100 - ask(t, b, Query{}).Total.Requests
		if lost < 0 || lost > int64(FlushEvery/time.Second) {
			t.Errorf("%d seconds are lost", lost)
		}
	})
}

func TestTwoBooksOnOneStoreAddUp(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	one, other := openBook(t, s, "one", c), openBook(t, s, "other", c)
	for range 5 {
		one.Add(chat("corp/alice", "phi3"))
		other.Add(chat("corp/alice", "phi3"))
		flush(t, one)
		flush(t, other)
	}
	for _, b := range []*Book{one, other} {
		for _, per := range append(Levels(), "") {
			r := ask(t, b, Query{By: ByPrincipal, Per: per})
			if r.Total.Requests != 10 || len(r.Rows) != 1 || per != "" && len(r.Points) != 1 {
				t.Errorf("per %q: %+v", per, r)
			}
		}
	}
}

func TestTwoBooksOfOneNameLoseNothingToEachOther(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	one, zombie := openBook(t, s, "r", c), openBook(t, s, "r", c)
	for range 5 {
		one.Add(chat("corp/alice", "phi3"))
		flush(t, one)
		zombie.Add(chat("corp/alice", "phi3"))
		flush(t, zombie)
	}
	if got := ask(t, one, Query{}).Total.Requests; got != 10 {
		t.Errorf("%d of 10", got)
	}
}

func TestAStoreThatFailsAtAnyPointLosesAndDoublesNothing(t *testing.T) {
	for name, fail := range map[string]func(*faulty){
		"reading":              func(s *faulty) { s.reads = true },
		"writing":              func(s *faulty) { s.writes = true },
		"answering":            func(s *faulty) { s.answers = true },
		"answering, then read": func(s *faulty) { s.answers, s.reads = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			c := newClock(noon)
			s := openStore(t, c)
			b := openBook(t, s, "r", c)
			b.Add(chat("corp/alice", "phi3"))
			flush(t, b)
			for i := range 3 { // each time with something new
				b.Add(chat("corp/alice", "phi3"))
				fail(s)
				s.reads = s.reads && i > 0 // the item is known the first time
				_ = b.Flush(t.Context())
				s.reads, s.writes, s.answers = false, false, false
				if got := ask(t, b, Query{}).Total.Requests; got != int64(i+2) {
					t.Errorf("before it is written again: %d, want %d", got, i+2)
				}
			}
			flush(t, b)
			for _, per := range append(Levels(), "") {
				if got := ask(t, b, Query{Per: per}).Total.Requests; got != 4 {
					t.Errorf("per %q: %d, want 4", per, got)
				}
			}
		})
	}
}

func TestAddWaitsForNoStore(t *testing.T) {
	c := newClock(noon)
	s := &stuck{Store: openStore(t, c), entered: make(chan struct{}), leave: make(chan struct{})}
	b := openBook(t, s, "r", c)
	b.Add(chat("corp/alice", "phi3"))
	done := make(chan error, 1)
	go func() { done <- b.Flush(context.Background()) }()
	<-s.entered
	for range 1000 { // with the store in the middle of a write
		b.Add(chat("corp/alice", "phi3"))
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Query(gone, Query{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a question waits longer than its asker: %v", err)
	}
	close(s.leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := ask(t, b, Query{}).Total.Requests; got != 1001 {
		t.Errorf("%d of 1001", got)
	}
}

// stuck is a store whose first write waits.
type stuck struct {
	state.Store
	once           sync.Once
	entered, leave chan struct{}
}

func (s *stuck) SwapAll(ctx context.Context, w []state.Write) ([]int64, error) {
	s.once.Do(func() { close(s.entered) })
	<-s.leave
	return s.Store.SwapAll(ctx, w)
}

func TestEachLevelIsKeptForItsTime(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	b.Add(chat("corp/alice", "phi3"))
	flush(t, b)
	kept := func(want ...Level) {
		t.Helper()
		var got []Level
		for _, per := range Levels() {
			if ask(t, b, Query{Per: per}).Total.Requests == 1 {
				got = append(got, per)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("after %s there is %v, want %v", c.now().Sub(noon), got, want)
		}
	}
	kept(Minute, Hour, Day)
	c.advance(keepMinutes - time.Minute)
	kept(Minute, Hour, Day)
	c.advance(3 * time.Minute)
	kept(Hour, Day)
	c.advance(keepHours - 3*time.Hour)
	kept(Hour, Day)
	c.advance(6 * time.Hour)
	kept(Day)
	if got := ask(t, b, Query{From: noon.Add(-time.Minute), To: noon.Add(time.Minute)}); got.Total.Requests != 1 || !got.From.Equal(Day.start(noon)) {
		t.Errorf("an hour of which only the day is known: %+v", got)
	}
	c.set(noon.Add(DefaultRetain + 2*day))
	kept()
}

func TestWhatIsToBeKeptForLessIsDeleted(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	for range 40 {
		b.Add(chat("corp/alice", "phi3"))
		flush(t, b)
		c.advance(day)
	}
	short, err := Open(Options{Store: s, Holder: "r", Now: c.now, Retain: 10 * day})
	if err != nil {
		t.Fatal(err)
	}
	defer short.Close(t.Context())
	short.prune(t.Context())
	page, err := s.List(t.Context(), shardPrefix(Day, shardOf("corp/alice")), "", 0)
	if err != nil || len(page) != 10 {
		t.Errorf("%d days are left, %v", len(page), err)
	}
}

func TestEntriesOfAnotherTimeCountNow(t *testing.T) {
	c := newClock(noon)
	b := openBook(t, openStore(t, c), "r", c)
	for _, at := range []time.Time{{}, noon.Add(day), noon.Add(-day), time.Unix(0, 0), noon.Add(-time.Second)} {
		e := chat("corp/alice", "phi3")
		e.Time = at
		b.Add(e)
	}
	r := ask(t, b, Query{From: noon.Add(-time.Hour), Per: Minute})
	if r.Total.Requests != 5 || len(r.Points) != 1 {
		t.Errorf("%+v", r)
	}
}

func TestAClockThatJumpsCostsNoCountAndNoMemory(t *testing.T) {
	c := newClock(noon)
	b := openBook(t, openStore(t, c), "r", c)
	for i := range 1000 {
		c.set(noon.Add(-time.Duration(i%500) * time.Hour))
		b.Add(chat("corp/alice", "phi3"))
	}
	if n := len(b.fresh); n > maxMinutes {
		t.Errorf("%d minutes", n)
	}
	c.set(noon)
	if got := ask(t, b, Query{}).Total.Requests; got != 1000 {
		t.Errorf("%d of 1000", got)
	}
}

func TestDamagedItemsAreToldAndHoldUpNothing(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	b.Add(chat("corp/alice", "phi3"))
	flush(t, b)
	k := itemKey{Day, shardOf("corp/alice"), Day.start(noon).Unix()}
	item, err := s.Get(t.Context(), k.text("r"))
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range [][]byte{nil, {9}, item.Value[:len(item.Value)-3], append(bytes.Clone(item.Value), 0)} {
		v, err := s.Swap(t.Context(), item.Key, item.Version, value, item.Expires)
		if err != nil {
			t.Fatal(err)
		}
		item.Version = v
		r, err := b.Query(t.Context(), Query{From: noon.Add(-20 * day)})
		if err != nil || !r.Incomplete {
			t.Errorf("%x: %+v, %v", value, r, err)
		}
	}
	b.Add(chat("corp/alice", "phi3"))
	flush(t, b)
	if got := ask(t, b, Query{From: noon.Add(-20 * day)}).Total.Requests; got != 1 {
		t.Errorf("%d after the item was written anew", got)
	}
}

func TestQuestionsWithoutAnAnswer(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	for _, q := range []Query{{From: noon}, {From: noon.Add(time.Hour)}, {From: noon.Add(-time.Hour), To: noon.Add(-2 * time.Hour)}} {
		if _, err := b.Query(t.Context(), q); !errors.Is(err, ErrQuestion) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	s.reads = true
	if _, err := b.Query(t.Context(), Query{From: noon.Add(-time.Hour)}); !errors.Is(err, state.ErrUnavailable) {
		t.Errorf("with the store away: %v", err)
	}
}

func TestAnAnswerCostsNoMoreThanItsBound(t *testing.T) {
	c := newClock(noon)
	s := openStore(t, c)
	b := openBook(t, s, "r", c)
	large := bytes.Repeat([]byte{format}, state.MaxValue)
	for i := range maxRead/state.MaxValue + 1 {
		k := itemKey{Day, 0, Day.start(noon.Add(-time.Duration(i) * day)).Unix()}
		if _, err := s.Swap(t.Context(), k.text(strings.Repeat("x", 3)), 0, large, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Query(t.Context(), Query{From: noon.Add(-399 * day)}); !errors.Is(err, ErrTooMuch) {
		t.Errorf("%v", err)
	}
}

func TestQuantilesAreRightToAFifth(t *testing.T) {
	var h Histogram
	for ms := 1; ms <= 10_000; ms++ {
		h.observe(time.Duration(ms) * time.Millisecond)
	}
	for q, want := range map[float64]time.Duration{0.5: 5 * time.Second, 0.95: 9500 * time.Millisecond, 0.01: 100 * time.Millisecond} {
		if got := h.Quantile(q); got < want*8/10 || got > want*12/10 {
			t.Errorf("%g is %s, want %s", q, got, want)
		}
	}
	var none Histogram
	if none.Quantile(0.5) != 0 {
		t.Error("none has a median")
	}
	none.observe(24 * time.Hour)
	none.observe(-time.Second)
	if none.Count() != 2 {
		t.Error("extremes are not counted")
	}
}
