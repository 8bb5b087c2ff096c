package notify

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func env(list map[string]string) Desktop {
	return Desktop{Env: func(name string) string { return list[name] }}
}

// startBus is a session bus with one client and one service. It sends each call it gets.
func startBus(t *testing.T, answers bool) (address string, calls <-chan *dbus.Message) {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus-") // a test's own folder may be too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "bus")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	got, done := make(chan *dbus.Message, 10), make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		if !answers {
			_, _ = io.Copy(io.Discard, c) // to the client's end
			return
		}
		serveBus(c, got)
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
		_ = os.RemoveAll(dir)
	})
	return "unix:path=" + socket, got
}

// serveBus lets the client in (D-Bus Specification, Authentication Protocol) and answers whatever it asks.
func serveBus(c net.Conn, got chan<- *dbus.Message) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		switch word := strings.Trim(line, "\x00\r\n "); {
		case err != nil:
			return
		case word == "AUTH EXTERNAL":
			_, _ = io.WriteString(c, "DATA\r\n")
			continue
		case word == "DATA":
			_, _ = io.WriteString(c, "OK 0123456789abcdef0123456789abcdef\r\n")
			continue
		case word == "AUTH":
			_, _ = io.WriteString(c, "REJECTED EXTERNAL\r\n")
			continue
		case word != "BEGIN": // descriptors are not passed
			_, _ = io.WriteString(c, "ERROR\r\n")
			continue
		}
		break
	}
	for serial := uint32(1); ; serial++ {
		call, err := dbus.DecodeMessage(r)
		if err != nil {
			return
		}
		got <- call
		reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
			dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(uint32(0))),
		}, Body: []any{serial}}
		if call.Headers[dbus.FieldMember].Value() == "Hello" {
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(""))
			reply.Body = []any{":1.1"}
		}
		if reply.EncodeTo(c, binary.LittleEndian) != nil {
			return
		}
	}
}

func TestDesktopIsToldOnceAndInPlainText(t *testing.T) {
	for name, test := range map[string]struct {
		display string
		flags   dbus.Flags
	}{
		"with a display":                         {":0", 0},
		"without one, nothing is started for it": {"", dbus.FlagNoAutoStart},
	} {
		address, calls := startBus(t, true)
		d := env(map[string]string{"DBUS_SESSION_BUS_ADDRESS": address, "DISPLAY": test.display})
		if err := d.Show(t.Context(), "Login needed", "<b>run</b> iapctl login"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		<-calls // Hello
		call := <-calls
		if len(calls) != 0 || call.Headers[dbus.FieldMember].Value() != "Notify" || call.Flags&dbus.FlagNoAutoStart != test.flags ||
			call.Body[3] != "Login needed" || call.Body[4] != "brun/b iapctl login" {
			t.Errorf("%s: %v", name, call)
		}
	}
}

func TestNothingIsShownWhereThereIsNoDesktop(t *testing.T) {
	for name, list := range map[string]map[string]string{
		"no variables":            {},
		"no socket":               {"XDG_RUNTIME_DIR": t.TempDir()},
		"a relative folder":       {"XDG_RUNTIME_DIR": "."},
		"an address that runs":    {"DBUS_SESSION_BUS_ADDRESS": "unixexec:path=/bin/false"},
		"one behind a true one":   {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nowhere;unixexec:path=/bin/false"},
		"a bus over the network":  {"DBUS_SESSION_BUS_ADDRESS": "tcp:host=127.0.0.1,port=1"},
		"one that is to be begun": {"DBUS_SESSION_BUS_ADDRESS": "autolaunch:"},
	} {
		if err := env(list).Show(t.Context(), "a", "b"); !errors.Is(err, ErrNoDesktop) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBusThatDoesNotAnswerHoldsNobodyUp(t *testing.T) {
	address, _ := startBus(t, false)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond) // instead of Limit
	defer cancel()
	if env(map[string]string{"DBUS_SESSION_BUS_ADDRESS": address}).Show(ctx, "a", "b") == nil {
		t.Error("a silent bus has shown something")
	}
}
