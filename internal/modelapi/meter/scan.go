package meter

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// Bounds of what the scanner remembers.
const (
	maxDepth = 8   // containers gone into at once; no figure stands deeper
	maxKept  = 512 // bytes of a token that is kept; a longer one says nothing here
)

// scanner walks one JSON text that comes in pieces, and notes in ev what stands at the nodes. It is no validator: what
// it cannot follow it gives up, until the next reset. Names written with escapes are none of ours.
type scanner struct {
	ev     event
	counts *counts // takes each item of a list at the top

	state   state
	escaped bool // the next byte of the string is escaped
	node    node // of the value that is due or being read
	depth   int
	frames  [maxDepth]frame
	skipped int    // containers open that are not gone into
	size    int64  // bytes of the value so far, where they count
	kept    []byte // what came earlier of a token that was cut

	template template
}

// frame is a container gone into.
type frame struct {
	node node
	list bool
}

type state uint8

const (
	atValue   state = iota // a value is due, or a list's end
	atName                 // a name is due, or an object's end
	inName                 // a name was cut
	atColon                // after a name
	inString               // a string was cut
	inScalar               // a number or literal was cut
	inSkipped              // in a container that is not gone into
	inQuoted               // in a string there
	atNext                 // after a value
	ended                  // after the text
	lost                   // this is no JSON
)

func (s *scanner) reset() {
	s.state, s.node, s.depth, s.escaped = atValue, top, 0, false
	s.ev.reset()
}

func (s *scanner) feed(p []byte) {
	for i := 0; i < len(p); {
		switch s.state {
		case atName:
			i = s.name(p, i)
		case atNext:
			i = s.next(p, i)
		case atValue:
			i = s.value(p, i)
		case inString:
			i = s.string(p, i)
		case inSkipped:
			i = s.skip(p, i)
		case inQuoted:
			i = s.skipQuoted(p, i)
		case inScalar:
			i = s.scalar(p, i)
		case inName:
			i = s.cutName(p, i)
		case atColon:
			i = s.colon(p, i)
		case ended:
			if p[i] > ' ' {
				s.state = lost
			}
			i++
		default:
			return
		}
	}
}

// space moves over white space.
func space(p []byte, i int) int {
	for i < len(p) && p[i] <= ' ' {
		i++
	}
	return i
}

// name reads a name, and where it can the value behind it.
func (s *scanner) name(p []byte, i int) int {
	if i = space(p, i); i == len(p) {
		return i
	}
	switch p[i] {
	case '"':
	case '}':
		return s.close(i)
	default:
		s.state = lost
		return len(p)
	}
	i++
	n := firstQuote(p[i:])
	if n <= 0 || p[i+n-1] == '\\' {
		s.state, s.kept = inName, s.kept[:0]
		return s.cutName(p, i)
	}
	s.node = child(s.frames[s.depth-1].node, p[i:i+n])
	i += n + 1
	if i == len(p) || p[i] != ':' {
		s.state = atColon
		return i
	}
	s.state = atValue
	if i++; i == len(p) {
		return i
	}
	return s.value(p, i)
}

// cutName goes on with a name that does not stand in one piece.
func (s *scanner) cutName(p []byte, i int) int {
	end, whole := s.quote(p, i)
	if !whole {
		s.keep(p[i:end])
		return end
	}
	s.keep(p[i : end-1])
	s.node, s.state = child(s.frames[s.depth-1].node, s.kept), atColon
	return end
}

func (s *scanner) colon(p []byte, i int) int {
	if i = space(p, i); i == len(p) {
		return i
	}
	s.state = atValue
	if p[i] != ':' {
		s.state = lost
	}
	return i + 1
}

// value begins a value and, if it is no container, reads on.
func (s *scanner) value(p []byte, i int) int {
	if i = space(p, i); i == len(p) {
		return i
	}
	c := p[i]
	if c == ']' && s.depth > 0 && s.frames[s.depth-1].list {
		return s.close(i)
	}
	if s.node != none {
		s.ev.begin(s.node, c, s.depth)
	}
	switch c {
	case '"':
		s.state, s.size, s.kept = inString, 0, s.kept[:0]
		return s.string(p, i+1)
	case '{', '[':
		s.open(c == '[')
		return i + 1
	case ',', ':', '}', ']':
		s.state = lost
		return len(p)
	}
	s.state, s.kept = inScalar, s.kept[:0]
	return s.scalar(p, i)
}

// open goes into a container, or begins to skip it.
func (s *scanner) open(list bool) {
	inner, known := s.node, traits[s.node]&isObject != 0
	if list {
		inner, known = elements[s.node], elements[s.node] != none
	}
	if !known || s.depth == maxDepth {
		s.state, s.skipped, s.size = inSkipped, 1, 1
		return
	}
	s.frames[s.depth] = frame{inner, list}
	s.depth++
	s.state, s.node = atName, none
	if list {
		s.state, s.node = atValue, inner
	}
}

// close leaves the innermost container, whose end stands at i.
func (s *scanner) close(i int) int {
	s.depth--
	s.state = atNext
	switch {
	case s.depth == 0:
		s.state = ended
	case s.depth == 1 && s.frames[0] == frame{top, true}:
		s.counts.take(&s.ev)
		s.ev.nextItem()
	}
	return i + 1
}

