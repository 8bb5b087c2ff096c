package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// verifyKey is one usable public key of an issuer.
type verifyKey struct {
	id        string
	algorithm string // "alg" of the JWK; empty: any that fits the key
	public    any    // *rsa.PublicKey, *ecdsa.PublicKey or ed25519.PublicKey
}

// parseKeySet reads a JWKS. Keys that cannot serve (encryption, symmetric, private,
// weak, off the curve) are left out one by one: a provider may publish them beside
// good ones. A set that is no JWKS, is too long or leaves no key is an error.
func parseKeySet(data []byte) ([]verifyKey, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("read key set: %w", err)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("read key set: %d keys, at most %d are read", len(set.Keys), maxKeys)
	}
	var keys []verifyKey
	for _, raw := range set.Keys {
		if k, ok := parseKey(raw); ok {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("read key set: none of its %d keys can verify a signature", len(set.Keys))
	}
	return keys, nil
}

func parseKey(raw jsontext.Value) (verifyKey, bool) {
	var ops struct {
		Operations []string `json:"key_ops"`
	}
	if json.Unmarshal(raw, &ops) != nil {
		return verifyKey{}, false
	}
	if len(ops.Operations) > 0 && !slices.Contains(ops.Operations, "verify") {
		return verifyKey{}, false
	}
	var jwk jose.JSONWebKey
	if jwk.UnmarshalJSON(raw) != nil || (jwk.Use != "" && jwk.Use != "sig") {
		return verifyKey{}, false
	}
	// A private key in a published document is a key anybody can sign with.
	if !jwk.IsPublic() || !jwk.Valid() || !strong(jwk.Key) {
		return verifyKey{}, false
	}
	return verifyKey{id: jwk.KeyID, algorithm: jwk.Algorithm, public: jwk.Key}, true
}

func strong(public any) bool {
	switch k := public.(type) {
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		return bits >= minRSABits && bits <= maxRSABits && k.E >= 3
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	default:
		return false
	}
}

// fits says whether the key may verify a signature of this algorithm. The key's
// type decides, never the token alone: an RSA key is no HMAC secret.
func (k verifyKey) fits(algorithm string) bool {
	if k.algorithm != "" && k.algorithm != algorithm {
		return false
	}
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS")
	case *ecdsa.PublicKey:
		curve := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}
		return curve[algorithm] == p.Curve.Params().BitSize
	case ed25519.PublicKey:
		return algorithm == string(jose.EdDSA)
	default:
		return false
	}
}
