package agent

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

// masked is the body of an answer in which the upstream's own key, should it
// echo that, reads as asterisks. Headers that hold it are dropped.
func (u *upstream) masked(response *http.Response) io.Reader {
	key := u.cfg.apiKey
	if key == "" {
		return response.Body
	}
	for name, values := range response.Header {
		for _, value := range values {
			if strings.Contains(value, key) {
				delete(response.Header, name)
			}
		}
	}
	return newMaskReader(response.Body, key)
}

// maskReader replaces each key in what it reads by asterisks, as many. Bytes
// that may be the beginning of one wait for those that follow.
type maskReader struct {
	r      io.Reader
	key    []byte
	buffer []byte
	ready  []byte // of buffer: may go out
	held   []byte // of buffer, behind ready: may begin a key
	err    error  // of r
}

func newMaskReader(r io.Reader, key string) *maskReader {
	return &maskReader{r: r, key: []byte(key), buffer: make([]byte, tokenBytes+len(key))}
}

func (m *maskReader) Read(p []byte) (int, error) {
	for len(m.ready) == 0 {
		if m.err != nil {
			return 0, m.err
		}
		m.fill()
	}
	n := copy(p, m.ready)
	m.ready = m.ready[n:]
	return n, nil
}

func (m *maskReader) fill() {
	kept := copy(m.buffer, m.held)
	n, err := m.r.Read(m.buffer[kept:])
	whole := m.buffer[:kept+n]
	rest := whole
	for i := bytes.Index(rest, m.key); i >= 0; i = bytes.Index(rest, m.key) {
		copy(rest[i:], strings.Repeat("*", len(m.key)))
		rest = rest[i+len(m.key):]
	}
	hold := 0
	if err == nil {
		hold = m.beginning(rest)
	}
	m.ready, m.held, m.err = whole[:len(whole)-hold], whole[len(whole)-hold:], err
}

// beginning is how many bytes at the end of p may begin a key.
func (m *maskReader) beginning(p []byte) int {
	for n := min(len(m.key)-1, len(p)); n > 0; n-- {
		if bytes.HasSuffix(p, m.key[:n]) {
			return n
		}
	}
	return 0
}
