package tunnel

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// A HalfConn is a connection whose two directions end one by one, and which can end with a reason. *Stream is one, TCP
// makes one.
type HalfConn interface {
	io.Reader
	io.Writer
	// CloseWrite ends our direction cleanly.
	CloseWrite() error
	// Abort ends both at once and frees blocked reads and writes. It does not block.
	Abort(code Code)
}

// TCP makes c a HalfConn. Abort resets the connection (SO_LINGER 0), so that the far end cannot take it for a clean end.
func TCP(c *net.TCPConn) HalfConn { return tcpHalf{c} }

type tcpHalf struct{ *net.TCPConn }

func (h tcpHalf) Abort(Code) {
	h.SetLinger(0) // a closed connection is aborted
	h.Close()      // the same
}

// Spliced counts the bytes that were handed on.
type Spliced struct{ AToB, BToA int64 }

// Splice copies in both directions until both have ended. The clean end of a direction is handed on as one. An error in
// either direction, or the end of ctx, aborts both sides: with the code that the failing side gave, or with
// CodeUpstreamReset, or with the code in ctx's cause, or CodeCanceled. Nothing is left running when it returns; the
// caller closes a and b.
func Splice(ctx context.Context, a, b HalfConn) (Spliced, error) {
	p := &splicePair{a: a, b: b}
	stop := context.AfterFunc(ctx, func() { p.fail(context.Cause(ctx), CodeCanceled) })
	defer stop()
	var other sync.WaitGroup
	var n Spliced
	other.Go(func() { n.BToA = p.copy(a, b) })
	n.AToB = p.copy(b, a)
	other.Wait()
	if err := p.failure.Load(); err != nil {
		return n, *err
	}
	return n, nil
}

type splicePair struct {
	a, b    HalfConn
	failure atomic.Pointer[error]
}

// fail aborts both sides, once.
func (p *splicePair) fail(err error, otherwise Code) {
	if !p.failure.CompareAndSwap(nil, &err) {
		return
	}
	code := CodeOf(err)
	if code == CodeNone {
		code = otherwise
	}
	p.a.Abort(code)
	p.b.Abort(code)
}

// copy is one direction.
func (p *splicePair) copy(dst, src HalfConn) int64 {
	n, err := pump(dst, src)
	if err == nil {
		err = dst.CloseWrite()
	}
	if err != nil {
		p.fail(err, CodeUpstreamReset)
	}
	return n
}

const (
	// pumpIdle is the buffer of a direction that waits: most requests and tokens fit in.
	pumpIdle = 4 << 10
	// pumpBusy is the buffer of a direction that flows: one frame.
	pumpBusy = frameBytes
)

// busyBuffers are shared by all splices of the process; they hold nothing between two uses.
var busyBuffers = sync.Pool{New: func() any { return new([pumpBusy]byte) }}

// A waiter can wait for bytes without a buffer to put them in.
type waiter interface{ waitReadable() error }

// pump copies until src ends. Thousands of directions wait at any time, so a waiting one holds a small buffer, or none,
// and takes a large one from the pool only while bytes flow.
func pump(dst io.Writer, src io.Reader) (total int64, err error) {
	if w, ok := src.(waiter); ok {
		return pumpWaiting(dst, src, w)
	}
	small := make([]byte, pumpIdle)
	for {
		n, err := src.Read(small)
		if n > 0 {
			m, werr := dst.Write(small[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if err != nil {
			return total, endOf(err)
		}
		if n == len(small) {
			m, more, err := pumpFlow(dst, src)
			total += m
			if !more {
				return total, err
			}
		}
	}
}

// pumpFlow copies with a large buffer for as long as reads are worth it.
func pumpFlow(dst io.Writer, src io.Reader) (total int64, more bool, err error) {
	buf := busyBuffers.Get().(*[pumpBusy]byte)
	defer busyBuffers.Put(buf)
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			m, werr := dst.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, false, werr
			}
		}
		if err != nil {
			return total, false, endOf(err)
		}
		if n < pumpIdle {
			return total, true, nil
		}
	}
}

func pumpWaiting(dst io.Writer, src io.Reader, w waiter) (total int64, err error) {
	for {
		if err := w.waitReadable(); err != nil {
			return total, endOf(err)
		}
		buf := busyBuffers.Get().(*[pumpBusy]byte)
		n, err := src.Read(buf[:])
		if n > 0 {
			m, werr := dst.Write(buf[:n])
			total += int64(m)
			if err == nil {
				err = werr
			}
		}
		busyBuffers.Put(buf)
		if err != nil {
			return total, endOf(err)
		}
	}
}

// endOf makes a clean end no error.
func endOf(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// WriteTo copies what the peer writes to w, until its end. It holds a buffer only while bytes flow.
func (st *Stream) WriteTo(w io.Writer) (int64, error) { return pumpWaiting(w, st, st) }

// waitReadable returns once Read would not block.
func (st *Stream) waitReadable() error {
	st.readerMu.Lock()
	buffered := st.reader != nil && st.reader.Buffered() > 0
	st.readerMu.Unlock()
	if buffered {
		return nil
	}
	_, err := st.readMux(nil) // yamux waits for bytes before it looks at the size of the buffer
	return err
}
