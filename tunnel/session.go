package tunnel

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/yamux"
)

// A Session is one authenticated connection between a relay and a user or an agent, and the streams on it. Connect and
// Accept begin one; Close ends it. All methods may be called concurrently.
type Session struct {
	facts
	conn   net.Conn
	log    *slog.Logger
	relay  bool // this is the relay's end
	server ServerConfig
	client ClientConfig

	mux    *yamux.Session
	table  *streamTable
	writer *frameWriter
	reader *frameReader
	seal   *seal         // agent sessions only
	opens  chan struct{} // one for each open that the peer has not acknowledged
	clock  clock

	control    controlStream
	hasControl bool // owned by yamux's read loop
	active     atomic.Bool
	leaving    atomic.Bool     // either side said goaway
	dismissed  atomic.Bool     // the peer did
	leave      chan struct{}   // closed with leaving
	life       context.Context // of callbacks; ends with the session
	endLife    context.CancelFunc

	mu        sync.Mutex
	peer      Peer           // guarded by mu
	announced []Announcement // guarded by mu
	failure   *SessionError  // what ends the session; guarded by mu
	goodbye   bool           // the peer is to be told; guarded by mu

	closing chan struct{} // closed once failure is set
	done    chan struct{} // closed once everything stopped

	readers sync.Pool // of *bufio.Reader
	buffers sync.Pool // of []byte, for headers on the way out
}

// facts do not change while a session lives.
type facts struct {
	id         string
	hello      Hello
	binding    Binding
	peerKey    ed25519.PublicKey
	transcript []byte // its hash
	started    time.Time
	peerCap    int // streams the peer lets us have open; 0 unknown
	sealKey    []byte
}

// ID is the session's name: 128 random bits, chosen by the relay.
func (s *Session) ID() string { return s.id }

// Role is the client's, at both ends.
func (s *Session) Role() Role { return s.hello.Role }

// Class is the class the client chose.
func (s *Session) Class() Class { return s.hello.Class }

// Hello is what the client said first. By now its key is proven.
func (s *Session) Hello() Hello { return s.hello }

// Binding is the relay's channel binding.
func (s *Session) Binding() Binding { return s.binding }

// PublicKey is the peer's long-term key, proven.
func (s *Session) PublicKey() ed25519.PublicKey { return s.peerKey }

// RemoteAddr is the other end of the connection.
func (s *Session) RemoteAddr() net.Addr { return s.conn.RemoteAddr() }

// Started is when the handshake was complete.
func (s *Session) Started() time.Time { return s.started }

// Peer is who the relay found the client to be, as of the last refresh. Zero on the client.
func (s *Session) Peer() Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

// Expires is when the relay ends the session unless it is refreshed. Zero: never.
func (s *Session) Expires() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer.Expires
}

// Announced is what the agent offered last. The relay's end only; the caller must not change it.
func (s *Session) Announced() []Announcement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.announced
}

// Done is closed once the session is over and everything it ran has stopped.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is a *SessionError once the session is over or about to be, nil before.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil {
		return nil
	}
	return s.failure
}

// NumStreams counts the streams that are not over, the control stream excluded.
func (s *Session) NumStreams() int { return s.table.count() }

// LastReceived is when the last byte came, by the wall clock: time that passed while the machine slept counts.
func (s *Session) LastReceived() time.Time { return s.clock.lastWall() }

// SetActive says whether somebody uses the session: it is pinged after 5 s of silence then, else after 60. A session
// with open streams, or with an agent, is always active.
func (s *Session) SetActive(active bool) {
	if s.active.Swap(active) != active {
		s.control.nudge()
	}
}

// Draining reports whether either side said that it takes no new streams.
func (s *Session) Draining() bool { return s.leaving.Load() }

