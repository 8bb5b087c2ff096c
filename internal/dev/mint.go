package dev

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// MintOptions say how a minted token differs from an honest one.
type MintOptions struct {
	// Header adds to or replaces members of the JOSE header; a nil value removes the member.
	Header map[string]any
	// Key signs instead of the live key, under the live key's id unless Header says otherwise.
	Key crypto.Signer
	// Secret signs with HMAC-SHA256 (alg HS256).
	Secret []byte
	// Unsigned leaves the signature empty. With Header {"alg": "none"} this is the unsecured JWT of RFC 7519.
	Unsigned bool
	// Payload replaces the claims with these very bytes, for what no JSON encoder would write.
	Payload []byte
}

// Mint signs a token that the provider would not: claims are laid over those of an honest ID token of the first user, a nil
// value removing the claim. It panics on claims that JSON cannot hold, since that is a mistake in the test.
func (p *Provider) Mint(claims map[string]any, options ...MintOptions) string {
	var o MintOptions
	if len(options) > 0 {
		o = options[0]
	}
	key := p.keys.current()
	if o.Key != nil {
		key = &signingKey{id: key.id, algorithm: key.algorithm, private: o.Key}
	}
	header := map[string]any{"alg": algorithmOf(key, o.Secret), "kid": key.id, "typ": "JWT"}
	overlay(header, o.Header)
	payload := o.Payload
	if payload == nil {
		all := p.honestClaims()
		overlay(all, claims)
		payload = mustJSON(all)
	}
	input := encode(mustJSON(header)) + "." + encode(payload)
	switch {
	case o.Unsigned:
		return input + "."
	case o.Secret != nil:
		mac := hmac.New(sha256.New, o.Secret)
		mac.Write([]byte(input))
		return input + "." + encode(mac.Sum(nil))
	}
	signature, err := sign(key, []byte(input))
	if err != nil {
		panic(err)
	}
	return input + "." + encode(signature)
}

// NewSigningKey makes a key the provider has never seen, for MintOptions.Key. The algorithm is one of ProviderOptions.Algorithm.
func NewSigningKey(algorithm string) (crypto.Signer, error) { return generateKey(algorithm) }

func (p *Provider) honestClaims() map[string]any {
	now := time.Now()
	user := p.options.Users[0]
	return map[string]any{
		"iss": p.issuer, "sub": user.Subject, "aud": p.clientID, "azp": p.clientID,
		"iat": now.Unix(), "exp": now.Add(p.options.IDLifetime).Unix(), "auth_time": now.Unix(),
		"email": user.Email, "email_verified": user.EmailVerified, "name": user.Name,
		"groups": user.Groups, "amr": user.AMR, "jti": randomID(),
	}
}

// overlay copies changes over m, deleting where the change is nil.
func overlay(m, changes map[string]any) {
	maps.Copy(m, changes)
	maps.DeleteFunc(m, func(_ string, v any) bool { return v == nil })
}

func algorithmOf(key *signingKey, secret []byte) string {
	if secret != nil {
		return "HS256"
	}
	switch key.private.(type) {
	case *ecdsa.PrivateKey:
		return "ES256"
	case ed25519.PrivateKey:
		return "EdDSA"
	}
	if key.algorithm == "PS256" {
		return "PS256"
	}
	return "RS256"
}

func sign(key *signingKey, input []byte) ([]byte, error) {
	digest := sha256.Sum256(input)
	switch private := key.private.(type) {
	case ed25519.PrivateKey:
		return ed25519.Sign(private, input), nil
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
		if err != nil {
			return nil, fmt.Errorf("sign token: %w", err)
		}
		// JWS wants the two numbers at full width, not their ASN.1 (RFC 7518, section 3.4).
		size := (private.Curve.Params().BitSize + 7) / 8
		out := make([]byte, 2*size)
		r.FillBytes(out[:size])
		s.FillBytes(out[size:])
		return out, nil
	case *rsa.PrivateKey:
		var how crypto.SignerOpts = crypto.SHA256
		if key.algorithm == "PS256" {
			how = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		}
		return private.Sign(rand.Reader, digest[:], how)
	}
	return nil, fmt.Errorf("sign token: cannot sign with %T", key.private)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
