package tunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// longAgo is a deadline that has passed.
var longAgo = time.Unix(1, 0)

// A Stream is one stream of a session: a net.Conn with three ends that cannot be confused. CloseWrite is a clean end of
// one direction, which the peer reads as io.EOF; Abort is an end with a reason, which both sides read as an *AbortError;
// and the death of the session reads as a *SessionError, never as io.EOF.
//
// Read and Write may be called concurrently with each other and with every other method.
type Stream struct {
	id       uint32
	session  *Session
	outbound bool
	done     chan struct{}

	// Guarded by the table's lock.
	acked   bool // the peer acknowledged our open
	finIn   bool // the peer's FIN arrived
	finOut  bool // our FIN left
	drained bool // the reader saw the end, or nobody reads any more
	over    bool // done is closed
	holds   int  // on the slot of an inbound stream
	credit  int64
	linger  *time.Timer
	cancel  context.CancelCauseFunc

	failure   atomic.Pointer[error] // why it is over; nil if it ended cleanly
	closed    atomic.Bool           // Close was called
	writeDone atomic.Bool           // CloseWrite was called

	deadlines     sync.Mutex
	mux           *yamux.Stream // guarded by deadlines until claimed, constant after
	interrupted   bool          // no more deadlines but the one in the past; guarded by deadlines
	readClosed    bool          // the same for reads alone; guarded by deadlines
	readDeadline  atomic.Int64  // Unix nanoseconds; 0 none
	writeDeadline atomic.Int64

	// One read at a time: two on a stream that the peer ended can lock each other out inside yamux 0.1.2, which takes
	// its two locks in either order, and with them the session's read loop.
	reading sync.Mutex

	readerMu sync.Mutex
	reader   *bufio.Reader // guarded by readerMu
	exported bool          // Reader handed it out; guarded by readerMu

	limited bool // LimitHead; owned by the one who reads
	budget  int  // what Reader may still take in; owned by the one who reads

	lastIn  uint64        // number of the last sealed header; owned by the one who reads headers, and answers them
	lastOut atomic.Uint64 // number of the last one that we sealed
}

// ID is the stream's number on its session. The opener's side decides whether it is odd.
func (st *Stream) ID() uint32 { return st.id }

// Session is the session that carries the stream.
func (st *Stream) Session() *Session { return st.session }

// LocalAddr is the session's local address.
func (st *Stream) LocalAddr() net.Addr { return st.session.conn.LocalAddr() }

// RemoteAddr is the session's remote address.
func (st *Stream) RemoteAddr() net.Addr { return st.session.conn.RemoteAddr() }

// Done is closed when the stream is over: aborted by either side, lost with its session, or ended cleanly in both
// directions with nothing left to read.
func (st *Stream) Done() <-chan struct{} { return st.done }