// DrainWait waits until no stream is open, or the session or ctx is over.
func (s *Session) DrainWait(ctx context.Context) error {
	select {
	case <-s.table.whenIdle():
		return nil
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newSession starts yamux over an authenticated connection. The caller starts the control stream.
func newSession(conn net.Conn, f facts, relay bool, log *slog.Logger) *Session {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	f.started = time.Now()
	s := &Session{
		facts: f, conn: conn, relay: relay,
		log:     log.With("session", f.id),
		leave:   make(chan struct{}),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	s.life, s.endLife = context.WithCancel(context.Background())
	s.control.init()
	s.clock.init()
	if f.hello.Role == RoleAgent {
		local, remote := RoleAgent, roleRelay
		if relay {
			local, remote = remote, local
		}
		s.seal = newSeal(f.sealKey, local, remote)
	}
	return s
}

// start runs the multiplexer.
func (s *Session) start(maxInbound int, windows Windows) error {
	backlog := max(maxInbound+1, opensLeast)
	s.opens = make(chan struct{}, backlog-1) // fewer than yamux allows, whose own wait takes no context
	s.table = newStreamTable(s, !s.relay, maxInbound)
	s.writer = newFrameWriter(s.conn, s.table)
	s.reader = newFrameReader(s.conn, s.table, s.clock.heard)
	config := &yamux.Config{
		AcceptBacklog:          backlog,
		KeepAliveInterval:      time.Hour, // off, but must be positive
		ConnectionWriteTimeout: muxWriteTimeout,
		MaxStreamWindowSize:    windows.of(s.hello.Class),
		Logger:                 muxLogger{s.log},
	}
	begin := yamux.Client
	if s.relay {
		begin = yamux.Server
	}
	mux, err := begin(&frameConn{s}, config)
	if err != nil {
		s.writer.fail(err)
		<-s.writer.done
		return fmt.Errorf("start multiplexer: %w", err)
	}
	s.mux = mux
	return nil
}

func (w Windows) of(class Class) uint32 {
	size, usual := w.Interactive, uint32(windowLeast)
	if class == Bulk {
		size, usual = w.Bulk, windowMost
	}
	if size == 0 {
		size = usual
	}
	return min(max(size, windowLeast), windowMost)
}

// A frameConn is what yamux takes for its connection.
type frameConn struct{ s *Session }

func (c *frameConn) Read(p []byte) (int, error)  { return c.s.reader.Read(p) }
func (c *frameConn) Write(p []byte) (int, error) { return c.s.writer.Write(p) }

// Close ends the connection at once. The TLS goodbye, which may block, is closeGracefully's.
func (c *frameConn) Close() error {
	c.s.reader.close()
	c.s.writer.fail(errWriterClosed)
	return closeNow(c.s.conn)
}

// closeNow closes what is under TLS: tls.Conn.Close waits up to 5 s for a full send queue.
func closeNow(conn net.Conn) error {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		return c.NetConn().Close()
	}
	return conn.Close()
}

// A muxLogger takes yamux's log. It speaks of peers' mistakes, so it is for debugging only.
type muxLogger struct{ log *slog.Logger }

func (l muxLogger) Print(v ...any)   { l.print(func() string { return fmt.Sprint(v...) }) }
func (l muxLogger) Println(v ...any) { l.print(func() string { return fmt.Sprint(v...) }) }
func (l muxLogger) Printf(format string, v ...any) {
	l.print(func() string { return fmt.Sprintf(format, v...) })
}

func (l muxLogger) print(text func() string) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("multiplexer", "text", text())
	}
}

// opened frees the place of an open that the peer acknowledged or that is over.
func (s *Session) opened() {
	select {
	case <-s.opens:
	default:
	}
}

// Open begins a stream: h and payload leave in one write, and nothing waits for the answer. It waits, as long as ctx
// allows, only while too many opens are unacknowledged. At the peer's cap it fails with CodeTooManyStreams.
// An error that is ErrNotSent came before anything of h left.
func (s *Session) Open(ctx context.Context, h Header, payload []byte) (*Stream, error) {
	st, err := s.openFree(ctx)
	if err != nil {
		return nil, &notSentError{err}
	}
	if err := st.WriteHeader(h, payload); err != nil {
		st.Abort(CodeCanceled)
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return st, nil
}

// openFree opens a stream as soon as the peer has room for one.
func (s *Session) openFree(ctx context.Context) (*Stream, error) {
	if s.dismissed.Load() {
		return nil, fmt.Errorf("open stream: %w", &AbortError{Code: CodeRelayShutdown})
	}
	if s.peerCap > 0 && s.table.count() >= s.peerCap {
		return nil, fmt.Errorf("open stream: %w", &AbortError{Code: CodeTooManyStreams})
	}
	select {
	case s.opens <- struct{}{}:
	case <-s.closing:
		return nil, s.Err()
	case <-ctx.Done():
		return nil, fmt.Errorf("open stream: %w", ctx.Err())
	}
	return s.openMux()
}

func (s *Session) openMux() (*Stream, error) {
	mux, err := s.mux.OpenStream()
	if err != nil {
		if errors.Is(err, yamux.ErrRemoteGoAway) {
			s.opened()
			return nil, fmt.Errorf("open stream: %w", &AbortError{Code: CodeRelayShutdown, Remote: true})
		}
		return nil, s.await(err)
	}
	st := s.table.claim(mux.StreamID())
	if st == nil {
		return nil, s.await(io.ErrClosedPipe)
	}
	st.attach(mux)
	return st, nil
}

// await gives the session's error once it is known, which is soon after yamux noticed.
func (s *Session) await(cause error) error {
	if !s.mux.IsClosed() {
		// yamux lost a write, not the session: the connection is in an unknown state.
		s.fail(&SessionError{Code: CodeDead, Err: cause})
	}
	<-s.closing
	return s.Err()
}

// fail ends the session without a goodbye. The first failure counts.
func (s *Session) fail(err *SessionError) { s.end(err, false) }

func (s *Session) end(err *SessionError, goodbye bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return
	}
	s.failure, s.goodbye = err, goodbye
	close(s.closing)
	s.endLife()
}

// Close ends the session: the peer is told code and reason, all streams end with a *SessionError at both ends, and
// everything stops within closeTimeout. Only the first call's code counts. It must not be called from a callback of the
// configuration, which it waits for.
func (s *Session) Close(code Code, reason string) error {
	if code == CodeNone {
		code = CodeCanceled
	}
	s.end(&SessionError{Code: code, Reason: reason}, true)
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-s.done:
		return nil
	case <-timer.C:
	}
	return closeNow(s.conn)
}
