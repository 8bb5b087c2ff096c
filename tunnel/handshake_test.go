package tunnel

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// dialRaw gives a connection on which the relay awaits a hello.
func (r *testRelay) dialRaw(t testing.TB) *tls.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := r.dialer().Dial(ctx)
	must(t, err)
	t.Cleanup(func() { closeNow(conn) })
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// refused is what the relay said instead of a challenge or welcome.
func refused(t testing.TB, conn net.Conn) Code {
	t.Helper()
	var w welcome
	if _, err := readMessage(conn, &w, handshakeBytes); err != nil {
		t.Fatalf("no refusal: %v", err)
	}
	return ParseCode(w.Code)
}

// connectError is what Connect says to a relay changed by server, as a client changed by client.
func connectError(t testing.TB, server func(*ServerConfig), client func(*ClientConfig)) error {
	t.Helper()
	r := startRelay(t, server)
	cfg := r.clientConfig(t, RoleUser)
	if client != nil {
		client(&cfg)
	}
	s, err := Connect(context.Background(), r.dialRaw(t), cfg)
	if err == nil {
		end(s)
		t.Fatal("the session began")
	}
	var dial *DialError
	if !errors.As(err, &dial) || dial.Stage != "handshake" {
		t.Fatalf("not a handshake's error: %v", err)
	}
	return err
}

func TestBothEndsAgreeOnTheSession(t *testing.T) {
	client, server := pair(t)
	if client.ID() == "" || client.ID() != server.ID() {
		t.Fatalf("ids %q and %q", client.ID(), server.ID())
	}
	if server.Role() != RoleUser || server.Class() != Interactive || server.Binding() != BindingExporter {
		t.Fatal("the relay has other facts")
	}
	if !client.client.Key.Public().(ed25519.PublicKey).Equal(server.PublicKey()) {
		t.Fatal("the relay has another key")
	}
	if got, want := client.Expires().UnixMilli(), server.Expires().UnixMilli(); got != want || got == 0 {
		t.Fatalf("expires %d and %d", got, want)
	}
}

func TestRefusalReachesTheClientWithItsCode(t *testing.T) {
	deny := func(c *ServerConfig) {
		c.Authenticate = func(context.Context, Hello) (Peer, error) {
			return Peer{}, &Refusal{CodeTokenInvalid, "the token ran out"}
		}
	}
	err := connectError(t, deny, nil)
	wantCode(t, err, CodeTokenInvalid)
	if !strings.Contains(err.Error(), "the token ran out") {
		t.Fatal(err)
	}
	bind := func(c *ServerConfig) {
		c.Bind = func(context.Context, Hello, Peer) (Peer, error) {
			return Peer{}, &Refusal{CodeRevoked, "the key was revoked"}
		}
	}
	wantCode(t, connectError(t, bind, nil), CodeRevoked)
}

func TestPrivateErrorsStayPrivate(t *testing.T) {
	err := connectError(t, func(c *ServerConfig) {
		c.Authenticate = func(context.Context, Hello) (Peer, error) { return Peer{}, errors.New("secret detail") }
	}, nil)
	wantCode(t, err, CodeRefused)
	if strings.Contains(err.Error(), "secret") {
		t.Fatal(err)
	}
}

func TestWrongRelayNameIsRefused(t *testing.T) {
	wantCode(t, connectError(t, nil, func(c *ClientConfig) { c.Relay = "other.example" }), CodeNameMismatch)
}

func TestUnpinnedRelayGetsNoProof(t *testing.T) {
	err := connectError(t, nil, func(c *ClientConfig) {
		c.CheckRelay = func(ed25519.PublicKey, [][]byte) error { return errors.New("not the pinned key") }
	})
	wantCode(t, err, CodeRelayUntrusted)
}

func TestWeakerBindingIsRefusedByTheClient(t *testing.T) {
	nonce := func(c *ServerConfig) { c.Binding = BindingNonce }
	err := connectError(t, nonce, func(c *ClientConfig) { c.MinBinding = BindingExporter })
	wantCode(t, err, CodeBindingRefused)
}

