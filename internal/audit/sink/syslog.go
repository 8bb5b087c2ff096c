package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"time"
)

// Ports of syslog, where the URL names none.
const (
	syslogPort = "514"
	tlsPort    = "6514" // RFC 5425
)

// syslog sends messages of RFC 5424: over TLS (RFC 5425) and TCP (RFC 6587, octets counted), or as packets over UDP (RFC
// 5426) and to a local socket.
//
// Syslog confirms nothing. But a receiver that has come to the end of a connection closes its own half, and one that dies
// before resets it. So each batch has a connection of its own, which is ended behind the last message: when the receiver
// ends it as well it has read everything. Packets have no such end: what is lost of them nobody knows.
type syslog struct {
	syslogWriter
	scheme, network, address string
	secure                   *tls.Config
	frames                   []byte
}

func openSyslog(o Options, c Config) (target, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	relay, instance := splitOrigin(o.Origin)
	if host, _, err := net.SplitHostPort(relay); err == nil {
		relay = host
	}
	s := &syslog{
		syslogWriter: syslogWriter{host: relay, instance: instance, origin: o.Origin, version: o.Version, most: c.MaxMessage},
		scheme:       u.Scheme, network: u.Scheme,
	}
	port := syslogPort
	switch u.Scheme {
	case "unix":
		s.network, s.address = "unixgram", u.Path
	case "tls":
		s.network, port = "tcp", tlsPort
		if s.secure, err = c.tls(); err != nil {
			return nil, err
		}
		s.secure.ServerName = u.Hostname()
		s.secure.ClientSessionCache = tls.NewLRUClientSessionCache(1) // each batch has a connection: the next costs no signature
	}
	if s.address == "" {
		if u.Port() != "" {
			port = u.Port()
		}
		s.address = net.JoinHostPort(u.Hostname(), port)
	}
	if s.most == 0 {
		s.most = defaultMessage
		if s.scheme == "udp" {
			s.most = defaultPacket
		}
	}
	return s, nil
}

func (s *syslog) close() {}

func (s *syslog) send(ctx context.Context, b batch) (receipt, error) {
	conn, err := s.dial(ctx)
	if err != nil {
		return receipt{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if s.network != "tcp" {
		return receipt{}, s.packets(conn, b)
	}
	s.frames = s.frames[:0]
	for _, r := range b.records {
		message := s.message(r)
		s.frames = append(strconv.AppendInt(s.frames, int64(len(message)), 10), ' ')
		s.frames = append(s.frames, message...)
	}
	if _, err := conn.Write(s.frames); err != nil {
		return receipt{}, err
	}
	return receipt{}, confirm(ctx, conn)
}

func (s *syslog) packets(conn net.Conn, b batch) error {
	for _, r := range b.records {
		if _, err := conn.Write(s.message(r)); err != nil {
			return err
		}
	}
	return nil
}

// confirm ends the connection and waits until the receiver does.
func confirm(ctx context.Context, conn net.Conn) error {
	half, ok := conn.(interface{ CloseWrite() error }) // of TCP and of TLS
	if !ok {
		return errors.ErrUnsupported
	}
	if err := half.CloseWrite(); err != nil {
		return err
	}
	if secure, ok := conn.(*tls.Conn); ok { // close_notify is said: the connection beneath ends too
		if tcp, ok := secure.NetConn().(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	}
	said, err := io.Copy(io.Discard, io.LimitReader(conn, maxAnswer))
	switch {
	case ctx.Err() != nil:
		return errors.New("the receiver was sent everything and does not end the connection, so that nobody knows whether it has read it")
	case errors.Is(err, io.ErrUnexpectedEOF): // without close_notify, as rsyslog does
		return nil
	case err == nil && said == maxAnswer:
		return errors.New("the receiver talks: it does not speak syslog")
	}
	return err
}

func (s *syslog) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	if s.secure == nil {
		return new(net.Dialer).DialContext(ctx, s.network, s.address)
	}
	return (&tls.Dialer{Config: s.secure}).DialContext(ctx, s.network, s.address)
}

// probe connects and sends nothing. To packets nobody answers.
func (s *syslog) probe(ctx context.Context) error {
	conn, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if s.scheme == "udp" {
		return fmt.Errorf("%s: UDP does not tell whether anybody listens, or what is lost", s.address)
	}
	return nil
}
