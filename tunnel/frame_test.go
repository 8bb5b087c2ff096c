package tunnel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// rawClient is an authenticated client that speaks frames as it likes.
type rawClient struct {
	net.Conn
	t testing.TB
}

// connectRaw passes the handshake by hand and opens the control stream.
func (r *testRelay) connectRaw(t testing.TB, cfg ClientConfig) (*rawClient, *Session) {
	t.Helper()
	conn := r.dialRaw(t)
	hello, private, err := cfg.hello(context.Background())
	must(t, err)
	_, _, err = cfg.handshake(&exchange{conn: conn, left: handshakeBytes}, hello, private)
	must(t, err)
	s := wait(t, r.sessions, "the session")
	t.Cleanup(func() { end(s) })
	c := &rawClient{conn, t}
	c.send(frameHeader{kind: frameWindow, flags: flagSYN, id: 1}, nil)
	return c, s
}

func (c *rawClient) send(h frameHeader, body []byte) {
	_, err := c.Write(append(h.append(nil), body...))
	if err != nil {
		c.t.Logf("send: %v", err)
	}
}

// open opens a stream with a valid header.
func (c *rawClient) open(id uint32, h Header) {
	c.send(frameHeader{kind: frameWindow, flags: flagSYN, id: id}, nil)
	b, err := appendMessage(nil, h, headerBytes)
	must(c.t, err)
	c.send(frameHeader{kind: frameData, id: id, length: uint32(len(b))}, b)
}

func data(id uint32, n int) []byte {
	return append(frameHeader{kind: frameData, id: id, length: uint32(n)}.append(nil), make([]byte, n)...)
}

func frames(hs ...frameHeader) []byte {
	var b []byte
	for _, h := range hs {
		b = h.append(b)
	}
	return b
}

// Whatever frames a peer makes up, its session ends or goes on; nothing panics, nobody else notices.
func TestST05MadeUpFramesHarmNobodyElse(t *testing.T) {
	r := startRelay(t, nil)
	bystander, server := r.connect(t, r.clientConfig(t, RoleUser))
	serve(t, server, echo)
	window := func(id uint32, flags uint16, length uint32) frameHeader {
		return frameHeader{kind: frameWindow, flags: flags, id: id, length: length}
	}
	for _, c := range []struct {
		name string
		sent []byte
		ends bool // the session
	}{
		{"version 1", []byte{1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0}, true},
		{"type 9", []byte{0, 9, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0}, true},
		{"all flags", frames(window(5, 0xffff, 0)), true},
		{"all known flags", frames(window(5, 15, 0)), true},
		{"open of a live id", frames(window(3, flagSYN, 0)), true},
		{"open of the other side's id", frames(window(4, flagSYN, 0)), true},
		{"id 0", frames(window(0, 0, 1)), true},
		{"open of id 0", frames(window(0, flagSYN, 0)), true},
		{"end twice", frames(window(3, flagFIN, 0), window(3, flagFIN, 0)), true},
		{"data behind the end", append(frames(window(3, flagFIN, 0)), data(3, 5)...), true},
		{"reset of an unknown stream", frames(window(99, flagRST, 0)), false},
		{"update of an unknown stream", frames(window(99, 0, 1)), false},
		{"data for an unknown stream", data(99, 70000), false},
		{"acknowledgement of its own stream", frames(window(3, flagACK, 0)), true},
		{"window of 4 GiB", frames(window(3, 0, 0xffffffff)), true},
		{"window twice the largest", frames(window(3, 0, windowMost), window(3, 0, windowMost)), true},
		{"data beyond the window", bytes.Repeat(data(3, 64<<10), 5), true},
		{"4 GiB for an unknown stream", frames(frameHeader{kind: frameData, id: 99, length: 0xffffffff}), true},
		{"4 GiB for a live stream", frames(frameHeader{kind: frameData, id: 3, length: 0xffffffff}), true},
		{"reset with data", append(frames(frameHeader{kind: frameData, flags: flagRST, id: 3, length: 1}), 0), true},
		{"open and end at once", frames(window(5, flagSYN|flagFIN, 0)), true},
		{"going away", frames(frameHeader{kind: frameGoAway}), false},
		{"going away in anger", frames(frameHeader{kind: frameGoAway, length: 1}), true},
		{"an unasked pong", frames(frameHeader{kind: framePing, flags: flagACK, length: 7}), false},
		{"a ping", frames(frameHeader{kind: framePing, flags: flagSYN, length: 7}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw, s := r.connectRaw(t, r.clientConfig(t, RoleUser))
			serve(t, s, func(ctx context.Context, _ *Stream, _ Header) { <-ctx.Done() })
			raw.open(3, Header{})
			_, err := raw.Write(c.sent)
			if !c.ends { // else the far end may hang up before it has read all
				must(t, err)
			}
			if c.ends {
				wait(t, s.Done(), "the session's end")
			} else if err := probeRaw(raw, s); err != nil {
				t.Fatalf("the session did not go on: %v", err)
			}
			st, err := bystander.Open(context.Background(), Header{}, []byte("unharmed"))
			must(t, err)
			must(t, st.CloseWrite())
			got, err := io.ReadAll(st)
			must(t, err)
			if string(got) != "unharmed" {
				t.Fatal(got)
			}
		})
	}
}

