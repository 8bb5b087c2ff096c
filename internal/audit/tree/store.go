package tree

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os"
	"sort"

	"golang.org/x/mod/sumdb/tlog"
)

const (
	magic    = "iap-audit-hash-1"
	HeadSize = 32 // of a hash file
)

// ErrNoHashes: a file of hashes is not there, or is not what it should be.
var ErrNoHashes = errors.New("hashes are missing")

// Head is how the hash file of a segment begins that first lines stand before.
func Head(first int64) []byte {
	b := append(make([]byte, 0, HeadSize), magic...)
	b = binary.BigEndian.AppendUint64(b, uint64(first))
	return append(b, make([]byte, 8)...)
}

// ParseHead reads what Head wrote.
func ParseHead(b []byte) (first int64, ok bool) {
	if len(b) != HeadSize || string(b[:len(magic)]) != magic || binary.BigEndian.Uint64(b[24:]) != 0 {
		return 0, false
	}
	n := binary.BigEndian.Uint64(b[16:])
	return int64(n), n>>62 == 0
}

// Lengths of hash files: Hashes is how many stand in one of lines, behind first lines; Count is the reverse, not ok if no
// number of lines makes as many.
func Hashes(first, lines int64) int64 {
	return tlog.StoredHashCount(first+lines) - tlog.StoredHashCount(first)
}

// Count is the number of lines that have made that many hashes.
func Count(first, hashes int64) (lines int64, ok bool) {
	n := sort.Search(int(hashes), func(n int) bool { return Hashes(first, int64(n)) >= hashes })
	return int64(n), Hashes(first, int64(n)) == hashes
}

// Store reads the hashes of a tree from hash files. It opens a file for each read and keeps none; not for concurrent use.
type Store struct {
	before *Range // lines that have expired
	parts  []part // in order
}

type part struct {
	path         string
	first, lines int64
}

// NewStore begins with the lines that have expired.
func NewStore(before *Range) *Store { return &Store{before: before.Clone()} }

// Put says that the hash file at path holds lines lines behind the ones put before, or how many its last part has now.
func (s *Store) Put(path string, lines int64) {
	if n := len(s.parts); n > 0 && s.parts[n-1].path == path {
		s.parts[n-1].lines = lines
		return
	}
	s.parts = append(s.parts, part{path, s.Size(), lines})
}

// Expire forgets the files of the first lines, of which before is the tree.
func (s *Store) Expire(before *Range) error {
	gone := 0
	for gone < len(s.parts) && s.parts[gone].first+s.parts[gone].lines <= before.Size() {
		gone++
	}
	if gone < len(s.parts) && s.parts[gone].first != before.Size() || gone == len(s.parts) && s.Size() != before.Size() {
		return fmt.Errorf("%w: no file begins behind line %d", ErrNoHashes, before.Size())
	}
	s.before, s.parts = before.Clone(), s.parts[gone:]
	return nil
}

// Size is the number of lines of the tree.
func (s *Store) Size() int64 {
	if n := len(s.parts); n > 0 {
		return s.parts[n-1].first + s.parts[n-1].lines
	}
	return s.before.Size()
}

// First is the number of lines that have expired.
func (s *Store) First() int64 { return s.before.Size() }

// ReadHashes is tlog.HashReader.
func (s *Store) ReadHashes(indexes []int64) ([]Hash, error) {
	all := make([]Hash, len(indexes))
	for i, index := range indexes {
		var err error
		if all[i], err = s.read(index); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (s *Store) read(index int64) (Hash, error) {
	level, n := tlog.SplitStoredHashIndex(index)
	last := (n+1)<<level - 1 // the line that completed it
	if last < s.before.Size() {
		return s.expired(level, n)
	}
	i := sort.Search(len(s.parts), func(i int) bool { return s.parts[i].first > last }) - 1
	if i < 0 || last >= s.parts[i].first+s.parts[i].lines {
		return Hash{}, fmt.Errorf("%w: of line %d", ErrNoHashes, last+1)
	}
	p := s.parts[i]
	return readHash(p.path, HeadSize+(index-tlog.StoredHashCount(p.first))*tlog.HashSize)
}

// expired finds a subtree of what is gone: the largest complete ones are all that is kept.
func (s *Store) expired(level int, n int64) (Hash, error) {
	size, at := s.before.Size(), 0
	for k := bits.Len64(uint64(size)) - 1; k >= 0; k-- {
		if size>>k&1 == 0 {
			continue
		}
		if k == level && size>>(k+1)<<1 == n {
			return s.before.subtrees[at], nil
		}
		at++
	}
	return Hash{}, fmt.Errorf("%w: line %d and those before have expired", ErrNoHashes, (n+1)<<level)
}

func readHash(path string, at int64) (h Hash, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, fmt.Errorf("%w: %w", ErrNoHashes, err)
	}
	defer f.Close()
	if _, err := f.ReadAt(h[:], at); err != nil {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %s is too short", ErrNoHashes, path)
		}
		return h, err
	}
	return h, nil
}

// RangeAt is the tree of the first size lines.
func (s *Store) RangeAt(size int64) (*Range, error) {
	r := &Range{size: size}
	for k := bits.Len64(uint64(size)) - 1; k >= 0; k-- {
		if size>>k&1 == 0 {
			continue
		}
		h, err := s.read(tlog.StoredHashIndex(k, size>>(k+1)<<1))
		if err != nil {
			return nil, err
		}
		r.subtrees = append(r.subtrees, h)
	}
	return r, nil
}

// ProveLine proves that line index (from 0) is in the tree of size lines.
func (s *Store) ProveLine(size, index int64) ([]Hash, error) { return tlog.ProveRecord(size, index, s) }

// ProveExtends proves that the tree of size lines begins with that of the first before lines.
func (s *Store) ProveExtends(size, before int64) ([]Hash, error) {
	return tlog.ProveTree(size, before, s)
}

// FileFirst is how many lines stand before the segment of the hash file at path, ok if it is one.
func FileFirst(path string) (first int64, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	head := make([]byte, HeadSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, false
	}
	return ParseHead(head)
}

// FileLines is how many lines the hash file at path is of, if it is whole and begins behind first lines. One that is
// growing may end within a line's hashes.
func FileLines(path string, first int64, growing bool) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	head := make([]byte, HeadSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return 0, fmt.Errorf("%w: %s is too short", ErrNoHashes, path)
	}
	hashes := info.Size() - HeadSize
	lines, whole := Count(first, hashes/tlog.HashSize)
	if !whole && growing {
		lines, whole = lines-1, true
	}
	if at, ok := ParseHead(head); !ok || at != first || !whole || hashes%tlog.HashSize != 0 && !growing {
		return 0, fmt.Errorf("%w: %s is not whole", ErrNoHashes, path)
	}
	return lines, nil
}
