package guard

import (
	"bufio"
	"context"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// webSocket is the one protocol a request may change to.
const webSocket = "websocket"

// webSocketMethod is what a request for a WebSocket is decided on and recorded as: it is no GET.
const webSocketMethod = "WEBSOCKET"

// webSocketSecret is RFC 6455's, section 1.3.
const webSocketSecret = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// upgrade is a request for a WebSocket.
type upgrade struct {
	key       string
	protocols []string // offered upstream
}

func errUpgrade() *refusal {
	return &refusal{status: 400, code: "upgrade_refused", message: "a change of protocol does not pass here"}
}

// readUpgrade takes the handshake of RFC 6455, section 4.2.1, in its one plain form, and nothing else. Extensions are
// left out, as a server may: what is in a compressed frame nobody on the way could bound.
func (x *exchange) readUpgrade() *refusal {
	h := x.r.Header
	one := func(name string) string {
		if values := h[name]; len(values) == 1 {
			return values[0]
		}
		return ""
	}
	key := one("Sec-Websocket-Key")
	nonce, err := base64.StdEncoding.Strict().DecodeString(key)
	switch {
	case x.resource.Kind != KindModel, x.r.ProtoMajor != 1 || x.r.ProtoMinor != 1, x.r.Method != http.MethodGet,
		x.r.ContentLength != 0 || len(x.r.TransferEncoding) > 0,
		!strings.EqualFold(one("Upgrade"), webSocket), !asksToUpgrade(h["Connection"]),
		one("Sec-Websocket-Version") != "13", err != nil || len(nonce) != 16:
		return errUpgrade()
	}
	x.upgrade = &upgrade{key: key}
	for _, values := range h["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(values, ",") {
			if name = strings.TrimSpace(name); passesAsProtocol(name) && !slices.Contains(x.upgrade.protocols, name) {
				x.upgrade.protocols = append(x.upgrade.protocols, name)
			}
		}
	}
	return nil
}

// asksToUpgrade wants the Connection field to say so, once, and to name nothing else that could take a header away.
func asksToUpgrade(values []string) bool {
	if len(values) != 1 {
		return false
	}
	found := 0
	for name := range strings.SplitSeq(values[0], ",") {
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "upgrade":
			found++
		case "keep-alive":
		default:
			return false
		}
	}
	return found == 1
}

// passesAsProtocol lists the subprotocols that say something to a model server. Browsers put keys among them.
func passesAsProtocol(name string) bool {
	return name == "realtime" || name == "openai-beta.realtime-v1"
}

// set writes the handshake into the head that goes upstream.
func (u *upgrade) set(h http.Header) {
	if u == nil {
		return
	}
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, []string{webSocket}
	h["Sec-Websocket-Version"], h["Sec-Websocket-Key"] = []string{"13"}, []string{u.key}
	if len(u.protocols) > 0 {
		h["Sec-Websocket-Protocol"] = []string{strings.Join(u.protocols, ", ")}
	}
}

// accept is what proves that the server took the key for a handshake's.
func (u *upgrade) accept() string {
	sum := sha1.Sum([]byte(u.key + webSocketSecret)) // RFC 6455 says so; no secret hangs on it
	return base64.StdEncoding.EncodeToString(sum[:])
}

// method is what a request is decided on and recorded as.
func (x *exchange) method() string {
	if x.upgrade != nil {
		return webSocketMethod
	}
	return x.r.Method
}

// checkUpgraded refuses a change of protocol that is not the one asked for.
func (x *exchange) checkUpgraded(response *Response) *ending {
	h := response.Header
	only := func(name string) string {
		if values := h[name]; len(values) == 1 {
			return values[0]
		}
		return ""
	}
	_, duplex := response.Body.(io.ReadWriteCloser)
	chosen := h["Sec-Websocket-Protocol"]
	good := duplex && strings.EqualFold(only("Upgrade"), webSocket) && asksToUpgrade(h["Connection"]) &&
		subtle.ConstantTimeCompare([]byte(only("Sec-Websocket-Accept")), []byte(x.upgrade.accept())) == 1 &&
		len(h["Sec-Websocket-Extensions"]) == 0 &&
		(len(chosen) == 0 || len(chosen) == 1 && slices.Contains(x.upgrade.protocols, chosen[0]))
	if !good {
		return &ending{code: "upstream_upgrade", status: http.StatusBadGateway, message: "the model server's answer opens no WebSocket as it was asked for"}
	}
	return nil
}

// answerUpgrade hands the caller's connection over to the WebSocket and passes bytes both ways until one side ends.
func (x *exchange) answerUpgrade(ctx context.Context, response *Response, body *closeOnce) (*ending, bool) {
	control := http.NewResponseController(x.w)
	conn, buffered, err := control.Hijack()
	if err != nil {
		return &ending{code: "upgrade_refused", status: http.StatusNotImplemented, message: "this connection carries no WebSocket"}, false
	}
	defer conn.Close()
	x.hijacked, x.status = true, http.StatusSwitchingProtocols
	_ = conn.SetDeadline(time.Time{}) // net/http's own are for requests
	head := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {webSocket}, "Sec-Websocket-Accept": {x.upgrade.accept()}, "X-Request-Id": {x.id},
	}
	if chosen := response.Header["Sec-Websocket-Protocol"]; len(chosen) > 0 {
		head["Sec-Websocket-Protocol"] = chosen
	}
	if err := writeHead(conn, head); err != nil {
		return &ending{code: clientGone}, true
	}
	s := socket{x: x, conn: conn, from: buffered.Reader, upstream: response.Body.(io.ReadWriteCloser), body: body}
	return s.splice(ctx), true
}

