package auth

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/gofrs/flock"
)

// WithLock runs f while no other process, and no other goroutine of this one, runs
// one under the same directory and name. It waits for its turn until ctx ends. The
// lock file stays: removing it would let two holders lock two files.
func WithLock(ctx context.Context, dir, name string, f func() error) error {
	if err := secretDir(dir); err != nil {
		return fmt.Errorf("lock %q: %w", name, err)
	}
	lock := flock.New(filepath.Join(dir, fileName(name)+".lock"), flock.SetPermissions(0o600))
	ok, err := lock.TryLockContext(ctx, lockPoll)
	if err != nil {
		return fmt.Errorf("lock %q: %w", name, err)
	}
	if !ok {
		return fmt.Errorf("lock %q: %w", name, errors.New("not granted"))
	}
	err = f()
	if uerr := lock.Close(); err == nil && uerr != nil {
		return fmt.Errorf("unlock %q: %w", name, uerr)
	}
	return err
}
