package tunnel

import (
	"sync/atomic"
	"time"
)

// A clock remembers when the last byte came: by the monotonic clock for judging the peer, which a corrected wall clock
// must not disturb, and by the wall clock for judging how long the machine may have slept.
type clock struct {
	base    time.Time
	mono    atomic.Int64 // nanoseconds since base
	wall    atomic.Int64 // Unix nanoseconds
	waiting atomic.Pointer[chan struct{}]
}

func (c *clock) init() {
	c.base = time.Now()
	c.heard()
}

// heard notes that bytes came.
func (c *clock) heard() {
	now := time.Now()
	c.mono.Store(int64(now.Sub(c.base)))
	c.wall.Store(now.UnixNano())
	if c.waiting.Load() != nil {
		if ch := c.waiting.Swap(nil); ch != nil {
			close(*ch)
		}
	}
}

func (c *clock) last() time.Time { return c.base.Add(time.Duration(c.mono.Load())) }

func (c *clock) lastWall() time.Time { return time.Unix(0, c.wall.Load()) }

// next is closed when bytes come from now on.
func (c *clock) next() <-chan struct{} {
	ch := make(chan struct{})
	for {
		if shared := c.waiting.Load(); shared != nil {
			return *shared
		}
		if c.waiting.CompareAndSwap(nil, &ch) {
			return ch
		}
	}
}
