package tunnel

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

func TestStreamIsANetConn(t *testing.T) {
	client, server := pair(t)
	open := streams(t, client, server)
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		a, b := open()
		return a, b, func() { a.Close(); b.Close() }, nil
	})
}

func TestStreamEchoes(t *testing.T) {
	client, server := pair(t)
	serve(t, server, echo)
	st, err := client.Open(context.Background(), Header{Service: "echo"}, []byte("early "))
	must(t, err)
	_, err = st.Write([]byte("and late"))
	must(t, err)
	must(t, st.CloseWrite())
	got, err := io.ReadAll(st)
	must(t, err)
	if string(got) != "early and late" {
		t.Fatalf("got %q", got)
	}
	wait(t, st.Done(), "the end of the stream")
	must(t, st.Err())
}

func TestAbortReachesBothSidesWithItsCode(t *testing.T) {
	client, server := pair(t)
	open := streams(t, client, server)
	a, b := open()
	read := make(chan error, 1)
	go func() { _, err := a.Read(make([]byte, 1)); read <- err }()
	b.Abort(CodePolicyChanged)
	err := wait(t, read, "the read")
	var abort *AbortError
	if !errors.As(err, &abort) || abort.Code != CodePolicyChanged || !abort.Remote {
		t.Fatalf("the peer read %v", err)
	}
	_, err = b.Read(make([]byte, 1))
	if !errors.As(err, &abort) || abort.Code != CodePolicyChanged || abort.Remote {
		t.Fatalf("the aborting side read %v", err)
	}
	_, err = b.Write([]byte("x"))
	wantCode(t, err, CodePolicyChanged)
}

func TestSessionDeathIsNeverAnEnd(t *testing.T) {
	client, server := pair(t)
	open := streams(t, client, server)
	a, _ := open()
	read := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, a); read <- err }()
	closeNow(server.conn)
	err := wait(t, read, "the read")
	if !errors.Is(err, ErrSessionLost) {
		t.Fatalf("read %v", err)
	}
}

func TestLargeTransferBothWays(t *testing.T) {
	client, server := pair(t)
	serve(t, server, echo)
	st, err := client.Open(context.Background(), Header{}, nil)
	must(t, err)
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	sent := make(chan error, 1)
	go func() {
		_, err := st.Write(want)
		if err == nil {
			err = st.CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(st)
	must(t, err)
	must(t, wait(t, sent, "the write"))
	if !bytes.Equal(got, want) {
		t.Fatal("the echo differs")
	}
}

var _ = time.Second