// probeRaw asks the relay's end for a pong: what was sent before was taken then.
func probeRaw(c *rawClient, s *Session) error {
	b, err := appendMessage(nil, controlMessage{Type: msgPing, ID: 42}, controlBytes)
	if err != nil {
		return err
	}
	c.send(frameHeader{kind: frameData, id: controlID, length: uint32(len(b))}, b)
	buf := make([]byte, 0, 4096)
	for !bytes.Contains(buf, []byte(`"id":42`)) {
		n, err := c.Read(buf[len(buf):cap(buf)])
		if err != nil {
			return errors.Join(err, s.Err())
		}
		buf = buf[:len(buf)+n]
	}
	return nil
}

func TestFirstStreamMustBeTheControlStream(t *testing.T) {
	r := startRelay(t, nil)
	cfg := r.clientConfig(t, RoleUser)
	conn := r.dialRaw(t)
	hello, private, err := cfg.hello(context.Background())
	must(t, err)
	_, _, err = cfg.handshake(&exchange{conn: conn, left: handshakeBytes}, hello, private)
	must(t, err)
	s := wait(t, r.sessions, "the session")
	_, err = conn.Write(frames(frameHeader{kind: frameWindow, flags: flagSYN, id: 3}))
	must(t, err)
	wait(t, s.Done(), "the end")
	wantCode(t, s.Err(), CodeProtocolError)
}

func TestST07FloodsEndTheSession(t *testing.T) {
	for name, h := range map[string]frameHeader{
		"pings":         {kind: framePing, flags: flagSYN},
		"pongs":         {kind: framePing, flags: flagACK},
		"empty updates": {kind: frameWindow, id: 1},
		"empty data":    {kind: frameData, id: 1},
		"for nobody":    {kind: frameWindow, id: 77},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRelay(t, nil)
			raw, s := r.connectRaw(t, r.clientConfig(t, RoleUser))
			must(t, probeRaw(raw, s))
			before := runtime.NumGoroutine()
			flood := bytes.Repeat(h.append(nil), 10000)
			for range 100 {
				if _, err := raw.Write(flood); err != nil {
					break
				}
				if n := runtime.NumGoroutine(); n > before+100 {
					t.Fatalf("%d goroutines", n)
				}
			}
			wait(t, s.Done(), "the end")
			wantCode(t, s.Err(), CodeProtocolError)
		})
	}
}

// A peer that opens streams beyond its cap and reads no reset cannot make us hold them all.
func TestUnreadResetsAreBounded(t *testing.T) {
	r := startRelay(t, func(c *ServerConfig) { c.MaxStreams = 1 })
	raw, s := r.connectRaw(t, r.clientConfig(t, RoleUser))
	id := uint32(3)
	must(t, raw.SetWriteDeadline(time.Now().Add(patience)))
	for s.Err() == nil {
		var b []byte
		for range 5000 {
			b = frameHeader{kind: frameWindow, flags: flagSYN, id: id}.append(b)
			id += 2
		}
		if _, err := raw.Write(b); err != nil {
			break
		}
	}
	wait(t, s.Done(), "the end")
}

func TestControlFloodEndsTheSession(t *testing.T) {
	r := startRelay(t, nil)
	raw, s := r.connectRaw(t, r.clientConfig(t, RoleUser))
	m, err := appendMessage(nil, controlMessage{Type: msgPing}, controlBytes)
	must(t, err)
	frame := append(frameHeader{kind: frameData, id: 1, length: uint32(len(m))}.append(nil), m...)
	go io.Copy(io.Discard, raw)
	for range 1000 {
		if _, err := raw.Write(frame); err != nil {
			break
		}
	}
	wait(t, s.Done(), "the end")
	wantCode(t, s.Err(), CodeProtocolError)
}

