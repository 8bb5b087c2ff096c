package limit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iap/internal/state"
)

// round is one exchange with the store, of all counters that need it. Whoever needs one joins the next and waits.
type round struct {
	counters []*counter
	done     chan struct{}
	err      error // set before done is closed
}

func newRound() *round { return &round{done: make(chan struct{})} }

// enqueue puts a counter into the next round. b.mu is held; wake is called after.
func (b *Book) enqueue(c *counter) {
	if !c.queued {
		c.queued = true
		b.next.counters = append(b.next.counters, c)
	}
}

// enqueueBusy puts every counter with something to write into the next round. b.mu is held.
func (b *Book) enqueueBusy() *round {
	for _, c := range b.counters {
		if c.busy() {
			b.enqueue(c)
		}
	}
	return b.next
}

// wake makes the next round begin.
func (b *Book) wake() {
	select {
	case b.kick <- struct{}{}:
	default: // it will
	}
}

// run does the rounds, one after the other, until the book is closed; it is the only one to change the store.
func (b *Book) run(ctx context.Context) {
	defer close(b.notices)
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.kick:
			b.round(ctx)
		case <-tick.C:
			b.mu.Lock()
			b.sweep(b.time())
			b.enqueueBusy()
			b.mu.Unlock()
			b.round(ctx)
		case <-b.closing:
			b.round(ctx)
			return
		}
	}
}

func (b *Book) round(ctx context.Context) {
	b.mu.Lock()
	r := b.next
	b.next = newRound()
	for _, c := range r.counters {
		c.queued = false
	}
	b.mu.Unlock()
	defer close(r.done)
	if len(r.counters) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeWait)
	defer cancel()
	r.err = b.exchange(ctx, r.counters)
	switch {
	case r.err != nil && !b.away:
		b.log.Warn("limits cannot be written; what is leased may be used up, nothing more is granted", "error", r.err)
	case r.err == nil && b.away:
		b.log.Info("limits can be written again")
	}
	b.away = r.err != nil
}

// exchange reads what is not known and writes what is due, again where another relay was faster.
func (b *Book) exchange(ctx context.Context, batch []*counter) error {
	var failed error
	for range swapTries {
		batch = b.read(ctx, batch, &failed)
		batch = b.write(ctx, batch, &failed)
		if len(batch) == 0 {
			return failed
		}
	}
	return b.fail(batch, errors.New("other relays kept changing the counters"))
}

// fail marks counters as not to be relied on.
func (b *Book) fail(batch []*counter, err error) error {
	err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range batch {
		c.failure, c.stale, c.wanted = err, true, 0 // those who wait give up
		if c.sent != nil {
			c.sent.wanted = 0
		}
	}
	return err
}

// read brings the counters up to date that need it and returns those that are. A store that fails once in a round is not
// asked again.
func (b *Book) read(ctx context.Context, batch []*counter, failed *error) []*counter {
	good := batch[:0]
	for i, c := range batch {
		b.mu.Lock()
		now := b.time()
		due := !c.known || c.stale || c.look || (c.wanted > 0 && !c.fresh(now, now))
		b.mu.Unlock()
		if due {
			err := b.load(ctx, c)
			if err != nil && (errors.Is(err, state.ErrUnavailable) || ctx.Err() != nil) {
				*failed = b.fail(batch[i:], err)
				return good
			}
			if err != nil {
				*failed = b.fail(batch[i:i+1], err)
				continue
			}
		}
		good = append(good, c)
	}
	return good
}

// load reads one counter.
func (b *Book) load(ctx context.Context, c *counter) error {
	item, err := b.store.Get(ctx, c.id)
	found := !errors.Is(err, state.ErrNotFound)
	if err != nil && found {
		return err
	}
	var rec record
	var damaged error
	if found {
		rec, damaged = decodeRecord(item.Value)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if damaged != nil && !c.clear { // a reset mends it
		return fmt.Errorf("%w under %q; reset the limit", damaged, c.id)
	}
	if damaged != nil {
		rec = record{}
	}
	c.absorb(rec, item.Version, found, b.me, b.time())
	return nil
}

// write writes what is due and returns the counters that another relay has changed meanwhile.
func (b *Book) write(ctx context.Context, batch []*counter, failed *error) []*counter {
	var conflicts []*counter
	for len(batch) > 0 {
		n := min(len(batch), state.MaxBatch)
		again, err := b.swap(ctx, batch[:n])
		if err != nil {
			*failed = b.fail(batch, err)
			return conflicts
		}
		conflicts = append(conflicts, again...)
		batch = batch[n:]
	}
	return conflicts
}

// swap writes one batch.
func (b *Book) swap(ctx context.Context, batch []*counter) ([]*counter, error) {
	due, writes, err := b.prepare(batch)
	if err != nil || len(due) == 0 {
		return nil, err
	}
	versions, err := b.store.SwapAll(ctx, writes)
	if err != nil {
		return nil, err // whether it happened is seen when they are next read
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.time()
	var conflicts []*counter
	for i, c := range due {
		if versions[i] == 0 {
			c.rollback()
			c.stale = true
			conflicts = append(conflicts, c)
			continue
		}
		c.commit()
		c.version = versions[i]
		b.watch(c, now)
	}
	return conflicts, nil
}

// prepare plans the writes of a batch and encodes them, outside the lock.
func (b *Book) prepare(batch []*counter) ([]*counter, []state.Write, error) {
	b.mu.Lock()
	now := b.time()
	due := make([]*counter, 0, len(batch))
	plans := make([]*attempt, 0, len(batch))
	for _, c := range batch {
		if a := c.plan(now, b.closed); a != nil {
			due, plans = append(due, c), append(plans, a)
		} else {
			b.watch(c, now)
		}
	}
	b.mu.Unlock()
	writes := make([]state.Write, len(due))
	for i, c := range due {
		var err error
		if writes[i], err = c.write(plans[i], b.me); err != nil {
			return nil, nil, err
		}
	}
	return due, writes, nil
}
