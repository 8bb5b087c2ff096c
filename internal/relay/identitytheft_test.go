package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/dev"
	"iap/tunnel"
)

// ID-17: what a thief holds who has everything but the key.

// copiedSession has a thief with all that is on alice's disk but the private key.
func (c *identityCases) copiedSession(t *testing.T) {
	mine := c.alice.key.Public().(ed25519.PublicKey)
	bound := c.user(map[string]any{"nonce": auth.NonceForKey(mine)})
	shown := c.alice.token()
	session, err := c.alice.present(tunnel.Interactive, shown)
	must(t, err)
	defer session.Close(tunnel.CodeNone, "")
	thief := c.user(nil)
	// A key that claims to be alice's: her public half behind the thief's own seed.
	forged := c.user(nil)
	forged.key = append(append(ed25519.PrivateKey{}, thief.key.Seed()...), mine...)
	for name, one := range map[string]struct {
		who   *user
		token string
	}{
		"a token that she has shown":                     {thief, shown},
		"a token that names her key, not shown yet":      {thief, bound.token()},
		"her public key, signed by another":              {forged, shown},
		"her public key and a token that names it":       {forged, bound.token()},
		"her public key and a token that nobody has had": {forged, c.alice.token()},
	} {
		before := c.model.hits.Load()
		if got := c.refusal(one.who, one.token); got != "pop_failed" {
			t.Errorf("%s: %s", name, got)
		}
		if r, _ := c.ask("/r/phi3/v1/models", "Authorization: Bearer "+one.token); r.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s, at the front door: %s", name, r.Status)
		}
		if c.model.hits.Load() != before {
			t.Errorf("%s: the model saw a request", name)
		}
	}
	eventually(t, "each theft is in the audit log, with whose token it was", func() bool {
		return len(c.events(func(e audit.Event) bool {
			return e.Kind == audit.KindLogin && e.Decision == audit.Deny && e.Reason == "pop_failed" && e.Detail["token_of"] == "corp/alice"
		})) == 5
	})
	// Nor does it renew a session of the thief's own.
	own, err := c.user(map[string]any{"sub": "mallory"}).present(tunnel.Interactive, c.user(map[string]any{"sub": "mallory"}).token())
	must(t, err)
	defer own.Close(tunnel.CodeNone, "")
	if _, err := own.Refresh(within(t), shown); err == nil {
		t.Error("a session took another's token for a refresh")
	}
}

// tapped keeps what the client writes on a connection, below TLS's encryption.
type tapped struct {
	*tls.Conn
	mu    sync.Mutex
	wrote []byte // guarded by mu
}

func (c *tapped) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.wrote = append(c.wrote, b...)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *tapped) recording() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.wrote)
}

// dialTapped is a connection on which the relay awaits a hello.
func (c *identityCases) dialTapped() *tapped {
	c.t.Helper()
	d := tunnel.Dialer{Address: c.name, TLS: c.tls()}
	conn, err := d.Dial(within(c.t))
	must(c.t, err)
	return &tapped{Conn: conn}
}

// replayedHandshake plays all that alice's client wrote on one connection, handshake, stream header and request, on others.
func (c *identityCases) replayedHandshake(t *testing.T) {
	conn := c.dialTapped()
	opened, err := tunnel.Connect(within(t), conn, tunnel.ClientConfig{
		Role: tunnel.RoleUser, Key: c.alice.key, Relay: c.name, Token: func(context.Context) (string, error) { return c.alice.token(), nil },
	})
	must(t, err)
	chatOK(t, client(t, opened, tunnel.Header{Resource: "phi3"}), chatBody("phi3", false))
	must(t, opened.Close(tunnel.CodeNone, ""))
	all := conn.recording()
	handshake := all[:lengthOfMessages(t, all, 2)]
	if !bytes.Contains(all, []byte(`"resource":"phi3"`)) || !bytes.Contains(all, []byte("chat/completions")) {
		t.Fatal("the recording has no stream in it")
	}
	hello := lengthOfMessages(t, handshake, 1)
	for name, one := range map[string][]byte{
		"the handshake":                      handshake,
		"the handshake and all behind it":    all,
		"the streams without a handshake":    all[len(handshake):],
		"the proof alone":                    handshake[hello:],
		"the hello, then the streams":        append(bytes.Clone(handshake[:hello]), all[len(handshake):]...),
		"the hello twice, then the proof":    append(bytes.Clone(handshake[:hello]), handshake...),
		"the handshake with the proof twice": append(bytes.Clone(handshake), handshake[hello:]...),
	} {
		before := c.model.hits.Load()
		live := len(c.relay.sessions.all(func(*session) bool { return true }))
		answer := c.play(t, one)
		if name == "the handshake" && !bytes.Contains(answer, []byte(`"pop_failed"`)) {
			t.Errorf("the replayed handshake was answered with %q", answer)
		}
		if bytes.Contains(answer, []byte(`"session"`)) || bytes.Contains(answer, []byte("chat.completion")) {
			t.Errorf("%s was answered with %q", name, answer)
		}
		if n := len(c.relay.sessions.all(func(*session) bool { return true })); n > live {
			t.Errorf("%s opened a session", name)
		}
		if c.model.hits.Load() != before {
			t.Errorf("%s reached the model", name)
		}
	}
}

