package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Reader is the stream's one buffered reader: ReadHeader, ReadReply and Read drain it too. Whoever uses it is the
// stream's only reader for as long.
func (st *Stream) Reader() *bufio.Reader {
	st.readerMu.Lock()
	defer st.readerMu.Unlock()
	st.exported = true
	return st.readerLocked()
}

// readerSize holds a header and the head of an HTTP request or answer behind it.
const readerSize = 4 << 10

func (st *Stream) readerLocked() *bufio.Reader {
	if st.reader != nil {
		return st.reader
	}
	if r, ok := st.session.readers.Get().(*bufio.Reader); ok && !st.exported {
		r.Reset(muxReader{st})
		st.reader = r
	} else {
		st.reader = bufio.NewReaderSize(muxReader{st}, readerSize)
	}
	return st.reader
}

func (st *Stream) bufferedReader() *bufio.Reader {
	st.readerMu.Lock()
	defer st.readerMu.Unlock()
	return st.readerLocked()
}

// A muxReader reads the stream below its buffer.
type muxReader struct{ st *Stream }

func (m muxReader) Read(p []byte) (int, error) {
	if !m.st.limited {
		return m.st.readMux(p)
	}
	if m.st.budget <= 0 {
		return 0, ErrHeadTooLong
	}
	n, err := m.st.readMux(p[:min(len(p), m.st.budget)])
	m.st.budget -= n
	return n, err
}

// ErrHeadTooLong is what Reader gives when more than LimitHead's bytes would have to be read.
var ErrHeadTooLong = errors.New("the head of the message is too long")

// LimitHead bounds what Reader takes in from now on: a head whose reader has no limit of its own is read between
// LimitHead(n) and LimitHead(0), which lifts the bound. It belongs to whoever reads.
func (st *Stream) LimitHead(n int) { st.limited, st.budget = n > 0, n }

// WriteHeader sends h and payload in one write. On a session with an agent it numbers and seals h. One goroutine at a
// time writes headers to a stream. An error that is ErrNotSent came before anything left.
func (st *Stream) WriteHeader(h Header, payload []byte) error {
	if err := st.writable(); err != nil {
		return &notSentError{err}
	}
	h.Seq, h.MAC = 0, nil
	if s := st.session.seal; s != nil {
		s.sign(&h, st.id)
		st.lastOut.Store(h.Seq)
	}
	return st.writeMessage(h, payload)
}

// WriteReply sends r and payload in one write. It answers the header read last.
func (st *Stream) WriteReply(r Reply, payload []byte) error {
	r.MAC = nil
	if s := st.session.seal; s != nil && r.NotSent {
		s.signReply(&r, st.id, st.lastIn)
	}
	return st.writeMessage(r, payload)
}

func (st *Stream) writeMessage(v any, payload []byte) error {
	pooled, _ := st.session.buffers.Get().(*[]byte)
	if pooled == nil {
		pooled = new([]byte)
	}
	b, err := appendMessage((*pooled)[:0], v, headerBytes)
	if err != nil {
		return err
	}
	if len(payload) <= frameBytes-len(b) {
		b = append(b, payload...)
		payload = nil
	}
	_, err = st.Write(b)
	if err == nil && len(payload) > 0 {
		_, err = st.Write(payload)
	}
	*pooled = b
	st.session.buffers.Put(pooled)
	return err
}

// ReadHeader reads the next header of a stream. On a session with an agent it verifies the seal and aborts the stream if
// it does not hold (an *AbortError with CodeBadMAC or CodeReplayed). io.EOF means that the opener ended the stream
// cleanly between two requests.
func (st *Stream) ReadHeader(ctx context.Context) (Header, error) {
	var h Header
	if err := st.readMessage(ctx, &h); err != nil {
		return Header{}, err
	}
	s := st.session.seal
	if s == nil {
		return h, nil
	}
	if code := s.verify(&h, st.id, st.lastIn); code != CodeNone {
		st.Abort(code)
		return Header{}, &AbortError{Code: code}
	}
	st.lastIn = h.Seq
	return h, nil
}

// ReadReply reads the answer to the header written last.
func (st *Stream) ReadReply(ctx context.Context) (Reply, error) {
	var r Reply
	err := st.readMessage(ctx, &r)
	s := st.session.seal
	r.NotSent = r.NotSent && !r.OK && s != nil && s.verifyReply(&r, st.id, st.lastOut.Load())
	r.MAC = nil
	return r, err
}

func (st *Stream) readMessage(ctx context.Context, v any) error {
	if ctx.Done() != nil {
		if err := ctx.Err(); err != nil {
			return err
		}
		stop := st.readUntil(ctx)
		defer stop()
	}
	err := peekMessage(st.bufferedReader(), v, headerBytes)
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errMalformed), errors.Is(err, errOversized):
		st.Abort(CodeProtocolError)
		return fmt.Errorf("stream header: %w", err)
	}
	return err
}

// readUntil lets ctx cut reads short; stop takes that back.
func (st *Stream) readUntil(ctx context.Context) (stop func()) {
	cut := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		st.SetReadDeadline(longAgo) // it never fails
		close(cut)
	})
	return func() {
		if !release() {
			<-cut
			st.SetReadDeadline(time.Time{}) // it never fails
		}
	}
}
