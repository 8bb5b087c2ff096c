package limit_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iap/internal/limit"
	"iap/internal/state"
)

// fleet is two relays on one store, and what they owe.
type fleet struct {
	t     *rapid.T
	clock *clock
	store state.Store
	rule  limit.Rule
	relay [2]relay

	settled int64 // used by settled reservations
	lowest  int64 // used by those that a crash has cut
	highest int64 // what was leased when a crash cut it: what may be charged for it at most
}

// relay is one of them.
type relay struct {
	book  *limit.Book
	store *flaky
	open  []opened
}

type opened struct {
	limit.Reservation
	granted, used int64
}

const fleetLimit = 100_000

func (f *fleet) start(i int) {
	f.relay[i].store = &flaky{Store: f.store}
	b, err := limit.Open(context.Background(), limit.Options{Store: f.relay[i].store, Holder: holder(i), Now: f.clock.Now})
	if err != nil {
		f.t.Fatal(err)
	}
	f.relay[i].book = b
	f.relay[i].open = nil
}

func (f *fleet) reserve(i int) {
	input, output := rapid.Int64Range(0, 3000).Draw(f.t, "input"), rapid.Int64Range(0, 5000).Draw(f.t, "output")
	r, err := f.relay[i].book.Reserve(context.Background(), limit.Ask{Rules: []limit.Rule{f.rule}, Input: input, Output: output, Unstated: true})
	if err != nil {
		return // refusals are other tests' business
	}
	f.relay[i].open = append(f.relay[i].open, opened{r, input + r.Output(), 0})
	if total := f.settled + f.lowest + f.granted(); total > fleetLimit {
		f.t.Fatalf("%d are granted or used, the limit is %d", total, fleetLimit)
	}
}

func (f *fleet) granted() int64 {
	n := int64(0)
	for _, r := range f.relay {
		for _, o := range r.open {
			n += o.granted
		}
	}
	return n
}

func (f *fleet) use(i int) {
	if len(f.relay[i].open) == 0 {
		return
	}
	o := &f.relay[i].open[rapid.IntRange(0, len(f.relay[i].open)-1).Draw(f.t, "which")]
	o.used = rapid.Int64Range(o.used, o.granted).Draw(f.t, "used")
	_ = o.Use(0, o.used)
}

func (f *fleet) settle(i int) {
	r := &f.relay[i]
	if len(r.open) == 0 {
		return
	}
	which := rapid.IntRange(0, len(r.open)-1).Draw(f.t, "which")
	o := r.open[which]
	r.open = append(r.open[:which], r.open[which+1:]...)
	switch rapid.IntRange(0, 3).Draw(f.t, "how") {
	case 0:
		o.Release()
	case 1:
		o.Settle(-1, -1)
		f.settled += o.granted
	default:
		o.Settle(0, o.used)
		f.settled += o.used
	}
}

// crash ends a relay without a word, perhaps with its last write unanswered, and starts it again.
func (f *fleet) crash(i int) {
	r := &f.relay[i]
	if rapid.Bool().Draw(f.t, "written unsaid") {
		r.store.set(unsaid)
		_ = r.book.Flush(context.Background())
	}
	r.store.set(away)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.book.Close(gone)
	for _, o := range r.open {
		f.lowest += o.used
	}
	f.highest += f.leased(i)
	f.start(i)
}

// leased is what the store says that a relay holds. It covers what is open, what is settled and not yet written, and
// what could still have been spent.
func (f *fleet) leased(i int) int64 {
	n := int64(0)
	for item, err := range state.All(context.Background(), f.store, "limit/counter/") {
		if err != nil {
			f.t.Fatal(err)
		}
		var counter struct {
			Leases []struct {
				Holder string
				N      int64
			}
		}
		if err := json.Unmarshal(item.Value, &counter); err != nil {
			f.t.Fatal(err)
		}
		for _, l := range counter.Leases {
			if l.Holder == holder(i) {
				n += l.N
			}
		}
	}
	return n
}

func holder(i int) string { return fmt.Sprint("relay-", i) }

// charged is how a third relay sees the counter.
func (f *fleet) charged() limit.Standing {
	b, err := limit.Open(context.Background(), limit.Options{Store: f.store, Holder: "witness", Now: f.clock.Now})
	if err != nil {
		f.t.Fatal(err)
	}
	defer b.Close(context.Background())
	all, err := b.Usage(context.Background(), []limit.Rule{f.rule})
	if err != nil {
		f.t.Fatal(err)
	}
	return all[0]
}

// calm has both relays write all they know. Time passes only between two of these.
func (f *fleet) calm() {
	for i := range f.relay {
		f.relay[i].store.set(well)
		if err := f.relay[i].book.Flush(context.Background()); err != nil {
			f.t.Fatalf("flush of relay %d: %v", i, err)
		}
	}
	if all := f.charged(); all.Used+all.Held > fleetLimit {
		f.t.Fatalf("%d are charged and %d leased, the limit is %d", all.Used, all.Held, fleetLimit)
	}
}

func TestSumChargedIsSumUsedWhateverCrashes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		store, err := state.OpenWith(context.Background(), "sqlite::memory:", state.Options{Now: c.Now})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		f := &fleet{t: t, clock: c, store: store, rule: engineers(limit.Rate{N: fleetLimit, Per: 24 * time.Hour})}
		f.start(0)
		f.start(1)
		step := func(do func(i int)) func(*rapid.T) {
			return func(t *rapid.T) { do(rapid.IntRange(0, 1).Draw(t, "relay")) }
		}
		t.Repeat(map[string]func(*rapid.T){
			"reserve":  step(f.reserve),
			"reserve2": step(f.reserve),
			"use":      step(f.use),
			"settle":   step(f.settle),
			"settle2":  step(f.settle),
			"crash":    step(f.crash),
			"lose an answer": step(func(i int) {
				f.relay[i].store.set(unsaid)
				_ = f.relay[i].book.Flush(context.Background())
			}),
			"away": step(func(i int) { f.relay[i].store.set(away) }),
			"calm": func(*rapid.T) { f.calm() },
			"wait": func(t *rapid.T) {
				f.calm()
				c.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
				f.calm()
			},
		})
		f.finish()
	})
}

// finish settles all and compares the sums.
func (f *fleet) finish() {
	f.calm()
	for i := range f.relay {
		for len(f.relay[i].open) > 0 {
			f.settle(i)
		}
		if err := f.relay[i].book.Close(context.Background()); err != nil {
			f.t.Fatal(err)
		}
	}
	f.clock.Add(2 * time.Minute) // leases of crashed relays that nobody has asked for since run out
	got := f.charged()
	if got.Held != 0 {
		f.t.Errorf("%d are held after all has ended", got.Held)
	}
	if least, most := f.settled+f.lowest, f.settled+f.highest; got.Used < least || got.Used > most {
		f.t.Errorf("charged %d; used were %d, with the crashed reservations at most %d", got.Used, least, most)
	}
}
