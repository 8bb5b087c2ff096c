package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"iap/tunnel"
)

// h2Conn speaks raw HTTP/2 frames to the relay's public port.
type h2Conn struct {
	t      *testing.T
	conn   *tls.Conn
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	next   uint32 // stream
}

func (s *system) h2(t *testing.T) *h2Conn {
	t.Helper()
	cfg := s.tls()
	cfg.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", s.name, cfg)
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	must(t, err)
	c := &h2Conn{t: t, conn: conn, framer: http2.NewFramer(conn, conn), next: 1}
	c.hpack = hpack.NewEncoder(&c.block)
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	must(t, c.framer.WriteSettings())
	return c
}

// fields are names and values in turn.
func (c *h2Conn) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		must(c.t, c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(c.block.Bytes())
}

// send opens a stream with these fields and, unless it is nil, a body.
func (c *h2Conn) send(body []byte, fields ...string) uint32 {
	c.t.Helper()
	id := c.next
	c.next += 2
	must(c.t, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(fields...), EndHeaders: true, EndStream: body == nil}))
	if body != nil {
		must(c.t, c.framer.WriteData(id, true, body))
	}
	return id
}

// verdict is how the relay ended a stream: a status, or the code of a reset, of a
// GOAWAY or of the connection's end.
func (c *h2Conn) verdict(id uint32) string {
	c.t.Helper()
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return "closed"
		}
		switch f := frame.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == id {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id {
				return f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return f.ErrCode.String()
			}
		}
	}
}

func TestHT13HTTP2RequestsThatCanBeReadInTwoWaysAreRefused(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	token := strings.TrimPrefix(s.bearer(nil), "Authorization: ")
	body := chatBody("phi3", false)
	length := strconv.Itoa(len(body))
	with := func(replace map[string]string, further ...string) []string {
		fields := []string{}
		for _, f := range [][2]string{
			{":method", "POST"},
			{":scheme", "https"},
			{":authority", s.name},
			{":path", "/r/phi3/v1/chat/completions"},
			{"authorization", token},
			{"content-type", "application/json"},
			{"content-length", length},
		} {
			value, changed := replace[f[0]]
			if !changed {
				value = f[1]
			}
			if value != "" {
				fields = append(fields, f[0], value)
			}
		}
		return append(fields, further...)
	}
	for name, fields := range map[string][]string{
		"path without slash":     with(map[string]string{":path": "r/phi3/v1/chat/completions"}),
		"no path":                with(map[string]string{":path": ""}),
		"absolute path":          with(map[string]string{":path": "https://" + s.name + "/r/phi3/v1/chat/completions"}),
		"encoded path":           with(map[string]string{":path": "/r/phi3/v1%2fchat/completions"}),
		"dot segments":           with(map[string]string{":path": "/r/secret/../phi3/v1/chat/completions"}),
		"two paths":              append([]string{":path", "/r/phi3/v1/chat/completions"}, with(nil)...),
		"pseudo field at last":   with(map[string]string{":path": ""}, ":path", "/r/phi3/v1/chat/completions"),
		"unknown pseudo field":   append([]string{":role", "admin"}, with(nil)...),
		"authority is not host":  with(nil, "host", "evil.example"),
		"transfer encoding":      with(nil, "transfer-encoding", "chunked"),
		"connection":             with(nil, "connection", "close"),
		"upgrade":                with(nil, "upgrade", tunnel.Protocol),
		"te":                     with(nil, "te", "gzip"),
		"upper case":             with(nil, "X-Other", "1"),
		"line break in value":    with(nil, "x-other", "a\r\nx-iap-principal: corp/root"),
		"line break in name":     with(nil, "x\r\ny", "1"),
		"more than its length":   with(map[string]string{"content-length": strconv.Itoa(len(body) - 1)}),
		"less than its length":   with(map[string]string{"content-length": strconv.Itoa(len(body) + 1)}),
		"two lengths":            with(nil, "content-length", strconv.Itoa(len(body)-2)),
		"two tokens":             with(nil, "authorization", token),
		"connect":                with(map[string]string{":method": "CONNECT"}),
		"extended connect":       append([]string{":protocol", "websocket"}, with(map[string]string{":method": "CONNECT"})...),
		"token in the address":   with(map[string]string{":path": "/r/phi3/v1/chat/completions?api_key=x"}),
		"options":                with(map[string]string{":method": "OPTIONS"}),
		"identity that we speak": with(map[string]string{"authorization": ""}, "x-iap-principal", "corp/alice"),
	} {
		c := s.h2(t)
		if got := c.verdict(c.send([]byte(body), fields...)); strings.HasPrefix(got, "2") || strings.HasPrefix(got, "3") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if n := m.hits.Load(); n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
	c := s.h2(t)
	if got := c.verdict(c.send([]byte(body), with(nil)...)); got != "200" {
		t.Errorf("the plain request: %s", got)
	}
}

func TestHTTP2ConnectionIsBounded(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	get := []string{":method", "GET", ":scheme", "https", ":authority", s.name, ":path", "/r/phi3/v1/models"}
	t.Run("streams at once", func(t *testing.T) {
		c := s.h2(t)
		waiting := []string{
			":method", "POST", ":scheme", "https", ":authority", s.name, ":path", "/r/phi3/v1/chat/completions",
			"authorization", strings.TrimPrefix(s.bearer(nil), "Authorization: "), "content-type", "application/json", "content-length", "9",
		}
		var last uint32
		for range h2Streams + 1 { // each with a body that does not come
			last = c.next
			c.next += 2
			must(t, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: last, BlockFragment: c.encode(waiting...), EndHeaders: true}))
		}
		if got := c.verdict(last); got != "REFUSED_STREAM" && got != "PROTOCOL_ERROR" {
			t.Errorf("stream %d: %s", last, got)
		}
	})
	t.Run("size of headers", func(t *testing.T) {
		c := s.h2(t)
		fields := append([]string{}, get...)
		for range maxHeaderBytes / 1024 {
			fields = append(fields, "x-large", strings.Repeat("a", 1024)) // in the table: a byte each on the wire
		}
		if got := c.verdict(c.send(nil, fields...)); got != "431" {
			t.Error(got)
		}
	})
	t.Run("header that never ends", func(t *testing.T) {
		c := s.h2(t)
		must(t, c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(get...)}))
		literal := c.encode("x-filler", strings.Repeat("~", 8<<10))
		sent := 0
		for sent < 64<<20 && c.framer.WriteContinuation(1, false, literal) == nil {
			sent += len(literal)
		}
		if sent >= 64<<20 {
			t.Error("64 MiB of one header were taken")
		}
	})
	t.Run("frame size", func(t *testing.T) {
		c := s.h2(t)
		must(t, c.framer.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, h2Frame+1)))
		if got := c.verdict(1); got != "FRAME_SIZE_ERROR" {
			t.Error(got)
		}
	})
	t.Run("rapid reset", func(t *testing.T) {
		c := s.h2(t)
		for range 2000 {
			id := c.next
			c.next += 2
			if c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(get...), EndHeaders: true, EndStream: true}) != nil ||
				c.framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
				break // the relay has closed it
			}
		}
	})
	if r, text := s.ask("/r/phi3/v1/models", s.bearer(nil)); r.StatusCode != 200 {
		t.Errorf("somebody else meanwhile: %s %s", r.Status, text)
	}
	if n := m.hits.Load(); n != 1 {
		t.Errorf("%d requests went upstream", n)
	}
}

