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
	"strings"
	"time"
)

// Accept lets a client prove who it is and begins its session. conn comes from Upgrade; Accept owns it from here on and
// closes it if it fails. ctx bounds the handshake only. The session ends by Close or by itself; Session.Done says when
// all that it ran has stopped.
func Accept(ctx context.Context, conn net.Conn, cfg ServerConfig) (*Session, error) {
	if cfg.Binding == "" {
		cfg.Binding = BindingExporter
	}
	s, err := accept(ctx, conn, cfg)
	if err != nil {
		closeNow(conn) // the first error counts
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("accept session: %w", err)
	}
	return s, nil
}

func accept(ctx context.Context, conn net.Conn, cfg ServerConfig) (*Session, error) {
	if len(cfg.Key) != ed25519.PrivateKeySize || cfg.Authenticate == nil {
		return nil, errors.New("no relay key or nobody to authenticate")
	}
	release := cutShort(ctx, conn)
	x := &exchange{conn: conn, left: handshakeBytes}
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	f, peer, err := cfg.handshake(ctx, x)
	if err != nil {
		if ctx.Err() == nil {
			x.refuse(err)
		}
		release()
		return nil, err
	}
	release()
	s := newSession(conn, f, true, cfg.Logger)
	s.server, s.peer = cfg, peer
	if err := s.start(streamCap(cfg.MaxStreams, f.hello.Class), cfg.Windows); err != nil {
		return nil, err
	}
	go s.readControl() // joined by loop
	go s.loop()        // ends with the session; Done says when
	return s, nil
}

// refuse tells the peer as much as it may know, in the shape of the message that it waits for.
func (x *exchange) refuse(err error) {
	code, text := publicly(err)
	if errors.Is(err, errMalformed) || errors.Is(err, errOversized) {
		code, text = CodeProtocolError.String(), "malformed handshake"
	}
	x.conn.SetWriteDeadline(time.Now().Add(closeTimeout)) // then the peer learns nothing
	x.write(welcome{Code: code, Message: text})           // the same
	if half, ok := x.conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() // the connection closes either way
	}
}

// handshake is the relay's half. Nothing is changed anywhere before the proof holds.
func (cfg *ServerConfig) handshake(ctx context.Context, x *exchange) (facts, Peer, error) {
	var hello Hello
	if err := x.read(&hello); err != nil {
		return facts{}, Peer{}, fmt.Errorf("await hello: %w", err)
	}
	if err := cfg.judge(&hello); err != nil {
		return facts{}, Peer{}, err
	}
	peer, err := cfg.Authenticate(ctx, hello)
	if err != nil {
		return facts{}, Peer{}, fmt.Errorf("authenticate: %w", err)
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return facts{}, Peer{}, fmt.Errorf("make ephemeral key: %w", err)
	}
	c := cfg.challenge(private)
	exporter, err := exporterOf(x.conn, cfg.Binding)
	if err != nil {
		return facts{}, Peer{}, &Refusal{Code: CodeBindingRefused, Message: "this relay cannot bind to the connection"}
	}
	signed := transcript(&hello, c, exporter, peer.TokenHash)
	if err := x.challenge(c, hello.PublicKey, signed); err != nil {
		return facts{}, Peer{}, err
	}
	if cfg.Bind != nil {
		if peer, err = cfg.Bind(ctx, hello, peer); err != nil {
			return facts{}, Peer{}, fmt.Errorf("bind: %w", err)
		}
	}
	hash := sha256.Sum256(signed)
	f := facts{
		id: newSessionID(), hello: hello, binding: cfg.Binding,
		peerKey: ed25519.PublicKey(hello.PublicKey), transcript: hash[:],
	}
	if hello.Role == RoleAgent {
		if f.sealKey, err = sealKey(private, hello.Ephemeral, hash[:]); err != nil {
			return facts{}, Peer{}, &Refusal{Code: CodeProtocolError, Message: "malformed handshake"}
		}
	}
	return f, peer, x.welcome(cfg, &f, peer)
}

// challenge asks for the proof and checks it.
func (x *exchange) challenge(c *challenge, key ed25519.PublicKey, signed []byte) error {
	if err := x.write(c); err != nil {
		return fmt.Errorf("send challenge: %w", err)
	}
	var p proof
	if err := x.read(&p); err != nil {
		return fmt.Errorf("await proof: %w", err)
	}
	if !ed25519.Verify(key, signed, p.Signature) {
		return &Refusal{Code: CodePopFailed, Message: "the proof of the key does not fit this connection"}
	}
	return nil
}

func (x *exchange) welcome(cfg *ServerConfig, f *facts, peer Peer) error {
	w := welcome{Session: f.id, MaxStreams: streamCap(cfg.MaxStreams, f.hello.Class)}
	if !peer.Expires.IsZero() {
		w.ExpiresMS = peer.Expires.UnixMilli()
	}
	w.Signature = ed25519.Sign(cfg.Key, welcomeTranscript(f.transcript, &w))
	if err := x.write(w); err != nil {
		return fmt.Errorf("send welcome: %w", err)
	}
	return nil
}

func (cfg *ServerConfig) challenge(private *ecdh.PrivateKey) *challenge {
	nonce := make([]byte, nonceBytes)
	rand.Read(nonce) // it never fails
	return &challenge{
		Binding: cfg.Binding, Nonce: nonce,
		RelayKey:  cfg.Key.Public().(ed25519.PublicKey),
		Ephemeral: private.PublicKey().Bytes(),
		Chain:     cfg.Chain,
	}
}

// judge refuses what no policy needs to see.
func (cfg *ServerConfig) judge(h *Hello) error {
	malformed := &Refusal{Code: CodeProtocolError, Message: "malformed handshake"}
	switch {
	case h.Version != handshakeVersion:
		return &Refusal{
			Code:    CodeVersionMismatch,
			Message: fmt.Sprintf("this relay speaks version %d of the tunnel, the client version %d", handshakeVersion, h.Version),
		}
	case h.Role != RoleUser && h.Role != RoleAgent, h.Class != Interactive && h.Class != Bulk:
		return malformed
	case !isPublicKey(h.PublicKey), len(h.Ephemeral) != keyBytes:
		return malformed
	case (h.Role == RoleAgent) != (h.Token == ""), (h.Role == RoleAgent) != (h.AgentID != ""):
		return malformed
	case len(h.AgentID) > nameBytes, len(h.Relay) > nameBytes, len(h.Software) > nameBytes:
		return malformed
	case !cfg.answersTo(h.Relay):
		return &Refusal{Code: CodeNameMismatch, Message: "this relay does not answer to that name"}
	}
	return nil
}

// answersTo compares the name that the client dialled, so that a proof made for one relay is worth nothing to another.
func (cfg *ServerConfig) answersTo(dialled string) bool {
	host := dialled
	if h, _, err := net.SplitHostPort(dialled); err == nil {
		host = h
	}
	for _, name := range cfg.Names {
		if strings.EqualFold(name, dialled) || strings.EqualFold(name, host) {
			return true
		}
	}
	return false
}
