package limit

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// hold is a reservation's part of one counter.
type hold struct {
	c *counter
	n int64 // the least limit, then what is taken
}

// Reserve sets aside what a request may use, of all rules or of none. An *Exceeded says which limit is in the way; any
// other error that nothing can be said. It waits for the store only where the lease is used up. ask.Rules must not be
// changed afterwards.
func (b *Book) Reserve(ctx context.Context, ask Ask) (Reservation, error) {
	ask.Input, ask.Output, ask.Choices = saturate(ask.Input), saturate(ask.Output), max(1, saturate(ask.Choices))
	r := &reservation{book: b, ask: ask}
	var late <-chan time.Time
	for range reserveTries {
		b.mu.Lock()
		wait, err := b.try(r)
		b.mu.Unlock()
		if err != nil {
			return nil, err
		}
		if wait == nil {
			return r, nil
		}
		b.wake()
		if late == nil {
			timer := time.NewTimer(storeWait) // a store may be deaf to the end of a round's context
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-wait.done:
		case <-late:
			return nil, fmt.Errorf("%w: the store has not answered for %s", ErrUnavailable, storeWait)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		r.waited = true
	}
	return nil, fmt.Errorf("%w: too many requests want the same counters at once", ErrUnavailable)
}

// try takes everything, or says why not, or which round to wait for. b.mu is held.
func (b *Book) try(r *reservation) (*round, error) {
	if b.closed {
		return nil, errClosed
	}
	now := b.time()
	if !r.waited {
		r.began = now
	}
	if err := b.gather(r, now); err != nil {
		return nil, err
	}
	output, short := r.affordable(now)
	if short != nil {
		return nil, b.exceeded(r, short, r.least(short), now)
	}
	amount := plus(r.ask.Input, output)
	lacking := false
	for i := range r.holds {
		c := r.holds[i].c
		need := c.amount(amount)
		switch {
		case c.spendable(now) >= need:
			continue
		case c.fresh(now, r.began) && c.room(now) < need:
			return nil, b.exceeded(r, c, need, now)
		case r.waited && c.failure != nil:
			return nil, c.failure
		}
		lacking = true
	}
	if lacking {
		return b.want(r, amount, now), nil
	}
	r.take(amount, output, now)
	for i := range r.holds {
		b.watch(r.holds[i].c, now)
	}
	return nil, nil
}

// want asks the next round for what the reservation lacks. b.mu is held.
func (b *Book) want(r *reservation, amount, now int64) *round {
	for i := range r.holds {
		c := r.holds[i].c
		if need := c.amount(amount); c.spendable(now) < need {
			c.wanted = plus(c.wanted, need)
			c.last = now
			b.enqueue(c)
		}
	}
	return b.next
}

// amount is what a request that reserves this many tokens takes from the counter.
func (c *counter) amount(n int64) int64 {
	if c.key.kind == tokens {
		return n
	}
	return 1
}

// gather finds the counters that the rules speak of. Two limits on one counter (the same grant, window and principal) are
// one: it is counted once and held to the lesser. b.mu is held.
func (b *Book) gather(r *reservation, now int64) error {
	r.holds = r.inline[:0]
	for i := range r.ask.Rules {
		rule := &r.ask.Rules[i]
		for _, rate := range rule.Requests {
			if err := b.hold(r, rule, requests, rate, now); err != nil {
				return err
			}
		}
		for _, rate := range rule.Tokens {
			if err := b.hold(r, rule, tokens, rate, now); err != nil {
				return err
			}
		}
		if rule.Concurrent > 0 {
			if err := b.hold(r, rule, slots, Rate{N: int64(rule.Concurrent)}, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// hold adds one limit to the reservation. b.mu is held.
func (b *Book) hold(r *reservation, rule *Rule, k kind, rate Rate, now int64) error {
	if rate.N < 0 || (k != slots && rate.Per <= 0) {
		return fmt.Errorf("limit of grant %q: %d in %s is no rate", rule.Grant, rate.N, rate.Per)
	}
	key := counterKey{rule.Grant, rule.Per, rule.Who, k, rate.Per}
	n := min(rate.N, maxAmount)
	i := slices.IndexFunc(r.holds, func(h hold) bool { return h.c.key == key })
	if i < 0 {
		c := b.counter(key, now)
		if c == nil {
			return fmt.Errorf("%w: %d counters are in use", ErrUnavailable, maxCounters)
		}
		c.slide(now)
		if !r.looks {
			c.enforced, c.warned = mark{}, mark{}
		}
		i, r.holds = len(r.holds), append(r.holds, hold{c: c, n: n})
	}
	h := &r.holds[i]
	h.n = min(h.n, n)
	if r.looks {
		return nil // what others are held to stays
	}
	to := &h.c.enforced
	if rule.Warn {
		to = &h.c.warned
	}
	if to.rule == nil || n < to.n {
		*to = mark{rule, n}
	}
	return nil
}

// affordable is how much output the budgets leave, as far as it is known, and the counter in the way if that is too
// little. b.mu is held.
func (r *reservation) affordable(now int64) (output int64, short *counter) {
	output = r.ask.Output
	least := r.leastOutput()
	for i := range r.holds {
		c := r.holds[i].c
		if c.key.kind != tokens || c.enforced.rule == nil || !c.fresh(now, r.began) {
			continue
		}
		left := c.room(now) - r.ask.Input
		if left < least {
			return 0, c
		}
		output = min(output, left)
	}
	return output, nil
}

// leastOutput is the output below which the request is refused.
func (r *reservation) leastOutput() int64 {
	if r.ask.Choices > r.ask.Output/minOutput {
		return r.ask.Output
	}
	return minOutput * r.ask.Choices
}

// least is what a counter must have free for the whole request, or for as much of it as the limit ever allows. A caller
// who said no length is told of the first time at which an answer is worth having.
func (r *reservation) least(c *counter) int64 {
	output := r.ask.Output
	if r.ask.Unstated {
		output = min(output, usefulOutput*r.ask.Choices)
	}
	return max(plus(r.ask.Input, r.leastOutput()), min(plus(r.ask.Input, output), c.limit()))
}

// take books the request. b.mu is held.
func (r *reservation) take(amount, output, now int64) {
	r.output, r.granted = output, amount
	r.cap.Store(amount)
	r.bound = output < r.ask.Output
	r.at = now
	for i := range r.holds {
		h := &r.holds[i]
		h.n = h.c.amount(amount)
		h.c.refs++
		h.c.last = now
		h.c.taken = plus(h.c.taken, h.n)
		if h.c.key.kind == requests {
			h.c.pending.add(h.c.bucket(now), 1)
		} else {
			h.c.open += h.n
		}
		if h.c.key.kind == tokens && h.c.enforced.rule != nil {
			r.metered = true
		}
	}
}

// retryIn tells a client to wait for a moment of a book's time, within bounds.
func retryIn(at, now int64) time.Duration {
	return min(max(time.Duration(at-now), minRetry), maxRetry)
}