// next reads what follows a value.
func (s *scanner) next(p []byte, i int) int {
	if i = space(p, i); i == len(p) {
		return i
	}
	f := s.frames[s.depth-1]
	switch c := p[i]; {
	case c == ',' && f.list:
		s.state, s.node = atValue, f.node
	case c == ',':
		s.state = atName
	case c == '}' && !f.list || c == ']' && f.list:
		return s.close(i)
	default:
		s.state = lost
	}
	return i + 1
}

// after is the state behind a value that is no container.
func (s *scanner) after() {
	s.state = atNext
	if s.depth == 0 {
		s.state = ended
	}
}

// string reads on in a string.
func (s *scanner) string(p []byte, i int) int {
	end, whole := s.quote(p, i)
	if s.node != none {
		s.readString(p[i:end], whole)
		if whole && (s.node == loose || traits[s.node]&isText != 0) {
			s.template.mayVary(s.node, false, i, end-1)
		}
	}
	if whole {
		s.after()
	}
	return end
}

// readString takes a piece of a string at a node; of the last one the closing quote is a part.
func (s *scanner) readString(piece []byte, whole bool) {
	if whole {
		piece = piece[:len(piece)-1]
	}
	s.size += int64(len(piece))
	t := traits[s.node]
	if t&isKept != 0 {
		if len(s.kept) > 0 || !whole {
			s.keep(piece)
			piece = s.kept
		}
		if whole && s.size <= maxKept {
			s.ev.string(s.node, piece)
		}
	}
	if whole && t&isText != 0 && s.size > 0 {
		s.ev.generated(s.node, s.size)
	}
}

// scalar reads on in a number or literal.
func (s *scanner) scalar(p []byte, i int) int {
	start := i
	for i < len(p) && !delimiter[p[i]] {
		i++
	}
	if s.node < firstNumber && s.node != loose {
		if i < len(p) {
			s.after()
		}
		return i
	}
	token := p[start:i]
	if len(token) > 0 && token[0] >= '0' && token[0] <= '9' {
		s.template.mayVary(s.node, true, start, i)
	}
	if len(s.kept) > 0 || i == len(p) {
		s.keep(token)
		token = s.kept
	}
	if i < len(p) {
		if s.node >= firstNumber {
			s.ev.number(s.node, token)
		}
		s.after()
	}
	return i
}

var delimiter = [256]bool{',': true, '}': true, ']': true, ' ': true, '\t': true, '\r': true, '\n': true}

// quote finds the end of a string: the index behind its closing quote, or whole is false and all of p belongs to it.
func (s *scanner) quote(p []byte, i int) (end int, whole bool) {
	if s.escaped && i < len(p) {
		s.escaped = false
		i++
	}
	if n := endOfString(p[i:]); n >= 0 {
		return i + n + 1, true
	}
	s.escaped = oddBackslashes(p[i:])
	return len(p), false
}

// endOfString finds the quote that is not escaped; -1 if there is none.
func endOfString(p []byte) int {
	for i := 0; ; {
		n := firstQuote(p[i:])
		if n < 0 {
			return -1
		}
		if !oddBackslashes(p[i : i+n]) {
			return i + n
		}
		i += n + 1
	}
}

func oddBackslashes(p []byte) bool {
	n := len(p)
	for n > 0 && p[n-1] == '\\' {
		n--
	}
	return (len(p)-n)%2 == 1
}

// skip moves on in a container that nobody looks into.
func (s *scanner) skip(p []byte, i int) int {
	start := i
	for i < len(p) && s.skipped > 0 && s.state == inSkipped {
		if i += structure(p[i:]); i == len(p) {
			break
		}
		switch p[i] {
		case '"':
			s.state = inQuoted
		case '{', '[':
			s.skipped++
		default:
			s.skipped--
		}
		i++
	}
	s.size += int64(i - start)
	if s.skipped == 0 {
		s.ev.container(s.node, s.size)
		s.after()
	}
	return i
}

func (s *scanner) skipQuoted(p []byte, i int) int {
	end, whole := s.quote(p, i)
	s.size += int64(end - i)
	if whole {
		s.state = inSkipped
	}
	return end
}

// firstQuote is bytes.IndexByte(p, '"') for strings that are short, as most are: a call costs more than two words.
func firstQuote(p []byte) int {
	const ones, highs, short = 0x0101010101010101, 0x8080808080808080, 32
	i := 0
	for ; i+8 <= len(p) && i < short; i += 8 {
		v := binary.LittleEndian.Uint64(p[i:]) ^ ones*'"'
		if found := (v - ones) &^ v & highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	n := bytes.IndexByte(p[i:], '"')
	if n < 0 {
		return -1
	}
	return i + n
}

// structure finds the first quote or bracket, eight bytes at a time; len(p) if there is none.
func structure(p []byte) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(p); i += 8 {
		v := binary.LittleEndian.Uint64(p[i:])
		quotes, w := v^ones*'"', v|ones*0x20 // brackets and braces differ in one bit
		opens, closes := w^ones*'{', w^ones*'}'
		// The lowest byte found is a true one; above it a borrow may lie.
		if found := ((quotes-ones)&^quotes | (opens-ones)&^opens | (closes-ones)&^closes) & highs; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; c == '"' || c|0x20 == '{' || c|0x20 == '}' {
			return i
		}
	}
	return i
}

// keep remembers a piece of a token that was cut, as long as it may still say something.
func (s *scanner) keep(piece []byte) {
	s.kept = append(s.kept, piece[:min(len(piece), maxKept+1-len(s.kept))]...)
}
