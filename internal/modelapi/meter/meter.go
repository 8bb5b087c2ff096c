package meter

import (
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"iap/internal/modelapi"
)

// Source says where a count came from, best first.
type Source string

// The sources.
const (
	Provider Source = "provider" // the server's own final figures
	Running  Source = "running"  // its running counters, from an answer that was cut
	Deltas   Source = "deltas"   // pieces of text counted, about one token each
	Estimate Source = "estimate" // bytes of text divided by four
	Unset    Source = ""         // nothing is known
)

// Usage is what one exchange cost. A count that is not known is -1, never 0. Source is that of Output; Input is known
// only where the server said it.
type Usage struct {
	Input, Output     int64 // tokens; Input includes Cached, Output includes Reasoning
	Cached, Reasoning int64
	Source            Source
}

// Meter counts one answer. It is for one goroutine.
type Meter struct {
	framing modelapi.Framing
	hides   bool // the usage chunk is taken out
	holds   bool // bytes may have to be held

	counts  counts
	scanner scanner
	lines   lines
	hold    hold
	piece   []byte // what Feed was given
	id      string
}

// New begins to count the answer to a request of class c, whose Framing is the one the answer really has. status and
// header are the answer's.
func New(c modelapi.Class, status int, header http.Header) *Meter {
	m := &Meter{framing: c.Framing, counts: newCounts(&c, status)}
	m.scanner.counts = &m.counts
	m.hides = c.HidesUsage && c.Framing == modelapi.SSE
	if status < http.StatusBadRequest {
		m.scanner.ev.wants = whereID(c.Hands, c.Framing)
	}
	m.holds = m.hides || m.scanner.ev.wants != none
	if m.counts.counted {
		// TGI says in the head what a plain answer cost.
		r := reading{headerCount(header, "X-Prompt-Tokens"), headerCount(header, "X-Generated-Tokens"), -1, -1}
		if r, ok := r.checked(); ok {
			m.counts.read(r, final, -1)
		}
	}
	if c.Framing == modelapi.JSON {
		m.begin(0)
	}
	return m
}

// whereID is the node at which an answer hands out an id of a kind.
func whereID(kind string, f modelapi.Framing) node {
	switch {
	case kind == modelapi.IDResponse && f == modelapi.SSE:
		return responseID
	case kind == modelapi.IDResponse && f == modelapi.JSON:
		return topID
	case kind == modelapi.IDSession && f == modelapi.JSON:
		return top
	}
	return none
}

func headerCount(h http.Header, name string) int64 {
	n, err := strconv.ParseInt(h.Get(name), 10, 64)
	if err != nil || n < 0 || n > maxCount {
		return -1
	}
	return n
}

// Feed takes the next bytes of the answer and returns those to pass on: the same slice, unless bytes are held or a
// usage chunk that the caller had not asked for is taken out. What it returns is valid until the next call.
func (m *Meter) Feed(p []byte) []byte {
	if m.holds {
		return m.feed(p)
	}
	m.read(p)
	return p
}

func (m *Meter) read(p []byte) {
	switch m.framing {
	case modelapi.SSE:
		m.sse(p)
	case modelapi.NDJSON:
		m.ndjson(p)
	case modelapi.JSON:
		m.payload(p, false)
	}
}

// payload reads bytes of the open message. ended says that they are its last, or the last of a line of it.
func (m *Meter) payload(p []byte, ended bool) {
	m.counts.bytes += int64(len(p))
	if ended {
		m.scanner.message(p)
		return
	}
	m.scanner.feed(p)
}

// Rest returns what Feed held back when the answer has ended by itself. After a cut it is best left: part of a message
// is of no use, and an error event could not follow it.
func (m *Meter) Rest() []byte {
	rest := m.hold.held
	m.hold.held = nil
	if m.isUsageChunk() {
		return nil
	}
	return rest
}

// Running is what is known so far, for a budget that runs out. It costs nothing.
func (m *Meter) Running() Usage { return m.counts.usage(false) }

// ID is the id that the answer hands out (Class.Hands), "" until it has been read, and for good if it could not be.
// Feed returns no byte of it before.
func (m *Meter) ID() string {
	if raw := m.scanner.ev.id; m.id == "" && len(raw) > 0 {
		quoted := append(append([]byte{'"'}, raw...), '"')
		if id, err := jsontext.AppendUnquote(nil, quoted); err == nil {
			m.id = string(id)
		}
	}
	return m.id
}

// Failed says that the answer carried an error in band.
func (m *Meter) Failed() bool { return (m.counts.marks|m.scanner.ev.marks)&failed != 0 }

// Finish gives the final count. whole says that the answer was not cut.
func (m *Meter) Finish(whole bool) Usage {
	if m.hold.open {
		m.hold.open = false
		m.counts.take(&m.scanner.ev)
	}
	return m.counts.usage(whole)
}
