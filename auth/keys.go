package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
)

// Domains keep a signature or hash made for one purpose from serving another.
const (
	domainSessionKey  = "iap-session-key-v1"
	domainJoinSecret  = "iap-join-secret-v1"
	domainJoinRequest = "iap-join-request-v1"
	domainJoinReply   = "iap-join-reply-v1"
)

const pemPrivateKey = "PRIVATE KEY"

// NewKey makes an Ed25519 key: a user's session key, an agent's or a relay's.
func NewKey() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return key, nil
}

// NonceForKey is the OpenID nonce that makes a token name a session key:
// base64url(SHA-256("iap-session-key-v1" || public key)).
func NonceForKey(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(append([]byte(domainSessionKey), pub...))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// KeyID is a key's name for people, "SHA256:" and the unpadded base64 of its hash,
// as OpenSSH prints fingerprints.
func KeyID(pub ed25519.PublicKey) string {
	sum := sha256.Sum256(pub)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// KeyHash is the hash by which a join token pins the relay's key.
func KeyHash(pub ed25519.PublicKey) []byte {
	sum := sha256.Sum256(pub)
	return sum[:]
}

// SaveKey writes a key as PKCS #8 PEM in a file of mode 0600, atomically.
func SaveKey(path string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return writeSecret(path, pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}))
}

// LoadKey reads what SaveKey wrote. It refuses a file that others can read.
func LoadKey(path string) (ed25519.PrivateKey, error) {
	data, err := readSecret(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != pemPrivateKey || len(rest) != 0 {
		return nil, fmt.Errorf("read key %s: not one PEM block of type %s", path, pemPrivateKey)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", path, err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: %w", path, errors.New("not an Ed25519 key"))
	}
	return key, nil
}

// signedBytes joins a domain and fields so that no two lists of fields give the
// same bytes: each part is preceded by its length.
func signedBytes(domain string, fields ...[]byte) []byte {
	out := appendPart(nil, []byte(domain))
	for _, f := range fields {
		out = appendPart(out, f)
	}
	return out
}

func appendPart(out, part []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(part)))
	return append(out, part...)
}
