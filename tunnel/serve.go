package tunnel

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"sync"
	"time"
)

// Serve accepts the peer's streams until the session or ctx is over, each in a goroutine of its own, and returns when
// all of them have. It reads the first header before it calls handle; a stream that does not say in time what it is
// for is reset. The context of a handler ends with its stream, its session or ctx; when ctx ends, the streams are
// aborted with the code in its cause, or CodeCanceled. A stream that handle leaves open is aborted.
//
// It is called once for each session. The error is the session's or ctx's.
func (s *Session) Serve(ctx context.Context, handle func(ctx context.Context, st *Stream, h Header)) error {
	select {
	case <-s.control.ready:
	case <-s.closing:
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var handlers sync.WaitGroup
	stop := context.AfterFunc(ctx, func() { s.table.abortInbound(abortCode(ctx)) })
	err := s.accept(ctx, func(st *Stream) {
		handlers.Go(func() { s.serveStream(ctx, st, handle) })
	})
	stop()
	if ctx.Err() != nil {
		s.table.abortInbound(abortCode(ctx)) // what was accepted meanwhile, too
	}
	cancel(err)
	handlers.Wait()
	return err
}

// accept never waits for anything but the next stream.
func (s *Session) accept(ctx context.Context, begin func(st *Stream)) error {
	for {
		mux, err := s.mux.AcceptStreamWithContext(ctx)
		if err != nil {
			if ctx.Err() != nil && s.Err() == nil {
				return ctx.Err()
			}
			return s.await(err)
		}
		st := s.table.claim(mux.StreamID())
		if st == nil {
			continue
		}
		st.attach(mux)
		begin(st)
	}
}

func (s *Session) serveStream(ctx context.Context, st *Stream, handle func(ctx context.Context, st *Stream, h Header)) {
	defer s.table.release(st)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.endStream(ctx, st)
	st.onEnd(cancel)
	h, err := st.firstHeader()
	if err != nil {
		s.log.Debug("stream without a header", "stream", st.id, "err", err)
		return
	}
	handle(ctx, st, h)
}

// endStream is what happens to a stream whose handler returned, or panicked: only that stream ends, not the process
// with everybody else's.
func (s *Session) endStream(ctx context.Context, st *Stream) {
	if fault := recover(); fault != nil {
		s.log.Error("stream handler panicked", "stream", st.id, "panic", fault, "stack", string(debug.Stack()))
		st.Abort(CodeInternal)
		return
	}
	if !st.closed.Load() {
		st.Abort(abortCode(ctx))
	}
}

// abortCode is the code in the cause of ctx's end, or CodeCanceled.
func abortCode(ctx context.Context) Code {
	return max(CodeOf(context.Cause(ctx)), CodeCanceled)
}

// firstHeader reads the header that opens a stream.
func (st *Stream) firstHeader() (Header, error) {
	st.SetReadDeadline(time.Now().Add(headerTimeout)) // it never fails
	h, err := st.ReadHeader(context.Background())
	if errors.Is(err, os.ErrDeadlineExceeded) {
		st.Abort(CodeTimeout)
	}
	st.SetReadDeadline(time.Time{}) // it never fails
	return h, err
}
