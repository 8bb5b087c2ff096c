package checkpoint

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"iap/internal/audit/tree"
)

// What a witness finds.
var (
	// ErrStale: the one that is held is newer.
	ErrStale = errors.New("an older checkpoint than the one that is held")
	// ErrNoProof: it may extend the one that is held; nothing shows it.
	ErrNoProof = errors.New("nothing shows that it extends the checkpoint that is held")
	// ErrConflict: no honest log signs both.
	ErrConflict = errors.New("it does not extend the checkpoint that is held: the log was rolled back or rewritten")
)

// MaxProof is how many hashes a proof has at most: two for each level of a tree of 2^62 lines.
const MaxProof = 128

// Judge says whether next may take the place of held, given the proof that it extends it; nil: it may.
func Judge(held, next Checkpoint, proof []tree.Hash) error {
	switch {
	case held.Origin != next.Origin:
		return fmt.Errorf("%w: it is of another log", ErrNoProof)
	case held.Size == next.Size && held.Root != next.Root:
		return fmt.Errorf("%w (two roots for %d lines)", ErrConflict, held.Size)
	case held.Size == next.Size && next.Time.Before(held.Time):
		return ErrStale
	case held.Size == next.Size:
		return nil
	case next.Size < held.Size && next.Time.After(held.Time):
		return fmt.Errorf("%w (%d lines, later %d)", ErrConflict, held.Size, next.Size)
	case next.Size < held.Size:
		return ErrStale
	case len(proof) == 0:
		return ErrNoProof
	case len(proof) > MaxProof || tlog.CheckTree(proof, next.Size, next.Root, held.Size, held.Root) != nil:
		return fmt.Errorf("%w (%d lines, later %d with a proof that fails)", ErrConflict, held.Size, next.Size)
	}
	return nil
}
