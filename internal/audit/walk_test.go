package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// logAt writes a log with one record for each moment.
func logAt(t fataler, dir string, segment int64, moments []time.Time) []Event {
	var now time.Time
	if len(moments) > 0 {
		now = moments[0]
	}
	l, err := Open(Options{Dir: dir, SegmentBytes: segment, ReserveBytes: -1, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range moments {
		now = at
		e := Event{Kind: []string{KindLogin, KindAdmin}[i%2], Principal: fmt.Sprint("corp/", i%3), Decision: []string{Allow, Deny}[i/2%2], Resource: fmt.Sprint("r", i%5)}
		if err := l.Record(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var all []Event
	for e, err := range Read(dir) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	return all
}

type fataler interface{ Fatal(...any) }

func scanned(t fataler, dir string, q Query, way Way) (seqs []uint64) {
	unread, err := Scan(context.Background(), dir, q, way, func(seq uint64, line []byte) error {
		if e, err := parse(line); err != nil || e.Seq != seq {
			return fmt.Errorf("record %d: %s: %w", seq, line, err)
		}
		seqs = append(seqs, seq)
		return nil
	})
	if err != nil || unread > 0 {
		t.Fatal(unread, err)
	}
	return seqs
}

// Whatever is asked for, a scan and the pages of a search find what a look at every
// record finds, in both directions.
func TestFiltersFindWhatALookAtEveryRecordFinds(t *testing.T) {
	top := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(top, "")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
		wild := rapid.Bool().Draw(t, "wild clock")
		step := rapid.IntRange(-30, 60)
		if wild {
			step = rapid.IntRange(-100_000, 100_000)
		}
		var moments []time.Time
		at, latest := begin, begin
		for _, s := range rapid.SliceOfN(step, 0, 60).Draw(t, "steps") {
			at = at.Add(time.Duration(s) * time.Second)
			if !wild && at.Before(latest.Add(-clockSlack)) { // as far as segments may be left out without --thorough
				at = latest
			}
			latest = maxTime(latest, at)
			moments = append(moments, at)
		}
		all := logAt(t, dir, 600, moments)
		pick := func(name string, words ...string) string {
			return rapid.SampledFrom(append(words, "")).Draw(t, name)
		}
		q := Query{
			Kind: pick("kind", KindLogin, KindAdmin, KindRelay), Principal: pick("principal", "corp/0", "corp/1", "corp"),
			Decision: pick("decision", Allow, Deny), Resource: pick("resource", "r1", "r2"),
		}
		if rapid.Bool().Draw(t, "names") {
			q.Principals = []string{"corp/1", "corp/2"}
		}
		moment := func(name string) (at time.Time) {
			if len(moments) > 0 && rapid.Bool().Draw(t, name) {
				at = rapid.SampledFrom(moments).Draw(t, name+" at")
			}
			return at
		}
		q.Since, q.Until = moment("since"), moment("until")
		want := []uint64{}
		for _, e := range all {
			if (q.Kind == "" || e.Kind == q.Kind) && (q.Principal == "" || e.Principal == q.Principal) && (q.Decision == "" || e.Decision == q.Decision) &&
				(q.Resource == "" || e.Resource == q.Resource) && (q.Principals == nil || slices.Contains(q.Principals, e.Principal)) &&
				!e.Time.Before(q.Since) && (q.Until.IsZero() || e.Time.Before(q.Until)) {
				want = append(want, e.Seq)
			}
		}
		for _, newest := range []bool{false, true} {
			if newest {
				slices.Reverse(want)
			}
			if got := scanned(t, dir, q, Way{Newest: newest, Thorough: wild}); !slices.Equal(got, want) {
				t.Fatalf("newest %t: scanned %v, want %v", newest, got, want)
			}
			if wild { // pages leave segments out
				continue
			}
			b := wide
			b.Newest, b.Limit = newest, 3
			var got []uint64
			for {
				p, err := Search(context.Background(), dir, q, b)
				if err != nil {
					t.Fatal(err)
				}
				for _, line := range p.Lines {
					e, err := parse(line)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, e.Seq)
				}
				if b.After = p.Next; p.Next == 0 {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("newest %t: pages found %v, want %v", newest, got, want)
			}
		}
	})
}

func maxTime(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// A clock that stood wrong for one record, in either direction, hides nothing of
// what was written at the right time.
func TestAClockThatJumpsHidesNoOtherRecords(t *testing.T) {
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var moments []time.Time
	for i := range 100 {
		moments = append(moments, begin.Add(time.Duration(i)*time.Minute))
	}
	moments[30], moments[60] = begin.AddDate(4, 0, 0), time.Unix(0, 0)
	dir := t.TempDir()
	logAt(t, dir, 2<<10, moments)
	q := Query{Since: begin.Add(10 * time.Minute), Until: begin.Add(90 * time.Minute)}
	for kind, want := range map[string]int{KindLogin: 38, KindAdmin: 40} {
		q.Kind = kind
		for _, newest := range []bool{false, true} {
			b := wide
			b.Newest = newest
			if got := search(t, dir, q, b).Lines; len(got) != want {
				t.Errorf("%s, newest %t: %d found, want %d", kind, newest, len(got), want)
			}
		}
	}
}

// A page begins in the middle of a segment by a few reads, not by reading what lies before.
func TestAPageIsFoundByItsNumber(t *testing.T) {
	dir := t.TempDir()
	var moments []time.Time
	for i := range 4000 {
		moments = append(moments, time.Unix(int64(i)*3600*24, 0)) // whatever the clock does
	}
	slices.Reverse(moments)
	all := logAt(t, dir, 8<<20, moments)
	f, err := os.Open(filepath.Join(dir, nameSegment(1)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() < 6*backBlock {
		t.Fatalf("%d bytes are no test", info.Size())
	}
	for _, seq := range []uint64{0, 1, 2, 1999, 2000, all[len(all)-1].Seq - 1, all[len(all)-1].Seq, 1 << 60} {
		low, high := placeOf(f, info.Size(), seq)
		if high-low > 4*backBlock {
			t.Errorf("%d lies between %d and %d", seq, low, high)
		}
		for _, newest := range []bool{false, true} {
			after, want := seq, []uint64{}
			if newest {
				after++
			}
			for _, e := range all {
				if newest && e.Seq < after || !newest && e.Seq > after {
					want = append(want, e.Seq)
				}
			}
			if newest {
				slices.Reverse(want)
			}
			if got := scanned(t, dir, Query{}, Way{Newest: newest, After: after}); !slices.Equal(got, want) {
				t.Errorf("after %d, newest %t: %d records, want %d", after, newest, len(got), len(want))
			}
		}
	}
}

// What is no record does not lead a page to a wrong place.
func TestAPageIsFoundBetweenRubbish(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	for seq := range 6000 {
		fmt.Fprintf(&text, `{"v":1,"seq":%d,"time":"2026-11-23T17:05:00Z","mono":1,"kind":"login"}`+"\n", seq+1)
		if seq%7 == 0 {
			text.WriteString(strings.Repeat("rubbish ", seq) + "\n")
		}
	}
	if err := os.WriteFile(filepath.Join(dir, nameSegment(1)), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, after := range []uint64{1, 700, 5000, 6000} {
		for _, newest := range []bool{false, true} {
			found := 0
			if _, err := Scan(t.Context(), dir, Query{}, Way{Newest: newest, After: after}, func(uint64, []byte) error { found++; return nil }); err != nil {
				t.Fatal(err)
			}
			want := 6000 - int(after)
			if newest {
				want = int(after) - 1
			}
			if found != want {
				t.Errorf("after %d, newest %t: %d found, want %d", after, newest, found, want)
			}
		}
	}
}

// A reader that stops reading stops the scan, and so does whoever gave it up.
func TestAScanGoesNoFurtherThanItsReader(t *testing.T) {
	_, dir := filled(t, 600)
	seen := 0
	_, err := Scan(t.Context(), dir, Query{}, Way{}, func(uint64, []byte) error {
		if seen++; seen == 7 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || seen != 7 {
		t.Errorf("%d seen, %v", seen, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen = 0
	if _, err := Scan(ctx, dir, Query{}, Way{}, func(uint64, []byte) error { seen++; cancel(); return nil }); !errors.Is(err, context.Canceled) || seen > lookEvery {
		t.Errorf("%d seen, %v", seen, err)
	}
}
