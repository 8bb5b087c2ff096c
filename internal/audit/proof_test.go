package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
)

// signing makes the options of a log that gets checkpoints.
func signing(o Options) Options {
	_, key, _ := ed25519.GenerateKey(rand.Reader) // never fails
	o.Origin = "relay.example.com/audit/main"
	o.Keys = func() (ed25519.PrivateKey, [][]byte, error) { return key, nil, nil }
	return o
}

// wantTree fails unless the hash files are those of the lines and the last checkpoint covers them all.
func wantTree(t *testing.T, dir string) {
	t.Helper()
	segments, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var r tree.Range
	for _, s := range segments {
		want := tree.Head(r.Size())
		data, err := os.ReadFile(filepath.Join(dir, s.name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			for _, h := range r.Add(tree.Leaf(bytes.TrimSuffix(line, []byte("\n"))), nil) {
				want = append(want, h[:]...)
			}
		}
		if got, err := os.ReadFile(filepath.Join(dir, s.name+HashSuffix)); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("hashes of %s: %d bytes, want %d (%v)", s.name, len(got), len(want), err)
		}
	}
	note, err := lastCheckpoint(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := checkpoint.Parse(note); err != nil || c.Size != r.Size() || c.Root != r.Root() {
		t.Fatalf("the last checkpoint is %+v (%v), the lines have %d and %s", c, err, r.Size(), r.Root())
	}
}

func logins(t *testing.T, l *Log, n int) {
	t.Helper()
	for i := range n {
		record(t, l, Event{Kind: KindLogin, Request: fmt.Sprint(i), Message: strings.Repeat("m", i%90)})
	}
}

// TestTreeIsHealedWhereverTheRelayWasKilled cuts the files as a killed relay may leave them: the hashes anywhere, the
// checkpoint's line anywhere, the record's too. The next start makes the tree whole and signs it.
func TestTreeIsHealedWhereverTheRelayWasKilled(t *testing.T) {
	whole := t.TempDir()
	o := signing(Options{Dir: whole, SegmentBytes: 2 << 10, ReserveBytes: -1})
	for range 2 {
		l := openTest(t, o)
		logins(t, l, 14)
		l.Close()
	}
	// What was written behind the last checkpoint.
	l := openTest(t, o)
	logins(t, l, 20)
	crash(t, l)
	segments, err := listSegments(whole)
	if err != nil || len(segments) < 3 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	last := segments[len(segments)-1].name
	note, err := lastCheckpoint(whole)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := checkpoint.Parse(note)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []string{last + HashSuffix, segments[len(segments)-2].name + HashSuffix, last} {
		data, _ := os.ReadFile(filepath.Join(whole, cut))
		for n := 0; n < max(len(data), 1); n += 13 {
			lines := int64(segments[len(segments)-1].first) - 1 + int64(bytes.Count(data[:n], []byte("\n")))
			if cut == last && lines < signed.Size { // what was signed was on the disk before
				continue
			}
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
				t.Fatal(err)
			}
			if data != nil {
				if err := os.Truncate(filepath.Join(dir, cut), int64(n)); err != nil {
					t.Fatal(err)
				}
			}
			again := o
			again.Dir = dir
			l := openTest(t, again)
			logins(t, l, 3)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if err := l.Proving(); err != nil {
				t.Fatalf("%s cut at %d: %v", cut, n, err)
			}
			wantTree(t, dir)
		}
	}
}

func TestHashesUnderACheckpointAreNeverRewrittenInSilence(t *testing.T) {
	dir := t.TempDir()
	o := signing(Options{Dir: dir, SegmentBytes: 2 << 10})
	l := openTest(t, o)
	logins(t, l, 30)
	l.Close()
	segments, _ := listSegments(dir)
	path := filepath.Join(dir, segments[len(segments)-1].name+HashSuffix)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wrong := bytes.Clone(data)
	wrong[tree.HeadSize+5] ^= 1
	if err := os.WriteFile(path, wrong, 0o600); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, o)
	l.Close()
	if aside, err := os.ReadFile(path + wrongSuffix); err != nil || !bytes.Equal(aside, wrong) {
		t.Errorf("the wrong hashes are not kept: %v", err)
	}
	if told := withReason(readAll(t, dir), ReasonHashesMismatch); len(told) != 1 {
		t.Errorf("records of it: %+v", told)
	}
	if err := l.Proving(); err != nil {
		t.Error(err)
	}
	l = openTest(t, o) // its own record is signed now
	l.Close()
	wantTree(t, dir)
}

