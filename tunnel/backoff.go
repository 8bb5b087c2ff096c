package tunnel

import (
	"math/rand/v2"
	"time"
)

const (
	backoffBase  = 250 * time.Millisecond // before the first second try
	backoffEarly = 4 * time.Second        // the ceiling of the first minute: a restart takes no longer
	backoffLate  = 15 * time.Second       // the ceiling after it
	backoffPhase = time.Minute
)

// A Backoff says how long to wait before the next try: uniformly up to a ceiling ("full jitter"), so that those who
// were cut off together do not come back together. The ceiling doubles from 250 ms to 4 s in the first minute, then to
// 15 s. The zero value is ready. One goroutine uses it.
type Backoff struct {
	Now  func() time.Time // nil is time.Now
	Rand func() float64   // in [0, 1); nil is the global source

	tries int
	since time.Time
}

// Next is how long to wait now.
func (b *Backoff) Next() time.Duration {
	now, random := time.Now, rand.Float64
	if b.Now != nil {
		now = b.Now
	}
	if b.Rand != nil {
		random = b.Rand
	}
	if b.tries == 0 {
		b.since = now()
	}
	ceiling := backoffEarly
	if now().Sub(b.since) >= backoffPhase {
		ceiling = backoffLate
	}
	wait := ceiling
	if b.tries < 10 {
		wait = min(ceiling, backoffBase<<b.tries)
	}
	b.tries++
	return time.Duration(random() * float64(wait))
}

// Reset begins anew, after a success.
func (b *Backoff) Reset() { b.tries = 0 }
