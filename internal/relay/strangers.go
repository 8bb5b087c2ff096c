package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
)

// strangers is a listener that bounds connections: in all, and, as long as
// nothing has been proven on them, from one source. What is too much is closed
// at once; a listener that waited would make everybody wait.
type strangers struct {
	net.Listener
	most, perSource int

	mu     sync.Mutex
	open   int            // guarded by mu
	source map[string]int // guarded by mu; connections on which nothing is proven
}

func newStrangers(l net.Listener, most, perSource int) *strangers {
	return &strangers{Listener: l, most: most, perSource: perSource, source: map[string]int{}}
}

// Accept returns the next connection within the bounds.
func (s *strangers) Accept() (net.Conn, error) {
	for {
		c, err := s.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if counted := s.count(c); counted != nil {
			return counted, nil
		}
		_ = c.Close() // beyond the bounds: whoever it is tries again
	}
}

func (s *strangers) count(c net.Conn) *strangerConn {
	source := sourceKey(c.RemoteAddr().String())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= s.most || s.source[source] >= s.perSource {
		return nil
	}
	s.open++
	s.source[source]++
	return &strangerConn{Conn: c, from: s, source: source}
}

// strangerConn is a connection that is counted.
type strangerConn struct {
	net.Conn
	from   *strangers
	source string

	mu     sync.Mutex
	proven bool // guarded by mu; no longer counted for its source
	closed bool // guarded by mu
}

// known ends the count for the source: who is behind the connection is known,
// and bounded by other means.
func (c *strangerConn) known() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.proven && !c.closed {
		c.proven = true
		c.from.leave(c.source)
	}
}

// Close closes the connection and gives its place back.
func (c *strangerConn) Close() error {
	c.mu.Lock()
	first, counted := !c.closed, !c.proven
	c.closed = true
	c.mu.Unlock()
	if first {
		if counted {
			c.from.leave(c.source)
		}
		c.from.mu.Lock()
		c.from.open--
		c.from.mu.Unlock()
	}
	return c.Conn.Close()
}

// CloseWrite passes a half-close on, which TLS asks for at the end.
func (c *strangerConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (s *strangers) leave(source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source[source]--; s.source[source] <= 0 {
		delete(s.source, source)
	}
}

// sourceKey is what counts as one source: an IPv4 address, or the /64 that one
// subscriber has of IPv6.
func sourceKey(remote string) string {
	host := sourceOf(remote)
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	prefix, err := ip.Prefix(64)
	if err != nil {
		return host
	}
	return prefix.String()
}
