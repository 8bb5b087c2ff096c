package tunnel

import (
	"errors"
	"net"
	"sync"
	"time"
)

// A frameWriter is the way out of a session. yamux hands it each frame as a header and a body; it joins them. A frame
// that comes alone is written at once, where it stands: handing it to another goroutine costs a quarter of the time of a
// token. Frames that come in a crowd gather while the flusher writes those before them, so that a burst leaves in one
// record and one system call.
type frameWriter struct {
	conn  net.Conn
	table *streamTable

	// Owned by yamux's send loop: the header whose body is still to come.
	head [frameHeaderBytes]byte
	body int // its size; 0 while a header is to come
	drop bool

	mu      sync.Mutex
	wake    sync.Cond // something to write, or the end
	room    sync.Cond // room in pending, or the end
	pending []byte    // whole frames; guarded by mu
	spare   []byte    // the other buffer; guarded by mu
	urgent  bool      // guarded by mu
	lazy    *time.Timer
	writing bool      // somebody writes, without the lock; guarded by mu
	wrote   time.Time // the end of the last write; guarded by mu
	crowd   int       // frames still left to the flusher; guarded by mu
	waiting bool      // the lazy timer runs; guarded by mu
	closing bool      // write what is there, then stop; guarded by mu
	err     error     // the end; guarded by mu

	done     chan struct{} // closed when the flusher has returned
	deadline time.Time     // owned by who writes
}

var errWriterClosed = errors.New("connection is closing")

func newFrameWriter(conn net.Conn, table *streamTable) *frameWriter {
	w := &frameWriter{conn: conn, table: table, done: make(chan struct{})}
	w.wake.L, w.room.L = &w.mu, &w.mu
	w.lazy = time.AfterFunc(time.Hour, w.hurry)
	w.lazy.Stop()
	go w.flush() // joined by close
	return w
}

// Write takes a frame's header or its body. Only yamux's send loop calls it.
func (w *frameWriter) Write(p []byte) (int, error) {
	if w.body > 0 {
		return w.writeBody(p)
	}
	if len(p) != frameHeaderBytes {
		return 0, violation("local frame out of step")
	}
	h, err := parseFrame(p)
	if err != nil {
		return 0, err
	}
	drop := w.table.sent(h)
	if n := h.body(); n > 0 {
		copy(w.head[:], p)
		w.body, w.drop = n, drop
		return len(p), nil
	}
	if drop {
		return len(p), nil
	}
	return len(p), w.enqueue(p, nil, h.urgent())
}

func (w *frameWriter) writeBody(p []byte) (int, error) {
	if len(p) != w.body {
		return 0, violation("local frame out of step")
	}
	w.body = 0
	if w.drop {
		return len(p), nil
	}
	return len(p), w.enqueue(w.head[:], p, true)
}

func (w *frameWriter) enqueue(head, body []byte, urgent bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) >= pendingBytes && w.err == nil {
		w.room.Wait()
	}
	if w.err != nil {
		return w.err
	}
	w.pending = append(append(w.pending, head...), body...)
	if urgent && !w.writing && !w.crowdedLocked() {
		w.urgent = false
		return w.writeLocked()
	}
	w.kickLocked(urgent)
	return nil
}

// crowdedLocked guesses whether more frames wait behind this one. yamux's send loop takes them one by one, so they show
// only in how soon after a write the next one comes.
func (w *frameWriter) crowdedLocked() bool {
	if w.crowd > 0 {
		w.crowd--
		return true
	}
	if time.Since(w.wrote) < crowdGap {
		w.crowd = crowdFrames
		return true
	}
	return false
}

// writeLocked writes what has gathered, without the lock, and takes it again.
func (w *frameWriter) writeLocked() error {
	full := w.pending
	w.pending, w.spare = w.spare[:0], nil
	w.writing = true
	w.room.Broadcast()
	w.mu.Unlock()
	err := w.writeOut(full)
	now := time.Now()
	w.mu.Lock()
	w.writing = false
	w.wrote = now
	w.spare = full[:0]
	if err != nil {
		w.failLocked(err)
		return err
	}
	if w.urgent || w.closing {
		w.wake.Signal()
	}
	return nil
}

func (w *frameWriter) kickLocked(urgent bool) {
	switch {
	case urgent && !w.urgent:
		w.urgent = true
		w.wake.Signal()
	case !urgent && !w.urgent && !w.waiting:
		w.waiting = true
		w.lazy.Reset(lazyFlush)
	}
}

// inject puts a whole frame between those of yamux. It never blocks; it reports false when so much has gathered that
// the session must end.
func (w *frameWriter) inject(h frameHeader) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.closing {
		return true
	}
	if len(w.pending) > pendingBytes+frameBytes+injectedBytes {
		return false
	}
	w.pending = h.append(w.pending)
	w.kickLocked(true)
	return true
}

func (w *frameWriter) hurry() {
	w.mu.Lock()
	w.waiting = false
	w.urgent = true
	w.wake.Signal()
	w.mu.Unlock()
}

// flush writes what has gathered, until close.
func (w *frameWriter) flush() {
	defer close(w.done)
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.err == nil && (w.writing || !w.urgent && !w.closing) {
			w.wake.Wait()
		}
		if w.err != nil || len(w.pending) == 0 && w.closing {
			return
		}
		w.urgent = false
		if len(w.pending) > 0 && w.writeLocked() != nil {
			return
		}
	}
}

func (w *frameWriter) writeOut(b []byte) error {
	for len(b) > 0 {
		now := time.Now()
		if w.deadline.Sub(now) < writeTimeout-time.Second {
			w.deadline = now.Add(writeTimeout)
			if err := w.conn.SetWriteDeadline(w.deadline); err != nil {
				return err
			}
		}
		n := min(len(b), writeChunk)
		if _, err := w.conn.Write(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (w *frameWriter) failLocked(err error) {
	if w.err == nil {
		w.err = err
	}
	w.wake.Broadcast()
	w.room.Broadcast()
}

// finish lets the flusher write what is there and stop; done tells when.
func (w *frameWriter) finish() {
	w.mu.Lock()
	w.closing = true
	w.wake.Broadcast()
	w.mu.Unlock()
}

// fail stops the flusher without another write. A write that is under way ends with the connection.
func (w *frameWriter) fail(err error) {
	w.mu.Lock()
	w.lazy.Stop()
	w.failLocked(err)
	w.mu.Unlock()
}

// failure is why the writer ended, or nil.
func (w *frameWriter) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
