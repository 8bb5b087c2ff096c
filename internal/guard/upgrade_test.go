package guard

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

const (
	exampleKey    = "dGhlIHNhbXBsZSBub25jZQ==" // of RFC 6455, section 1.3
	exampleAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
)

// upgraded answers a handshake with a pipe, whose other end it gives to the test.
type upgraded struct {
	far    chan net.Conn
	header http.Header
}

func newUpgraded() *upgraded {
	return &upgraded{far: make(chan net.Conn, 1), header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Accept": {exampleAccept},
	}}
}

func (u *upgraded) serve(f *fixture) {
	f.resource.Server, f.resource.Only = "vllm", "m"
	f.guard.Forward = func(context.Context, *Request) (*Response, error) {
		near, far := net.Pipe()
		u.far <- far
		return &Response{Status: 101, Header: u.header, Body: near, Agent: "gpu1"}, nil
	}
}

// handshake opens a connection and sends a request for a WebSocket; lines are put in place of those of the same name.
func (f *fixture) handshake(lines ...string) (net.Conn, *bufio.Reader, *http.Response) {
	f.t.Helper()
	head := map[string]string{
		"Host": "localhost", "Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": exampleKey,
	}
	first := "GET /v1/realtime HTTP/1.1"
	for _, line := range lines {
		name, value, found := strings.Cut(line, ": ")
		if !found {
			first = line
			continue
		}
		head[name] = value
	}
	text := first + "\r\n"
	for name, value := range head {
		if value != "" {
			text += name + ": " + value + "\r\n"
		}
	}
	c, err := net.Dial("tcp", f.server.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text+"\r\n"); err != nil {
		f.t.Fatal(err)
	}
	reader := bufio.NewReader(c)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return c, reader, response
}

func TestAWebSocketPassesBothWays(t *testing.T) {
	u := newUpgraded()
	var asked []Question
	f := newFixture(t, u.serve, func(f *fixture) {
		f.guard.Decide = func(_ context.Context, q Question) Decision {
			f.note(func() { asked = append(asked, q) })
			return Decision{Allow: true}
		}
	})
	c, reader, response := f.handshake("Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-1")
	if response.StatusCode != 101 || response.Header.Get("Sec-Websocket-Accept") != exampleAccept || response.Header.Get("X-Request-Id") == "" {
		t.Fatalf("got %d %v", response.StatusCode, response.Header)
	}
	far := <-u.far
	buffer := make([]byte, 5)
	for range 3 {
		_, _ = io.WriteString(c, "hello")
		if _, err := io.ReadFull(far, buffer); err != nil || string(buffer) != "hello" {
			t.Fatalf("upstream read %q, %v", buffer, err)
		}
		_, _ = far.Write([]byte{0x81, 3, 'a', 'b', 'c'})
		if _, err := io.ReadFull(reader, buffer); err != nil || string(buffer[2:]) != "abc" {
			t.Fatalf("caller read %q, %v", buffer, err)
		}
	}
	_ = far.Close()
	if _, err := reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	e := f.outcome()
	if e.Ended != completed || e.Method != "WEBSOCKET" || e.Status != 101 || e.BytesIn != 15 || e.BytesOut != 15 || e.Action != "transcribe" {
		t.Errorf("outcome %+v", e)
	}
	sent := f.forwarded()[0]
	want := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {exampleKey},
		"Sec-Websocket-Protocol": {"realtime"}, "X-Request-Id": {"req-1"},
	}
	if len(sent.Header) != len(want) || sent.Method != "GET" || sent.Header.Get("Sec-Websocket-Protocol") != "realtime" {
		t.Errorf("sent %s %v", sent.Method, sent.Header)
	}
	if q := asked[len(asked)-1]; q.Method != "WEBSOCKET" || q.Model != "m" {
		t.Errorf("decided on %+v", q)
	}
}

func TestOnlyThePlainHandshakePasses(t *testing.T) {
	for name, line := range map[string]string{
		"another protocol":        "Upgrade: h2c",
		"two protocols":           "Upgrade: websocket, h2c",
		"not asked for":           "Connection: keep-alive",
		"takes a header away":     "Connection: Upgrade, X-Iap-Principal",
		"an old version":          "Sec-WebSocket-Version: 8",
		"no key":                  "Sec-WebSocket-Key: ",
		"a key of another length": "Sec-WebSocket-Key: c2hvcnQ=",
		"a POST":                  "POST /v1/realtime HTTP/1.1",
		"with a body":             "Content-Length: 3",
		"a route without":         "GET /v1/models HTTP/1.1",
		"over HTTP/1.0":           "GET /v1/realtime HTTP/1.0",
	} {
		f := newFixture(t, newUpgraded().serve)
		if _, _, response := f.handshake(line); response.StatusCode != 400 && response.StatusCode != 404 {
			t.Errorf("%s: got %d", name, response.StatusCode)
		}
		if len(f.forwarded()) != 0 {
			t.Errorf("%s: sent on", name)
		}
	}
	// A page of another site reaches no WebSocket behind a listener on the user's machine.
	f := newFixture(t, newUpgraded().serve, func(f *fixture) { f.caller.Local = &LocalRule{} })
	if _, _, response := f.handshake("Origin: https://evil.example"); response.StatusCode != 403 || len(f.forwarded()) != 0 {
		t.Errorf("from a foreign page: got %d", response.StatusCode)
	}
	// The route itself is no GET.
	f = newFixture(t, newUpgraded().serve)
	if response := f.do(f.request("GET", "/v1/realtime", "")); response.StatusCode != 404 {
		t.Errorf("as a GET: got %d", response.StatusCode)
	}
}

