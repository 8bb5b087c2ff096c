package limit

import "math"

// noLimit stands for the amount of a counter that refuses nothing; sums below it cannot overflow.
const noLimit = int64(1) << 61

// mark is a limit that a counter is held against, with the rule it comes from.
type mark struct {
	rule *Rule // nil: none
	n    int64
}

// counter is this relay's side of one counter. All of it is guarded by Book.mu.
//
// What the relay may spend by itself is its lease less what is open, pending or on its way to the store. What the whole
// fleet has used is the stored charges, the others' leases and our own open and pending amounts.
type counter struct {
	key      counterKey
	id       string
	width    int64 // of a bucket, nanoseconds; 0 for slots
	enforced mark  // of the last request
	warned   mark  // of the last request
	notices  [2][2]int64

	// The store's item as last read or written.
	known   bool  // it has been read
	stale   bool  // it may have changed: read it before the next write
	version int64 // 0: there is none
	stored  ring
	others  []lease // of other holders, those of zero included until they expire
	checked int64   // when this was last certain

	// Our lease, as the store has it.
	seq   int64
	lease int64
	until int64

	// What we have done with it.
	open    int64    // reserved, not yet settled
	pending ring     // settled, not yet on its way
	sent    *attempt // on its way, or of unknown outcome

	// What we shall want of it.
	wanted  int64 // by requests that wait for the store
	taken   int64 // since the last look at demand
	demand  int64 // how much is taken between two writes
	last    int64 // when something was last taken or settled
	look    bool  // read it in the next round even if nothing is to be written
	clear   bool  // forget all charges in the next round
	mend    bool  // times of a clock ahead of ours were read: write them as we take them, or they would be ahead for ever
	queued  bool  // it is in the next round
	refs    int   // reservations that point here
	failure error // of the last round
}

// attempt is a write that has not come back, or not with a certain outcome.
type attempt struct {
	seq       int64
	charges   ring  // out of pending
	lease     int64 // after it
	returning int64 // how much less may be spent from now on
	stored    ring
	others    []lease
	notices   [2][2]int64
	until     int64
	at        int64
	wanted    int64
	cleared   bool
	mended    bool
}

// limit is what the counter is held to.
func (c *counter) limit() int64 {
	if c.enforced.rule == nil {
		return noLimit
	}
	return c.enforced.n
}

func (c *counter) bucket(now int64) int64 {
	if c.width == 0 {
		return 0
	}
	return now / c.width
}

// slide moves the window to now.
func (c *counter) slide(now int64) {
	if c.width == 0 {
		return
	}
	current := now / c.width
	c.stored.slide(current)
	c.pending.slide(current)
	// What is on its way stays as it was written until that has come back: it is the store's to let it slide.
}

// free is what may be spent without asking the store; less than zero if more was used than is leased. An expired lease
// is nobody's: another relay may be booking it.
func (c *counter) free(now int64) int64 {
	n := c.lease - c.open - c.pending.sum
	if c.sent != nil {
		n -= c.sent.charges.sum + c.sent.returning
	}
	if now >= c.until {
		return min(n, 0)
	}
	return n
}

// spendable is what a request can have without asking the store. The lease alone would say, were it not that the limit
// may have been lowered since, or an upstream have used too much.
func (c *counter) spendable(now int64) int64 {
	if c.enforced.rule == nil {
		return noLimit
	}
	return min(c.free(now), c.room(now))
}

// charged is what has been used and settled, as far as we know.
func (c *counter) charged() int64 {
	n := c.stored.sum + c.pending.sum
	if c.sent != nil {
		n += c.sent.charges.sum
	}
	return n
}

// held is what other relays hold leased.
func (c *counter) held(now int64) int64 {
	n := int64(0)
	for _, l := range c.others {
		if l.Until > now || c.width != 0 { // an expired lease is a charge that nobody has booked yet; a slot is free
			n += l.N
		}
	}
	return n
}

// room is what all relays together may still use, as far as we know; less than zero after an upstream used too much.
func (c *counter) room(now int64) int64 {
	return c.limit() - c.charged() - c.open - c.held(now)
}

// fresh says that room can be believed: it was looked at just now, or in any case since.
func (c *counter) fresh(now, since int64) bool {
	return c.known && !c.stale && (now-c.checked < int64(refusalAge) || c.checked >= since)
}

// idle says that nothing is going on and nothing would be lost with the counter.
func (c *counter) idle(now int64) bool {
	return c.refs == 0 && c.open == 0 && c.lease == 0 && len(c.pending.list) == 0 && c.sent == nil && !c.queued &&
		!c.clear && !c.mend && now-c.last >= int64(idleAfter)
}

// busy says that a round may have something to write.
func (c *counter) busy() bool {
	return c.lease > 0 || c.open > 0 || len(c.pending.list) > 0 || c.sent != nil || c.clear || c.mend
}

// whenFree returns when need will fit and how much will be free then. Without an ok it does not fit before something
// that is now running ends; the time is then that of the last charge, now if there is none.
func (c *counter) whenFree(need, now int64) (at, room int64, ok bool) {
	all := c.stored.clone()
	for _, charge := range c.pending.list {
		all.add(charge.Bucket, charge.N)
	}
	if c.sent != nil {
		for _, charge := range c.sent.charges.list {
			all.add(charge.Bucket, charge.N)
		}
	}
	room, at = c.room(now), now
	if room >= need {
		return at, room, true
	}
	for _, charge := range all.list {
		room += charge.N
		at = max(at, freeAt(charge.Bucket, c.width))
		if room >= need {
			return at, room, true
		}
	}
	return at, room, false
}

// clears is when all that is used now will have come free, if nothing more is used.
func (c *counter) clears(now int64) int64 {
	if c.width == 0 {
		return now
	}
	if c.open > 0 || c.held(now) > 0 {
		return freeAt(c.bucket(now), c.width)
	}
	at := now
	for _, r := range []ring{c.stored, c.pending} {
		if n := len(r.list); n > 0 {
			at = max(at, freeAt(r.list[n-1].Bucket, c.width))
		}
	}
	if c.sent != nil {
		if n := len(c.sent.charges.list); n > 0 {
			at = max(at, freeAt(c.sent.charges.list[n-1].Bucket, c.width))
		}
	}
	return at
}

// saturate keeps an amount within what sums can bear.
func saturate(n int64) int64 { return min(max(n, 0), maxAmount) }

// plus adds two amounts within those bounds.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return maxAmount
	}
	return saturate(a + b)
}
