package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// filled is a log of n decisions in several segments, a second apart, with its
// folder.
func filled(t *testing.T, n int) (*Log, string) {
	t.Helper()
	dir, at := t.TempDir(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	l, err := Open(Options{Dir: dir, SegmentBytes: 4 << 10, ReserveBytes: -1, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for i := range n {
		at = at.Add(time.Second)
		e := Event{Kind: KindLogin, Principal: "corp/alice", Resource: "phi3", Action: "chat", Decision: Allow, Message: fmt.Sprintf("Number %d Ünder", i)}
		if i%10 == 3 {
			e.Principal, e.Decision, e.Reason = "corp/bob \"x\"", Deny, "no_grant"
			e.Detail = map[string]string{"principal": "corp/alice", "a": "b"}
		}
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	return l, dir
}

var wide = Bounds{Limit: 10_000, Bytes: 10 << 20, Within: time.Minute}

func numbers(t *testing.T, p Page) []uint64 {
	t.Helper()
	var all []uint64
	for _, text := range p.Lines {
		e, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e.Seq)
	}
	return all
}

func search(t *testing.T, dir string, q Query, b Bounds) Page {
	t.Helper()
	p, err := Search(t.Context(), dir, q, b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestSearchFindsExactlyWhatIsAskedFor(t *testing.T) {
	_, dir := filled(t, 200)
	begin := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		query Query
		want  int
	}{
		"kind":                {Query{Kind: KindLogin}, 200},
		"somebody":            {Query{Principal: "corp/alice"}, 180},
		"a name with quotes":  {Query{Principal: `corp/bob "x"`}, 20},
		"half a name":         {Query{Principal: "corp/bob"}, 0},
		"two at once":         {Query{Decision: Deny, Reason: "no_grant"}, 20},
		"two that never meet": {Query{Decision: Deny, Principal: "corp/alice"}, 0},
		"since":               {Query{Kind: KindLogin, Since: begin.Add(191 * time.Second)}, 10},
		"until":               {Query{Kind: KindLogin, Until: begin.Add(11 * time.Second)}, 10},
		"between":             {Query{Kind: KindLogin, Since: begin.Add(50 * time.Second), Until: begin.Add(60 * time.Second)}, 10},
		"text":                {Query{Text: "NUMBER 7 ünder"}, 1},
		"no such text":        {Query{Text: "number 7777"}, 0},
		"what is no letter":   {Query{Text: "\x00"}, 0},
	} {
		oldest, newest := wide, wide
		newest.Newest = true
		up, down := numbers(t, search(t, dir, c.query, oldest)), numbers(t, search(t, dir, c.query, newest))
		slices.Reverse(down)
		if len(up) != c.want || !slices.Equal(up, down) || !slices.IsSorted(up) {
			t.Errorf("%s: %d and %d found, want %d", name, len(up), len(down), c.want)
		}
	}
}

func TestPagesMakeUpTheWhole(t *testing.T) {
	_, dir := filled(t, 150)
	for _, newest := range []bool{false, true} {
		b := wide
		b.Newest = newest
		whole := numbers(t, search(t, dir, Query{}, b))
		for _, bound := range []func(*Bounds){func(b *Bounds) { b.Limit = 7 }, func(b *Bounds) { b.Bytes = MaxLine/8 + 1000 }} {
			part := b
			bound(&part)
			var all []uint64
			for pages := 0; ; pages++ {
				p := search(t, dir, Query{}, part)
				all = append(all, numbers(t, p)...)
				if part.After = p.Next; p.Next == 0 {
					break
				}
				if pages > len(whole) {
					t.Fatal("the pages have no end")
				}
			}
			if !slices.Equal(all, whole) {
				t.Errorf("newest %t: %d records by pages, %d at once", newest, len(all), len(whole))
			}
		}
	}
}

func TestASearchThatHasNoTimeGoesOnWhereItEnded(t *testing.T) {
	_, dir := filled(t, 2000)
	b := wide
	b.Within = 0
	found := 0
	for pages := 0; ; pages++ {
		p := search(t, dir, Query{Text: "number 1234"}, b)
		found += len(p.Lines)
		if p.Next == 0 {
			break
		}
		if b.After = p.Next; !p.Partial || pages > 20 {
			t.Fatalf("%+v", p)
		}
	}
	if found != 1 {
		t.Errorf("%d found", found)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Search(gone, dir, Query{}, wide); !errors.Is(err, context.Canceled) {
		t.Errorf("whoever left is answered: %v", err)
	}
}

func TestSearchPassesOverWhatIsNoRecord(t *testing.T) {
	good := func(seq int) string {
		return fmt.Sprintf(`{"v":1,"seq":%d,"time":"2026-11-23T17:05:00Z","mono":1,"kind":"login"}`+"\n", seq)
	}
	for name, c := range map[string]struct {
		text   string
		found  int
		unread int
	}{
		"empty":               {"", 0, 0},
		"torn at the end":     {good(1) + good(2)[:20], 1, 0},
		"torn alone":          {strings.Repeat("x", 300), 0, 0},
		"rubbish between":     {good(1) + "rubbish\n" + good(2), 2, 1},
		"a long line":         {good(1) + strings.Repeat("y", 300_000) + "\n" + good(2), 2, 1},
		"a long line first":   {strings.Repeat("y", 100_000) + "\n" + good(2), 1, 1},
		"on a block's border": {strings.Repeat("y", backBlock-len(good(1))-1) + "\n" + good(1) + strings.Repeat("z", backBlock-1) + "\n" + good(2), 2, 2},
		"another order":       {`{"seq":5,"v":1,"kind":"login"}` + "\n" + good(6), 2, 0},
		"another version":     {`{"v":2,"seq":5,"kind":"login"}` + "\n" + good(6), 1, 1},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, nameSegment(1)), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, newest := range []bool{false, true} {
			b := wide
			b.Newest = newest
			if p := search(t, dir, Query{Kind: "login"}, b); len(p.Lines) != c.found || p.Unread != c.unread {
				t.Errorf("%s, newest %t: %d found, %d unread; want %d, %d", name, newest, len(p.Lines), p.Unread, c.found, c.unread)
			}
		}
	}
}

// FuzzBackward holds reading from the end against reading from the beginning.
func FuzzBackward(f *testing.F) {
	f.Add([]byte("a\nb\n"), 1)
	f.Add([]byte("\n\n"), 70_000)
	f.Add([]byte("torn"), 40_000)
	f.Fuzz(func(t *testing.T, data []byte, times int) {
		data = bytes.Repeat(data, 1+min(max(times, 0), 200_000/max(1, len(data))))
		if torn := len(data) - bytes.LastIndexByte(data, '\n'); torn > MaxLine {
			data = data[:len(data)-torn+1] // which of the two it counts as is told by its end alone
		}
		path := filepath.Join(t.TempDir(), "x")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		var up, down []string
		for text, err := range forward(file, 0) {
			if err != nil {
				t.Fatal(err)
			}
			up = append(up, string(text))
		}
		for text, err := range backward(file, int64(len(data))) {
			if err != nil {
				t.Fatal(err)
			}
			down = append(down, string(text))
		}
		slices.Reverse(down)
		if !slices.Equal(up, down) {
			t.Errorf("%d lines forward, %d backward", len(up), len(down))
		}
	})
}

var errEnough = errors.New("enough")

func TestFollowerMissesNothingAcrossSegments(t *testing.T) {
	l, dir := filled(t, 30)
	const more = 300
	var seen []uint64
	written := make(chan error, 1)
	go func() {
		for range more {
			if err := l.Record(context.Background(), Event{Kind: KindLogin, Principal: "corp/eve", Message: strings.Repeat("x", 100)}); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	err := Follow(t.Context(), dir, Query{Principal: "corp/eve"}, 5, func(f Followed) error {
		if f.Dropped > 0 {
			t.Errorf("%d dropped", f.Dropped)
			return nil
		}
		e, err := parse(f.Line)
		if err != nil || e.Principal != "corp/eve" {
			t.Errorf("%s, %v", f.Line, err)
		}
		if seen = append(seen, e.Seq); len(seen) == more {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || !slices.IsSorted(seen) || len(slices.Compact(seen)) != more {
		t.Errorf("%v, %d seen", err, len(seen))
	}
	if err := <-written; err != nil {
		t.Error(err)
	}
}

func TestAFollowerWhoIsTooFarBehindIsToldHowMuchItMissed(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir, SegmentBytes: 4 << 20, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	e := Event{Kind: KindLogin, Facts: strings.Repeat("f", factsText-2)}
	for range maxLag/factsText + 100 {
		if err := l.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	var dropped, got uint64
	newest := wide
	newest.Newest, newest.Limit = true, 1
	last := numbers(t, search(t, dir, Query{}, newest))[0]
	err = Follow(t.Context(), dir, Query{}, 2, func(f Followed) error {
		dropped += f.Dropped
		if f.Dropped > 0 {
			return nil
		}
		got++
		if e, err := parse(f.Line); err != nil || e.Seq == last {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) || dropped == 0 || dropped+got != last-2 {
		t.Errorf("%v: %d dropped and %d got of %d", err, dropped, got, last-2)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	_, dir := filled(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	err := Follow(ctx, dir, Query{}, 0, func(Followed) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
