package meter

// maxHeld bounds what is held of one message.
const maxHeld = 64 << 10

// hold is what Feed gives back, where that may be less than what it was given.
type hold struct {
	open    bool // a message has begun and not ended
	gaveUp  bool // it was too long to be held
	held    []byte
	from    int    // bytes of this call before it are dealt with
	start   int    // where in this call the open message begins
	first   []byte // the one piece to give back
	several []byte // more than one, joined
}

// pass adds a piece to what is given back.
func (h *hold) pass(piece []byte) {
	switch {
	case len(piece) == 0:
	case len(h.first) == 0 && len(h.several) == 0:
		h.first = piece
	default:
		if len(h.several) == 0 {
			h.several = append(h.several, h.first...)
		}
		h.several = append(h.several, piece...)
	}
}

// release gives back what was held. It is copied: what is held next takes its place.
func (h *hold) release() {
	if len(h.held) > 0 {
		h.several = append(h.several, h.held...)
		h.held = h.held[:0]
	}
}

func (h *hold) result() []byte {
	if len(h.several) > 0 {
		return h.several
	}
	return h.first
}

// feed is Feed where bytes may have to be held.
func (m *Meter) feed(p []byte) []byte {
	h := &m.hold
	h.from, h.start, h.first, h.several = 0, 0, nil, h.several[:0]
	m.piece = p
	m.read(p)
	if h.open && m.undecided() {
		h.pass(p[h.from:h.start])
		h.from = h.start
		if len(h.held)+len(p)-h.from <= maxHeld {
			h.held = append(h.held, p[h.from:]...)
			return h.result()
		}
		h.gaveUp, m.scanner.ev.wants = true, none
	}
	h.release()
	h.pass(p[h.from:])
	return h.result()
}

// begin notes that a message begins at i.
func (m *Meter) begin(i int) {
	m.hold.open, m.hold.gaveUp, m.hold.start = true, false, i
	m.scanner.reset()
}

// end notes that the open message ended before i.
func (m *Meter) end(i int) {
	m.counts.take(&m.scanner.ev)
	m.counts.items = 0
	h := &m.hold
	h.open = false
	if !m.holds {
		return
	}
	if m.isUsageChunk() {
		h.pass(m.piece[h.from:h.start])
		h.held, h.from = h.held[:0], i
		return
	}
	h.release()
}

// undecided says that the open message, as far as it was read, must not be passed on.
func (m *Meter) undecided() bool {
	if m.hold.gaveUp {
		return false
	}
	if m.scanner.ev.wants != none && m.scanner.state < ended {
		return true
	}
	return m.mayBeUsageChunk()
}

// mayBeUsageChunk says that nothing read of the open message speaks against it.
func (m *Meter) mayBeUsageChunk() bool {
	const against = notObject | otherChoice | filled | usageNull | failed
	s := &m.scanner
	return m.hides && s.ev.marks&against == 0 && s.state < ended || m.isUsageChunk()
}

// isUsageChunk says that the open message is the chunk of usage that the caller had not asked for.
func (m *Meter) isUsageChunk() bool {
	const needed, against = listed | usageGiven, notObject | otherChoice | filled | usageNull | failed
	s := &m.scanner
	return m.hides && !m.hold.gaveUp && s.state == ended && s.ev.marks&(needed|against) == needed
}
