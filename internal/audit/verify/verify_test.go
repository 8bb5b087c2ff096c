package verify

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
	"iap/internal/relaykey"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const origin = "relay.example.com/audit/main"

// relay is what signs in these tests.
type relay struct {
	key   ed25519.PrivateKey
	chain [][]byte
	now   time.Time
	o     audit.Options
}

func newKey() ed25519.PrivateKey {
	_, key, _ := ed25519.GenerateKey(rand.Reader) // never fails
	return key
}

func newRelay() *relay {
	return &relay{key: newKey(), now: time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC), o: audit.Options{SegmentBytes: 2 << 10}}
}

func (r *relay) public() ed25519.PublicKey { return r.key.Public().(ed25519.PublicKey) }

func (r *relay) anchor() []checkpoint.Anchor {
	return []checkpoint.Anchor{checkpoint.AnchorOf(r.public())}
}

// options are those of the relay's log in dir, at one moment of its own.
func (r *relay) options(t testing.TB, dir string) audit.Options {
	o := r.o
	o.Dir, o.ReserveBytes, o.Origin = dir, -1, origin
	o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	o.Keys = func() (ed25519.PrivateKey, [][]byte, error) { return r.key, r.chain, nil }
	now := r.now
	o.Now = func() time.Time { return now }
	r.now = r.now.Add(time.Minute)
	return o
}

