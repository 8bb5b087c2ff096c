package limit

import (
	"net/http"
	"sync/atomic"
)

// reservation is what one request holds.
type reservation struct {
	book *Book
	ask  Ask

	// Set by try, not changed after Reserve has returned it.
	holds   []hold
	inline  [6]hold // holds without an allocation of their own
	output  int64
	bound   bool  // less output than asked for: the budget did not leave more
	metered bool  // an enforced token limit stands behind it
	looks   bool  // it takes nothing: what the counters are held to is not its to say
	waited  bool  // a round has passed since it began
	began   int64 // when it was first tried
	at      int64 // when it was taken

	granted int64        // tokens set aside; guarded by book.mu
	cap     atomic.Int64 // the same, to be read without the lock
	ended   bool         // guarded by book.mu
	asking  *round       // guarded by book.mu: more was asked of the store, there
}

// Output returns how many tokens of output all answers together may have; -1 if no enforced limit bounds them.
func (r *reservation) Output() int64 {
	if !r.metered {
		return -1
	}
	return r.output
}

// Header sets x-ratelimit-* as they stand now.
func (r *reservation) Header(h http.Header) {
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	now := r.book.time()
	for i := range r.holds {
		r.holds[i].c.slide(now)
	}
	header(h, r.holds, now)
}

// Use says what has been used so far, less than zero if unknown. Beyond what is reserved the reservation grows, by
// itself as far as the lease goes; the store is asked aside, and until it has answered the answer runs on.
func (r *reservation) Use(input, output int64) error {
	if !r.metered {
		return nil
	}
	input, output = saturate(input), saturate(output)
	if r.bound && output >= r.output {
		if err := r.refusal(); err != nil {
			return err
		}
	}
	if plus(input, output) <= r.cap.Load() {
		return nil
	}
	return r.extend(plus(input, output))
}

// refusal says which budget did not leave more output; nil if those that did not only warn by now.
func (r *reservation) refusal() error {
	b := r.book
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.time()
	short := -1
	for i := range r.holds {
		c := r.holds[i].c
		if c.key.kind != tokens || c.enforced.rule == nil {
			continue
		}
		c.slide(now)
		if short < 0 || c.room(now) < r.holds[short].c.room(now) {
			short = i
		}
	}
	if short < 0 {
		return nil
	}
	c := r.holds[short].c
	return b.exceeded(r, c, r.least(c), now)
}

// extend grows the reservation to total tokens.
func (r *reservation) extend(total int64) error {
	b := r.book
	b.mu.Lock()
	defer b.mu.Unlock()
	need := total - r.granted
	if r.ended || need <= 0 {
		return nil
	}
	now := b.time()
	spare := need + extendChunk
	var short *counter
	for i := range r.holds {
		c := r.holds[i].c
		if c.key.kind != tokens {
			continue
		}
		c.slide(now)
		free := c.spendable(now)
		spare = min(spare, free)
		if free < need && (short == nil || c.room(now) < short.room(now)) {
			short = c
		}
	}
	if short != nil {
		return r.askMore(short, need, now)
	}
	r.granted += spare
	r.cap.Store(r.granted)
	for i := range r.holds {
		if c := r.holds[i].c; c.key.kind == tokens {
			r.holds[i].n += spare
			c.open += spare
			c.taken = plus(c.taken, spare)
			c.last = now
		}
	}
	return nil
}

// askMore has the store asked for more of a counter that leaves less than need, or says that there is no more. b.mu is held.
func (r *reservation) askMore(c *counter, need, now int64) error {
	b := r.book
	if r.asking != nil {
		select {
		case <-r.asking.done:
		default:
			return nil // it has not answered yet
		}
	}
	switch {
	case c.fresh(now, now) && c.room(now) < need:
		return b.exceeded(r, c, need, now)
	case b.closed:
		return unavailable(errClosed)
	case r.asking != nil && c.failure != nil:
		return unavailable(c.failure)
	}
	r.asking = b.want(r, need+extendChunk, now)
	b.wake()
	return nil
}

// unavailable is the end of an answer that nobody can say may go on.
func unavailable(err error) error {
	return &Exceeded{Code: "limits_unavailable", Message: err.Error() + "; try again", RetryAfter: endRetry, Header: http.Header{}}
}

// Settle charges what was used, to the time of now, and gives the rest back. An amount less than zero is unknown, and
// charged as it was reserved. More than was reserved is charged in full, even where that leaves the budget below zero.
func (r *reservation) Settle(input, output int64) {
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	reserved := r.granted - r.ask.Input
	if input < 0 {
		input = r.ask.Input
	}
	if output < 0 {
		output = reserved
	}
	r.end(plus(saturate(input), saturate(output)), false)
}

// Release gives everything back. The request does not count: it was refused before it went upstream.
func (r *reservation) Release() {
	r.book.mu.Lock()
	defer r.book.mu.Unlock()
	r.end(0, true)
}

// end gives back what is held and books what was used. b.mu is held.
func (r *reservation) end(used int64, void bool) {
	if r.ended {
		return
	}
	r.ended = true
	now := r.book.time()
	for _, h := range r.holds {
		c := h.c
		c.slide(now)
		c.refs--
		c.last = now
		switch c.key.kind {
		case requests:
			if void {
				c.pending.add(c.bucket(r.at), -1)
			}
			continue
		case tokens:
			c.pending.add(c.bucket(now), used)
		}
		c.open -= h.n
		r.book.watch(c, now)
	}
}
