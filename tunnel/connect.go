package tunnel

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"time"
)

// Connect proves who the client is and begins a session. conn comes from Dialer.Dial; Connect owns it from here on and
// closes it if it fails. The error is a *DialError of stage handshake: with the relay's code and message if the relay
// refused, with CodeRelayUntrusted, CodeBindingRefused or CodeVersionMismatch if the client did.
func Connect(ctx context.Context, conn net.Conn, cfg ClientConfig) (*Session, error) {
	s, err := connect(ctx, conn, cfg)
	if err != nil {
		closeNow(conn) // the first error counts
		var dial *DialError
		if errors.As(err, &dial) {
			return nil, err
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &DialError{Stage: "handshake", Code: CodeOf(err), Err: err}
	}
	return s, nil
}

func connect(ctx context.Context, conn net.Conn, cfg ClientConfig) (*Session, error) {
	hello, private, err := cfg.hello(ctx)
	if err != nil {
		return nil, err
	}
	release := cutShort(ctx, conn)
	x := &exchange{conn: conn, left: handshakeBytes}
	f, expires, err := cfg.handshake(x, hello, private)
	release()
	if err != nil {
		return nil, err
	}
	s := newSession(conn, f, false, cfg.Logger)
	s.client = cfg
	s.peer.Expires = expires
	return s, s.startClient()
}

func (cfg *ClientConfig) hello(ctx context.Context) (*Hello, *ecdh.PrivateKey, error) {
	if len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, nil, errors.New("no session key")
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make ephemeral key: %w", err)
	}
	h := &Hello{
		Version: handshakeVersion, Role: cfg.Role, Class: cfg.Class, Relay: cfg.Relay, AgentID: cfg.AgentID,
		Software: cfg.Version, PublicKey: cfg.Key.Public().(ed25519.PublicKey), Ephemeral: private.PublicKey().Bytes(),
	}
	if h.Class == "" {
		h.Class = Interactive
	}
	if h.Role == RoleUser {
		if cfg.Token == nil {
			return nil, nil, errors.New("no token to present")
		}
		if h.Token, err = cfg.Token(ctx); err != nil {
			return nil, nil, err
		}
	}
	return h, private, nil
}

// handshake is the client's half: hello, challenge, proof, welcome.
func (cfg *ClientConfig) handshake(x *exchange, hello *Hello, private *ecdh.PrivateKey) (facts, time.Time, error) {
	var never time.Time
	if err := x.write(hello); err != nil {
		return facts{}, never, fmt.Errorf("send hello: %w", err)
	}
	var c challenge
	if err := x.read(&c); err != nil {
		return facts{}, never, fmt.Errorf("await challenge: %w", err)
	}
	if err := cfg.judge(&c); err != nil {
		return facts{}, never, err
	}
	signed, err := cfg.transcript(x.conn, hello, &c)
	if err != nil {
		return facts{}, never, err
	}
	if err := x.write(proof{Signature: ed25519.Sign(cfg.Key, signed)}); err != nil {
		return facts{}, never, fmt.Errorf("send proof: %w", err)
	}
	var w welcome
	if err := x.read(&w); err != nil {
		return facts{}, never, fmt.Errorf("await welcome: %w", err)
	}
	if w.Code != "" {
		return facts{}, never, &Refusal{Code: knownCode(w.Code), Message: printable(w.Message)}
	}
	hash := sha256.Sum256(signed)
	if !ed25519.Verify(c.RelayKey, welcomeTranscript(hash[:], &w), w.Signature) {
		return facts{}, never, &Refusal{Code: CodeRelayUntrusted, Message: "the relay could not prove its key"}
	}
	f := facts{
		id: w.Session, hello: *hello, binding: c.Binding, peerKey: c.RelayKey,
		transcript: hash[:], peerCap: w.MaxStreams,
	}
	if cfg.OnRelayKeys != nil {
		cfg.OnRelayKeys(c.RelayKey, c.Chain)
	}
	if hello.Role == RoleAgent {
		if f.sealKey, err = sealKey(private, c.Ephemeral, hash[:]); err != nil {
			return facts{}, never, err
		}
	}
	if w.ExpiresMS != 0 {
		return f, time.UnixMilli(w.ExpiresMS), nil
	}
	return f, never, nil
}

// judge refuses a relay that is not the one expected, or binds less than expected, before anything is signed for it.
func (cfg *ClientConfig) judge(c *challenge) error {
	if c.Code != "" {
		return &Refusal{Code: knownCode(c.Code), Message: printable(c.Message)}
	}
	if !isPublicKey(c.RelayKey) || len(c.Nonce) != nonceBytes || len(c.Ephemeral) != keyBytes {
		return &Refusal{Code: CodeProtocolError, Message: "the relay's challenge is malformed"}
	}
	switch {
	case c.Binding != BindingExporter && c.Binding != BindingNonce:
		return &Refusal{Code: CodeBindingRefused, Message: "the relay's channel binding is unknown"}
	case c.Binding == BindingNonce && cfg.MinBinding == BindingExporter:
		return &Refusal{
			Code:    CodeBindingRefused,
			Message: "the relay asks for channel binding nonce where exporter was agreed: something may be reading along",
		}
	}
	if cfg.CheckRelay != nil {
		if err := cfg.CheckRelay(c.RelayKey, c.Chain); err != nil {
			return &DialError{Stage: "handshake", Code: CodeRelayUntrusted, Err: fmt.Errorf("check relay key: %w", err)}
		}
	}
	return nil
}

func (cfg *ClientConfig) transcript(conn net.Conn, hello *Hello, c *challenge) ([]byte, error) {
	exporter, err := exporterOf(conn, c.Binding)
	if err != nil {
		return nil, &Refusal{Code: CodeBindingRefused, Message: err.Error()}
	}
	var tokenHash []byte
	if hello.Role == RoleUser {
		if tokenHash, err = payloadHash(hello.Token); err != nil {
			return nil, &Refusal{Code: CodeTokenInvalid, Message: err.Error()}
		}
	}
	return transcript(hello, c, exporter, tokenHash), nil
}

// startClient runs the multiplexer and opens the control stream.
func (s *Session) startClient() error {
	maxInbound := s.client.MaxStreams
	if maxInbound == 0 && s.Role() == RoleAgent {
		maxInbound = streamCap(0, s.Class())
	}
	if err := s.start(maxInbound, s.client.Windows); err != nil {
		return err
	}
	mux, err := s.mux.OpenStream()
	if err == nil {
		s.table.claim(mux.StreamID())
		s.control.mux = mux
		close(s.control.ready)
		first := controlMessage{Type: msgPing}
		if s.Role() == RoleAgent {
			first = controlMessage{Type: msgAnnounce, Resources: s.client.Announce}
		}
		err = s.control.send(first)
	}
	if err != nil {
		s.mux.Close() // it never fails
		<-s.writer.done
		return fmt.Errorf("open control stream: %w", err)
	}
	go s.readControl() // joined by loop
	go s.loop()        // ends with the session; Done says when
	return nil
}

func streamCap(wanted int, class Class) int {
	switch {
	case wanted > 0:
		return wanted
	case class == Bulk:
		return streamsBulk
	}
	return streamsInteractive
}
