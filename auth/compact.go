package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// strictBase64 refuses padding, foreign characters and non-zero trailing bits, so
// that one value has one spelling. It still skips line breaks: decodePart does not.
var strictBase64 = base64.RawURLEncoding.Strict()

// compactToken is a JWS in compact form, taken apart and not verified.
type compactToken struct {
	header  header
	payload []byte
	claims  claims
}

// header is what is read of a JOSE header. Keys and addresses in it (jwk, jku, x5c,
// x5u) are never looked at: RFC 8725 section 3.10.
type header struct {
	algorithm string
	keyID     string
	tokenType string
}

// parseCompact takes a token apart: exactly three parts in strict base64url, header
// and payload each one JSON object without duplicate names at any depth.
func parseCompact(raw string) (*compactToken, *TokenError) {
	if len(raw) > maxTokenBytes {
		return nil, refuse(CodeTokenMalformed, "longer than %d bytes", maxTokenBytes)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, refuse(CodeTokenMalformed, "%d parts, not 3", len(parts))
	}
	head, err := decodePart(parts[0])
	if err != nil {
		return nil, refuse(CodeTokenMalformed, "header: %w", err)
	}
	payload, err := decodePart(parts[1])
	if err != nil {
		return nil, refuse(CodeTokenMalformed, "payload: %w", err)
	}
	if _, err := decodePart(parts[2]); err != nil {
		return nil, refuse(CodeTokenMalformed, "signature: %w", err)
	}
	t := &compactToken{payload: payload}
	members, refused := parseObject("header", head)
	if refused != nil {
		return nil, refused
	}
	if t.header, refused = readHeader(members); refused != nil {
		return nil, refused
	}
	if t.claims, refused = parseObject("payload", payload); refused != nil {
		return nil, refused
	}
	return t, nil
}

func decodePart(part string) ([]byte, error) {
	if part == "" {
		return nil, errors.New("empty")
	}
	if strings.ContainsAny(part, "\r\n") {
		return nil, errors.New("line break in base64url")
	}
	return strictBase64.DecodeString(part)
}

// parseObject reads a JSON object; the names in it, and in all objects below it,
// occur once each. Two parsers can then not read two different values.
func parseObject(what string, data []byte) (claims, *TokenError) {
	var members claims
	err := json.Unmarshal(data, &members)
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return nil, refuse(CodeClaimsDuplicate, "%s: a name occurs twice", what)
	case err != nil:
		return nil, refuse(CodeTokenMalformed, "%s: no JSON object: %w", what, err)
	case members == nil:
		return nil, refuse(CodeTokenMalformed, "%s: null", what)
	}
	return members, nil
}

func readHeader(m claims) (header, *TokenError) {
	var h header
	for name, into := range map[string]*string{"alg": &h.algorithm, "kid": &h.keyID, "typ": &h.tokenType} {
		if !m.has(name) {
			continue
		}
		s, ok := m.text(name)
		if !ok {
			return h, refuse(CodeTokenMalformed, "header: %s is no string", name)
		}
		*into = s
	}
	if m.has("crit") {
		return h, refuse(CodeTokenMalformed, "header: crit names extensions this relay does not have")
	}
	if h.algorithm == "" {
		return h, refuse(CodeAlgorithmRefused, "header: no alg")
	}
	return h, nil
}

// unverifiedClaims reads the payload of a token that came straight from the
// provider's token endpoint over TLS, where OIDC Core 3.1.3.7 (6) lets the client
// leave the signature to whoever the token is presented to: here the relay.
func unverifiedClaims(raw string) (claims, error) {
	t, refused := parseCompact(raw)
	if refused != nil {
		return nil, fmt.Errorf("read token: %w", refused)
	}
	return t.claims, nil
}
