package meter

import "bytes"

const (
	maxTemplate = 4 << 10 // bytes of a message that the next ones are compared with
	maxHoles    = 8       // values in it that may change
)

// template is a message that was read in full. The messages of a stream are alike but for the text and perhaps a
// counter: one that has the same bytes around its holes says the same, and need not be read again.
type template struct {
	line   []byte // empty if there is none
	said   event
	holes  [maxHoles]hole
	n      int
	active bool // the message being read becomes the template
}

// hole is a value of line that may change: a text that is only measured, a number, a string nobody reads.
type hole struct {
	node       node
	number     bool
	start, end int // in the template's line, without quotes
	size       int // of the text when it was last read
}

// message reads a message that stands in one piece: by the template if it can.
func (s *scanner) message(line []byte) {
	t := &s.template
	if s.state != atValue || s.depth > 0 || s.ev.marks != 0 || s.ev.wants != none || len(line) > maxTemplate {
		s.feed(line)
		return
	}
	if t.matches(line) {
		s.state = ended
		s.ev.marks, s.ev.pieces, s.ev.text, s.ev.whole, s.ev.ids = t.said.marks, t.said.pieces, t.said.text, t.said.whole, t.said.ids
		if s.ev.seen = t.said.seen; s.ev.seen != 0 {
			s.ev.numbers = t.said.numbers
		}
		return
	}
	t.n, t.active = 0, true
	s.feed(line)
	t.active = false
	t.line = t.line[:0]
	if s.state == ended && s.ev.marks&(isList|wrong) == 0 {
		t.line = append(t.line, line...)
		t.said = s.ev
	}
}

// matches says that line is like the template, and brings what that said up to date. If it is not, the template is
// half overwritten and of no more use.
func (t *template) matches(line []byte) bool {
	if len(t.line) == 0 {
		return false
	}
	at, i := 0, 0 // in the template, in line
	for k := range t.holes[:t.n] {
		h := &t.holes[k]
		fixed := t.line[at:h.start]
		if len(line)-i < len(fixed) || !bytes.Equal(line[i:i+len(fixed)], fixed) {
			return false
		}
		i += len(fixed)
		end := h.fill(&t.said, line, i)
		if end < 0 {
			return false
		}
		at, i = h.end, end
	}
	return bytes.Equal(line[i:], t.line[at:])
}

// fill reads the hole's value in line at i, and returns its end; -1 if it is of another kind.
func (h *hole) fill(said *event, line []byte, i int) int {
	if h.number {
		end := i
		for end < len(line) && line[end] >= '0' && line[end] <= '9' {
			end++
		}
		if end == i || end == len(line) || !delimiter[line[end]] {
			return -1
		}
		if h.node >= firstNumber {
			said.number(h.node, line[i:end])
		}
		if said.marks&wrong != 0 {
			return -1
		}
		return end
	}
	n := endOfString(line[i:])
	if n < 0 {
		return -1
	}
	if h.node != loose {
		said.exchange(h.node, int64(h.size), int64(n))
		h.size = n
	}
	return i + n
}

// mayVary makes the value at n, from start to end of the line being read, a hole.
func (t *template) mayVary(n node, number bool, start, end int) {
	if t.active && t.n < maxHoles {
		t.holes[t.n] = hole{n, number, start, end, end - start}
		t.n++
	}
}
