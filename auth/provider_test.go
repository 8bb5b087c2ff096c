package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const testClient = "iapctl"

// provider is an OpenID provider of a few endpoints for the tests of this package:
// real signatures, real OAuth answers, and knobs for everything that can go wrong.
type provider struct {
	t      testing.TB
	issuer string

	mu        sync.Mutex
	keys      []testKey
	hits      map[string]int
	claims    map[string]any // of the tokens it issues
	discovery func(doc map[string]any)
	override  map[string]http.HandlerFunc // by path

	device     map[string]any // device authorization answer; nil: a usual one
	poll       []string       // errors in turn; "" grants, "drop" loses the connection
	polls      []time.Time
	refresh    string // the one refresh token that is good
	reused     int    // refresh tokens that came back after their exchange
	revoked    []string
	authorized map[string]url.Values // code → authorization request
	responseIn func(q url.Values)    // changes the redirect of the login page
	forms      []url.Values          // requests to the token endpoint
}

type testKey struct {
	id     string
	alg    string
	signer crypto.Signer
}

var sharedRSA = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func newECKey(t testing.TB, id string) testKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return testKey{id: id, alg: "ES256", signer: k}
}

// newProvider makes a provider that is reached without a network, by its client.
func newProvider(t testing.TB, issuer string) *provider {
	t.Helper()
	return &provider{
		t: t, issuer: issuer, keys: []testKey{newECKey(t, "k1")}, hits: map[string]int{}, override: map[string]http.HandlerFunc{},
		claims: map[string]any{}, refresh: "refresh-1", authorized: map[string]url.Values{},
	}
}

// listen puts the provider on a loopback port; its issuer becomes that address.
func listen(t testing.TB) *provider {
	t.Helper()
	p := newProvider(t, "")
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	p.issuer = server.URL
	return p
}

// client answers requests by calling the handler in the caller's goroutine, so that
// time in a synctest bubble passes only where the code under test waits.
func (p *provider) client() *http.Client { return &http.Client{Transport: inMemory{p}} }

type inMemory struct{ p *provider }

type dropped struct{}

func (dropped) Error() string   { return "connection reset by peer" }
func (dropped) Timeout() bool   { return true }
func (dropped) Temporary() bool { return true }

func (m inMemory) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	defer func() {
		if recover() == http.ErrAbortHandler {
			resp, err = nil, dropped{}
		}
	}()
	w := httptest.NewRecorder()
	m.p.ServeHTTP(w, r)
	resp = w.Result()
	resp.Request = r
	return resp, nil
}

func (p *provider) hit(path string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.hits[path]
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.hits[r.URL.Path]++
	override := p.override[r.URL.Path]
	p.mu.Unlock()
	if override != nil {
		override(w, r)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		p.serveDiscovery(w)
	case "/jwks":
		p.serveKeys(w)
	case "/device":
		p.serveDevice(w)
	case "/token":
		p.serveToken(w, r)
	case "/authorize":
		p.serveAuthorize(w, r)
	case "/revoke":
		p.mu.Lock()
		p.revoked = append(p.revoked, r.FormValue("token_type_hint")+"="+r.FormValue("token"))
		p.mu.Unlock()
	default:
		http.NotFound(w, r)
	}
}

func (p *provider) serveDiscovery(w http.ResponseWriter) {
	doc := map[string]any{
		"issuer": p.issuer, "jwks_uri": p.issuer + "/jwks",
		"authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token",
		"device_authorization_endpoint": p.issuer + "/device", "revocation_endpoint": p.issuer + "/revoke",
		"authorization_response_iss_parameter_supported": true,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.discovery != nil {
		p.discovery(doc)
	}
	answer(w, 200, doc)
}

func (p *provider) serveKeys(w http.ResponseWriter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer(w, 200, keySetOf(p.keys...))
}

func keySetOf(keys ...testKey) jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.signer.Public(), KeyID: k.id, Algorithm: k.alg, Use: "sig"})
	}
	return set
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func (p *provider) serveDevice(w http.ResponseWriter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.device != nil {
		answer(w, 200, p.device)
		return
	}
	answer(w, 200, map[string]any{
		"device_code": "device-1", "user_code": "ABCD-EFGH", "verification_uri": p.issuer + "/go",
		"verification_uri_complete": p.issuer + "/go?code=ABCD-EFGH", "expires_in": 600, "interval": 1,
	})
}

