package agent

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"iap/tunnel"
)

const (
	websocket        = "websocket"
	websocketVersion = "13"
	// websocketGUID makes an accept of a key (RFC 6455, section 1.3).
	websocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	// closingLimit is how long one side of a WebSocket may go on once the other
	// has ended.
	closingLimit = 10 * time.Second
)

// upgradeOf is the protocol that a request wants to change to.
func upgradeOf(h http.Header) string {
	if !hasToken(h, "Connection", "upgrade") {
		return ""
	}
	return strings.ToLower(strings.Join(h["Upgrade"], ","))
}

func hasToken(h http.Header, name, token string) bool {
	for _, list := range h[name] {
		for one := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(one), token) {
				return true
			}
		}
	}
	return false
}

// upgrade opens a WebSocket to the upstream with a handshake of its own, on a
// connection of its own, and joins it with the stream. Neither carries anything
// else afterwards.
func (x *exchange) upgrade(ctx context.Context, held *hold) bool {
	up, head, err := x.dialWebSocket(ctx, held)
	if err != nil {
		held.abandon()
		return x.refuse(x.failed(ctx, err))
	}
	held.generates()
	if err := x.stream.WriteReply(tunnel.Reply{OK: true}, head); err != nil {
		up.Abort(tunnel.CodeCanceled)
		held.abandon()
		return false
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	x.giveWay(ctx, held, end)
	spliced, err := spliceUpgraded(ctx, x.stream, up)
	up.Abort(tunnel.CodeCanceled)
	held.abandon() // the slot frees when the upstream has closed
	x.log(slog.LevelDebug, "websocket ended", "to_upstream", spliced.AToB, "from_upstream", spliced.BToA, "error", err)
	return false
}

// giveWay ends a WebSocket that has had its slot for as long as anybody may wait
// for one, as soon as somebody does: it may be idle, and would never end.
func (x *exchange) giveWay(ctx context.Context, held *hold, end context.CancelCauseFunc) {
	if held == nil {
		return
	}
	q := held.turn.queue
	var mu sync.Mutex // timer is set before it is read
	mu.Lock()
	defer mu.Unlock()
	var timer *time.Timer
	timer = time.AfterFunc(q.limits.maxWait, func() {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case ctx.Err() != nil: // it has ended by itself
		case q.isWaitedFor():
			end(&tunnel.AbortError{Code: tunnel.CodeQueueFull})
		default:
			timer.Reset(x.agent.pace.look)
		}
	})
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// dialWebSocket returns the upstream's side and the head to answer with.
func (x *exchange) dialWebSocket(ctx context.Context, held *hold) (*upgraded, []byte, error) {
	target, err := upstreamURL(x.upstream.cfg.url, x.request.RequestURI)
	if err != nil {
		return nil, nil, refusef(tunnel.CodeProtocolError, "%v", err)
	}
	offered := x.request.Header.Values("Sec-Websocket-Protocol")
	acceptFor := x.request.Header.Get("Sec-Websocket-Key")
	key := base64.StdEncoding.EncodeToString(randomKey())
	header := x.upstream.header(x.request.Header)
	for name := range header {
		if strings.HasPrefix(name, "Sec-Websocket-") { // extensions above all: nobody could read what they pack
			delete(header, name)
		}
	}
	header["Connection"], header["Upgrade"] = []string{"Upgrade"}, []string{websocket}
	header["Sec-Websocket-Key"], header["Sec-Websocket-Version"] = []string{key}, []string{websocketVersion}
	if len(offered) > 0 {
		header["Sec-Websocket-Protocol"] = offered
	}
	out := &http.Request{Method: http.MethodGet, URL: target, Host: x.upstream.cfg.url.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	conn, err := x.agent.dialOwn(ctx, x.upstream)
	if err != nil {
		return nil, nil, err
	}
	held.attach(conn)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	x.sent = true
	up := &upgraded{Conn: conn, reader: bufio.NewReaderSize(conn, 4<<10)}
	response, err := up.shake(out, key)
	if err == nil {
		var head []byte
		if head, err = answer101(response, offered, acceptFor); err == nil {
			return up, head, nil
		}
	}
	conn.Close()
	return nil, nil, err
}

func randomKey() []byte {
	key := make([]byte, 16)
	rand.Read(key) // it never fails
	return key
}

// dialOwn dials the upstream for one request alone.
func (a *Agent) dialOwn(ctx context.Context, u *upstream) (net.Conn, error) {
	conn, err := a.lingers.dial(ctx, "tcp", hostPort(u.cfg.url))
	if err != nil || u.cfg.url.Scheme == "http" {
		return conn, err
	}
	over := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.cfg.url.Hostname(), NextProtos: []string{"http/1.1"}})
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := over.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return over, nil
}

