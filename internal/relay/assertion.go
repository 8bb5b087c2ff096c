package relay

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"iap/auth"
)

const (
	assertionLife   = 60 * time.Second // what an upstream may accept; it checks per request
	assertionReuse  = 30 * time.Second // an assertion is handed out for this long, so that a request costs no signature
	assertionCached = 4096             // principals × resources kept
)

// assertions signs X-IAP-Assertion: a JWT by which an upstream can check for
// itself who calls, without trusting its network. The key is used for nothing
// else, and the relay never accepts itself as an issuer.
type assertions struct {
	issuer string
	// several says that there is more than one identity provider: a group of one
	// must not be taken for the other's of the same name.
	several bool
	signer  jose.Signer
	jwks    []byte

	mu     sync.Mutex
	cached map[assertionKey]signedAssertion // guarded by mu
}

type assertionKey struct {
	identity *identity
	resource string
}

type signedAssertion struct {
	text  string
	until time.Time
}

func newAssertions(relayName string, key ed25519.PrivateKey) (*assertions, error) {
	public := key.Public().(ed25519.PublicKey)
	id := auth.KeyID(public)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: key, KeyID: id}},
		(&jose.SignerOptions{}).WithType("iap-assertion+jwt"))
	if err != nil {
		return nil, fmt.Errorf("make assertion signer: %w", err)
	}
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: id, Algorithm: string(jose.EdDSA), Use: "sig"}}}
	jwks, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encode assertion keys: %w", err)
	}
	return &assertions{issuer: "https://" + relayName, signer: signer, jwks: jwks, cached: map[assertionKey]signedAssertion{}}, nil
}

// sign returns an assertion of id for resource that is good for at least half
// of its life.
func (a *assertions) sign(id *identity, resource string, now time.Time) (string, error) {
	key := assertionKey{id, resource}
	a.mu.Lock()
	if s, ok := a.cached[key]; ok && now.Before(s.until) {
		a.mu.Unlock()
		return s.text, nil
	}
	a.mu.Unlock()
	claims, err := json.Marshal(map[string]any{
		"iss": a.issuer, "aud": resource, "sub": id.id(), "groups": a.groups(id),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	object, err := a.signer.Sign(claims)
	if err != nil {
		return "", err
	}
	text, err := object.CompactSerialize()
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.cached) >= assertionCached {
		clear(a.cached) // rare, and refilled by the next requests
	}
	a.cached[key] = signedAssertion{text, now.Add(assertionReuse)}
	return text, nil
}

// groups are the principal's as an upstream is told them, with the issuer's alias
// before each where there are several issuers.
func (a *assertions) groups(id *identity) []string {
	if !a.several {
		return id.principal.Groups
	}
	all := make([]string, len(id.principal.Groups))
	for i, group := range id.principal.Groups {
		all[i] = id.principal.Issuer + "/" + group
	}
	return all
}

// serveKeys publishes the verification keys.
func (a *assertions) serveKeys(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "max-age=300")
	_, _ = w.Write(a.jwks)
}
