package tunnel

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
)

const (
	handshakeVersion = 1

	sessionLabel    = "iap-session-v1"
	welcomeLabel    = "iap-welcome-v1"
	refreshLabel    = "iap-refresh-v1"
	successorLabel  = "iap-agent-successor-v1"
	possessionLabel = "iap-agent-possession-v1"
	macLabel        = "iap-stream-mac-v1"
	exporterLabel   = "EXPORTER-iap-session-v1"

	exporterBytes = 32
	nonceBytes    = 32
	keyBytes      = 32 // X25519 public keys, derived keys
	idBytes       = 16 // a session id
	nameBytes     = 255
)

// Hello is the client's first message. Nothing in it is proven yet.
type Hello struct {
	Version   int    `json:"version"`
	Role      Role   `json:"role"`
	Class     Class  `json:"class"`
	Relay     string `json:"relay"`
	AgentID   string `json:"agent_id,omitzero"`
	Token     string `json:"token,omitzero"` // users: the compact JWS
	Software  string `json:"software,omitzero"`
	PublicKey []byte `json:"public_key"` // Ed25519
	Ephemeral []byte `json:"ephemeral"`  // X25519
}

// A challenge is the relay's answer to a Hello, or a refusal: Code is set then.
type challenge struct {
	Binding   Binding  `json:"binding,omitzero"`
	Nonce     []byte   `json:"nonce,omitzero"`
	RelayKey  []byte   `json:"relay_key,omitzero"` // Ed25519
	Ephemeral []byte   `json:"ephemeral,omitzero"` // X25519
	Chain     [][]byte `json:"chain,omitempty"`    // how the relay's keys name each other; proven by nothing but their own signatures
	Code      string   `json:"code,omitzero"`
	Message   string   `json:"message,omitzero"`
}

// A proof is the client's signature over the transcript.
type proof struct {
	Signature []byte `json:"signature"`
}

// A welcome ends the handshake, or is a refusal: Code is set then.
type welcome struct {
	Session    string `json:"session,omitzero"`
	Signature  []byte `json:"signature,omitzero"`
	ExpiresMS  int64  `json:"expires_ms,omitzero"` // Unix milliseconds; 0 never
	MaxStreams int    `json:"max_streams,omitzero"`
	Code       string `json:"code,omitzero"`
	Message    string `json:"message,omitzero"`
}

// transcript is what the client signs: everything that must not be somebody else's, each with its length in front.
func transcript(h *Hello, c *challenge, exporter, tokenHash []byte) []byte {
	b := appendField(nil, sessionLabel)
	for _, field := range [...][]byte{
		[]byte(h.Role), []byte(h.Class), []byte(h.Relay), []byte(c.Binding), exporter, c.Nonce,
		tokenHash, []byte(h.AgentID), h.PublicKey, h.Ephemeral, c.Ephemeral, c.RelayKey,
	} {
		b = appendField(b, field)
	}
	return b
}

// welcomeTranscript is what the relay signs: the same, by its hash, and what it grants.
func welcomeTranscript(hash []byte, w *welcome) []byte {
	b := appendField(nil, welcomeLabel)
	b = appendField(b, hash)
	b = appendField(b, w.Session)
	return appendField(b, fmt.Sprintf("%d %d", w.ExpiresMS, w.MaxStreams))
}

// refreshTranscript is what a client signs to present a new token in a running session.
func refreshTranscript(hash, tokenHash []byte) []byte {
	b := appendField(nil, refreshLabel)
	b = appendField(b, hash)
	return appendField(b, tokenHash)
}

var errNotJWS = errors.New("token is not a compact JWS")

// payloadHash is the SHA-256 of the payload of a compact JWS. A token is known by what was signed, not by its spelling:
// strict base64url leaves one spelling for each payload.
func payloadHash(token string) ([]byte, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[1] == "" || strings.ContainsAny(parts[1], "\r\n") {
		return nil, errNotJWS
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return nil, errNotJWS
	}
	hash := sha256.Sum256(payload)
	return hash[:], nil
}

// A boundConn is a connection whose TLS ends here.
type boundConn interface {
	net.Conn
	ConnectionState() tls.ConnectionState
}

// exporterOf gives what only the two ends of this TLS connection can know (RFC 8446, section 7.5; RFC 9266).
func exporterOf(conn net.Conn, binding Binding) ([]byte, error) {
	if binding == BindingNonce {
		return nil, nil
	}
	bound, ok := conn.(boundConn)
	if !ok {
		return nil, errors.New("the connection is not TLS at this end: there is no exporter to bind to")
	}
	state := bound.ConnectionState()
	if state.Version < tls.VersionTLS13 {
		return nil, errors.New("channel binding needs TLS 1.3")
	}
	return state.ExportKeyingMaterial(exporterLabel, nil, exporterBytes)
}

// sealKey derives the key of an agent session's header seals.
func sealKey(private *ecdh.PrivateKey, peer, transcriptHash []byte) ([]byte, error) {
	public, err := ecdh.X25519().NewPublicKey(peer)
	if err != nil {
		return nil, fmt.Errorf("read ephemeral key: %w", err)
	}
	secret, err := private.ECDH(public)
	if err != nil {
		return nil, fmt.Errorf("agree on a key: %w", err)
	}
	return hkdf.Key(sha256.New, secret, transcriptHash, macLabel, keyBytes)
}

func newSessionID() string {
	var id [idBytes]byte
	rand.Read(id[:]) // it never fails
	return hex.EncodeToString(id[:])
}

func isPublicKey(b []byte) bool { return len(b) == ed25519.PublicKeySize }
