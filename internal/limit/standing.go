package limit

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"iap/internal/state"
)

// Standing is how one limit of a rule stands.
type Standing struct {
	Rule     Rule
	Kind     string // "requests", "tokens" or "concurrent"
	Limit    int64
	Window   time.Duration // 0 for concurrent
	Used     int64         // settled, within the window
	Held     int64         // reserved by running requests, or leased to other relays
	Next     time.Time     // when more may be used than now, if nothing else is; zero: nothing comes free by time alone
	NextFree int64         // how much may be used then
	Resets   time.Time     // when all of it will have come free, if nothing more is used
}

// looked is how many rules are looked at in one go: nobody waits for a long list of somebody else's.
const looked = 64

// Usage returns how every limit of the rules stands, read from the store.
func (b *Book) Usage(ctx context.Context, rules []Rule) ([]Standing, error) {
	var all []Standing
	for part := range slices.Chunk(rules, looked) {
		if err := b.inspect(ctx, &reservation{book: b, ask: Ask{Rules: part}, looks: true}, false); err != nil {
			return nil, err
		}
		found, err := b.standings(part)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// standings says how rules stand whose counters were read just now.
func (b *Book) standings(rules []Rule) ([]Standing, error) {
	var all []Standing
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.time()
	for _, rule := range rules { // one by one: of two limits on the same counter both are shown
		one := &reservation{book: b, ask: Ask{Rules: []Rule{rule}}, looks: true}
		if err := b.gather(one, now); err != nil {
			return nil, err
		}
		for _, h := range one.holds {
			if !h.c.known {
				return nil, fmt.Errorf("%w: nobody has read them", ErrUnavailable)
			}
			all = append(all, b.standing(rule, h, now))
		}
	}
	return all, nil
}

func (b *Book) standing(rule Rule, h hold, now int64) Standing {
	c := h.c
	c.slide(now)
	s := Standing{
		Rule: rule, Kind: string(c.key.kind), Limit: h.n, Window: c.key.window,
		Used: c.charged(), Held: c.open + c.held(now), Resets: b.wall(c.clears(now), now),
	}
	// The counter may be held to another limit than this one: what is free of the one is so much off that of the other.
	left := h.n - s.Used - s.Held
	off := c.room(now) - left
	if at, free, fits := c.whenFree(max(left, 0)+1+off, now); fits {
		s.Next, s.NextFree = b.wall(at, now), free-off
	}
	return s
}

// Holder is one of those who share a grant, as their use is counted.
type Holder struct{ Per, Who string }

// Holders returns who has counters of the grant, at most so many and in the order of their names; more says that there are
// others. Counters whose window has passed are gone.
func (b *Book) Holders(ctx context.Context, grant string, most int) (found []Holder, more bool, err error) {
	all := map[Holder]bool{}
	b.mu.Lock()
	for key, c := range b.counters {
		if key.grant == grant && (c.charged() > 0 || c.open > 0) {
			all[Holder{key.per, key.who}] = true
		}
	}
	b.mu.Unlock()
	for item, err := range state.All(ctx, b.store, counterPrefix) {
		if err != nil {
			return nil, false, fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		rec, damaged := decodeRecord(item.Value)
		if damaged != nil || rec.Grant != grant { // one that is damaged is told to who asks for it by name
			continue
		}
		all[Holder{rec.Per, rec.Who}] = true
	}
	found = slices.SortedFunc(maps.Keys(all), func(x, y Holder) int { return cmp.Or(cmp.Compare(x.Per, y.Per), cmp.Compare(x.Who, y.Who)) })
	if len(found) > most {
		return found[:most], true, nil
	}
	return found, false, nil
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