func TestChangedLogGetsNoCheckpointAndStopsNoTraffic(t *testing.T) {
	for name, change := range map[string]func(data []byte) []byte{
		"a changed line": func(data []byte) []byte { return bytes.Replace(data, []byte("login"), []byte("logon"), 1) },
		"lines cut off":  func(data []byte) []byte { return data[:bytes.IndexByte(data, '\n')+1] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := signing(Options{Dir: dir})
			l := openTest(t, o)
			logins(t, l, 5)
			l.Close()
			before, err := lastCheckpoint(dir)
			if err != nil {
				t.Fatal(err)
			}
			path := lastSegment(t, dir)
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, change(data), 0o600); err != nil {
				t.Fatal(err)
			}
			l = openTest(t, o)
			record(t, l, allow("goes on"))
			l.Close()
			if err := l.Proving(); !errors.Is(err, ErrTree) {
				t.Errorf("proving: %v", err)
			}
			if after, err := lastCheckpoint(dir); err != nil || !bytes.Equal(after, before) {
				t.Errorf("something was signed: %s, %v", after, err)
			}
		})
	}
}

func TestKeyThatFailsStopsNoTraffic(t *testing.T) {
	dir := t.TempDir()
	o := signing(Options{Dir: dir})
	good, broken := o.Keys, errors.New("no key today")
	fails := true
	o.Keys = func() (ed25519.PrivateKey, [][]byte, error) {
		if fails {
			return nil, nil, broken
		}
		return good()
	}
	l := openTest(t, o)
	record(t, l, allow("r"))
	if err := l.Healthy(); err != nil {
		t.Errorf("health: %v", err)
	}
	l.Close()
	if err := l.Proving(); !errors.Is(err, broken) {
		t.Errorf("proving: %v", err)
	}
	fails = false
	l = openTest(t, o)
	l.Close()
	if err := l.Proving(); err != nil {
		t.Error(err)
	}
	wantTree(t, dir)
}

func TestSegmentsRotateByAge(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	l := openTest(t, Options{SegmentAge: time.Hour, Now: func() time.Time { return now }})
	for range 5 {
		record(t, l, Event{Kind: KindLogin})
		now = now.Add(25 * time.Minute)
	}
	if segments, _ := listSegments(l.dir); len(segments) != 2 {
		t.Errorf("segments: %v", segments)
	}
	dir := l.dir
	l.Close()
	now = now.Add(time.Hour)
	l = openTest(t, Options{Dir: dir, SegmentAge: time.Hour, Now: func() time.Time { return now }})
	record(t, l, Event{Kind: KindLogin})
	if segments, _ := listSegments(dir); len(segments) != 3 {
		t.Errorf("after a restart: %v", segments)
	}
}

// TestOpenDecisionsNeverExpire: a stream that has run for longer than records are kept keeps its decision, and all behind.
func TestOpenDecisionsNeverExpire(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	o := signing(Options{SegmentBytes: 1 << 10, Retain: 48 * time.Hour, Now: func() time.Time { return now }})
	l := openTest(t, o)
	p := l.proof
	close(p.stop) // the test works in the goroutine's place
	p.done.Wait()
	p.stop = make(chan struct{})
	logins(t, l, 20)
	record(t, l, allow("long"))
	logins(t, l, 20)
	now = now.Add(100 * time.Hour)
	logins(t, l, 20)
	p.work()
	if err := errors.Join(p.fault, p.expire()); err != nil {
		t.Fatal(err)
	}
	var first uint64
	found := false
	for e, err := range Read(l.dir) {
		if err != nil {
			t.Fatal(err)
		}
		if first == 0 {
			first = e.Seq
		}
		found = found || e.Request == "long" && e.Kind == KindDecision
	}
	if !found || first == 1 {
		t.Fatalf("the log begins with %d; the open decision is there: %v", first, found)
	}
	record(t, l, outcome("long"))
	p.work()
	if err := errors.Join(p.fault, p.expire()); err != nil {
		t.Fatal(err)
	}
	segments, _ := listSegments(l.dir)
	if begins := firstTime(filepath.Join(l.dir, segments[1].name)); now.Sub(begins) > 48*time.Hour {
		t.Errorf("what has ended is kept: %v", begins)
	}
	p.work()
	if p.fault != nil {
		t.Error(p.fault)
	}
}

func TestCheckpointThatCannotBeWrittenIsToldAndMadeUpFor(t *testing.T) {
	dir := t.TempDir()
	o := signing(Options{Dir: dir})
	path := filepath.Join(dir, nameSegment(1)+CheckpointSuffix)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	l := openTest(t, o)
	logins(t, l, 2)
	l.Close()
	if err := l.Proving(); err == nil {
		t.Error("a checkpoint that was not written is not missed")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l = openTest(t, o)
	l.Close()
	if err := l.Proving(); err != nil {
		t.Error(err)
	}
	wantTree(t, dir)
}
