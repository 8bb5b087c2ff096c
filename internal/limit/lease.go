package limit

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"iap/internal/state"
)

// absorb takes over what the store has of the counter. found is false if it has nothing.
func (c *counter) absorb(rec record, version int64, found bool, me lease, now int64) {
	mine := slices.IndexFunc(rec.Leases, func(l lease) bool { return l.Holder == me.Holder && l.Generation == me.Generation })
	switch {
	case c.sent != nil && mine >= 0 && rec.Leases[mine].Seq == c.sent.seq:
		c.commit() // the write whose outcome was unknown has happened
	case c.sent != nil:
		c.rollback()
	}
	switch {
	case mine >= 0:
		c.adopt(rec.Leases[mine])
	case found && c.lease > 0:
		// Ours expired and was booked as used. What we had used of it is thereby paid.
		c.pending.forgive(c.lease)
		c.lease = 0
	default:
		c.lease = 0
	}
	c.stored = ring{}
	for _, charge := range rec.Charges {
		c.stored.add(charge.Bucket, charge.N)
		c.mend = c.mend || charge.Bucket > c.bucket(now)
	}
	c.others = c.others[:0]
	for i, l := range rec.Leases {
		switch {
		case i == mine:
		case l.Holder == me.Holder && l.Generation < me.Generation:
			c.book(l, now) // this relay's, before it started anew
		default:
			if latest := now + int64(leaseTime); l.Until > latest {
				l.Until, c.mend = latest, true
			}
			c.others = append(c.others, l)
		}
	}
	for i := range c.notices {
		for j := range c.notices[i] {
			c.notices[i][j] = max(c.notices[i][j], min(rec.Noticed[i][j], now))
		}
	}
	c.version, c.known, c.stale, c.look, c.checked, c.failure = version, true, false, false, now, nil
	c.slide(now)
}

// adopt takes our own entry as the store has it. The counter may have been out of memory since it was written, but not
// with a lease; should there be one, it is booked as used rather than spent twice.
func (c *counter) adopt(l lease) {
	if c.seq == 0 {
		c.lease, c.until = l.N, l.Until
		if c.width != 0 {
			c.pending.add(c.bucket(l.Until), l.N)
		}
	}
	c.seq = l.Seq
}

// book turns a lease into a charge: its holder has ended without a word, and may have used all of it. Slots come back.
func (c *counter) book(l lease, now int64) {
	if c.width != 0 {
		c.stored.add(c.bucket(min(l.Until, now)), l.N)
	}
}

// expire books the leases of others that have run out.
func (c *counter) expire(now int64) {
	c.others = slices.DeleteFunc(c.others, func(l lease) bool {
		if l.Until > now {
			return false
		}
		c.book(l, now)
		return true
	})
}

// plan makes the counter's next write, nil if there is nothing to write. It moves the pending charges into it.
func (c *counter) plan(now int64, closing bool) *attempt {
	c.slide(now)
	c.expire(now)
	if c.clear {
		c.stored, c.pending, c.notices = ring{}, ring{}, [2][2]int64{}
	}
	a := &attempt{
		seq: c.seq + 1, charges: c.pending, wanted: c.wanted, cleared: c.clear, mended: c.mend,
		at: now, until: now + int64(leaseTime), others: c.others, notices: c.notices,
	}
	a.stored = c.stored.clone()
	a.stored.addAll(a.charges)
	// What is open must stay leased, also if an upstream used more than there was.
	base := max(c.lease-a.charges.sum, c.open)
	free := base - c.open
	pool := free + c.limit() - a.stored.sum - c.held(now) - base
	kept := c.keep(free, max(0, pool), now, closing)
	a.lease = c.open + kept
	a.returning = max(0, free-kept)
	renew := a.lease > 0 && c.until-now < int64(renewBefore)
	if len(a.charges.list) == 0 && a.lease == c.lease && !renew && !a.cleared && !a.mended {
		return nil
	}
	c.pending, c.sent, c.clear, c.mend = ring{}, a, false, false
	return a
}

// keep says how much the relay should hold free after a write: nothing beyond what is needed when the budget is small or
// other relays share it, so that none finds the budget hoarded, and enough for twice the recent demand when there is
// plenty, so that no request waits. free is held now, pool is all that may be held.
func (c *counter) keep(free, pool, now int64, closing bool) int64 {
	wanted := c.wanted
	c.wanted = 0
	if closing || c.enforced.rule == nil {
		return 0
	}
	if wanted > free {
		c.demand, c.taken = min(2*(c.demand+c.taken), maxAmount), 0
		if wanted >= pool {
			return pool
		}
		return wanted + min(c.demand, (pool-wanted)/poolShare)
	}
	if now-c.last >= int64(idleAfter) {
		c.demand, c.taken = 0, 0
		return 0
	}
	c.demand, c.taken = max(c.taken, c.demand/2), 0
	target := max(min(2*c.demand, pool/poolShare), min(wanted, pool))
	switch {
	case free < target/2:
		return target
	case free <= target:
		return min(free, pool)
	case len(c.others) > 0:
		return target
	}
	return max(target, min(free, pool/2)) // alone, as far as we know
}

// commit takes note that the write on its way has happened.
func (c *counter) commit() {
	a := c.sent
	c.seq, c.lease, c.until = a.seq, a.lease, a.until
	c.stored, c.others, c.checked = a.stored, a.others, a.at
	c.sent, c.known, c.failure = nil, true, nil
}

// rollback takes note that it has not.
func (c *counter) rollback() {
	for _, charge := range c.sent.charges.list {
		c.pending.add(charge.Bucket, charge.N)
	}
	c.wanted += c.sent.wanted
	c.clear = c.clear || c.sent.cleared
	c.mend = c.mend || c.sent.mended
	c.sent = nil
}

// write encodes what plan has made.
func (c *counter) write(a *attempt, me lease) (state.Write, error) {
	me.Seq, me.N, me.Until = a.seq, a.lease, a.until
	rec := record{
		Grant: c.key.grant, Per: c.key.per, Who: c.key.who, Kind: c.key.kind,
		Charges: a.stored.list, Leases: append(slices.Clone(a.others), me), Noticed: a.notices,
	}
	if c.key.window > 0 {
		rec.Window = shortDuration(c.key.window)
	}
	value, err := json.Marshal(rec)
	if err != nil {
		return state.Write{}, fmt.Errorf("encode counter: %w", err)
	}
	return state.Write{Key: c.id, Version: c.version, Value: value, Expires: c.expires(a)}, nil
}

// expires is when nothing of the written item counts any longer.
func (c *counter) expires(a *attempt) time.Time {
	end := a.until
	for _, l := range a.others {
		end = max(end, l.Until)
	}
	if c.width != 0 {
		end = freeAt(c.bucket(end), c.width)
	}
	return time.Unix(0, end).Add(expirySlack)
}
