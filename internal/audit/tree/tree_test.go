package tree

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

const lines = 37

func line(i int) []byte { return fmt.Appendf(nil, `{"seq":%d}`, i+1) }

// reference is the tree as the library keeps it.
func reference(t *testing.T) tlog.HashReaderFunc {
	t.Helper()
	var stored []Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]Hash, error) {
		all := make([]Hash, len(indexes))
		for i, index := range indexes {
			all[i] = stored[index]
		}
		return all, nil
	})
	for i := range lines {
		hashes, err := tlog.StoredHashes(int64(i), line(i), reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
	}
	return reader
}

// build writes hash files for segments that begin at the given lines.
func build(t *testing.T, begins ...int) (paths []string) {
	t.Helper()
	dir := t.TempDir()
	var r Range
	for i, begin := range begins {
		end := lines
		if i+1 < len(begins) {
			end = begins[i+1]
		}
		data := Head(r.Size())
		for n := begin; n < end; n++ {
			for _, h := range r.Add(Leaf(line(n)), nil) {
				data = append(data, h[:]...)
			}
		}
		path := filepath.Join(dir, fmt.Sprint(begin))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func TestRangeHasTheRootsOfTheLibrary(t *testing.T) {
	reader := reference(t)
	var r Range
	for i := range lines {
		r.Add(Leaf(line(i)), nil)
		want, err := tlog.TreeHash(int64(i)+1, reader)
		if err != nil || r.Root() != want || r.Size() != int64(i)+1 {
			t.Fatalf("root of %d lines: %v, want %v (%v)", r.Size(), r.Root(), want, err)
		}
		again, err := NewRange(r.Size(), r.Subtrees())
		if err != nil || again.Root() != want {
			t.Fatalf("taken up at %d: %v", i, err)
		}
	}
	if _, err := NewRange(3, make([]Hash, 1)); err == nil {
		t.Error("a tree of three lines with one subtree")
	}
}

// Whatever has expired, each line that is left can be proven in each tree since, and each tree to extend each.
func TestProofsHoldWithEveryPrefixExpired(t *testing.T) {
	reader := reference(t)
	for cut := 0; cut <= lines; cut++ {
		second := min(cut+11, lines)
		paths := build(t, 0, cut, second)
		whole := NewStore(new(Range))
		whole.Put(paths[0], int64(cut))
		before, err := whole.RangeAt(int64(cut))
		if err != nil {
			t.Fatal(err)
		}
		s := NewStore(before)
		s.Put(paths[1], int64(second-cut))
		s.Put(paths[2], int64(lines-second))
		for size := int64(max(cut, 1)); size <= lines; size++ {
			root, err := tlog.TreeHash(size, reader)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := s.RangeAt(size); err != nil || r.Root() != root {
				t.Fatalf("cut %d: tree of %d: %v", cut, size, err)
			}
			for n := int64(cut); n < size; n++ {
				proof, err := s.ProveLine(size, n)
				if err != nil || tlog.CheckRecord(proof, size, root, n, Leaf(line(int(n)))) != nil {
					t.Fatalf("cut %d: line %d in %d: %v", cut, n, size, err)
				}
			}
			oldRoot, _ := tlog.TreeHash(int64(max(cut, 1)), reader)
			proof, err := s.ProveExtends(size, int64(max(cut, 1)))
			if err != nil || tlog.CheckTree(proof, size, root, int64(max(cut, 1)), oldRoot) != nil {
				t.Fatalf("cut %d: %d extends: %v", cut, size, err)
			}
		}
		if cut > 2 {
			if _, err := s.ProveLine(lines, 0); !errors.Is(err, ErrNoHashes) {
				t.Errorf("cut %d: an expired line was proven: %v", cut, err)
			}
		}
	}
}

func TestHashFileTellsItsLines(t *testing.T) {
	for first := range int64(20) {
		for n := range int64(40) {
			if got, ok := Count(first, Hashes(first, n)); !ok || got != n {
				t.Errorf("%d lines behind %d: %d, %v", n, first, got, ok)
			}
		}
		if at, ok := ParseHead(Head(first)); !ok || at != first {
			t.Errorf("head of %d: %d, %v", first, at, ok)
		}
	}
	for i := range HeadSize {
		b := Head(7)
		b[i] ^= 0x40
		if at, ok := ParseHead(b); ok && at == 7 {
			t.Errorf("byte %d of a head does not matter", i)
		}
	}
}

func TestLinesAreHashedWhateverTheirPieces(t *testing.T) {
	text := []byte("one\n\nthree is longer\nfour")
	for piece := 1; piece <= len(text); piece++ {
		var l Lines
		var got []Hash
		for at := 0; at < len(text); at += piece {
			l.Feed(text[at:min(at+piece, len(text))], func(h Hash, _ int) { got = append(got, h) })
		}
		if len(got) != 3 || got[0] != Leaf([]byte("one")) || got[1] != Leaf(nil) || got[2] != Leaf([]byte("three is longer")) || !l.Unfinished() {
			t.Errorf("in pieces of %d: %v", piece, got)
		}
	}
}
