package sink

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"iap/internal/audit"
)

// syslogServer takes messages as they come, in frames of counted octets, and has faults.
type syslogServer struct {
	*received
	net.Listener
	mu       sync.Mutex
	fault    func() string // for the next connection; "" takes it
	messages []parsed
	serving  sync.WaitGroup
	closed   chan struct{}
}

func newSyslogServer(t testing.TB, l net.Listener, fault func() string) *syslogServer {
	s := &syslogServer{received: newReceived(), Listener: l, fault: fault, closed: make(chan struct{})}
	s.serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serving.Go(func() {
				defer conn.Close()
				s.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		close(s.closed)
		l.Close()
		s.serving.Wait()
	})
	return s
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s *syslogServer) serve(conn net.Conn) {
	s.mu.Lock()
	fault := s.fault()
	s.mu.Unlock()
	in := bufio.NewReaderSize(conn, maxMessage)
	switch fault {
	case "hang":
		_, _ = io.Copy(io.Discard, in)
		<-s.closed
		return
	case "refuse":
		abort(conn)
		return
	case "die":
		s.frame(in)
		abort(conn)
		return
	}
	for {
		if err := s.frame(in); err != nil {
			if !errors.Is(err, io.EOF) {
				s.note(fmt.Sprint("frame: ", err))
			}
			break
		}
	}
	if fault == "taken, and reset" {
		abort(conn)
	}
}

// abort ends a connection as the kernel does for a process that died with something unread.
func abort(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// frame takes one message.
func (s *syslogServer) frame(in *bufio.Reader) error {
	count, err := in.ReadString(' ')
	if err != nil {
		return io.EOF // or a sink that was closed in the middle
	}
	n, err := strconv.Atoi(strings.TrimSuffix(count, " "))
	if err != nil || n < 1 || n > maxMessage || count[0] == '0' {
		return fmt.Errorf("length %q", count)
	}
	message := make([]byte, n)
	if _, err := io.ReadFull(in, message); err != nil {
		return io.EOF
	}
	s.message(string(message))
	return nil
}

func (s *syslogServer) message(text string) {
	p, err := parseSyslog(text)
	if err != nil {
		s.note(err.Error())
		return
	}
	s.mu.Lock()
	s.messages = append(s.messages, p)
	s.mu.Unlock()
	s.take(p.data[structuredID]["seq"], p.text)
}

func (s *syslogServer) note(wrong string) {
	s.received.mu.Lock()
	defer s.received.mu.Unlock()
	s.wrong = append(s.wrong, wrong)
}

// certificate is one that is good for 127.0.0.1, and the file that says so.
func certificate(t testing.TB) (*tls.Config, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	defer server.Close()
	return &tls.Config{Certificates: server.TLS.Certificates}, writeFile(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
}

func healthySyslog() string { return "" }

func syslogConfig(name, url string) Config {
	return Config{Name: name, Type: Syslog, URL: url, From: FromStart}
}

// Whatever a server does, and however often the relay begins anew, in the end it has the log: whole, and in order.
func TestSyslogServerHasTheWholeLogAfterAnyFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			faults := []string{"", "", "hang", "refuse", "die", "taken, and reset"}
			listener, c := listen(t, "tcp", "127.0.0.1:0"), Config{}
			c = syslogConfig("siem", "tcp://"+listener.Addr().String())
			if seed%2 == 1 {
				secure, ca := certificate(t)
				listener = tls.NewListener(listener, secure)
				c.URL, c.CAFile = "tls://"+listener.Addr().String(), ca
			}
			server := newSyslogServer(t, listener, func() string { return faults[random.IntN(len(faults))] })
			l := newLog(t, audit.Options{SegmentBytes: 16 << 10})
			o := l.options()
			o.Within = 100 * time.Millisecond
			for range 5 {
				s := start(t, o, c)
				l.write(t, 150)
				<-server.news
				s.Close()
			}
			server.mu.Lock()
			server.fault = healthySyslog
			server.mu.Unlock()
			o.Within = patience
			start(t, o, c)
			server.wait(t, len(l.lines(t)))
			server.want(t, l.lines(t))
		})
	}
}

func TestSyslogMessageSaysWhatTheRecordIsAbout(t *testing.T) {
	listener := listen(t, "tcp", "127.0.0.1:0")
	server, l := newSyslogServer(t, listener, healthySyslog), newLog(t, audit.Options{})
	e := audit.Event{
		Time: time.Date(2026, 11, 24, 9, 30, 0, 123456789, time.FixedZone("", 3600)), Kind: audit.KindDecision, Request: "rq-1",
		Principal: `corp/a"b\c]d` + "\x1b[2J\nMay 1 root: \u202e", Resource: "phi3", Decision: audit.Deny, Reason: "no_grant",
	}
	if err := l.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	start(t, l.options(), syslogConfig("siem", "tcp://"+listener.Addr().String()))
	server.wait(t, 2)
	server.want(t, l.lines(t))
	server.mu.Lock()
	defer server.mu.Unlock()
	got := server.messages[1]
	if got.priority != 13*8+4 || got.time != "2026-11-24T08:30:00.123456Z" || got.host != "relay.example.com" || got.app != "iap-relay" || got.process != "main" || got.id != "decision" || got.mark != "" {
		t.Errorf("%+v", got)
	}
	want := map[string]string{
		"log": origin, "seq": "2", "request": "rq-1", "principal": `corp/a"b\c]d` + "\ufffd[2J\ufffdMay 1 root: \ufffd", "resource": "phi3", "decision": "deny", "reason": "no_grant",
	}
	if data := got.data[structuredID]; fmt.Sprint(data) != fmt.Sprint(want) || got.data["meta"]["sequenceId"] != "2" || got.data["origin"]["swVersion"] != "1.2.3" {
		t.Errorf("%q", got.data)
	}
}

