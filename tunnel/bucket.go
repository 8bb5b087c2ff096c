package tunnel

import "time"

// A bucket allows a burst and a rate after it. Its owner locks it.
type bucket struct {
	burst, perSecond float64
	level            float64 // what was taken and has not run off
	last             time.Time
}

func (b *bucket) take(now time.Time) bool {
	if b.level > 0 {
		b.level = max(0, b.level-now.Sub(b.last).Seconds()*b.perSecond)
	}
	b.last = now
	if b.level+1 > b.burst {
		return false
	}
	b.level++
	return true
}
