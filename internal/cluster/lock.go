package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iap/internal/state"
)

const (
	lockLife  = 15 * time.Second // of a relay that died with it; what is done under it takes less
	lockRetry = 50 * time.Millisecond
)

// Lock waits until no other relay holds the lock at key, and takes it. What is done under it must end within the deadline
// of the context that Lock returns; free gives it back.
func (c *Cluster) Lock(ctx context.Context, key string) (_ context.Context, free func(), err error) {
	for {
		ends := c.o.Now().Add(lockLife)
		version, err := c.o.Store.Swap(ctx, key, 0, []byte(c.o.Instance), ends)
		if err == nil {
			held, cancel := context.WithTimeout(ctx, lockLife/2) // clocks differ, and the holder's goes on while it sleeps
			return held, func() {
				cancel()
				freeing, done := context.WithTimeout(context.WithoutCancel(ctx), beatWait)
				defer done()
				_ = c.o.Store.Delete(freeing, key, version) // it ends by itself
			}, nil
		}
		if !errors.Is(err, state.ErrConflict) {
			return nil, nil, err
		}
		if !sleep(ctx, lockRetry) {
			return nil, nil, fmt.Errorf("wait for %s: %w", key, ctx.Err())
		}
	}
}
