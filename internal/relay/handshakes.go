package relay

import (
	"sync"
	"time"
)

// handshakes counts connections that have not authenticated: they may take
// memory and time, so they are few, and fewer from one address.
type handshakes struct {
	most, perSource int

	mu    sync.Mutex
	all   int            // guarded by mu
	bySrc map[string]int // guarded by mu
}

func newHandshakes(most, perSource int) *handshakes {
	return &handshakes{most: most, perSource: perSource, bySrc: map[string]int{}}
}

func (h *handshakes) begin(source string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= h.most || h.bySrc[source] >= h.perSource {
		return false
	}
	h.all++
	h.bySrc[source]++
	return true
}

func (h *handshakes) end(source string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all--
	if h.bySrc[source]--; h.bySrc[source] == 0 {
		delete(h.bySrc, source)
	}
}

const (
	joinTries   = 10          // failed tries to join, by source
	loginTries  = 240         // sessions opened, by principal: a CI identity opens two for each of many jobs
	tryWindow   = time.Minute // in which they count
	maxAttempts = 16 << 10    // names remembered; beyond it the memory starts anew
)

// attempts counts by name what is bounded in a window of time. The zero value is
// ready.
type attempts struct {
	mu    sync.Mutex
	begun time.Time      // guarded by mu
	count map[string]int // guarded by mu; since begun
}

// allowed reports whether the source may try to join.
func (a *attempts) allowed(source string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(now)
	return a.count[source] < joinTries
}

func (a *attempts) fail(source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[source]++
}

// allow counts a session of the principal, or refuses it.
func (a *attempts) allow(principal string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(now)
	if a.count[principal] >= loginTries {
		return false
	}
	a.count[principal]++
	return true
}

// turn begins a new window when the old one is over. mu is held.
func (a *attempts) turn(now time.Time) {
	if a.count == nil || now.Sub(a.begun) >= tryWindow || len(a.count) >= maxAttempts {
		a.begun, a.count = now, map[string]int{}
	}
}
