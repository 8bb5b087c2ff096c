package audit

import (
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// line is one record being encoded. Everything but its first fields is written outside the log's lock; what only the
// lock's holder knows (seq, time, mono) is put into the headroom before it.
type line struct {
	buf      []byte
	identity [2]int    // the fields from request to binding, each with a comma before it
	at       time.Time // the event's own time; zero: the log's
}

const headroom = 128 // `{"v":1,"seq":…,"time":"…","mono":…` with the longest numbers is shorter

// encode writes the event behind the headroom.
func (n *line) encode(e *Event) {
	n.at = e.Time
	if y := n.at.UTC().Year(); y < 1 || y > 9999 {
		n.at = time.Time{} // RFC 3339 has no such year
	}
	n.begin(e.Kind)
	n.identity[0] = len(n.buf)
	n.text("request", e.Request, shortText)
	n.text("session", e.Session, shortText)
	n.text("principal", e.Principal, shortText)
	n.text("issuer", e.Issuer, shortText)
	n.text("agent", e.Agent, shortText)
	n.text("resource", e.Resource, shortText)
	n.text("action", e.Action, shortText)
	n.text("model", e.Model, shortText)
	n.text("grant", e.Grant, shortText)
	n.text("via", e.Via, shortText)
	n.text("source", e.Source, shortText)
	n.text("binding", e.Binding, shortText)
	n.identity[1] = len(n.buf)
	n.text("subject", e.Subject, shortText)
	n.text("facts", e.Facts, factsText)
	n.text("method", e.Method, shortText)
	n.text("path", e.Path, longText)
	n.text("decision", e.Decision, shortText)
	n.text("reason", e.Reason, shortText)
	n.text("revision", e.Revision, shortText)
	n.text("message", e.Message, longText)
	n.number("status", int64(e.Status))
	n.number("bytes_in", e.BytesIn)
	n.number("bytes_out", e.BytesOut)
	n.number("ttft_ms", e.TTFTMs)
	n.number("duration_ms", e.DurationMs)
	n.number("tokens_in", e.TokensIn)
	n.number("tokens_out", e.TokensOut)
	n.text("usage", e.Usage, shortText)
	n.text("ended", e.Ended, shortText)
	n.number("count", e.Count)
	n.details(e.Detail)
	n.end()
}

func (n *line) begin(kind string) {
	if cap(n.buf) < headroom {
		n.buf = make([]byte, headroom, 1024)
	}
	n.buf = n.buf[:headroom]
	n.buf = append(n.buf, `,"kind":`...)
	n.buf = appendText(n.buf, kind, shortText)
}

func (n *line) end() { n.buf = append(n.buf, "}\n"...) }

// seal completes the record and returns its bytes, which are valid until the line is used again.
func (n *line) seal(seq uint64, at time.Time, mono int64) []byte {
	var room [headroom]byte
	b := append(room[:0], `{"v":1,"seq":`...)
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, `,"time":"`...)
	b = at.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","mono":`...)
	b = strconv.AppendInt(b, mono, 10)
	start := headroom - len(b)
	copy(n.buf[start:], b)
	return n.buf[start:]
}

func (n *line) text(name, value string, limit int) {
	if value == "" {
		return
	}
	n.name(name)
	n.buf = appendText(n.buf, value, limit)
}

func (n *line) number(name string, value int64) {
	if value == 0 {
		return
	}
	n.name(name)
	n.buf = strconv.AppendInt(n.buf, value, 10)
}

func (n *line) name(name string) {
	n.buf = append(n.buf, ',', '"')
	n.buf = append(n.buf, name...)
	n.buf = append(n.buf, '"', ':')
}

// details writes the first maxDetails entries in the order of their names.
func (n *line) details(detail map[string]string) {
	if len(detail) == 0 {
		return
	}
	var few [maxDetails]string
	names := few[:0]
	for name := range detail {
		names = append(names, name)
	}
	slices.Sort(names)
	n.buf = append(n.buf, `,"detail":{`...)
	for i, name := range names[:min(len(names), maxDetails)] {
		if i > 0 {
			n.buf = append(n.buf, ',')
		}
		n.detailName(i, name)
		n.buf = appendText(n.buf, detail[name], shortText)
	}
	n.buf = append(n.buf, '}')
}

// detailName writes a name that is unique in the record, or readers would refuse it as a duplicate: one that is not
// written exactly as it is gets its index before it.
func (n *line) detailName(i int, name string) {
	if !plainName(name) {
		name = strconv.Itoa(i) + ":" + name
	}
	n.buf = appendText(n.buf, name, detailName)
	n.buf = append(n.buf, ':')
}

// plainName says whether a name needs neither cutting nor escaping and cannot be mistaken for one with an index.
func plainName(name string) bool {
	if name == "" || len(name) > detailName || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// appendText appends s as a JSON string of at most limit bytes between its quotes. What is cut ends in "…". Only
// characters that print stand as they are; controls, format characters (which reorder a terminal's text) and invalid
// UTF-8 do not reach the file.
func appendText(b []byte, s string, limit int) []byte {
	b = append(b, '"')
	start := len(b)
	whole := start // where the text could be cut so that "…" still fits
	for i := 0; i < len(s); {
		if len(b)-start <= limit-len("…") {
			whole = len(b)
		}
		if c := s[i]; c < utf8.RuneSelf {
			b = appendASCII(b, c)
			i++
		} else {
			r, size := utf8.DecodeRuneInString(s[i:])
			b = appendRune(b, r)
			i += size
		}
		if len(b)-start > limit {
			b = append(b[:whole], "…"...)
			break
		}
	}
	return append(b, '"')
}

const hex = "0123456789abcdef"

func appendASCII(b []byte, c byte) []byte {
	switch {
	case c == '"' || c == '\\':
		return append(b, '\\', c)
	case c == '\n':
		return append(b, '\\', 'n')
	case c < ' ' || c == 0x7f:
		return append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
	}
	return append(b, c)
}

func appendRune(b []byte, r rune) []byte {
	switch {
	case unicode.IsGraphic(r): // also what stands for invalid UTF-8, U+FFFD
		return utf8.AppendRune(b, r)
	case r > 0xffff:
		high, low := utf16.EncodeRune(r)
		return appendEscape(appendEscape(b, high), low)
	}
	return appendEscape(b, r)
}

func appendEscape(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
}
