package sink

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a message.
const (
	minMessage     = 2 << 10 // room for the longest header; what every receiver over TLS must take (RFC 5425, 4.3.1)
	defaultMessage = 8 << 10 // what it should take, and what rsyslog takes without being told to
	defaultPacket  = 2 << 10 // what a receiver over UDP should take (RFC 5426, 3.2)
	maxMessage     = 64 << 10

	facility     = 13 // log audit
	maxParam     = 128
	maxSequence  = 1<<31 - 1 // RFC 5424, 7.3.1
	maxSoftware  = 32        // bytes of swVersion: 7.2.3
	byteOrder    = "\ufeff"
	cutMark      = "…"
	structuredID = "iap@32473" // the enterprise number that is set aside for those who have none: RFC 5612
)

// syslogWriter makes messages of RFC 5424. It is one goroutine's.
type syslogWriter struct {
	host, instance, origin, version string
	most                            int // bytes of a message
	buf                             []byte
}

// message encodes a record; the result is valid until the next call. The line stands in it as it is, behind a byte order
// mark if it is more than ASCII, as section 6.4 asks. One that does not fit ends in "…", and the parameter cut says how
// long it is in the file.
func (w *syslogWriter) message(r record) []byte {
	b := append(w.buf[:0], '<')
	b = strconv.AppendInt(b, int64(facility*8+severityOf(&r.event).syslog), 10)
	b = append(b, ">1 "...)
	if r.event.Time.IsZero() {
		b = append(b, '-')
	} else {
		b = r.event.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z") // no more digits are allowed
	}
	for _, field := range []struct {
		text string
		most int
	}{{w.host, 255}, {"iap-relay", 48}, {w.instance, 128}, {r.event.Kind, 32}} {
		b = appendName(append(b, ' '), field.text, field.most)
	}
	head := len(b)
	b = w.appendData(b, r, 0)
	line, marked := r.line, hasControls(r.line)
	if marked {
		line = withoutControls(line)
	}
	bom := ""
	if !isASCII(line) {
		bom = byteOrder
	}
	if len(b)+1+len(bom)+len(line) <= w.most {
		w.buf = append(append(append(b, ' '), bom...), line...)
		return w.buf
	}
	b = w.appendData(b[:head], r, len(r.line))
	b = append(append(b, ' '), byteOrder...)
	whole := max(w.most-len(b)-len(cutMark), 0)
	for whole > 0 && !utf8.RuneStart(line[whole]) {
		whole--
	}
	w.buf = append(append(b, line[:whole]...), cutMark...)
	return w.buf
}

// appendData adds what receivers can search without parsing JSON: a number by which they find out what is missing, and who
// and what the record is about.
func (w *syslogWriter) appendData(b []byte, r record, cut int) []byte {
	b = append(b, ` [meta sequenceId="`...)
	b = strconv.AppendUint(b, (r.seq-1)%maxSequence+1, 10)
	b = append(b, `"][origin software="iap-relay"`...)
	b = appendParam(b, "swVersion", w.version, maxSoftware)
	b = append(b, "]["+structuredID...)
	b = appendParam(b, "log", w.origin, 2*maxParam)
	b = appendParam(b, "seq", strconv.FormatUint(r.seq, 10), maxParam)
	e := &r.event
	for _, p := range [][2]string{
		{"request", e.Request}, {"principal", e.Principal}, {"resource", e.Resource}, {"action", e.Action}, {"decision", e.Decision}, {"reason", e.Reason},
	} {
		b = appendParam(b, p[0], p[1], maxParam)
	}
	if cut > 0 {
		b = appendParam(b, "cut", strconv.Itoa(cut), maxParam)
	}
	return append(b, ']')
}

// appendParam adds a parameter of structured data, if it has a value. What ends a value is escaped (6.3.3), and what does
// not print is replaced: a receiver may write it into a file, a line each.
func appendParam(b []byte, name, value string, most int) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, ' '), name...), `="`...)
	begin := len(b)
	for _, c := range value {
		if len(b)-begin > most-2*utf8.UTFMax {
			b = append(b, cutMark...)
			break
		}
		switch {
		case c == '"' || c == '\\' || c == ']':
			b = append(b, '\\', byte(c))
		case unicode.IsGraphic(c):
			b = utf8.AppendRune(b, c)
		default:
			b = utf8.AppendRune(b, utf8.RuneError)
		}
	}
	return append(b, '"')
}

// appendName adds a field of the header: printing ASCII without spaces, or a dash.
func appendName(b []byte, text string, most int) []byte {
	if text == "" || len(text) > most || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return append(b, '-')
	}
	return append(b, text...)
}

// hasControls says whether a line has characters that could end it for somebody. Ours have none; a log that somebody else
// has written to may.
func hasControls(line []byte) bool {
	for _, c := range line {
		if c < ' ' || c == 0x7f {
			return true
		}
	}
	return false
}

func withoutControls(line []byte) []byte {
	clean := make([]byte, len(line))
	for i, c := range line {
		if c < ' ' || c == 0x7f {
			c = ' '
		}
		clean[i] = c
	}
	return clean
}

func isASCII(line []byte) bool {
	for _, c := range line {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
