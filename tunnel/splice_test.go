package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// tcpPair is a TCP connection on loopback.
func tcpPair(t testing.TB) (*net.TCPConn, *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	must(t, err)
	b, err := ln.Accept()
	must(t, err)
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// spliced puts a splice between a TCP connection and a stream, and gives the far end of each.
func spliced(t testing.TB, ctx context.Context) (*net.TCPConn, *Stream, <-chan error, *Spliced) {
	client, server := pair(t)
	a, b := streams(t, client, server)()
	app, local := tcpPair(t)
	done, n := make(chan error, 1), new(Spliced)
	go func() {
		var err error
		*n, err = Splice(ctx, TCP(local), a)
		a.Close()
		done <- err
	}()
	return app, b, done, n
}

func TestSpliceHandsOnEachHalfClose(t *testing.T) {
	app, far, done, n := spliced(t, context.Background())
	request, answer := bytes.Repeat([]byte("q"), 100<<10), bytes.Repeat([]byte("a"), 3<<20)
	_, err := app.Write(request)
	must(t, err)
	must(t, app.CloseWrite())
	got, err := io.ReadAll(far)
	must(t, err)
	if !bytes.Equal(got, request) {
		t.Fatalf("%d bytes arrived", len(got))
	}
	go func() { far.Write(answer); far.CloseWrite() }()
	got, err = io.ReadAll(app)
	must(t, err)
	if !bytes.Equal(got, answer) {
		t.Fatalf("%d bytes came back", len(got))
	}
	must(t, wait(t, done, "the splice's end"))
	if n.AToB != int64(len(request)) || n.BToA != int64(len(answer)) {
		t.Fatalf("counted %+v", n)
	}
}

func TestSpliceHandsOnAnAbort(t *testing.T) {
	app, far, done, _ := spliced(t, context.Background())
	far.Abort(CodeRevoked)
	if _, err := app.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("the application read %v", err)
	}
	wantCode(t, wait(t, done, "the splice's end"), CodeRevoked)
}

func TestSpliceHandsOnAReset(t *testing.T) {
	app, far, done, _ := spliced(t, context.Background())
	app.SetLinger(0)
	app.Close()
	_, err := io.ReadAll(far)
	wantCode(t, err, CodeUpstreamReset)
	if err := wait(t, done, "the splice's end"); err == nil {
		t.Fatal("a reset is no error")
	}
}

func TestSpliceEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	app, far, done, _ := spliced(t, ctx)
	cancel(&AbortError{Code: CodePolicyChanged})
	_, err := far.Read(make([]byte, 1))
	wantCode(t, err, CodePolicyChanged)
	if _, err := app.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("the application read %v", err)
	}
	wantCode(t, wait(t, done, "the splice's end"), CodePolicyChanged)
}

func TestSpliceOfTwoStreams(t *testing.T) {
	client, server := pair(t)
	open := streams(t, client, server)
	a, b := open()
	c, d := open()
	done := make(chan error, 1)
	go func() { _, err := Splice(context.Background(), b, d); done <- err }()
	want := bytes.Repeat([]byte("x"), 1<<20)
	go func() { a.Write(want); a.CloseWrite(); c.CloseWrite() }()
	got, err := io.ReadAll(c)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("the bytes differ")
	}
	must(t, wait(t, done, "the splice's end"))
}
