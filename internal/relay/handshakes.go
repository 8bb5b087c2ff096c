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
	joinTries   = 10          // failed tries to join from one source in joinWindow
	joinWindow  = time.Minute // then it has to wait
	joinSources = 4096        // remembered; beyond it the memory starts anew
)

// attempts counts failures by source. The zero value is ready.
type attempts struct {
	mu     sync.Mutex
	begun  time.Time      // guarded by mu
	failed map[string]int // guarded by mu; since begun
}

// allowed reports whether the source may try.
func (a *attempts) allowed(source string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failed == nil || now.Sub(a.begun) >= joinWindow || len(a.failed) >= joinSources {
		a.begun, a.failed = now, map[string]int{}
	}
	return a.failed[source] < joinTries
}

func (a *attempts) fail(source string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed[source]++
}
