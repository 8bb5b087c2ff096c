package connect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"iap/tunnel"
)

const (
	// MaxConns is how many connections one resource's listener holds at once; the relay's own cap on streams is the same.
	MaxConns = 1024
	// firstBytes is what is read of a request before its stream opens: nearly every request without an upload fits, and so travels
	// with the stream's header in one write.
	firstBytes = 32 << 10
	// firstWait bounds a connection on which nothing is said: applications open some ahead of need.
	firstWait = 5 * time.Minute
	// replyWait bounds the relay's word on a stream; it answers before it forwards anything.
	replyWait = 30 * time.Second
	// acceptPause is the wait after accept fails for want of descriptors.
	acceptPause = 100 * time.Millisecond
)

// Forward carries the connections of one local port to one resource.
type Forward struct {
	Resource        string
	Kind            string // model, http or tcp
	Sessions        *Sessions
	Local           *tunnel.Local // rules of this listener, which the relay applies to every request
	AllowOtherUsers bool          // do not ask whose process connects
	MaxConns        int           // 0: MaxConns
	Wait            time.Duration // how long a request waits for a session; 0: WaitForSession
	Logger          *slog.Logger  // nil: silent
	OnOtherUser     func()        // a connection of another user was closed; may be called often
}

// Serve accepts on every listener of b until ctx ends or b is closed, then closes what is open and waits for it.
func (f *Forward) Serve(ctx context.Context, b *Bound) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = b.Close() })
	defer stop()
	limit := f.MaxConns
	if limit == 0 {
		limit = MaxConns
	}
	slots := make(chan struct{}, limit)
	var wg sync.WaitGroup
	errs := make([]error, len(b.Listeners))
	for i, l := range b.Listeners {
		wg.Go(func() {
			errs[i] = f.accept(ctx, l, slots)
			cancel() // one port, both families: neither goes on without the other
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// accept serves one listener. Every connection's goroutine has ended when it returns.
func (f *Forward) accept(ctx context.Context, l net.Listener, slots chan struct{}) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		if err != nil { // no descriptors left: those in use will come back
			f.log().Warn("accept", "listen", l.Addr().String(), "err", err)
			pause(ctx, acceptPause)
			continue
		}
		conn := c.(*net.TCPConn)
		select {
		case slots <- struct{}{}:
		default:
			f.log().Warn("too many connections", "resource", f.Resource, "limit", cap(slots))
			reset(conn)
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			f.serveConn(ctx, conn)
		})
	}
}

func (f *Forward) log() *slog.Logger {
	if f.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return f.Logger
}

// serveConn carries one connection. Whatever goes wrong, the application sees either an answer in its protocol or a reset, never
// a clean end of something that was cut.
func (f *Forward) serveConn(ctx context.Context, c *net.TCPConn) {
	if !f.AllowOtherUsers && loopback(c.LocalAddr()) && peerOf(c) == peerOther {
		f.log().Warn("closed a connection of another user", "resource", f.Resource)
		if f.OnOtherUser != nil {
			f.OnOtherUser()
		}
		reset(c)
		return
	}
	free := context.AfterFunc(ctx, func() { reset(c) }) // ends reads and writes that are under way
	defer free()
	if f.Kind == "tcp" {
		f.serveTCP(ctx, c)
		return
	}
	f.serveHTTP(ctx, c)
}

// serveTCP opens the stream at once, since the server may be the one to speak first.
func (f *Forward) serveTCP(ctx context.Context, c *net.TCPConn) {
	st, err := f.open(ctx, nil)
	if err != nil {
		f.log().Debug("open stream", "resource", f.Resource, "err", err)
		reset(c)
		return
	}
	defer st.release()
	if _, err := tunnel.Splice(ctx, tunnel.TCP(c), &replied{st: st.Stream, ctx: ctx}); err != nil {
		f.log().Debug("connection ended", "resource", f.Resource, "err", err)
	}
}