// play writes what was recorded on a new connection and returns all that the relay answers until it hangs up.
func (c *identityCases) play(t *testing.T, recorded []byte) []byte {
	t.Helper()
	conn := c.dialTapped()
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	_, _ = conn.Conn.Write(recorded) // the relay may have hung up in the middle
	_ = conn.CloseWrite()
	answer, _ := io.ReadAll(conn) // the end may be a reset
	return answer
}

// lengthOfMessages is how many bytes the first n length-prefixed messages have.
func lengthOfMessages(t *testing.T, b []byte, n int) int {
	t.Helper()
	at := 0
	for range n {
		if len(b) < at+4 {
			t.Fatal("the recording is cut off")
		}
		at += 4 + int(uint32(b[at])<<24|uint32(b[at+1])<<16|uint32(b[at+2])<<8|uint32(b[at+3]))
	}
	return at
}

// respelledToken tries every other text that a lenient reader would take for a token which is bound to alice's key.
func (c *identityCases) respelledToken(t *testing.T) {
	token := c.alice.token()
	session, err := c.alice.present(tunnel.Interactive, token)
	must(t, err)
	defer session.Close(tunnel.CodeNone, "")
	parts := strings.Split(token, ".")
	head, payload, signature := parts[0], parts[1], parts[2]
	join := func(parts ...string) string { return strings.Join(parts, ".") }
	flattened, err := json.Marshal(map[string]string{"protected": head, "payload": payload, "signature": signature})
	must(t, err)
	general, err := json.Marshal(map[string]any{"payload": payload, "signatures": []any{map[string]string{"protected": head, "signature": signature}}})
	must(t, err)
	claims, err := base64.RawURLEncoding.DecodeString(payload)
	must(t, err)
	plain := strings.NewReplacer("-", "+", "_", "/")
	for name, other := range map[string]string{
		"the same":                          token,
		"padded":                            token + "=",
		"padded twice":                      token + "==",
		"payload padded":                    join(head, payload+"=", signature),
		"trailing bits of the signature":    join(head, payload, flipLast(signature)),
		"the other alphabet":                plain.Replace(token),
		"a line break behind":               token + "\n",
		"a line break inside":               join(head, payload[:8]+"\n"+payload[8:], signature),
		"a blank in front":                  " " + token,
		"a tab inside":                      join(head, payload[:8]+"\t"+payload[8:], signature),
		"four parts":                        token + ".x",
		"an empty fourth part":              token + ".",
		"Bearer in front":                   "Bearer " + token,
		"flattened JSON":                    string(flattened),
		"general JSON":                      string(general),
		"the other signature of the curve":  join(head, payload, otherSignature(t, signature)),
		"signed anew, another header":       c.provider.Mint(nil, dev.MintOptions{Payload: claims, Header: map[string]any{"typ": "at+jwt"}}),
		"signed anew, another member of it": c.provider.Mint(nil, dev.MintOptions{Payload: claims, Header: map[string]any{"x": 1}}),
	} {
		before := c.model.hits.Load()
		if got := c.refusal(c.user(nil), other); got != "pop_failed" && got != auth.CodeTokenMalformed {
			t.Errorf("%s: %s", name, got)
		}
		if c.model.hits.Load() != before {
			t.Errorf("%s: the model saw a request", name)
		}
	}
}

// otherSignature is the second one that every ECDSA signature comes with: n-s in place of s holds as well.
func otherSignature(t *testing.T, signature string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(signature)
	must(t, err)
	s := new(big.Int).SetBytes(b[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(b[32:])
	return base64.RawURLEncoding.EncodeToString(b)
}