func writeHead(w io.Writer, h http.Header) error {
	b := bufio.NewWriter(w)
	_, _ = b.WriteString("HTTP/1.1 101 Switching Protocols\r\n") // the error stays until Flush
	_ = h.Write(b)
	_, _ = b.WriteString("\r\n")
	return b.Flush()
}

// socket is a WebSocket that runs. What is in its frames is between its two ends.
type socket struct {
	x        *exchange
	conn     net.Conn
	from     *bufio.Reader // the caller's bytes: net/http has read ahead
	upstream io.ReadWriteCloser
	body     *closeOnce // closes upstream
	frames   frames     // to the caller
	received atomic.Int64
	left     atomic.Bool // the caller's side is over
	patience *time.Timer // then; send's until it returns
}

// closeWait is how long a model server may go on after its caller ended a WebSocket.
const closeWait = 5 * time.Second

// splice passes bytes both ways. It returns when the upstream's side has ended or ctx has, and waits for the other.
func (s *socket) splice(ctx context.Context) *ending {
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		s.send()
	}()
	// A reader that left must not hold the writer.
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Now().Add(lastWords)) })
	end := s.receive(ctx)
	stop()
	if end != nil && end.status != 0 {
		s.sayClose(end)
	}
	_ = s.conn.SetReadDeadline(time.Now()) // send waits for the caller no longer
	s.body.Close()
	<-sent
	if s.patience != nil {
		s.patience.Stop()
	}
	s.x.received += s.received.Load()
	return end
}

// send passes the caller's bytes on. A caller that ends its side has a moment of the upstream's left; one whose
// connection broke has none.
func (s *socket) send() {
	buffer := s.x.guard.largeBuffer()
	defer s.x.guard.putBuffer(buffer)
	for {
		n, err := s.from.Read(buffer)
		if n > 0 {
			s.received.Add(int64(n))
			if _, err := s.upstream.Write(buffer[:n]); err != nil {
				return // receive finds out why
			}
		}
		if err == nil {
			continue
		}
		s.left.Store(true)
		half, ok := s.upstream.(interface{ CloseWrite() error })
		if !errors.Is(err, io.EOF) || !ok || half.CloseWrite() != nil {
			s.body.Close()
			return
		}
		s.patience = time.AfterFunc(closeWait, s.body.Close)
		return
	}
}

// receive passes the upstream's bytes to the caller.
func (s *socket) receive(ctx context.Context) *ending {
	x := s.x
	buffer := x.guard.largeBuffer()
	defer x.guard.putBuffer(buffer)
	reader := x.watchReader()
	for {
		n, err := s.body.Read(buffer)
		if n > 0 {
			if x.ttft == 0 {
				x.ttft = x.guard.now().Sub(x.start)
			}
			reader.begin()
			written, writeErr := s.conn.Write(buffer[:n])
			reader.end()
			x.sent += int64(written)
			s.frames.feed(buffer[:written])
			if writeErr != nil && ctx.Err() == nil {
				return &ending{code: clientGone}
			}
			if writeErr != nil {
				return x.endOf(ctx, writeErr)
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF) && ctx.Err() == nil:
			return nil
		case s.left.Load() && ctx.Err() == nil:
			return &ending{code: clientGone}
		default:
			return x.endOf(ctx, err)
		}
	}
}

// sayClose tells the caller why its WebSocket ends, where a frame fits between those that were sent.
func (s *socket) sayClose(end *ending) {
	if !s.frames.atBoundary() {
		return
	}
	const policyViolation = 1008
	text := strings.ToValidUTF8(end.code+": "+end.message, "?")
	if len(text) > 120 { // a control frame holds 125 bytes
		text = strings.ToValidUTF8(text[:120], "")
	}
	frame := append([]byte{0x88, byte(2 + len(text))}, 0, 0)
	binary.BigEndian.PutUint16(frame[2:], policyViolation)
	_ = s.conn.SetWriteDeadline(time.Now().Add(lastWords))
	_, _ = s.conn.Write(append(frame, text...)) // a caller that left needs no reason
}

// frames follows a stream of WebSocket frames (RFC 6455, section 5.2) closely enough to know where one ends.
type frames struct {
	head    [14]byte
	have    int    // bytes of head
	payload uint64 // that still come
}

func (f *frames) atBoundary() bool { return f.have == 0 && f.payload == 0 }

func (f *frames) feed(p []byte) {
	for len(p) > 0 {
		if f.payload > 0 {
			n := min(f.payload, uint64(len(p)))
			f.payload -= n
			p = p[n:]
			continue
		}
		f.head[f.have] = p[0]
		f.have++
		p = p[1:]
		if size := f.headSize(); f.have >= 2 && f.have == size {
			f.payload, f.have = f.length(), 0
		}
	}
}

// headSize is the length of the head as far as it is known.
func (f *frames) headSize() int {
	size := 2
	switch f.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.head[1]&0x80 != 0 {
		size += 4 // a mask
	}
	return size
}

func (f *frames) length() uint64 {
	switch n := f.head[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		return binary.BigEndian.Uint64(f.head[2:])
	default:
		return uint64(n)
	}
}