func TestST11BadStreamHeadersResetTheirStream(t *testing.T) {
	for name, sent := range map[string]string{
		"oversized":     "\x00\x10\x00\x00",
		"not json":      "\x00\x00\x00\x05hello",
		"invalid utf-8": "\x00\x00\x00\x10{\"service\":\"\xff\"} ",
		"trailing":      "\x00\x00\x00\x05{} {}",
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t)
			serve(t, server, func(context.Context, *Stream, Header) { t.Error("a handler ran") })
			client.opens <- struct{}{}
			st, err := client.openMux()
			must(t, err)
			_, err = io.WriteString(st, sent)
			must(t, err)
			_, err = st.Read(make([]byte, 1))
			wantCode(t, err, CodeProtocolError)
			must(t, probe(client))
		})
	}
}

func TestFramesLeaveWhole(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	s := &Session{relay: true, opens: make(chan struct{}, 1)}
	s.table = newStreamTable(s, false, 0)
	w := newFrameWriter(near, s.table)
	s.table.mu.Lock()
	s.table.addLocked(3, true)
	s.table.mu.Unlock()
	body := bytes.Repeat([]byte("x"), 1000)
	h := frameHeader{kind: frameData, id: 3, length: 1000}
	_, err := w.Write(h.append(nil))
	must(t, err)
	w.inject(frameHeader{kind: frameWindow, flags: flagRST, id: 9}) // between header and body
	wrote := make(chan error, 1)
	go func() { _, err := w.Write(body); wrote <- err }()
	got := make([]byte, 2*frameHeaderBytes+1000)
	_, err = io.ReadFull(far, got)
	must(t, err)
	first, err := parseFrame(got)
	must(t, err)
	if !first.has(flagRST) || sha256.Sum256(got[24:]) != sha256.Sum256(body) {
		t.Fatalf("first frame %+v", first)
	}
	must(t, wait(t, wrote, "the write"))
	w.finish()
	<-w.done
}

func FuzzParseFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < frameHeaderBytes {
			return
		}
		h, err := parseFrame(b)
		if err == nil && !bytes.Equal(h.append(nil), b[:frameHeaderBytes]) {
			t.Fatalf("%+v is another frame", h)
		}
	})
}

// FuzzFrameReader feeds a session's way in with anything, cut anywhere.
func FuzzFrameReader(f *testing.F) {
	f.Add(frames(frameHeader{kind: frameWindow, flags: flagSYN, id: 1}), byte(3))
	f.Add(append(frames(frameHeader{kind: frameWindow, flags: flagSYN, id: 1}), data(1, 40)...), byte(200))
	f.Fuzz(func(t *testing.T, b []byte, step byte) {
		s := &Session{relay: true, opens: make(chan struct{}, 1)}
		s.table = newStreamTable(s, false, 4)
		near, far := net.Pipe()
		go io.Copy(io.Discard, far)
		s.writer = newFrameWriter(near, s.table)
		s.reader = newFrameReader(chunkConn{bytes.NewReader(b), int(step) + 1}, s.table, func() {})
		out, err := io.ReadAll(s.reader)
		s.writer.fail(errWriterClosed)
		near.Close()
		far.Close()
		<-s.writer.done
		if len(out) > len(b) {
			t.Fatalf("%d bytes became %d (%v)", len(b), len(out), err)
		}
		for len(out) >= frameHeaderBytes {
			h, err := parseFrame(out)
			if err != nil {
				t.Fatalf("let a bad frame pass: %v", err)
			}
			if int(binary.BigEndian.Uint32(out[8:12])) != int(h.length) {
				t.Fatal("lengths differ")
			}
			out = out[min(len(out), frameHeaderBytes+h.body()):]
		}
	})
}

type chunkConn struct {
	r    io.Reader
	step int
}

func (c chunkConn) Read(p []byte) (int, error)       { return c.r.Read(p[:min(len(p), c.step)]) }
func (c chunkConn) Write(p []byte) (int, error)      { return len(p), nil }
func (c chunkConn) Close() error                     { return nil }
func (c chunkConn) LocalAddr() net.Addr              { return nil }
func (c chunkConn) RemoteAddr() net.Addr             { return nil }
func (c chunkConn) SetDeadline(time.Time) error      { return nil }
func (c chunkConn) SetReadDeadline(time.Time) error  { return nil }
func (c chunkConn) SetWriteDeadline(time.Time) error { return nil }