// Err is an *AbortError, a *SessionError, or nil while the stream lives or when it ended cleanly.
func (st *Stream) Err() error {
	if err := st.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// FinReceived reports whether the peer ended its direction cleanly. There may be bytes left to read.
func (st *Stream) FinReceived() bool {
	st.session.table.mu.Lock()
	defer st.session.table.mu.Unlock()
	return st.finIn
}

// Read reads what the peer wrote: io.EOF only after its FIN.
func (st *Stream) Read(p []byte) (int, error) {
	if n := st.readBuffered(p); n > 0 {
		return n, nil
	}
	return st.readMux(p)
}

// readBuffered takes what ReadHeader read ahead, and drops the buffer once it is empty: thousands of idle streams
// would hold one each.
func (st *Stream) readBuffered(p []byte) int {
	st.readerMu.Lock()
	defer st.readerMu.Unlock()
	if st.reader == nil {
		return 0
	}
	n := st.reader.Buffered()
	if n > 0 {
		n, _ = st.reader.Read(p[:min(n, len(p))])
	}
	if st.reader.Buffered() == 0 && !st.exported {
		st.session.readers.Put(st.reader)
		st.reader = nil
	}
	return n
}

func (st *Stream) readMux(p []byte) (int, error) {
	if st.closed.Load() {
		return 0, net.ErrClosed
	}
	if err := st.aborted(); err != nil {
		return 0, err
	}
	if passed(&st.readDeadline) {
		return 0, os.ErrDeadlineExceeded
	}
	st.reading.Lock()
	n, err := st.mux.Read(p)
	st.reading.Unlock()
	if err == nil || n > 0 {
		return n, nil
	}
	return 0, st.readError(err)
}

// readError says what an error of yamux means. An EOF without a FIN is a dead session.
func (st *Stream) readError(err error) error {
	if st.closed.Load() {
		return net.ErrClosed
	}
	if err := st.aborted(); err != nil {
		return err
	}
	if errors.Is(err, io.EOF) && st.reachedEnd() {
		return io.EOF
	}
	return st.muxError(err)
}

func (st *Stream) muxError(err error) error {
	if failure := st.Err(); failure != nil {
		return failure
	}
	switch {
	case errors.Is(err, yamux.ErrTimeout):
		return os.ErrDeadlineExceeded
	case errors.Is(err, yamux.ErrConnectionReset):
		return &AbortError{Code: CodeCanceled}
	}
	return st.session.await(err)
}

// reachedEnd notes that the reader saw the peer's FIN.
func (st *Stream) reachedEnd() bool {
	t := st.session.table
	t.mu.Lock()
	fin := st.finIn
	over := false
	if fin && !st.drained {
		st.drained = true
		over = t.settleLocked(st)
	}
	t.mu.Unlock()
	if over {
		st.ended()
	}
	return fin
}

func (st *Stream) aborted() error {
	err := st.failure.Load()
	if err == nil {
		return nil
	}
	if abort, ok := (*err).(*AbortError); ok { // stored by us, unwrapped
		return abort
	}
	return nil
}

// Write writes p in frames of at most 32 KiB. It returns once p is on its way to the connection, or after the
// deadline, an abort or the session's death.
func (st *Stream) Write(p []byte) (int, error) {
	total := 0
	for {
		if err := st.writable(); err != nil {
			return total, err
		}
		chunk := p[total:min(len(p), total+frameBytes)]
		n, err := st.mux.Write(chunk)
		total += n
		if err != nil {
			return total, st.writeError(err)
		}
		if total == len(p) {
			return total, nil
		}
	}
}

func (st *Stream) writable() error {
	if err := st.Err(); err != nil {
		return err
	}
	if st.writeDone.Load() {
		return net.ErrClosed
	}
	if passed(&st.writeDeadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (st *Stream) writeError(err error) error {
	if failure := st.Err(); failure != nil {
		return failure
	}
	if st.writeDone.Load() {
		return net.ErrClosed
	}
	return st.muxError(err)
}

// CloseWrite ends our direction: the peer reads io.EOF behind what was written. It is idempotent.
func (st *Stream) CloseWrite() error {
	if err := st.Err(); err != nil {
		return err
	}
	if st.writeDone.Swap(true) {
		return nil
	}
	st.mux.Close() // it never fails; what matters is below
	return st.Err()
}

// Close ends our direction as CloseWrite does and stops reading. What was written still reaches the peer; what it
// sends from now on is discarded, and after closeLinger without its FIN the stream is reset. To tell the peer to stop
// at once, Abort.
func (st *Stream) Close() error {
	if st.closed.Swap(true) {
		return nil
	}
	st.interruptRead()
	st.CloseWrite() // a stream that is over is closed
	t := st.session.table
	t.mu.Lock()
	st.drained = true
	over := t.settleLocked(st)
	if !st.over {
		st.linger = time.AfterFunc(closeLinger, func() { st.Abort(CodeCanceled) })
	}
	t.mu.Unlock()
	if over {
		st.ended()
	}
	return nil
}

// Abort ends both directions at once, for both sides, with a code. Blocked reads and writes return; what was not yet
// read is lost. It never blocks, and does nothing to a stream that is over.
func (st *Stream) Abort(code Code) {
	if code == CodeNone {
		code = CodeCanceled
	}
	s, t := st.session, st.session.table
	t.mu.Lock()
	if st.over {
		t.mu.Unlock()
		return
	}
	onWire, known := !st.finIn || !st.finOut, !st.outbound || st.acked
	t.finishLocked(st, &AbortError{Code: code})
	t.mu.Unlock()
	if onWire {
		if !s.writer.inject(frameHeader{kind: frameWindow, flags: flagRST, id: st.id, length: uint32(code)}) {
			s.fail(&SessionError{Code: CodeTimeout, Reason: "the peer does not read"})
		}
		s.reader.inject(frameHeader{kind: frameWindow, flags: resetFlags(known), id: st.id})
	}
	st.ended()
	st.interrupt()
}

// ended tells whoever waits. It runs once, without the table's lock.
func (st *Stream) ended() {
	t := st.session.table
	t.mu.Lock()
	cancel, linger := st.cancel, st.linger
	t.mu.Unlock()
	close(st.done)
	if linger != nil {
		linger.Stop()
	}
	if cancel != nil {
		cancel(st.Err())
	}
}

// onEnd makes cancel run when the stream is over, which may be now.
func (st *Stream) onEnd(cancel context.CancelCauseFunc) {
	t := st.session.table
	t.mu.Lock()
	over := st.over
	st.cancel = cancel
	t.mu.Unlock()
	if over {
		cancel(st.Err())
	}
}

// interrupt frees blocked reads and writes for good.
func (st *Stream) interrupt() {
	st.deadlines.Lock()
	defer st.deadlines.Unlock()
	st.interrupted = true
	if st.mux != nil {
		st.mux.SetDeadline(longAgo) // it never fails
	}
}

func (st *Stream) interruptRead() {
	st.deadlines.Lock()
	defer st.deadlines.Unlock()
	st.readClosed = true
	st.mux.SetReadDeadline(longAgo) // it never fails
}

// attach gives a claimed stream its yamux half.
func (st *Stream) attach(mux *yamux.Stream) {
	st.deadlines.Lock()
	defer st.deadlines.Unlock()
	st.mux = mux
	if st.interrupted {
		mux.SetDeadline(longAgo) // it never fails
	}
}

// SetDeadline sets both deadlines. A deadline in the past frees blocked calls; zero means none.
func (st *Stream) SetDeadline(at time.Time) error {
	st.SetReadDeadline(at) // it never fails
	return st.SetWriteDeadline(at)
}

// SetReadDeadline sets the deadline of present and future reads.
func (st *Stream) SetReadDeadline(at time.Time) error {
	st.deadlines.Lock()
	defer st.deadlines.Unlock()
	if st.interrupted || st.readClosed {
		return nil
	}
	keep(&st.readDeadline, at)
	return st.mux.SetReadDeadline(at)
}

// SetWriteDeadline sets the deadline of present and future writes. It bounds the wait for the peer to take the bytes; a
// connection that takes none dies by a deadline of its own.
func (st *Stream) SetWriteDeadline(at time.Time) error {
	st.deadlines.Lock()
	defer st.deadlines.Unlock()
	if st.interrupted {
		return nil
	}
	keep(&st.writeDeadline, at)
	return st.mux.SetWriteDeadline(at)
}

func keep(deadline *atomic.Int64, at time.Time) {
	if at.IsZero() {
		deadline.Store(0)
		return
	}
	deadline.Store(at.UnixNano())
}

func passed(deadline *atomic.Int64) bool {
	at := deadline.Load()
	return at != 0 && time.Now().UnixNano() >= at
}
