package meter

// event is what one message of an answer said: an SSE event, an NDJSON line, a plain answer, or one item of a list.
type event struct {
	numbers [nodes - firstNumber]int64
	seen    uint32 // which numbers were given
	marks   marks
	pieces  int64 // texts that were generated, as tokens
	text    int64 // their bytes
	whole   int64 // bytes of texts that a stream repeats
	ids     int64 // bytes of tokens by number

	wants node   // where the id stands that is looked for; none if it is known or not wanted
	id    []byte // the string found there, as it stands
}

// marks are the things a message says by having them.
type marks uint16

const (
	notObject   marks = 1 << iota // the message is no object
	isList                        // it is a list
	listed                        // it has a list of choices
	filled                        // with something in it
	several                       // with more than one
	otherChoice                   // what it calls choices is no list
	usageGiven                    // a usage object at the top
	usageNull                     // something else there
	known                         // a place for text, if only an empty one
	final                         // the figures are those of a complete answer
	failed                        // an error
	byTime                        // the server counts seconds
	wrong                         // a figure that is none
)

const (
	// What no count of tokens goes beyond.
	maxCount  = 1_000_000_000_000
	maxDigits = 13

	// The most bytes that are one token: of a text, a word or a run of spaces; of a tool call, its id, its name and the
	// braces around a word.
	longToken = 32
	longCall  = 384
)

func (e *event) reset() {
	e.seen, e.marks, e.pieces, e.text, e.whole, e.ids = 0, 0, 0, 0, 0, 0
}

// nextItem makes room for another item of the same list.
func (e *event) nextItem() {
	kept := e.marks & (notObject | isList)
	e.reset()
	e.marks = kept
}

// begin notes that a value begins at n with the byte c, inside of depth containers.
func (e *event) begin(n node, c byte, depth int) {
	switch {
	case n >= firstNumber:
		if (c < '0' || c > '9') && c != 'n' {
			e.marks |= wrong
		}
	case traits[n]&isText != 0:
		e.marks |= known
	case n == choice:
		if e.marks&filled != 0 {
			e.marks |= several
		}
		e.marks |= filled
	case n == choices && c == '[':
		e.marks |= listed
	case n == choices:
		e.marks |= otherChoice
	case n == usage && depth == 1 && c == '{':
		e.marks |= usageGiven
	case n == usage && depth == 1:
		e.marks |= usageNull
	case n == failure && (c == '{' || c == '"' || c == '['):
		e.marks |= failed
	case n == finish && (c == '"' || c == '{'), n == last && c == 't':
		e.marks |= final
	case n == timed:
		e.marks |= byTime
	case n == top && depth == 0 && c != '{':
		e.marks |= notObject
		if c == '[' {
			e.marks |= isList
		}
	}
}

// generated notes a text of size bytes.
func (e *event) generated(n node, size int64) { e.exchange(n, 0, size) }

// exchange puts a text of one size in the place of one of another.
func (e *event) exchange(n node, before, now int64) {
	if n == whole {
		e.whole += now - before
		return
	}
	e.text += now - before
	e.pieces += pieceTokens(now, longToken) - pieceTokens(before, longToken)
}

// pieceTokens is what a piece of a stream counts: one token, unless it is longer than one can be. Servers send several
// at once: a tool call when it is whole, what was held back for a stop string, what a caller's setting has put together.
func pieceTokens(size, longest int64) int64 {
	if size > longest {
		return inTokens(size)
	}
	return min(size, 1)
}

// container notes a container at n that nobody looked into, of size bytes with its brackets.
func (e *event) container(n node, size int64) {
	const empty = len("[]")
	switch {
	case size <= int64(empty):
	case n == ids:
		e.ids += size
	case traits[n]&isText != 0:
		e.text += size
		e.pieces += pieceTokens(size, longCall)
	}
}

// string notes a string, raw as it stood between its quotes.
func (e *event) string(n node, raw []byte) {
	if n == kind {
		switch string(raw) {
		case "error":
			e.marks |= failed
		case "response.failed":
			e.marks |= failed | final
		case "response.completed", "response.incomplete":
			e.marks |= final
		}
	}
	if n == e.wants && e.marks&isList == 0 && len(raw) > 0 {
		e.id, e.wants = append(e.id[:0], raw...), none
	}
}

// number notes a number that begins with a digit, or null.
func (e *event) number(n node, token []byte) {
	if string(token) == "null" {
		return
	}
	if len(token) > maxDigits || token[0] == '0' && len(token) > 1 {
		e.marks |= wrong
		return
	}
	var value int64
	for _, c := range token {
		if c < '0' || c > '9' {
			e.marks |= wrong
			return
		}
		value = value*10 + int64(c-'0')
	}
	if value > maxCount {
		e.marks |= wrong
		return
	}
	e.numbers[n-firstNumber] = value
	e.seen |= 1 << (n - firstNumber)
}

func (e *event) has(n node) bool { return e.seen&(1<<(n-firstNumber)) != 0 }

// get is the number at n; -1 if none was given.
func (e *event) get(n node) int64 {
	if !e.has(n) {
		return -1
	}
	return e.numbers[n-firstNumber]
}
