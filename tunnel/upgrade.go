package tunnel

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// IsUpgrade reports whether r asks for a tunnel.
func IsUpgrade(r *http.Request) bool {
	return r.URL.Path == Path && hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", Protocol)
}

func hasToken(h http.Header, name, token string) bool {
	for _, line := range h.Values(name) {
		for field := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(field), token) {
				return true
			}
		}
	}
	return false
}

// Upgrade takes the connection of r over from net/http and answers 101. The caller hands it to Accept. If r came over
// TLS that ended here, the connection gives Accept the exporter. On an error nothing was answered yet where that is
// still possible.
func Upgrade(w http.ResponseWriter, r *http.Request) (net.Conn, error) {
	if r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.ProtoMajor != 1 || !IsUpgrade(r) {
		http.Error(w, "this address speaks "+Protocol+" only", http.StatusUpgradeRequired)
		return nil, errors.New("upgrade: not an upgrade request")
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "upgrade is not possible here", http.StatusInternalServerError)
		return nil, fmt.Errorf("upgrade: %w", err)
	}
	u := &upgradedConn{Conn: conn, ahead: buffered.Reader}
	if _, ok := conn.(boundConn); ok && r.TLS != nil {
		bound := &boundUpgradedConn{upgradedConn: u, state: *r.TLS}
		return bound, bound.begin()
	}
	return u, u.begin()
}

// An upgradedConn gives first what net/http had read ahead.
type upgradedConn struct {
	net.Conn
	ahead *bufio.Reader // nil once empty; owned by the reader
}

func (u *upgradedConn) begin() error {
	u.SetDeadline(time.Now().Add(handshakeTimeout)) // shows in the write
	if u.ahead.Buffered() == 0 {
		u.ahead = nil
	}
	const answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + Protocol + "\r\n\r\n"
	if _, err := io.WriteString(u.Conn, answer); err != nil {
		u.Close() // the first error counts
		return fmt.Errorf("upgrade: %w", err)
	}
	return nil
}

func (u *upgradedConn) Read(p []byte) (int, error) {
	if u.ahead == nil {
		return u.Conn.Read(p)
	}
	n, err := u.ahead.Read(p[:min(len(p), u.ahead.Buffered())])
	if u.ahead.Buffered() == 0 {
		u.ahead = nil
	}
	return n, err
}

// CloseWrite ends our direction if the connection can.
func (u *upgradedConn) CloseWrite() error {
	if half, ok := u.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// NetConn is the connection under TLS, or the connection.
func (u *upgradedConn) NetConn() net.Conn {
	if c, ok := u.Conn.(interface{ NetConn() net.Conn }); ok {
		return c.NetConn()
	}
	return u.Conn
}

// A boundUpgradedConn has TLS that ends here.
type boundUpgradedConn struct {
	*upgradedConn
	state tls.ConnectionState
}

// ConnectionState is that of the TLS connection; it holds the exporter.
func (b *boundUpgradedConn) ConnectionState() tls.ConnectionState { return b.state }
