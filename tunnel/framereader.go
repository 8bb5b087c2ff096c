package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// A frameReader is the way into a session. It reads the connection, judges each frame at its boundary, keeps from yamux
// what yamux must not see, and puts resets of our own between two frames.
type frameReader struct {
	conn  net.Conn
	table *streamTable
	heard func() // called for each read that brought bytes

	// Owned by yamux's read loop.
	buf     []byte
	r, w    int
	out     []byte // what is left of a header to hand on
	outBuf  [frameHeaderBytes]byte
	body    int  // what is left of the current frame's body
	swallow bool // the body is not for yamux
	err     error

	has      atomic.Bool // injected is not empty
	mu       sync.Mutex
	injected []frameHeader // guarded by mu
	woken    bool          // a read was cut short by a deadline in the past; guarded by mu
	closed   bool          // guarded by mu
}

func newFrameReader(conn net.Conn, table *streamTable, heard func()) *frameReader {
	return &frameReader{conn: conn, table: table, heard: heard, buf: make([]byte, readBytes)}
}

// Read gives yamux whole headers and bodies, in order. Only yamux's read loop calls it.
func (f *frameReader) Read(p []byte) (int, error) {
	for f.err == nil {
		n := f.drain(p)
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		if f.err == nil {
			f.err = f.fill()
		}
	}
	return 0, f.err
}

// drain copies what can be had without the connection, up to the first frame that breaks the protocol.
func (f *frameReader) drain(p []byte) (n int) {
	for n < len(p) {
		if len(f.out) > 0 {
			k := copy(p[n:], f.out)
			f.out, n = f.out[k:], n+k
			continue
		}
		if f.body > 0 {
			k := min(f.w-f.r, f.body)
			if k == 0 {
				return n
			}
			if !f.swallow {
				k = copy(p[n:], f.buf[f.r:f.r+k])
				n += k
			}
			f.r, f.body = f.r+k, f.body-k
			continue
		}
		if f.has.Load() && f.takeInjected() {
			continue
		}
		if f.w-f.r < frameHeaderBytes {
			return n
		}
		if f.err = f.next(); f.err != nil {
			return n
		}
	}
	return n
}

// next judges the frame that begins at r.
func (f *frameReader) next() error {
	h, err := parseFrame(f.buf[f.r:])
	if err != nil {
		return err
	}
	f.r += frameHeaderBytes
	f.body = h.body()
	pass, err := f.table.received(&h)
	if err != nil {
		return err
	}
	f.swallow = !pass
	if pass {
		h.put(f.outBuf[:])
		f.out = f.outBuf[:]
	}
	return nil
}

func (f *frameReader) takeInjected() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calmLocked()
	if len(f.injected) == 0 {
		f.has.Store(false)
		return false
	}
	f.injected[0].put(f.outBuf[:])
	f.out = f.outBuf[:]
	f.injected = f.injected[1:]
	if len(f.injected) == 0 {
		f.injected = nil
		f.has.Store(false)
	}
	return true
}

// calmLocked takes back the deadline that woke the reader.
func (f *frameReader) calmLocked() {
	if f.woken && !f.closed {
		f.woken = false
		f.conn.SetReadDeadline(time.Time{}) // a broken connection shows in the next read
	}
}

// fill reads once. A read that was cut short to make way for an injected frame is no error: crypto/tls keeps what it
// has of a record when a deadline passes.
func (f *frameReader) fill() error {
	f.w = copy(f.buf, f.buf[f.r:f.w]) // less than a header
	f.r = 0
	n, err := f.conn.Read(f.buf[f.w:])
	if n > 0 {
		f.w += n
		f.heard()
		return nil
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.closed || !f.woken {
			return err
		}
		f.calmLocked()
		return nil
	case errors.Is(err, io.EOF) && (f.body > 0 || f.r < f.w):
		return io.ErrUnexpectedEOF
	}
	return err
}

// inject puts a frame in front of the next one from the peer and wakes the reader. It never blocks.
func (f *frameReader) inject(h frameHeader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.injected = append(f.injected, h)
	f.has.Store(true)
	if !f.woken && !f.closed {
		f.woken = true
		f.conn.SetReadDeadline(longAgo) // a broken connection wakes the reader by itself
	}
}

// close leaves the deadline alone from here on.
func (f *frameReader) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
}

// failure is why reading ended. Only for after yamux's read loop has returned.
func (f *frameReader) failure() error { return f.err }
