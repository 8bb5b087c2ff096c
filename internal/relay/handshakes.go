package relay

import "sync"

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
