package relay

import (
	"context"
	"sync"
	"time"
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
	if err != nil {
		r.owed.owe(what, f)
	}
	return err
}

// payOwed tells the state what it has yet to be told, until the relay ends.
func (r *Relay) payOwed() {
	for sleep(r.ctx, owedRetry) {
		for what, f := range r.owed.list() {
			ctx, cancel := context.WithTimeout(r.ctx, owedWait)
			err := f(ctx)
			cancel()
			if err != nil {
				break // it is still away
			}
			r.owed.forgive(what)
			r.log.Info("the state was told of a right that was taken away while it was away", "what", what)
		}
	}
}
