package dev

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"sync"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	rsaBits = 2048
	// A provider that rotated more often than this within a test has forgotten the oldest keys.
	maxPublishedKeys = 16
)

// signingKey is one key of the provider. It is both views that op asks for: the private one to sign with and, as
// publishedKey, the public one of the key set.
type signingKey struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

func (k *signingKey) ID() string                                  { return k.id }
func (k *signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k *signingKey) Key() any                                    { return k.private }

type publishedKey struct{ *signingKey }

func (k publishedKey) Algorithm() jose.SignatureAlgorithm { return k.algorithm }
func (k publishedKey) Use() string                        { return "sig" }
func (k publishedKey) Key() any                           { return k.private.Public() }

// keyring holds the key that signs and those still published.
type keyring struct {
	algorithm string

	mu   sync.Mutex
	keys []*signingKey // newest last; the newest signs; guarded by mu
}

func newKeyring(algorithm string) (*keyring, error) {
	k := &keyring{algorithm: algorithm}
	return k, k.rotate()
}

// rotate makes a new key the signing one; the old ones stay published.
func (k *keyring) rotate() error {
	private, err := generateKey(k.algorithm)
	if err != nil {
		return err
	}
	key := &signingKey{id: randomID(), algorithm: jose.SignatureAlgorithm(k.algorithm), private: private}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = append(k.keys, key)
	if len(k.keys) > maxPublishedKeys {
		k.keys = k.keys[1:]
	}
	return nil
}

// forget stops publishing all keys but the one that signs.
func (k *keyring) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys = k.keys[len(k.keys)-1:]
}

func (k *keyring) current() *signingKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[len(k.keys)-1]
}

func (k *keyring) published() []op.Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]op.Key, len(k.keys))
	for i, key := range k.keys {
		list[i] = publishedKey{key}
	}
	return list
}

func generateKey(algorithm string) (crypto.Signer, error) {
	switch algorithm {
	case "RS256", "PS256":
		return rsa.GenerateKey(rand.Reader, rsaBits)
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("signature algorithm %q: want RS256, PS256, ES256 or EdDSA", algorithm)
}

// randomID returns 128 random bits as text.
func randomID() string { return rand.Text() }

// RotateKeys makes a new key sign from now on. The old one stays published, as providers do, until ForgetOldKeys.
func (p *Provider) RotateKeys() error { return p.keys.rotate() }

// ForgetOldKeys publishes nothing but the key that signs now: tokens of older keys are not verifiable any more.
func (p *Provider) ForgetOldKeys() { p.keys.forget() }

// KeyID names the key that signs now.
func (p *Provider) KeyID() string { return p.keys.current().id }

// PublicKeyPEM is the public half of the signing key, as an attacker would feed it to HS256.
func (p *Provider) PublicKeyPEM() []byte {
	der, err := x509.MarshalPKIXPublicKey(p.keys.current().private.Public())
	if err != nil {
		return nil // cannot happen for the three kinds generateKey makes
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