func TestNonceBindingWorksWhereAgreed(t *testing.T) {
	r := startRelay(t, func(c *ServerConfig) { c.Binding = BindingNonce })
	client, _ := r.connect(t, r.clientConfig(t, RoleUser))
	if client.Binding() != BindingNonce {
		t.Fatal(client.Binding())
	}
}

func TestProofNeedsTheVerifiedTokensHash(t *testing.T) {
	err := connectError(t, func(c *ServerConfig) {
		c.Authenticate = func(context.Context, Hello) (Peer, error) {
			hash, err := payloadHash(makeToken(`{"sub":"mallory"}`))
			return Peer{TokenHash: hash}, err
		}
	}, nil)
	wantCode(t, err, CodePopFailed)
}

func TestNothingIsBoundBeforeTheProof(t *testing.T) {
	bound := make(chan struct{}, 1)
	r := startRelay(t, func(c *ServerConfig) {
		c.Bind = func(_ context.Context, _ Hello, p Peer) (Peer, error) { bound <- struct{}{}; return p, nil }
	})
	cfg := r.clientConfig(t, RoleUser)
	conn := r.dialRaw(t)
	x := &exchange{conn: conn, left: handshakeBytes}
	hello, _, err := cfg.hello(context.Background())
	must(t, err)
	must(t, x.write(hello))
	var c challenge
	must(t, x.read(&c))
	must(t, x.write(proof{Signature: make([]byte, ed25519.SignatureSize)}))
	if code := refused(t, conn); code != CodePopFailed {
		t.Fatal(code)
	}
	select {
	case <-bound:
		t.Fatal("bound without a proof")
	default:
	}
}

// A relay in the middle hands the victim's hello on over a TLS connection of its own and asks the victim to sign.
func TestProofIsWorthNothingOnAnotherConnection(t *testing.T) {
	r := startRelay(t, nil)
	cfg := r.clientConfig(t, RoleUser)
	victim, attacker := r.dialRaw(t), r.dialRaw(t)
	hello, _, err := cfg.hello(context.Background())
	must(t, err)
	x := &exchange{conn: attacker, left: handshakeBytes}
	must(t, x.write(hello))
	var c challenge
	must(t, x.read(&c))
	signed, err := cfg.transcript(victim, hello, &c)
	must(t, err)
	must(t, x.write(proof{Signature: ed25519.Sign(cfg.Key, signed)}))
	if code := refused(t, attacker); code != CodePopFailed {
		t.Fatal(code)
	}
}

func TestMalformedHellosAreRefusedAlike(t *testing.T) {
	r := startRelay(t, nil)
	key := makeKey(t).Public().(ed25519.PublicKey)
	good := func() *Hello {
		return &Hello{
			Version: 1, Role: RoleUser, Class: Interactive, Relay: r.addr, Token: makeToken("{}"),
			PublicKey: key, Ephemeral: make([]byte, keyBytes),
		}
	}
	for name, change := range map[string]func(*Hello){
		"role":          func(h *Hello) { h.Role = "admin" },
		"class":         func(h *Hello) { h.Class = "huge" },
		"short key":     func(h *Hello) { h.PublicKey = h.PublicKey[:31] },
		"no ephemeral":  func(h *Hello) { h.Ephemeral = nil },
		"agent token":   func(h *Hello) { h.Role, h.AgentID = RoleAgent, "a" },
		"user agent id": func(h *Hello) { h.AgentID = "a" },
		"no token":      func(h *Hello) { h.Token = "" },
		"long name":     func(h *Hello) { h.Relay = strings.Repeat("x", 300) },
	} {
		t.Run(name, func(t *testing.T) {
			h := good()
			change(h)
			conn := r.dialRaw(t)
			must(t, (&exchange{conn: conn}).write(h))
			if code := refused(t, conn); code != CodeProtocolError {
				t.Fatal(code)
			}
		})
	}
	t.Run("version", func(t *testing.T) {
		h := good()
		h.Version = 2
		conn := r.dialRaw(t)
		must(t, (&exchange{conn: conn}).write(h))
		if code := refused(t, conn); code != CodeVersionMismatch {
			t.Fatal(code)
		}
	})
}