// serveHTTP reads the beginning of the first request, sends it along with the stream's header and then lets bytes pass. Should
// the stream be refused, the first line tells in which protocol to say so.
func (f *Forward) serveHTTP(ctx context.Context, c *net.TCPConn) {
	first := make([]byte, firstBytes)
	_ = c.SetReadDeadline(time.Now().Add(firstWait))
	n, err := c.Read(first)
	if err != nil {
		_ = c.Close() // nothing was asked
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	first = first[:n]
	st, err := f.open(ctx, first)
	if err != nil {
		f.log().Debug("open stream", "resource", f.Resource, "err", err)
		refuse(ctx, c, first, refusalOf(err, f.Resource))
		return
	}
	defer st.release()
	reply, err := readReply(ctx, st.Stream)
	if err == nil && !reply.OK {
		err = &ReplyError{Reply: reply}
	}
	if err != nil {
		st.Abort(tunnel.CodeCanceled)
		f.log().Debug("stream refused", "resource", f.Resource, "err", err)
		refuse(ctx, c, first, refusalOf(err, f.Resource))
		return
	}
	if _, err := tunnel.Splice(ctx, tunnel.TCP(c), st.Stream); err != nil {
		f.log().Debug("connection ended", "resource", f.Resource, "err", err)
	}
}

// opened is a stream that is counted while it is open.
type opened struct {
	*tunnel.Stream
	release func()
}

// open waits for a session and opens a stream whose header and first payload leave in one write. It does not try twice:
// after a failed write nobody knows what arrived.
func (f *Forward) open(ctx context.Context, payload []byte) (opened, error) {
	limit := f.Wait
	if limit == 0 {
		limit = WaitForSession
	}
	wait, cancel := context.WithTimeoutCause(ctx, limit, ErrNoSession)
	defer cancel()
	return f.Sessions.open(wait, ClassOf(f.Kind), tunnel.Header{Resource: f.Resource, Kind: f.Kind, Local: f.Local}, payload)
}

func (s *Sessions) open(wait context.Context, class tunnel.Class, h tunnel.Header, payload []byte) (opened, error) {
	session, err := s.Session(wait, class)
	if err != nil {
		if l := s.lines[class]; l != nil {
			err = l.whyNone(err)
		}
		return opened{}, fmt.Errorf("wait for a session: %w", err)
	}
	st, err := session.Open(wait, h, payload)
	if err != nil {
		return opened{}, fmt.Errorf("open stream: %w", err)
	}
	l := s.lines[class]
	l.track(session, 1)
	return opened{Stream: st, release: sync.OnceFunc(func() {
		_ = st.Close()
		l.track(session, -1)
	})}, nil
}

// ErrNoSession: no session came up in the time a request waits for one.
var ErrNoSession = errors.New("relay cannot be reached")

// ReplyError is the relay's refusal of a stream.
type ReplyError struct{ Reply tunnel.Reply }

func (e *ReplyError) Error() string { return "stream refused: " + e.Reply.Code }

func readReply(ctx context.Context, st *tunnel.Stream) (tunnel.Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, replyWait)
	defer cancel()
	reply, err := st.ReadReply(ctx)
	if err != nil {
		return reply, fmt.Errorf("read relay's reply: %w", err)
	}
	return reply, nil
}

// replied is a stream whose reply header is read by the first Read: bytes may go up before it has come down.
type replied struct {
	st   *tunnel.Stream
	ctx  context.Context // of the connection; Read has none of its own
	done bool            // owned by the reading copier
}

func (r *replied) Read(p []byte) (int, error) {
	if !r.done {
		reply, err := readReply(r.ctx, r.st)
		if err != nil {
			return 0, err
		}
		if !reply.OK {
			return 0, &ReplyError{Reply: reply}
		}
		r.done = true
	}
	return r.st.Read(p)
}

func (r *replied) Write(p []byte) (int, error) { return r.st.Write(p) }
func (r *replied) CloseWrite() error           { return r.st.CloseWrite() }
func (r *replied) Abort(code tunnel.Code)      { r.st.Abort(code) }

// DialStream opens a stream of a session for use inside this process. Closing the connection ends what is unfinished, so that a
// model stops when its reader leaves.
func DialStream(ctx context.Context, session *tunnel.Session, h tunnel.Header) (net.Conn, error) {
	st, err := session.Open(ctx, h, nil)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	reply, err := readReply(ctx, st)
	if err == nil && !reply.OK {
		err = &ReplyError{Reply: reply}
	}
	if err != nil {
		st.Abort(tunnel.CodeCanceled)
		return nil, err
	}
	return dialled{st}, nil
}

type dialled struct{ *tunnel.Stream }

func (d dialled) Close() error {
	if !d.FinReceived() {
		d.Abort(tunnel.CodeCanceled)
	}
	return d.Stream.Close()
}

func loopback(a net.Addr) bool {
	ap, ok := addrPort(a)
	return ok && ap.Addr().IsLoopback()
}

// reset ends a connection so that the other side sees an error.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
