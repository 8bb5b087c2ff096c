package limit

import (
	"context"
	"time"
)

// Standing is how one limit of a rule stands.
type Standing struct {
	Rule   Rule
	Kind   string // "requests", "tokens" or "concurrent"
	Limit  int64
	Window time.Duration // 0 for concurrent
	Used   int64         // settled, within the window
	Held   int64         // reserved by running requests, or leased to other relays
	Resets time.Time     // when all of it will have come free, if nothing more is used
}

// Usage returns how every limit of the rules stands, read from the store.
func (b *Book) Usage(ctx context.Context, rules []Rule) ([]Standing, error) {
	var all []Standing
	for _, rule := range rules {
		r := &reservation{book: b, ask: Ask{Rules: []Rule{rule}}, looks: true}
		if err := b.inspect(ctx, r, false); err != nil {
			return nil, err
		}
		b.mu.Lock()
		now := b.time()
		for _, h := range r.holds {
			all = append(all, b.standing(rule, h, now))
		}
		b.mu.Unlock()
	}
	return all, nil
}

func (b *Book) standing(rule Rule, h hold, now int64) Standing {
	c := h.c
	c.slide(now)
	return Standing{
		Rule: rule, Kind: string(c.key.kind), Limit: h.n, Window: c.key.window,
		Used: c.charged(), Held: c.open + c.held(now), Resets: b.wall(c.clears(now), now),
	}
}

// Reset forgets what has been used of the rule's rates, on all relays. What is reserved or leased stays so; concurrent
// requests end by themselves. Other relays refuse on what they last knew for a moment.
func (b *Book) Reset(ctx context.Context, rule Rule) error {
	return b.inspect(ctx, &reservation{book: b, ask: Ask{Rules: []Rule{rule}}, looks: true}, true)
}

// inspect reads the counters of a reservation's rules anew, and clears them if asked to.
func (b *Book) inspect(ctx context.Context, r *reservation, clear bool) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return errClosed
	}
	now := b.time()
	if err := b.gather(r, now); err != nil {
		b.mu.Unlock()
		return err
	}
	for _, h := range r.holds {
		h.c.look = true
		h.c.clear = h.c.clear || (clear && h.c.key.kind != slots)
		h.c.last = now
		b.enqueue(h.c)
	}
	wait := b.next
	b.mu.Unlock()
	b.wake()
	select {
	case <-wait.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range r.holds {
		if h.c.failure != nil {
			return h.c.failure
		}
	}
	return nil
}
