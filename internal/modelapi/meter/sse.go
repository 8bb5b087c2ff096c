package meter

import "bytes"

const (
	maxHead   = 24 // bytes that tell the lines of an event apart
	dataField = "data:"
)

// lines reads an event stream line by line, in whatever pieces it comes.
type lines struct {
	inData bool // behind "data:"
	inRest bool // in a line that says nothing more
	head   [maxHead]byte
	n      int  // bytes of the line in head
	event  bool // a field of the current event has begun
	data   bool // a data line of it
}

// sse reads p. It marks where events begin and end.
func (m *Meter) sse(p []byte) {
	l := &m.lines
	for i := 0; i < len(p); {
		if !l.inData && !l.inRest {
			i = m.lineHead(p, i)
			continue
		}
		end := len(p)
		n := bytes.IndexByte(p[i:], '\n')
		if n >= 0 {
			end = i + n
		}
		if l.inData {
			m.payload(p[i:end], n >= 0)
		}
		if n >= 0 {
			l.inData, l.inRest, l.n = false, false, 0
			end++
		}
		i = end
	}
}

// lineHead reads the beginning of a line, until its kind is known.
func (m *Meter) lineHead(p []byte, i int) int {
	l := &m.lines
	if l.n == 0 {
		if c := p[i]; !l.event && c != ':' && c != '\r' && c != '\n' {
			l.event = true
			m.begin(i)
		}
		if len(p)-i >= len(dataField) && string(p[i:i+len(dataField)]) == dataField {
			m.beginData()
			return i + len(dataField)
		}
		if n := bytes.IndexByte(p[i:], '\n'); n >= 0 {
			m.fieldLine(p[i:i+n], i+n+1)
			return i + n + 1
		}
	}
	c := p[i]
	i++
	if c == '\n' {
		m.fieldLine(l.head[:l.n], i)
		l.n = 0
		return i
	}
	l.head[l.n] = c
	l.n++
	switch {
	case l.n == len(dataField) && string(l.head[:l.n]) == dataField:
		m.beginData()
	case l.n == maxHead, l.head[0] == ':':
		l.inRest = true
	}
	return i
}

func (m *Meter) beginData() {
	if m.lines.data {
		m.scanner.feed(newline) // lines of data are joined by it
	}
	m.lines.inData, m.lines.data = true, true
}

var newline = []byte("\n")

// fieldLine reads a line that is no data; behind it stands i. A blank one ends the event.
func (m *Meter) fieldLine(line []byte, i int) {
	l := &m.lines
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	switch {
	case len(line) == 0 && l.event:
		l.event, l.data = false, false
		m.end(i)
	case string(line) == "event: error" || string(line) == "event:error":
		m.scanner.ev.marks |= failed
	}
}