func (p *provider) serveToken(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forms = append(p.forms, r.PostForm)
	refused := ""
	nonce := ""
	switch r.PostForm.Get("grant_type") {
	case deviceGrant:
		p.polls = append(p.polls, time.Now())
		if len(p.poll) > 0 {
			refused, p.poll = p.poll[0], p.poll[1:]
		}
		if r.PostForm.Get("device_code") != "device-1" {
			refused = "invalid_grant"
		}
	case "refresh_token":
		refused = p.rotate(r.PostForm.Get("refresh_token"))
	case "authorization_code":
		request, ok := p.authorized[r.PostForm.Get("code")]
		sum := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
		if !ok || request.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) ||
			request.Get("code_challenge_method") != "S256" || request.Get("redirect_uri") != r.PostForm.Get("redirect_uri") {
			refused = "invalid_grant"
		}
		delete(p.authorized, r.PostForm.Get("code"))
		nonce = request.Get("nonce")
	default:
		refused = "unsupported_grant_type"
	}
	switch {
	case refused == "drop":
		panic(http.ErrAbortHandler)
	case strings.HasPrefix(refused, "status "):
		w.WriteHeader(503)
	case refused != "":
		code, number, _ := strings.Cut(refused, " ")
		body := map[string]any{"error": code, "error_description": "no: " + refused}
		if number != "" {
			body["error_codes"] = []json.Number{json.Number(number)}
		}
		answer(w, 400, body)
	default:
		p.grant(w, nonce)
	}
}

// rotate exchanges a refresh token as strict providers do: the old one is dead, and
// its return ends the grant.
func (p *provider) rotate(old string) (refused string) {
	if old != p.refresh {
		if strings.HasPrefix(old, "refresh-") {
			p.reused++
			p.refresh = "none"
		}
		return "invalid_grant"
	}
	var n int
	_, _ = fmt.Sscanf(old, "refresh-%d", &n)
	p.refresh = fmt.Sprintf("refresh-%d", n+1)
	return ""
}

// grant answers with tokens; mu is held.
func (p *provider) grant(w http.ResponseWriter, nonce string) {
	extra := map[string]any{}
	if nonce != "" {
		extra["nonce"] = nonce
	}
	id := p.mintLocked(extra)
	answer(w, 200, map[string]any{
		"access_token": p.mintLocked(map[string]any{"scope": "openid"}), "token_type": "Bearer", "expires_in": 300,
		"refresh_token": p.refresh, "id_token": id,
	})
}

// serveAuthorize approves at once and sends the browser back.
func (p *provider) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	request := r.URL.Query()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.authorized["code-1"] = request
	q := url.Values{"code": {"code-1"}, "state": {request.Get("state")}, "iss": {p.issuer}}
	if p.responseIn != nil {
		p.responseIn(q)
	}
	http.Redirect(w, r, request.Get("redirect_uri")+"?"+q.Encode(), http.StatusFound)
}

// mint makes a good token with some claims changed; a nil value removes a claim.
func (p *provider) mint(changes map[string]any) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mintLocked(changes)
}

func (p *provider) mintLocked(changes map[string]any) string {
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": p.issuer, "sub": "8a7f3c", "aud": testClient, "iat": now, "exp": now + 300, "jti": fmt.Sprint(p.hits["minted"]),
	}
	p.hits["minted"]++
	for _, more := range []map[string]any{p.claims, changes} {
		for name, value := range more {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		p.t.Fatal(err)
	}
	k := p.keys[0]
	return sign(p.t, k, fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, k.alg, k.id), string(payload))
}

// sign makes a JWS of exactly these header and payload texts.
func sign(t testing.TB, k testKey, header, payload string) string {
	t.Helper()
	input := encode(header) + "." + encode(payload)
	return input + "." + base64.RawURLEncoding.EncodeToString(signature(t, k, []byte(input)))
}

func signature(t testing.TB, k testKey, input []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(input)
	switch s := k.signer.(type) {
	case *ecdsa.PrivateKey:
		r, v, err := ecdsa.Sign(rand.Reader, s, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		size := (s.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), v.FillBytes(make([]byte, size))...)
	case *rsa.PrivateKey:
		sig, err := rsa.SignPKCS1v15(rand.Reader, s, crypto.SHA256, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return sig
	case ed25519.PrivateKey:
		return ed25519.Sign(s, input)
	default:
		t.Fatalf("no signature by %T", s)
		return nil
	}
}

var testNow = time.Unix(1800000000, 0)

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// issuerConfig is a usual configuration of this provider.
func (p *provider) issuerConfig() IssuerConfig {
	return IssuerConfig{Name: "corp", URL: p.issuer, ClientID: testClient, Audiences: []string{testClient}, HTTPClient: p.client()}
}

func newVerifier(t testing.TB, configs ...IssuerConfig) *Verifier {
	t.Helper()
	v, err := NewVerifier(t.Context(), configs, VerifierOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

// wantCode checks that an error is a *TokenError of a code, and that what it says to
// the stranger who sent the token repeats nothing of the token.
func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	refused, ok := err.(*TokenError)
	if !ok || refused.Code != code {
		t.Errorf("error is %v, want code %s", err, code)
		return
	}
	if refused.Public == "" || strings.ContainsAny(refused.Public, "\"%\x1b\n") {
		t.Errorf("public sentence %q", refused.Public)
	}
}
