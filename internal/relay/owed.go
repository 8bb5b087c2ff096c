package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"iap/internal/state"
)

const (
	owedRetry = 250 * time.Millisecond // others hear of a revocation about so long after the state is back
	owedWait  = 10 * time.Second       // for one of them
	maxOwed   = 4096                   // they come of people's acts alone
)

// owed is what the state has yet to be told: rights that were taken away here
// while it was away. They hold here; elsewhere, and after a restart, only once it
// knows.
type owed struct {
	mu  sync.Mutex
	all map[string]func(context.Context) error // guarded by mu; by what it is about
}

// owe has f tried until it succeeds. A later one about the same takes its place.
func (o *owed) owe(what string, f func(context.Context) error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.all == nil {
		o.all = map[string]func(context.Context) error{}
	}
	if len(o.all) < maxOwed {
		o.all[what] = f
	}
}

// forgive gives one up.
func (o *owed) forgive(what string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, what)
}

// list is what is owed now.
func (o *owed) list() map[string]func(context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make(map[string]func(context.Context) error, len(o.all))
	for what, f := range o.all {
		all[what] = f
	}
	return all
}

// orOwe does f, and has it tried again later if the state cannot be told now.
func (r *Relay) orOwe(ctx context.Context, what string, f func(context.Context) error) error {
	err := f(ctx)
	if isAway(err) {
		r.owed.owe(what, f)
	}
	return err
}

// isAway reports whether the state may say something else later.
func isAway(err error) bool {
	return errors.Is(err, state.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, state.ErrConflict)
}

// payOwed tells the state what it has yet to be told, until the relay ends.
func (r *Relay) payOwed() {
	for sleep(r.ctx, owedRetry) {
		for what, f := range r.owed.list() {
			ctx, cancel := context.WithTimeout(r.ctx, owedWait)
			err := f(ctx)
			cancel()
			if isAway(err) {
				break
			}
			r.owed.forgive(what)
			if err != nil {
				r.log.Error("a right that was taken away while the state was away holds at this relay only", "what", what, "error", err)
				continue
			}
			r.log.Info("the state was told of a right that was taken away while it was away", "what", what)
		}
	}
}
