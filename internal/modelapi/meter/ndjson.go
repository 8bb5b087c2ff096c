package meter

import "bytes"

// ndjson reads p, of a stream in which each line is a message.
func (m *Meter) ndjson(p []byte) {
	for i := 0; i < len(p); {
		if !m.hold.open {
			m.begin(i)
		}
		n := bytes.IndexByte(p[i:], '\n')
		if n < 0 {
			m.payload(p[i:], false)
			return
		}
		m.payload(p[i:i+n], true)
		i += n + 1
		m.end(i)
	}
}
