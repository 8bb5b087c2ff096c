package load

import (
	"slices"
	"sync"
	"time"
)

// Spread is a distribution in microseconds.
type Spread struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_us"`
	P90   float64 `json:"p90_us"`
	P99   float64 `json:"p99_us"`
	Max   float64 `json:"max_us"`
}

// samples are durations of one goroutine; a collector gathers them.
type samples []time.Duration

func (s *samples) add(d time.Duration) { *s = append(*s, d) }

// spread sorts the samples.
func (s samples) spread() Spread {
	if len(s) == 0 {
		return Spread{}
	}
	slices.Sort(s)
	at := func(q float64) float64 { return float64(s[int(q*float64(len(s)-1))]) / float64(time.Microsecond) }
	return Spread{Count: len(s), P50: at(.5), P90: at(.9), P99: at(.99), Max: at(1)}
}

// collector gathers what many goroutines saw.
type collector struct {
	mu     sync.Mutex
	all    samples // guarded by mu, as is what follows
	failed int64
	first  error // first failure, as an example
}

func (c *collector) merge(s samples) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, s...)
}

func (c *collector) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed++; c.first == nil {
		c.first = err
	}
}
