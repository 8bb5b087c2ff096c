package tree

import (
	"crypto/sha256"
	"errors"
	"math/bits"
	"slices"

	"golang.org/x/mod/sumdb/tlog"
)

// Hash is SHA-256.
type Hash = tlog.Hash

// Leaf is the hash of a line without its newline.
func Leaf(line []byte) Hash { return tlog.RecordHash(line) }

// Range is a tree as far as it is needed to add lines and to know its root: the largest complete subtrees from left to
// right, one for each bit of the size. The zero value is the empty tree.
type Range struct {
	size     int64
	subtrees []Hash
}

var errSubtrees = errors.New("a tree of this size has another number of subtrees")

// NewRange takes up a tree that Subtrees has described.
func NewRange(size int64, subtrees []Hash) (*Range, error) {
	if size < 0 || bits.OnesCount64(uint64(size)) != len(subtrees) {
		return nil, errSubtrees
	}
	return &Range{size, slices.Clone(subtrees)}, nil
}

// Size is the number of lines.
func (r *Range) Size() int64 { return r.size }

// Subtrees are the largest complete subtrees, left to right.
func (r *Range) Subtrees() []Hash { return slices.Clone(r.subtrees) }

// Clone is a tree that grows for itself.
func (r *Range) Clone() *Range { return &Range{r.size, slices.Clone(r.subtrees)} }

// Add adds a leaf and returns to, behind which stand the leaf and every subtree that it completed.
func (r *Range) Add(leaf Hash, to []Hash) []Hash {
	to = append(to, leaf)
	for n := r.size; n&1 == 1; n >>= 1 {
		last := len(r.subtrees) - 1
		leaf = tlog.NodeHash(r.subtrees[last], leaf)
		r.subtrees = r.subtrees[:last]
		to = append(to, leaf)
	}
	r.subtrees = append(r.subtrees, leaf)
	r.size++
	return to
}

// Root is the hash of the tree.
func (r *Range) Root() Hash {
	last := len(r.subtrees) - 1
	if last < 0 {
		return sha256.Sum256(nil)
	}
	root := r.subtrees[last]
	for i := last - 1; i >= 0; i-- {
		root = tlog.NodeHash(r.subtrees[i], root)
	}
	return root
}
