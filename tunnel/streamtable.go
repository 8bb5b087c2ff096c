package tunnel

import (
	"sync"
	"time"
)

// A streamTable knows what the frames of a session say about its streams, before yamux does on the way in and after it
// on the way out. It is where a Stream begins and ends.
type streamTable struct {
	session *Session
	client  bool // opens odd ids

	mu         sync.Mutex
	streams    map[uint32]*Stream // that are not over; guarded by mu
	unclaimed  map[uint32]*Stream // that wait for Open or for the accept loop; guarded by mu
	open       int                // streams without the control stream; guarded by mu
	inbound    int                // slots taken by the peer's streams and their handlers; guarded by mu
	maxInbound int
	draining   bool          // refuse what the peer opens; guarded by mu
	idle       chan struct{} // closed when open falls to 0; nil while nobody waits; guarded by mu
	lost       *SessionError // guarded by mu
	junk       bucket        // guarded by mu
}

func newStreamTable(s *Session, client bool, maxInbound int) *streamTable {
	return &streamTable{
		session: s, client: client, maxInbound: maxInbound,
		streams: make(map[uint32]*Stream), unclaimed: make(map[uint32]*Stream),
		junk: bucket{burst: junkBurst, perSecond: junkPerSecond},
	}
}

// controlID is the stream of the control messages: the first that the client opens.
const controlID = 1

// sent notes a frame of our own and reports whether to drop it: its stream is over.
func (t *streamTable) sent(h frameHeader) (drop bool) {
	if h.kind >= framePing {
		return false
	}
	t.mu.Lock()
	if h.has(flagSYN) {
		t.addLocked(h.id, true)
		t.mu.Unlock()
		return false
	}
	st := t.streams[h.id]
	if st == nil || st.finIn && st.finOut {
		t.mu.Unlock()
		return true
	}
	if h.kind == frameData {
		st.credit -= int64(h.length)
	}
	over := false
	if h.has(flagFIN) {
		st.finOut = true
		over = t.settleLocked(st)
	}
	t.mu.Unlock()
	if over {
		st.ended()
	}
	return false
}

func (t *streamTable) addLocked(id uint32, outbound bool) *Stream {
	st := &Stream{id: id, session: t.session, outbound: outbound, credit: windowLeast, done: make(chan struct{})}
	t.streams[id], t.unclaimed[id] = st, st
	if id != controlID {
		t.open++
		if !outbound {
			t.inbound++
			st.holds = 2
		}
	}
	return st
}

// claim hands out the stream that a frame began, once.
func (t *streamTable) claim(id uint32) *Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	st := t.unclaimed[id]
	delete(t.unclaimed, id)
	return st
}

// received judges a frame of the peer: whether yamux gets it, and in h what yamux gets.
func (t *streamTable) received(h *frameHeader) (pass bool, err error) {
	switch {
	case h.kind == frameGoAway:
		return true, nil
	case h.kind == framePing:
		return false, t.receivedPing(*h)
	case h.has(flagSYN):
		return t.receivedOpen(h)
	}
	t.mu.Lock()
	st := t.streams[h.id]
	if st == nil {
		// Of a stream that is over here; the peer cannot know yet.
		err := t.junkLocked(*h)
		t.mu.Unlock()
		return false, err
	}
	pass, over, err := t.receivedLocked(st, h)
	t.mu.Unlock()
	if over {
		st.ended()
	}
	return pass, err
}

func (t *streamTable) receivedLocked(st *Stream, h *frameHeader) (pass, over bool, err error) {
	closed := st.finIn && st.finOut // yamux has forgotten it
	unread := st.outbound && !st.acked && !h.has(flagACK)
	if known := !st.outbound || st.acked; known && h.has(flagACK) {
		return false, false, violation("second acknowledgement")
	} else if !known {
		// yamux forgets to acknowledge what ended before it was accepted, and leaves an entry behind here where it
		// misses an acknowledgement. Any frame is one.
		h.flags |= flagACK
		t.acknowledgeLocked(st)
	}
	if h.has(flagRST) {
		code := Code(h.length)
		if code == CodeNone {
			code = CodeCanceled
		}
		h.length = 0
		unread = unread && (code == CodeRelayShutdown || code == CodeTooManyStreams) // what refusalLocked says of its own
		t.finishLocked(st, &AbortError{Code: code, Remote: true, Unread: unread})
		return !closed, true, nil
	}
	switch {
	case st.finIn && (h.has(flagFIN) || h.body() > 0):
		return false, false, violation("frame after the end")
	case h.kind == frameWindow:
		if st.credit += int64(h.length); st.credit > windowMost {
			return false, false, violation("window beyond the largest")
		}
	}
	if err := t.junkLocked(*h); err != nil {
		return false, false, err
	}
	if h.has(flagFIN) {
		st.finIn = true
		over = t.settleLocked(st)
	}
	if h.body() > 0 && h.flags == 0 && st.closed.Load() {
		return false, over, nil // nobody reads it: it would only take memory
	}
	return !closed, over, nil
}

