package tunnel

import (
	"context"
	"errors"
	"io"
	"time"
)

// loop is the session's own goroutine: it writes the control messages, watches the peer and the clock, and in the end
// takes everything down.
func (s *Session) loop() {
	timer := time.NewTimer(activeSilence)
	defer timer.Stop()
	var watch watchdog
	ready, queue := s.control.ready, chan controlMessage(nil)
	for {
		select {
		case <-ready:
			ready, queue = nil, s.control.queue
		case m := <-queue:
			if err := s.control.write(m, controlWriteTimeout); err != nil && !s.mux.IsClosed() {
				s.fail(&SessionError{Code: CodeTimeout, Err: err})
			}
		case <-s.control.nudged:
			timer.Reset(watch.check(s, time.Now()))
		case <-timer.C:
			timer.Reset(watch.check(s, time.Now()))
		case <-s.closing:
			s.takeDown()
			return
		case <-s.control.ended:
			s.takeDown()
			return
		case <-s.mux.CloseChan():
			s.takeDown()
			return
		}
	}
}

// A watchdog finds dead peers and sessions that ran out.
type watchdog struct {
	pinged time.Time // when the peer was last asked for a sign of life
}

// check acts on the time and says when to look again.
func (w *watchdog) check(s *Session, now time.Time) time.Duration {
	next := activeSilence
	if expires := s.Expires(); !expires.IsZero() {
		left := time.Until(expires.Round(0)) // the wall clock: it went on while the machine slept
		if left <= 0 {
			s.end(&SessionError{Code: CodeSessionExpired, Reason: "the session's token ran out"}, true)
			return next
		}
		next = min(next, left)
	}
	heard := s.clock.last()
	if w.pinged.After(heard) {
		left := pingPatience - now.Sub(w.pinged)
		if left <= 0 {
			s.fail(&SessionError{Code: CodeDead, Reason: "the peer fell silent"})
			return next
		}
		return min(next, left)
	}
	left := s.patience() - now.Sub(heard)
	if left <= 0 {
		w.pinged = now
		s.control.send(controlMessage{Type: msgPing}) // a full queue is a sign of life being asked for
		return next
	}
	return min(next, left)
}

// patience is how much silence is normal.
func (s *Session) patience() time.Duration {
	if s.Role() == RoleAgent || s.active.Load() || s.table.count() > 0 {
		return activeSilence
	}
	return idleSilence
}

// takeDown ends everything in order: goodbye, multiplexer, control reader, streams, callbacks.
func (s *Session) takeDown() {
	s.mu.Lock()
	failure, goodbye := s.failure, s.goodbye
	s.mu.Unlock()
	if failure != nil {
		s.table.lose(failure)
		if goodbye {
			late := time.AfterFunc(closeTimeout, func() { closeNow(s.conn) }) // a last resort
			s.sayGoodbye(failure)
			late.Stop()
		}
	}
	s.mux.Close() // it never fails
	<-s.writer.done
	timer := time.NewTimer(reasonGrace)
	select {
	case <-s.control.ended: // it may have read the peer's reason
	case <-timer.C:
	}
	timer.Stop()
	s.fail(s.verdict())
	s.mu.Lock()
	failure = s.failure
	s.mu.Unlock()
	s.table.lose(failure)
	<-s.control.ended
	s.control.workers.Wait()
	close(s.done)
}

// verdict says why the connection ended, for want of a reason.
func (s *Session) verdict() *SessionError {
	err := s.reader.failure()
	if err == nil || errors.Is(err, io.EOF) {
		if out := s.writer.failure(); out != nil && !errors.Is(out, errWriterClosed) {
			err = out
		}
	}
	switch {
	case errors.Is(err, errProtocol):
		return &SessionError{Code: CodeProtocolError, Err: err}
	case err == nil, errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return &SessionError{Code: CodeDead, Err: err}
}

// sayGoodbye tells the peer why, lets what was written leave, and waits a moment for the peer to have read it: a
// connection closed with unread input is reset, and a reset overtakes the reason.
func (s *Session) sayGoodbye(why *SessionError) {
	limit := time.NewTimer(closeTimeout * 3 / 4)
	defer limit.Stop()
	select {
	case <-s.control.ready:
		reason := controlMessage{Type: msgReason, Code: why.Code.String(), Text: why.Reason}
		if s.control.write(reason, closeTimeout/2) != nil {
			return
		}
	case <-s.mux.CloseChan():
		return
	case <-limit.C:
		return
	}
	s.writer.finish()
	select {
	case <-s.writer.done:
	case <-limit.C:
		return
	}
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() // the connection closes either way
	}
	select {
	case <-s.mux.CloseChan():
	case <-limit.C:
	}
}

// Probe asks the peer for a sign of life: nil once any byte came back within ctx. The caller closes a session that
// gave none.
func (s *Session) Probe(ctx context.Context) error {
	heard := s.clock.next()
	if err := s.control.send(controlMessage{Type: msgPing}); err != nil {
		return err
	}
	select {
	case <-heard:
		return nil
	case <-s.closing:
		return s.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// GoAway tells the peer to open no more streams here; those it opens nonetheless are reset with CodeRelayShutdown.
// Running streams go on.
func (s *Session) GoAway(reason string) error {
	s.table.mu.Lock()
	s.table.draining = true
	s.table.mu.Unlock()
	s.drain()
	return s.control.send(controlMessage{Type: msgGoAway, Text: reason})
}

// Notify sends a notice to the peer. It does not wait for it to be read.
func (s *Session) Notify(n Notice) error {
	return s.control.send(controlMessage{Type: msgNotice, Kind: n.Kind, Text: n.Text})
}
