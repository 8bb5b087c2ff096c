package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// lingerLimit is how long a model server may take to notice that nobody waits
// for its answer any more.
const lingerLimit = 30 * time.Second

// longAgo is a deadline that has passed.
func longAgo() time.Time { return time.Unix(1, 0) }

// lingers are the connections that were given up while the upstream worked:
// they are half-closed, which tells it to stop, and kept until it has.
type lingers struct {
	limit time.Duration
	log   *slog.Logger

	mu      sync.Mutex
	open    map[*upstreamConn]struct{} // guarded by mu
	stopped bool                       // guarded by mu
	group   sync.WaitGroup
}

func newLingers(log *slog.Logger) *lingers {
	return &lingers{limit: lingerLimit, log: log, open: map[*upstreamConn]struct{}{}}
}

// begin waits for the upstream in a goroutine of its own; false once stopped.
func (l *lingers) begin(c *upstreamConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return false
	}
	l.open[c] = struct{}{}
	l.group.Go(func() {
		c.linger()
		l.mu.Lock()
		delete(l.open, c)
		l.mu.Unlock()
	})
	return true
}

// stop closes what lingers and waits for it.
func (l *lingers) stop() {
	l.mu.Lock()
	l.stopped = true
	for c := range l.open {
		_ = c.Conn.Close() // its own end follows
	}
	l.mu.Unlock()
	l.group.Wait()
}

// dial connects to an upstream for the transport.
func (l *lingers) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := dialUpstream(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &upstreamConn{Conn: conn, lingers: l}, nil
}

// upstreamConn is a connection to an upstream. Closed while a hold is on it, it
// lingers: what the transport gives up may still be worked on at the other end.
type upstreamConn struct {
	net.Conn
	lingers *lingers
	reading sync.Mutex // between the transport's last read and the first of linger

	mu     sync.Mutex
	closed bool  // guarded by mu
	gone   bool  // closed at the other end too, or given up; guarded by mu
	holder *hold // guarded by mu
}

func (c *upstreamConn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

func (c *upstreamConn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	n, err := c.Conn.Read(p)
	if err != nil && c.isClosed() {
		err = net.ErrClosed
	}
	return n, err
}

// Close ends the connection: at once, or once the upstream has noticed if it
// works for somebody.
func (c *upstreamConn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	held := c.holder != nil
	c.mu.Unlock()
	if held && c.lingers.begin(c) {
		_ = c.SetDeadline(longAgo()) // whoever reads or writes stops
		return nil
	}
	err := c.Conn.Close()
	c.end()
	return err
}

// CloseWrite ends our direction.
func (c *upstreamConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// linger half-closes the connection and waits for the upstream's end.
func (c *upstreamConn) linger() {
	_ = c.CloseWrite() // a connection that is dead already is what is waited for
	c.reading.Lock()
	defer c.reading.Unlock()
	_ = c.SetReadDeadline(time.Now().Add(c.lingers.limit)) // it fails with the connection
	_, err := io.Copy(io.Discard, c.Conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.lingers.log.Warn("the upstream did not stop working for a caller that left; its connection was closed", "upstream", c.RemoteAddr().String(), "after", c.lingers.limit.String())
	}
	_ = c.Conn.Close()
	c.end()
}

// end tells whoever holds the connection.
func (c *upstreamConn) end() {
	c.mu.Lock()
	c.gone = true
	h := c.holder
	c.holder = nil
	c.mu.Unlock()
	if h != nil {
		h.ended()
	}
}

// holds says whether the connection still works for h.
func (c *upstreamConn) holds(h *hold) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.holder == h
}

// hold keeps a slot taken until the upstream has really stopped: until its
// answer was whole, or its connection is gone. A nil hold holds nothing.
type hold struct {
	turn *turn

	mu        sync.Mutex
	conn      *upstreamConn // which carries the request, the last one if the transport tried twice; guarded by mu
	abandoned bool          // nobody waits for the answer; guarded by mu
}

// attach notes which connection carries the request.
func (h *hold) attach(conn net.Conn) {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	c, ok := conn.(*upstreamConn)
	if h == nil || !ok {
		return
	}
	h.mu.Lock()
	h.conn = c
	h.mu.Unlock()
	c.mu.Lock()
	if !c.gone {
		c.holder = h
	}
	c.mu.Unlock()
}

// release frees the slot: the answer is whole.
func (h *hold) release() {
	if h == nil {
		return
	}
	h.mu.Lock()
	c := h.conn
	h.mu.Unlock()
	if c != nil {
		c.mu.Lock()
		if c.holder == h { // else it carries the next request already
			c.holder = nil
		}
		c.mu.Unlock()
	}
	h.turn.leave()
}

// abandon gives the request up. The slot frees with the connection.
func (h *hold) abandon() {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.abandoned = true
	c := h.conn
	h.mu.Unlock()
	if c == nil || !c.holds(h) { // it never left, or nobody works for it
		h.turn.leave()
		return
	}
	_ = c.Close() // its end frees the slot
}

// ended is told when the connection is gone.
func (h *hold) ended() {
	h.mu.Lock()
	abandoned := h.abandoned // if not, the transport may try again on another connection
	h.mu.Unlock()
	if abandoned {
		h.turn.leave()
	}
}

// generates notes that the upstream took the request.
func (h *hold) generates() {
	if h != nil {
		h.turn.generates()
	}
}
