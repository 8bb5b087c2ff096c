package usage

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"iap/internal/state"
)

// model is what the books should say: every entry that was not lost in a crash, in a list.
type model struct {
	kept    []Entry
	pending [2][]Entry // of each book: lost if it crashes
}

func (m *model) all() []Entry {
	all := append([]Entry{}, m.kept...)
	return append(append(all, m.pending[0]...), m.pending[1]...)
}

func (m *model) saved(book int) {
	m.kept, m.pending[book] = append(m.kept, m.pending[book]...), nil
}

func namesOf(e Entry, by Dimension) []string {
	switch by {
	case ByPrincipal:
		return []string{e.Principal}
	case ByModel:
		return []string{e.Model}
	case ByResource:
		return []string{e.Resource}
	case ByGrant:
		return []string{e.Grant}
	case ByAction:
		return []string{e.Action}
	}
	if len(e.Groups) == 0 {
		return []string{None}
	}
	issuer, _, _ := strings.Cut(e.Principal, "/")
	var names []string
	for _, g := range e.Groups {
		names = append(names, issuer+"/"+g)
	}
	return names
}

// check compares a grouping over the time that the book says it is about.
func (m *model) check(t *rapid.T, b *Book, by Dimension, from, to time.Time) {
	r := ask(t, b, Query{From: from, To: to, By: by})
	var total Counts
	until := r.To
	if until.Equal(b.now()) {
		until = ceil(Day, until) // what a faster clock has left there counts
	}
	rows := map[string]*Counts{}
	for _, e := range m.all() {
		minute := Minute.start(e.Time)
		if minute.Before(r.From) || !minute.Before(until) {
			continue
		}
		total.count(&e)
		for _, n := range namesOf(e, by) {
			if rows[n] == nil {
				rows[n] = &Counts{}
			}
			rows[n].count(&e)
		}
	}
	got := map[string]*Counts{}
	for _, row := range r.Rows {
		got[row.Name] = &row.Counts
	}
	if r.Total != total || !maps.EqualFunc(got, rows, func(x, y *Counts) bool { return *x == *y }) {
		t.Fatalf("by %s from %s to %s:\ntotal %+v\nwant  %+v\nrows %v\nwant %v", by, r.From, r.To, r.Total, total, text(got), text(rows))
	}
}

func text(m map[string]*Counts) string {
	var out strings.Builder
	for n, c := range m {
		fmt.Fprintf(&out, "%s: %d+%d %d/%d; ", n, c.Requests, c.Denied, c.TokensIn, c.TokensOut)
	}
	return out.String()
}

func drawEntry(t *rapid.T, now time.Time) Entry {
	word := func(label string, of ...string) string { return rapid.SampledFrom(of).Draw(t, label) }
	e := Entry{
		Time:      now,
		Principal: word("principal", "corp/alice", "corp/bob", "ci/build", "corp/eve"),
		Groups:    rapid.SampledFrom([][]string{nil, {"ml"}, {"ml", "staff"}}).Draw(t, "groups"),
		Resource:  word("resource", "phi3", "qwen"), Model: word("model", "a", "b"), Action: word("action", "chat", "embed"),
		Grant: word("grant", "g", "h"), Outcome: Outcome(rapid.IntRange(0, 3).Draw(t, "outcome")),
		TokensIn: rapid.Int64Range(0, 1000).Draw(t, "in"), TokensOut: rapid.Int64Range(0, 1000).Draw(t, "out"),
		TTFT:     time.Duration(rapid.Int64Range(0, int64(20*time.Minute)).Draw(t, "ttft")),
		Duration: time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "duration")),
	}
	return e
}

func TestNothingIsLostOrCountedTwiceWhateverHappens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newClock(noon)
		inner, err := state.OpenWith(context.Background(), "sqlite::memory:", state.Options{Now: c.now})
		if err != nil {
			rt.Fatal(err)
		}
		defer inner.Close()
		s := &faulty{Store: inner}
		open := func(i int) *Book {
			b, err := Open(Options{Store: s, Holder: fmt.Sprint("relay", i), Now: c.now})
			if err != nil {
				rt.Fatal(err)
			}
			return b
		}
		books := [2]*Book{open(0), open(1)}
		defer func() { crash(books[0]); crash(books[1]) }()
		var m model
		one := func() int { return rapid.IntRange(0, 1).Draw(rt, "book") }
		rt.Repeat(map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				i := one()
				for range rapid.IntRange(1, 4).Draw(rt, "entries") {
					e := drawEntry(rt, c.now())
					books[i].Add(e)
					m.pending[i] = append(m.pending[i], e)
				}
			},
			"advance": func(rt *rapid.T) {
				c.advance(time.Duration(rapid.SampledFrom([]int{1, 50, 3000, 30000, 100000}).Draw(rt, "seconds")) * time.Second)
			},
			"set back": func(rt *rapid.T) {
				c.advance(-time.Duration(rapid.IntRange(1, 7000).Draw(rt, "seconds")) * time.Second)
			},
			"flush": func(rt *rapid.T) {
				i := one()
				flush(rt, books[i])
				m.saved(i)
			},
			"fail": func(rt *rapid.T) {
				i, how := one(), rapid.IntRange(0, 2).Draw(rt, "how")
				s.reads, s.writes, s.answers = how == 0, how == 1, how == 2
				if books[i].Flush(context.Background()) == nil {
					m.saved(i)
				}
				s.reads, s.writes, s.answers = false, false, false
			},
			"restart": func(rt *rapid.T) {
				i := one()
				if err := books[i].Close(context.Background()); err != nil {
					rt.Fatalf("close: %v", err)
				}
				m.saved(i)
				books[i] = open(i)
			},
			"crash after a flush": func(rt *rapid.T) {
				i := one()
				flush(rt, books[i])
				m.saved(i)
				crash(books[i])
				books[i] = open(i)
			},
			"": func(rt *rapid.T) {
				// The other book's entries are seen once they are written.
				flush(rt, books[1])
				m.saved(1)
				now := c.now()
				spans := [][2]time.Duration{{100 * day, -time.Hour}, {5 * time.Hour, 0}, {50 * time.Hour, 3 * time.Hour}, {50 * day, 30 * day}}
				span := rapid.SampledFrom(spans).Draw(rt, "span")
				by := rapid.SampledFrom(Dimensions()).Draw(rt, "by")
				m.check(rt, books[0], by, now.Add(-span[0]), now.Add(-span[1]))
			},
		})
	})
}
