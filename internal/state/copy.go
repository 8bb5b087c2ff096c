package state

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// copyMark stands in a store that is only half of a copy.
const copyMark = "state-copy"

// ErrHalfCopied: the store is what an interrupted Copy has left. Its revocations are not all there.
var ErrHalfCopied = errors.New("state is half of a copy")

// Copy brings everything in from over to to, which must be empty, and returns how many items there were. Versions are given
// anew: nobody may have the two open but the caller. A copy that breaks off leaves a store that CheckCopied refuses.
func Copy(ctx context.Context, from, to Store) (n int, err error) {
	if there, err := to.List(ctx, "", "", 1); err != nil {
		return 0, fmt.Errorf("copy state: read the target: %w", err)
	} else if len(there) > 0 {
		return 0, errors.New("copy state: the target is not empty; name one that is, so that nothing is mixed")
	}
	mark, err := to.Swap(ctx, copyMark, 0, nil, time.Time{})
	if err != nil {
		return 0, fmt.Errorf("copy state: write to the target: %w", err)
	}
	var batch []Write
	size := 0
	flush := func() error {
		versions, err := to.SwapAll(ctx, batch)
		if err != nil {
			return fmt.Errorf("copy state: write to the target: %w", err)
		}
		for i, version := range versions {
			if version == 0 {
				return fmt.Errorf("copy state: somebody else has written %q to the target", batch[i].Key)
			}
		}
		n, batch, size = n+len(batch), batch[:0], 0
		return nil
	}
	for item, err := range All(ctx, from, "") {
		if err != nil {
			return n, fmt.Errorf("copy state: read the source: %w", err)
		}
		if item.Key == copyMark {
			return n, fmt.Errorf("copy state: read the source: %w", ErrHalfCopied)
		}
		batch, size = append(batch, Write{Key: item.Key, Value: item.Value, Expires: item.Expires}), size+len(item.Value)
		if len(batch) == MaxBatch || size >= pageBytes {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
	if err := flush(); err != nil {
		return n, err
	}
	return n, to.Delete(ctx, copyMark, mark)
}

// CheckCopied refuses what an interrupted Copy has left.
func CheckCopied(ctx context.Context, s Store) error {
	_, err := s.Get(ctx, copyMark)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("open state: %w: revocations may be missing; empty it and run iap-relay state copy again", ErrHalfCopied)
}