func TestAWebSocketIsRefusedWhereTokensAreLimited(t *testing.T) {
	for name, d := range map[string]Decision{"a budget": {TokenLimited: true}, "a cap": {MaxOutputTokens: 100}} {
		f := newFixture(t, newUpgraded().serve, allowing(d))
		_, _, response := f.handshake()
		if body := readAll(t, response); response.StatusCode != 403 || !strings.Contains(body, "websocket_limited") || len(f.forwarded()) != 0 {
			t.Errorf("%s: got %d %s", name, response.StatusCode, body)
		}
	}
}

func TestOnlyAnHonestUpgradePasses(t *testing.T) {
	for name, change := range map[string]func(http.Header){
		"a wrong proof":           func(h http.Header) { h.Set("Sec-Websocket-Accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=") },
		"no proof":                func(h http.Header) { h.Del("Sec-Websocket-Accept") },
		"an extension":            func(h http.Header) { h.Set("Sec-Websocket-Extensions", "permessage-deflate") },
		"a protocol nobody asked": func(h http.Header) { h.Set("Sec-Websocket-Protocol", "graphql") },
		"another upgrade":         func(h http.Header) { h.Set("Upgrade", "h2c") },
	} {
		u := newUpgraded()
		change(u.header)
		f := newFixture(t, u.serve)
		if _, _, response := f.handshake(); response.StatusCode != 502 {
			t.Errorf("%s: got %d", name, response.StatusCode)
		}
		if e := f.outcome(); e.Ended != "upstream_upgrade" {
			t.Errorf("%s: ended %s", name, e.Ended)
		}
	}
}

func TestACutWebSocketSaysWhyBetweenFramesOnly(t *testing.T) {
	for name, try := range map[string]struct {
		sent []byte
		want string
	}{
		"between frames":    {[]byte{0x81, 1, 'a'}, "\x03\xf0revoked: by an administrator"},
		"before the first":  {nil, "\x03\xf0revoked: by an administrator"},
		"inside a frame":    {[]byte{0x81, 9, 'a'}, ""},
		"inside a head":     {[]byte{0x81, 126, 0}, ""},
		"behind a long one": {append([]byte{0x82, 126, 1, 0}, make([]byte, 256)...), "\x03\xf0revoked: by an administrator"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpgraded()
			f := newFixture(t, u.serve)
			_, reader, _ := f.handshake()
			far := <-u.far
			if len(try.sent) > 0 {
				_, _ = far.Write(try.sent)
				if _, err := io.ReadFull(reader, make([]byte, len(try.sent))); err != nil {
					t.Fatal(err)
				}
			}
			f.guard.End(func(*Caller) bool { return true }, &Ended{Code: "revoked", Message: "by an administrator"})
			rest, _ := io.ReadAll(reader)
			if try.want == "" && len(rest) != 0 || try.want != "" && (len(rest) < 2 || rest[0] != 0x88 || string(rest[2:]) != try.want) {
				t.Errorf("the last words are %q", rest)
			}
			if e := f.outcome(); e.Ended != "revoked" {
				t.Errorf("ended %s", e.Ended)
			}
			if _, err := far.Read(make([]byte, 1)); err == nil {
				t.Error("the model server's side is still open")
			}
		})
	}
}

func TestACallerThatLeavesItsWebSocketEndsIt(t *testing.T) {
	u := newUpgraded()
	f := newFixture(t, u.serve)
	c, _, _ := f.handshake()
	far := <-u.far
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Error("the model server's side is still open")
	}
	if e := f.outcome(); e.Ended != clientGone {
		t.Errorf("ended %s", e.Ended)
	}
}

func TestFramesEndWhereTheyEndHoweverTheyAreCut(t *testing.T) {
	long := append([]byte{0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0}, make([]byte, 1<<16)...)
	masked := []byte{0x81, 0x83, 1, 2, 3, 4, 'a', 'b', 'c'}
	medium := append([]byte{0x81, 126, 0, 200}, make([]byte, 200)...)
	var all []byte
	ends := map[int]bool{0: true}
	for _, frame := range [][]byte{{0x89, 0}, masked, medium, {0x01, 1, 'x'}, long, {0x80, 0}} {
		all = append(all, frame...)
		ends[len(all)] = true
	}
	for _, size := range []int{1, 2, 3, 7, 100, 4096} {
		var f frames
		for at := 0; at < len(all); {
			n := min(size, len(all)-at)
			f.feed(all[at : at+n])
			at += n
			if f.atBoundary() != ends[at] {
				t.Fatalf("in pieces of %d: at byte %d a frame ends: %t", size, at, f.atBoundary())
			}
		}
	}
}