// run opens the log in dir, writes n requests named after name, and closes it: that signs a checkpoint.
func (r *relay) run(t testing.TB, dir, name string, n int) {
	t.Helper()
	o := r.options(t, dir)
	l, err := audit.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	for o.Retain > 0 { // what has expired goes first
		_, _, news := l.Checkpoint()
		if _, err := os.Stat(filepath.Join(dir, audit.ExpiredFile)); err == nil {
			break
		}
		<-news
	}
	for i := range n {
		request := fmt.Sprintf("%s-%d", name, i)
		for _, e := range []audit.Event{
			{Kind: audit.KindDecision, Decision: audit.Allow, Request: request, Principal: "corp/8a7f3c", Resource: "phi3"},
			{Kind: audit.KindOutcome, Request: request, Ended: "done", Status: 200},
		} {
			if err := l.Record(context.Background(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Proving(); err != nil {
		t.Fatal(err)
	}
}

func verified(t testing.TB, o Options) *Report {
	t.Helper()
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func files(t testing.TB, dir, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return all
}

// copyOf copies a log's folder.
func copyOf(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, path := range files(t, dir, "*") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(to, filepath.Base(path)), data)
	}
	return to
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// lastNote is what a witness would hold of the log.
func lastNote(t testing.TB, dir string) Note {
	t.Helper()
	all := files(t, dir, "*"+audit.CheckpointSuffix)
	lines := bytes.SplitAfter(read(t, all[len(all)-1]), []byte("\n"))
	note, err := audit.DecodeCheckpoint(lines[len(lines)-2])
	if err != nil {
		t.Fatal(err)
	}
	return Note{Name: "witness", Data: note}
}

func wantOK(t testing.TB, r *Report) {
	t.Helper()
	if !r.OK || r.Proven.Record != r.Last || r.Tail != 0 || r.Proven.Lines != r.Lines {
		t.Fatalf("not proven to its end: %+v", r)
	}
}

func TestWholeLogIsProvenToItsLastRecord(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	for run := range 3 {
		relay.run(t, dir, fmt.Sprint("run", run), 5)
	}
	r := verified(t, Options{Dir: dir, Anchors: relay.anchor(), Witnesses: []Note{lastNote(t, dir)}})
	wantOK(t, r)
	if r.Segments < 3 || r.First != 1 || r.Checkpoints < 3 || r.KeysFrom != KeysGiven || r.Proven.Key != relaykey.ID(relay.public()) || r.Origin != origin {
		t.Errorf("%+v", r)
	}
	if w := r.Witnesses[0]; w.Status != Holds || w.Record != r.Last {
		t.Errorf("witness: %+v", w)
	}
	folder := verified(t, Options{Dir: dir})
	if wantOK(t, folder); folder.KeysFrom != KeysFolder {
		t.Errorf("without a key: %+v", folder)
	}
	if err := os.Remove(filepath.Join(dir, audit.KeysFile)); err != nil {
		t.Fatal(err)
	}
	if none := verified(t, Options{Dir: dir}); none.KeysFrom != KeysNone || none.Proven.Key != "" {
		t.Errorf("with no key at all: %+v", none)
	}
}

func TestAU05EveryChangedByteIsFound(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	relay.run(t, dir, "a", 4)
	relay.run(t, dir, "b", 2)
	wantOK(t, verified(t, Options{Dir: dir, Anchors: relay.anchor()}))
	step := everyByte
	for _, path := range files(t, dir, "*") {
		if base := filepath.Base(path); base == "lock" {
			continue
		}
		data := read(t, path)
		number := uint64(0)
		for i := 0; i < len(data); i += step {
			changed := bytes.Clone(data)
			changed[i] ^= 1
			write(t, path, changed)
			r := verified(t, Options{Dir: dir, Anchors: relay.anchor()})
			switch segment := strings.HasSuffix(path, ".jsonl"); {
			case r.OK:
				t.Fatalf("%s: byte %d may be changed: %q", path, i, changed[max(0, i-20):i+1])
			case segment && (r.Problems[0].File != filepath.Base(path) || r.Problems[0].Line != int64(bytes.Count(data[:i], []byte("\n")))+1):
				t.Fatalf("%s: byte %d is in line %d; found: %v", path, i, bytes.Count(data[:i], []byte("\n"))+1, r.Problems)
			case segment && r.Problems[0].Record < number:
				t.Fatalf("records found out of order: %v", r.Problems)
			}
		}
		write(t, path, data)
	}
}

func TestAU05EveryTruncationIsFoundOrProvesLess(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	relay.run(t, dir, "a", 4)
	relay.run(t, dir, "b", 2)
	whole := verified(t, Options{Dir: dir, Anchors: relay.anchor()})
	witness := lastNote(t, dir)
	step := everyByte
	for _, path := range files(t, dir, "audit-*") {
		data := read(t, path)
		for i := 0; i < len(data); i += step {
			write(t, path, data[:i])
			r := verified(t, Options{Dir: dir, Anchors: relay.anchor(), Witnesses: []Note{witness}})
			switch {
			case strings.HasSuffix(path, ".jsonl") && r.OK:
				t.Fatalf("%s cut at %d is not found", path, i)
			case strings.HasSuffix(path, audit.CheckpointSuffix) && r.OK && r.Proven.Lines+r.Tail != whole.Lines:
				t.Fatalf("%s cut at %d: %+v", path, i, r)
			case r.OK && r.Witnesses[0].Record != whole.Last:
				t.Fatalf("%s cut at %d: the witness proves %+v", path, i, r.Witnesses[0])
			}
		}
		write(t, path, data)
	}
}

// edit changes the lines of one segment.
func edit(t *testing.T, path string, f func(lines [][]byte) [][]byte) {
	t.Helper()
	lines := bytes.SplitAfter(read(t, path), []byte("\n"))
	write(t, path, bytes.Join(f(lines[:len(lines)-1]), nil))
}

func TestAU05WhatIsDoneToALogIsFoundAndNamed(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	relay.run(t, dir, "a", 12)
	old := copyOf(t, dir)
	relay.run(t, dir, "b", 12)
	witness := lastNote(t, dir)
	other := t.TempDir()
	relay.run(t, other, "other", 24)
	second := func(dir string) string { return files(t, dir, "*.jsonl")[1] }
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string)
		kind string
		line int64
	}{
		{"delete a line", func(t *testing.T, dir string) {
			edit(t, second(dir), func(l [][]byte) [][]byte { return append(l[:3:3], l[4:]...) })
		}, BadNumber, 4},
		{"double a line", func(t *testing.T, dir string) {
			edit(t, second(dir), func(l [][]byte) [][]byte { return append(l[:4:4], l[3:]...) })
		}, BadNumber, 5},
		{"swap two lines", func(t *testing.T, dir string) {
			edit(t, second(dir), func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l })
		}, BadNumber, 3},
		{"change a word", func(t *testing.T, dir string) {
			write(t, second(dir), bytes.Replace(read(t, second(dir)), []byte("corp/8a7f3c"), []byte("corp/8a7f3d"), 1))
		}, Changed, 0},
		{"splice another log in", func(t *testing.T, dir string) { write(t, second(dir), read(t, second(other))) }, BadNumber, 1},
		{"splice another log's segment and hashes in", func(t *testing.T, dir string) {
			write(t, second(dir), read(t, second(other)))
			write(t, second(dir)+audit.HashSuffix, read(t, second(other)+audit.HashSuffix))
			write(t, second(dir)+audit.CheckpointSuffix, nil)
		}, "", 0},
		{"delete a segment", func(t *testing.T, dir string) { remove(t, second(dir)) }, Missing, 0},
		{"delete the first segment with all of it", func(t *testing.T, dir string) { remove(t, files(t, dir, "*.jsonl")[0]) }, Missing, 0},
		{"cut the last lines", func(t *testing.T, dir string) {
			all := files(t, dir, "*.jsonl")
			edit(t, all[len(all)-1], func(l [][]byte) [][]byte { return l[:len(l)-1] })
		}, Missing, 0},
		{"double a checkpoint", func(t *testing.T, dir string) {
			all := files(t, dir, "*"+audit.CheckpointSuffix)
			edit(t, all[len(all)-1], func(l [][]byte) [][]byte { return append(l, l[len(l)-1]) })
		}, BadCheckpoint, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyOf(t, dir)
			c.do(t, dir)
			r := verified(t, Options{Dir: dir, Anchors: relay.anchor(), Witnesses: []Note{witness}})
			if r.OK || c.kind != "" && r.Problems[0].Kind != c.kind || c.line > 0 && r.Problems[0].Line != c.line {
				t.Errorf("found: %v", r.Problems)
			}
		})
	}
	t.Run("restore an old copy", func(t *testing.T) {
		if r := verified(t, Options{Dir: old, Anchors: relay.anchor()}); !r.OK {
			t.Errorf("by itself an old copy is whole: %v", r.Problems)
		}
		r := verified(t, Options{Dir: old, Anchors: relay.anchor(), Witnesses: []Note{witness}})
		if r.OK || r.Problems[0].Kind != Refused || r.Witnesses[0].Status != Refuses {
			t.Errorf("beside a witness: %+v", r)
		}
	})
	t.Run("rewrite and sign again", func(t *testing.T) {
		again := t.TempDir()
		relay.run(t, again, "a", 12)
		relay.run(t, again, "c", 12) // the same relay, the same key: one word is another
		wantOK(t, verified(t, Options{Dir: again, Anchors: relay.anchor()}))
		r := verified(t, Options{Dir: again, Anchors: relay.anchor(), Witnesses: []Note{witness}})
		if r.OK || r.Problems[0].Kind != Refused || r.Witnesses[0].Status != Refuses {
			t.Errorf("%+v", r)
		}
	})
	t.Run("sign by another key", func(t *testing.T) {
		thief := newRelay()
		forged := t.TempDir()
		thief.run(t, forged, "a", 3)
		r := verified(t, Options{Dir: forged, Anchors: relay.anchor()})
		if r.OK || r.Proven.Lines != 0 {
			t.Errorf("%+v", r)
		}
	})
}