// A message that would be too long is cut where a character ends, and says so; the line is whole in the file.
func TestLongRecordIsCutWithAWordOfIt(t *testing.T) {
	w := syslogWriter{host: "h", instance: "i", origin: origin, version: "1", most: minMessage}
	for length := 1500; length < 2500; length++ {
		line := []byte(`{"v":1,"seq":7,"facts":"` + strings.Repeat("é", length/2) + `"}`)
		message := w.message(record{seq: 7, line: line, event: audit.Event{Seq: 7, Kind: audit.KindSubject}})
		p, err := parseSyslog(string(message))
		if err != nil || len(message) > minMessage {
			t.Fatalf("%d bytes: %v", len(message), err)
		}
		cut, is := p.data[structuredID]["cut"]
		switch {
		case !is && p.text != string(line), is && cut != fmt.Sprint(len(line)):
			t.Fatalf("%d: cut %q: %s", length, cut, p.text)
		case is && (!strings.HasSuffix(p.text, cutMark) || !strings.HasPrefix(string(line), strings.TrimSuffix(p.text, cutMark)) || len(message) < minMessage-8):
			t.Fatalf("%d: %d bytes: %s", length, len(message), p.text)
		}
	}
}

// Names of the relay's own are as strange as anybody's.
func TestHeaderOfAMessageIsPrintingASCII(t *testing.T) {
	for _, name := range []string{"", "ré", "a b", "a\nb", strings.Repeat("x", 300)} {
		w := syslogWriter{host: name, instance: name, origin: name, version: name, most: defaultMessage}
		p, err := parseSyslog(string(w.message(record{seq: 1<<31 + 5, line: []byte("{}"), event: audit.Event{Kind: name}})))
		if err != nil || p.host != "-" || p.process != "-" || p.id != "-" || p.time != "-" || p.data["meta"]["sequenceId"] != "6" {
			t.Errorf("%q: %+v, %v", name, p, err)
		}
	}
}

func FuzzSyslogMessage(f *testing.F) {
	f.Add("corp/x\n<34>1 ]\"", "decision", `{"v":1,"seq":1,"message":"é"}`, uint64(1))
	f.Fuzz(func(t *testing.T, text, kind, line string, seq uint64) {
		if seq == 0 || !utf8.ValidString(line) { // no record has either
			return
		}
		w := syslogWriter{host: text, instance: kind, origin: text, version: text, most: minMessage}
		e := audit.Event{Kind: kind, Principal: text, Resource: kind, Action: text, Decision: text, Reason: line, Request: text}
		message := w.message(record{seq: seq, line: []byte(line), event: e})
		if _, err := parseSyslog(string(message)); err != nil || len(message) > minMessage {
			t.Errorf("%d bytes: %v", len(message), err)
		}
	})
}

func TestSyslogPacketsGoToUDPAndToALocalSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, network := range []string{"udp", "unixgram"} {
		address := "127.0.0.1:0"
		if network == "unixgram" {
			address = path
		}
		packets, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		url := "udp://" + packets.LocalAddr().String()
		if network == "unixgram" {
			url = "unix://" + path
		}
		server, l := &syslogServer{received: newReceived()}, newLog(t, audit.Options{})
		l.write(t, 30)
		s := start(t, l.options(), syslogConfig("siem", url))
		buf := make([]byte, maxMessage)
		for range l.lines(t) {
			_ = packets.SetReadDeadline(time.Now().Add(patience))
			n, _, err := packets.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			server.message(string(buf[:n]))
		}
		server.want(t, l.lines(t))
		s.Close()
		packets.Close()
	}
}

func TestSyslogServerThatIsNoneIsNamed(t *testing.T) {
	secure, ca := certificate(t)
	listener := listen(t, "tcp", "127.0.0.1:0")
	newSyslogServer(t, tls.NewListener(listener, secure), healthySyslog)
	good := syslogConfig("siem", "tls://"+listener.Addr().String())
	good.CAFile = ca
	if begins, err := Probe(t.Context(), good); !begins || err != nil {
		t.Errorf("%v, %v", begins, err)
	}
	stranger := good
	stranger.CAFile = ""
	if begins, err := Probe(t.Context(), stranger); !begins || err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v, %v", begins, err)
	}
	gone := listen(t, "tcp", "127.0.0.1:0")
	gone.Close()
	if begins, err := Probe(t.Context(), syslogConfig("siem", "tcp://"+gone.Addr().String())); !begins || err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("%v, %v", begins, err)
	}
	good.CAFile = filepath.Join(t.TempDir(), "none.pem")
	if begins, err := Probe(t.Context(), good); begins || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", begins, err)
	}
}