func TestST01GarbageBeforeAuthenticationIsCutOff(t *testing.T) {
	r := startRelay(t, nil)
	message := func(text string) string {
		return string(binary.BigEndian.AppendUint32(nil, uint32(len(text)))) + text
	}
	for name, sent := range map[string]string{
		"http":          "GET / HTTP/1.1\r\n\r\n",
		"oversized":     "\x00\x01\x00\x01",
		"four GiB":      "\xff\xff\xff\xff",
		"no json":       message("hello"),
		"trailing":      message(`{} {}`),
		"duplicate":     message(`{"role":"user","role":"agent"}`),
		"invalid utf-8": message("{\"relay\":\"\xff\"}"),
		"deep":          message(strings.Repeat("[", 20000)),
	} {
		t.Run(name, func(t *testing.T) {
			conn := r.dialRaw(t)
			_, err := io.WriteString(conn, sent)
			must(t, err)
			if code := refused(t, conn); code != CodeProtocolError {
				t.Fatal(code)
			}
			if _, err := conn.Read(make([]byte, 1)); err == nil {
				t.Fatal("the relay went on")
			}
		})
	}
}

func TestUnknownFieldsArePassedOver(t *testing.T) {
	var h Hello
	text := `{"version":1,"from_the_future":{"a":[1]}}`
	b := append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	_, err := readMessage(strings.NewReader(string(b)), &h, handshakeBytes)
	must(t, err)
	if h.Version != 1 {
		t.Fatal(h)
	}
}

// The size limit is one for the whole handshake: a proof gets what the hello left.
func TestHandshakeIsBoundedAsAWhole(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	x := &exchange{conn: near, left: 100}
	go func() {
		far.Write(append(binary.BigEndian.AppendUint32(nil, 60), []byte(`{"signature":"`+strings.Repeat("A", 44)+`"}`)...))
		far.Write(binary.BigEndian.AppendUint32(nil, 60))
	}()
	must(t, x.read(&proof{}))
	if err := x.read(&proof{}); !errors.Is(err, errOversized) {
		t.Fatal(err)
	}
}

func TestSilentHandshakeEndsWithItsContext(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := Accept(ctx, near, ServerConfig{Key: makeKey(t), Authenticate: authenticateAnyone})
		done <- err
	}()
	cancel()
	if err := wait(t, done, "the end of the handshake"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestPayloadHashKnowsOneSpelling(t *testing.T) {
	token := makeToken(`{"sub":"alice"}`) // the payload is 15 bytes: no spare bits; 16 leave some
	if _, err := payloadHash(token); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "a.b", "a.b.c.d", "a..c", "a.e30=.c", "a.e31.c", "a.e3\n0.c", "a.e3+0.c",
	} {
		if _, err := payloadHash(bad); err == nil {
			t.Errorf("%q has a hash", bad)
		}
	}
}

func TestTranscriptFieldsCannotShift(t *testing.T) {
	a := transcript(&Hello{Role: "ab", Class: "c"}, &challenge{}, nil, nil)
	b := transcript(&Hello{Role: "a", Class: "bc"}, &challenge{}, nil, nil)
	if string(a) == string(b) {
		t.Fatal("two hellos, one transcript")
	}
}

func TestST03DataBeforeAuthenticationReachesNoHandler(t *testing.T) {
	r := startRelay(t, nil)
	conn := r.dialRaw(t)
	syn := frameHeader{kind: frameWindow, flags: flagSYN, id: 1}.append(nil)
	_, err := conn.Write(append(syn, syn...))
	must(t, err)
	if err := wait(t, r.errs, "the refusal"); err == nil {
		t.Fatal("no error")
	}
	select {
	case <-r.sessions:
		t.Fatal("a session began")
	default:
	}
}