// upgraded is the upstream's side of a WebSocket.
type upgraded struct {
	net.Conn
	reader *bufio.Reader // which may hold what came right behind the answer's head
}

func (u *upgraded) Read(p []byte) (int, error) { return u.reader.Read(p) }

// CloseWrite ends our direction.
func (u *upgraded) CloseWrite() error {
	return u.Conn.(interface{ CloseWrite() error }).CloseWrite() // an upstreamConn, or TLS over one
}

// Abort ends both.
func (u *upgraded) Abort(tunnel.Code) { u.Close() }

// shake sends the request and reads an answer that must agree to it.
func (u *upgraded) shake(out *http.Request, key string) (*http.Response, error) {
	if err := out.Write(u.Conn); err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: u.Conn, N: maxHeadSize}
	u.reader.Reset(limited)
	response, err := http.ReadResponse(u.reader, out)
	if err != nil {
		return nil, err
	}
	limited.N = 1<<63 - 1 // it bounds the head alone
	if response.StatusCode != http.StatusSwitchingProtocols {
		return nil, refusef(tunnel.CodeUpstreamReset, "the model server answered %d to a WebSocket", response.StatusCode)
	}
	if upgradeOf(response.Header) != websocket || response.Header.Get("Sec-Websocket-Accept") != acceptOf(key) || len(response.Header["Sec-Websocket-Extensions"]) > 0 {
		return nil, refusef(tunnel.CodeUpstreamReset, "the model server's answer to a WebSocket does not fit")
	}
	return response, nil
}

// acceptOf is the proof of having read the key.
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + websocketGUID))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// answer101 is the head for the caller: of the upstream's it has the chosen
// subprotocol, if that was offered.
func answer101(response *http.Response, offered []string, key string) ([]byte, error) {
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	if key != "" {
		head += "Sec-WebSocket-Accept: " + acceptOf(key) + "\r\n"
	}
	if chosen := response.Header.Values("Sec-Websocket-Protocol"); len(chosen) > 0 {
		all := strings.Split(strings.ReplaceAll(strings.Join(offered, ","), " ", ""), ",")
		if len(chosen) > 1 || !slices.Contains(all, chosen[0]) {
			return nil, refusef(tunnel.CodeUpstreamReset, "the model server chose a WebSocket protocol that was not offered")
		}
		head += "Sec-WebSocket-Protocol: " + chosen[0] + "\r\n"
	}
	return []byte(head + "\r\n"), nil
}

// spliceUpgraded joins both sides until one has ended; the other gets a moment
// to say goodbye.
func spliceUpgraded(ctx context.Context, st *tunnel.Stream, up *upgraded) (tunnel.Spliced, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return tunnel.Splice(ctx, &closing{HalfConn: st, cancel: cancel}, &closing{HalfConn: up, cancel: cancel})
}

// closing ends everything a while after it has ended one direction.
type closing struct {
	tunnel.HalfConn
	cancel context.CancelCauseFunc
}

func (c *closing) CloseWrite() error {
	err := c.HalfConn.CloseWrite()
	time.AfterFunc(closingLimit, func() { c.cancel(nil) }) // after the splice it does nothing
	return err
}