// h2Client is an HTTP/2 client of the front door, which tells its errors' types.
func (s *system) h2Client(t *testing.T) *http.Client {
	transport := &http.Transport{TLSClientConfig: s.tls(), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func (s *system) doorRequest(ctx context.Context, method, target, authorization string, body io.Reader) *http.Request {
	r, err := http.NewRequestWithContext(ctx, method, "https://"+s.name+target, body)
	must(s.t, err)
	r.Header.Set("Content-Type", "application/json")
	name, value, _ := strings.Cut(authorization, ": ")
	r.Header.Set(name, value)
	return r
}

func TestCutAnswerIsResetInHTTP2(t *testing.T) {
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	s := newSystem(t, phi3Only)
	s.startAgent(served{"phi3", "model", m.URL})
	r, err := s.h2Client(t).Do(s.doorRequest(within(t), "POST", "/r/phi3/v1/chat/completions", s.bearer(nil), strings.NewReader(chatBody("phi3", true))))
	must(t, err)
	defer r.Body.Close()
	if r.ProtoMajor != 2 || r.StatusCode != 200 {
		t.Fatalf("%s %s", r.Proto, r.Status)
	}
	await(t, chat.begun, "the answer has begun")
	s.setPolicy(strings.Replace(phi3Only, "[chat, list-models]", "[list-models]", 1))
	text, err := io.ReadAll(r.Body)
	var reset http2.StreamError
	if !errors.As(err, &reset) || reset.Code != http2.ErrCodeInternal {
		t.Errorf("the answer ended with %v", err)
	}
	if !strings.Contains(string(text), `"code":"policy_changed"`) {
		t.Errorf("it does not say why: %s", text)
	}
	await(t, chat.ended, "the model is freed")
}

func TestCallerWhoLeavesAnHTTP2StreamFreesTheModel(t *testing.T) {
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	s := newSystem(t, phi3Only)
	s.startAgent(served{"phi3", "model", m.URL})
	ctx, leave := context.WithCancel(within(t))
	r, err := s.h2Client(t).Do(s.doorRequest(ctx, "POST", "/r/phi3/v1/chat/completions", s.bearer(nil), strings.NewReader(chatBody("phi3", true))))
	must(t, err)
	defer r.Body.Close()
	await(t, chat.begun, "the answer has begun")
	leave()
	await(t, chat.ended, "the model is freed")
}

// endlessBody never comes to its end.
type endlessBody struct{ ctx context.Context }

func (b endlessBody) Read([]byte) (int, error) { <-b.ctx.Done(); return 0, b.ctx.Err() }

func TestRefusedUploadLeavesTheOtherStreamsAlone(t *testing.T) {
	s, _ := newDoor(t, phi3Only)
	client := s.h2Client(t)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	r, err := client.Do(s.doorRequest(ctx, "POST", "/r/secret/v1/chat/completions", s.bearer(nil), endlessBody{ctx}))
	must(t, err)
	cancel() // the upload, which the client would wait for
	_ = r.Body.Close()
	if r.StatusCode != 403 {
		t.Fatal(r.Status)
	}
	reused := false
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
	r, err = client.Do(s.doorRequest(httptrace.WithClientTrace(within(t), trace), "GET", "/r/phi3/v1/models", s.bearer(nil), nil))
	must(t, err)
	_ = r.Body.Close()
	if r.StatusCode != 200 || !reused {
		t.Errorf("%s, on the same connection: %t", r.Status, reused)
	}
}

func TestStoppingRelayTellsHTTP2ClientsToGoElsewhere(t *testing.T) {
	s, _ := newDoor(t, phi3Only)
	c := s.h2(t)
	s.relay.stopping.Store(true)
	c.send(nil, ":method", "GET", ":scheme", "https", ":authority", s.name, ":path", "/healthz")
	for {
		frame, err := c.framer.ReadFrame()
		must(t, err)
		if _, ok := frame.(*http2.GoAwayFrame); ok {
			return
		}
	}
}