// resetFlags adds an acknowledgement where yamux still awaits one, since its RST alone leaves an entry behind.
func resetFlags(known bool) uint16 {
	if known {
		return flagRST
	}
	return flagRST | flagACK
}

// junkLocked counts frames that say nothing.
func (t *streamTable) junkLocked(h frameHeader) error {
	if h.length != 0 || h.flags != 0 {
		return nil
	}
	return t.countJunkLocked()
}

func (t *streamTable) countJunkLocked() error {
	if !t.junk.take(time.Now()) {
		return violation("flood of empty frames")
	}
	return nil
}

// receivedPing answers here, within the budget: yamux would start a goroutine for each.
func (t *streamTable) receivedPing(h frameHeader) error {
	t.mu.Lock()
	err := t.countJunkLocked()
	t.mu.Unlock()
	if err == nil && h.has(flagSYN) {
		t.session.writer.inject(frameHeader{kind: framePing, flags: flagACK, length: h.length})
	}
	return err
}

func (t *streamTable) receivedOpen(h *frameHeader) (pass bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	peerIsOdd := !t.client
	if (h.id%2 == 1) != peerIsOdd {
		return false, violation("stream id of the wrong side")
	}
	if t.streams[h.id] != nil || t.unclaimed[h.id] != nil {
		return false, violation("stream opened twice")
	}
	if !t.client && !t.session.hasControl {
		if h.id != controlID {
			return false, violation("first stream is not the control stream")
		}
		t.session.hasControl = true
	} else if refusal := t.refusalLocked(); refusal != CodeNone {
		if !t.session.writer.inject(frameHeader{kind: frameWindow, flags: flagRST, id: h.id, length: uint32(refusal)}) {
			return false, violation("flood of refused streams")
		}
		return false, nil
	}
	st := t.addLocked(h.id, false)
	if h.kind == frameWindow {
		st.credit += int64(h.length)
	}
	return true, nil
}

func (t *streamTable) refusalLocked() Code {
	switch {
	case t.draining:
		return CodeRelayShutdown
	case t.maxInbound == 0:
		return CodeRefused
	case t.inbound >= t.maxInbound:
		return CodeTooManyStreams
	}
	return CodeNone
}

// settleLocked ends a stream whose two directions ended and whose reader knows it.
func (t *streamTable) settleLocked(st *Stream) bool {
	if st.over || !st.finIn || !st.finOut || !st.drained {
		return false
	}
	t.finishLocked(st, nil)
	return true
}

// finishLocked ends a stream. The caller calls st.ended once the lock is free.
func (t *streamTable) finishLocked(st *Stream, err error) {
	if st.over {
		return
	}
	st.over = true
	if err != nil {
		st.failure.Store(&err)
	}
	delete(t.streams, st.id)
	t.acknowledgeLocked(st)
	if st.id == controlID {
		return
	}
	t.releaseLocked(st)
	t.open--
	if t.open == 0 && t.idle != nil {
		close(t.idle)
		t.idle = nil
	}
}

// acknowledgeLocked frees the place that an open takes until the peer has seen it, or it is over.
func (t *streamTable) acknowledgeLocked(st *Stream) {
	if st.outbound && !st.acked && st.id != controlID {
		t.session.opened()
	}
	st.acked = true
}

// releaseLocked gives back one of the two holds on an inbound stream's slot: the wire's and the handler's.
func (t *streamTable) releaseLocked(st *Stream) {
	if st.outbound {
		return
	}
	if st.holds--; st.holds == 0 {
		t.inbound--
	}
}

func (t *streamTable) release(st *Stream) {
	t.mu.Lock()
	t.releaseLocked(st)
	t.mu.Unlock()
}

// lose ends every stream of a dead session.
func (t *streamTable) lose(err *SessionError) {
	t.mu.Lock()
	if t.lost == nil {
		t.lost = err
	}
	all := make([]*Stream, 0, len(t.streams))
	for _, st := range t.streams {
		if st.id == controlID {
			continue
		}
		all = append(all, st)
	}
	for _, st := range all {
		t.finishLocked(st, t.lost)
	}
	t.mu.Unlock()
	for _, st := range all {
		st.ended()
		st.interrupt()
	}
}

// abortInbound aborts what the peer opened.
func (t *streamTable) abortInbound(code Code) {
	t.mu.Lock()
	var all []*Stream
	for _, st := range t.streams {
		if !st.outbound && st.id != controlID {
			all = append(all, st)
		}
	}
	t.mu.Unlock()
	for _, st := range all {
		st.Abort(code)
	}
}

func (t *streamTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// whenIdle is closed once no stream is open.
func (t *streamTable) whenIdle() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == 0 {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	return t.idle
}