func remove(t *testing.T, segment string) {
	t.Helper()
	for _, path := range files(t, filepath.Dir(segment), filepath.Base(segment)+"*") {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWithoutHashFilesTheChangedRangeIsNamed(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	relay.run(t, dir, "a", 3)
	relay.run(t, dir, "b", 3)
	for _, path := range files(t, dir, "*"+audit.HashSuffix) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	r := verified(t, Options{Dir: dir, Anchors: relay.anchor()})
	wantOK(t, r)
	path := files(t, dir, "*.jsonl")[0]
	write(t, path, bytes.Replace(read(t, path), []byte("corp/8a7f3c"), []byte("corp/8a7f3d"), 1))
	r = verified(t, Options{Dir: dir, Anchors: relay.anchor()})
	if r.OK || r.Problems[0].Kind != Changed || !strings.Contains(r.Problems[0].Message, "the records from here to") || r.Proven.Lines != 0 {
		t.Errorf("%+v", r)
	}
}

func TestKeyChangesAreFollowed(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	relay.run(t, dir, "a", 2)
	first := relay.anchor()
	for i := range 3 {
		next := newKey()
		relay.chain = append(relay.chain, relaykey.Sign(relay.key, next, int64(i+1), relay.now).Encode())
		relay.key = next
		relay.run(t, dir, fmt.Sprint("k", i), 2)
	}
	for _, anchors := range [][]checkpoint.Anchor{first, relay.anchor(), {{Hash: relay.anchor()[0].Hash}}} {
		wantOK(t, verified(t, Options{Dir: dir, Anchors: anchors}))
	}
}

func TestProofsAreCheckedWithoutTheLog(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	relay.run(t, dir, "a", 6)
	relay.run(t, dir, "b", 6)
	p, err := Prove(t.Context(), dir, "a-3")
	if err != nil || len(p.Records) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	one, err := Prove(t.Context(), dir, "4")
	if err != nil || len(one.Records) != 1 || one.Records[0].Index != 3 {
		t.Fatalf("%+v, %v", one, err)
	}
	if _, err := Prove(t.Context(), dir, "nobody"); err == nil {
		t.Error("a request that was never made was proven")
	}
	for _, p := range []*Proof{p, one} {
		if _, err := p.Check(relay.anchor()); err != nil {
			t.Error(err)
		}
		if _, err := p.Check(newRelay().anchor()); err == nil {
			t.Error("checked by a foreign key")
		}
		changed := *p
		changed.Records = append([]ProvenRecord(nil), p.Records...)
		changed.Records[0].Line = strings.Replace(changed.Records[0].Line, "phi3", "phi4", 1)
		if _, err := changed.Check(relay.anchor()); err == nil && changed.Records[0].Line != p.Records[0].Line {
			t.Error("another line was proven")
		}
		changed.Records[0] = p.Records[0]
		changed.Records[0].Index++
		if _, err := changed.Check(relay.anchor()); err == nil {
			t.Error("another place was proven")
		}
	}
}

func TestExpiredRecordsLeaveTheRestProven(t *testing.T) {
	dir, relay := t.TempDir(), newRelay()
	relay.run(t, dir, "a", 12)
	early := lastNote(t, dir)
	relay.now = relay.now.Add(24 * time.Hour)
	relay.run(t, dir, "b", 12)
	later := lastNote(t, dir)
	relay.now = relay.now.Add(24 * time.Hour)
	relay.o.Retain = 36 * time.Hour
	relay.run(t, dir, "c", 12)
	r := verified(t, Options{Dir: dir, Anchors: relay.anchor(), Witnesses: []Note{early, later, lastNote(t, dir)}})
	wantOK(t, r)
	if r.Expired == nil || r.First != r.Expired.Through+1 || r.First <= 1 || r.Expired.Key == "" {
		t.Fatalf("%+v", r.Expired)
	}
	if r.Witnesses[1].Status != Holds || r.Witnesses[2].Status != Holds {
		t.Errorf("witnesses: %+v", r.Witnesses)
	}
	if p, err := Prove(t.Context(), dir, "c-5"); err != nil {
		t.Error(err)
	} else if _, err := p.Check(relay.anchor()); err != nil {
		t.Error(err)
	}
	for _, path := range files(t, dir, audit.ExpiredFile) {
		data := read(t, path)
		for i := range data {
			changed := bytes.Clone(data)
			changed[i] ^= 1
			write(t, path, changed)
			if r := verified(t, Options{Dir: dir, Anchors: relay.anchor()}); r.OK {
				t.Fatalf("byte %d of the head may be changed", i)
			}
		}
		write(t, path, data)
	}
	t.Run("what is deleted by hand is found", func(t *testing.T) {
		dir := copyOf(t, dir)
		remove(t, files(t, dir, "*.jsonl")[0])
		if r := verified(t, Options{Dir: dir, Anchors: relay.anchor()}); r.OK || r.Problems[0].Kind != Missing {
			t.Errorf("%v", r.Problems)
		}
	})
	t.Run("and without the head", func(t *testing.T) {
		dir := copyOf(t, dir)
		if err := os.Remove(filepath.Join(dir, audit.ExpiredFile)); err != nil {
			t.Fatal(err)
		}
		if r := verified(t, Options{Dir: dir, Anchors: relay.anchor()}); r.OK || r.Problems[0].Kind != Missing {
			t.Errorf("%v", r.Problems)
		}
	})
}

func TestPageSaysWhatEachFindingMeans(t *testing.T) {
	page := string(read(t, filepath.Join("..", "..", "..", "docs", "audit.md")))
	for _, kind := range []string{BadLine, BadNumber, Changed, Missing, BadHashes, BadCheckpoint, BadHead, BadKeys, Refused} {
		if !strings.Contains(page, "`"+kind+"`") {
			t.Errorf("docs/audit.md does not say what %s means", kind)
		}
	}
}
