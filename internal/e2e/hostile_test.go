package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"iap/tunnel"
)

// dialTunnel opens a session as a client that is not iapctl and keeps none of its manners.
func (s *system) dialTunnel(claims map[string]any, class tunnel.Class) *tunnel.Session {
	s.t.Helper()
	ctx, cancel := limited(s.t)
	defer cancel()
	roots := s.https.Transport.(*http.Transport).TLSClientConfig.RootCAs
	conn, err := (&tunnel.Dialer{Address: s.name, TLS: &tls.Config{RootCAs: roots}}).Dial(ctx)
	if err != nil {
		s.t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	token := s.provider.Mint(claims)
	session, err := tunnel.Connect(ctx, conn, tunnel.ClientConfig{
		Role: tunnel.RoleUser, Class: class, Relay: s.name, Version: "hostile", Key: key,
		Token: func(context.Context) (string, error) { return token, nil },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = session.Close(tunnel.CodeCanceled, "done") })
	return session
}

// open opens a stream and returns what the relay answers: a reply's code, that of an abort, or "" for yes.
func open(t *testing.T, session *tunnel.Session, h tunnel.Header) string {
	t.Helper()
	ctx, cancel := limited(t)
	defer cancel()
	st, err := session.Open(ctx, h, nil)
	if err != nil {
		return tunnel.CodeOf(err).String()
	}
	reply, err := st.ReadReply(ctx)
	switch {
	case err != nil:
		return tunnel.CodeOf(err).String()
	case !reply.OK:
		return reply.Code
	}
	return ""
}

func TestStreamToWhatIsNotGrantedIsRefused(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: strings.Replace(usualGrants, `["*"]`, "[phi3]", 1)})
	up, _ := startDemo(t, 500)
	secret := startUpstream(t, newWebApp().handler())
	s.startAgent(map[string]string{"phi3=model": up.url, "secret=http": secret.url, "db=tcp": startSummer(t)})
	session := s.dialTunnel(map[string]any{"jti": "hostile"}, tunnel.Interactive)
	for _, h := range []tunnel.Header{
		{Resource: "secret", Kind: "http"},
		{Resource: "secret", Kind: "model"},
		{Resource: "db", Kind: "tcp"},
		{Resource: "absent", Kind: "tcp"},
		{Resource: "phi3/../secret"},
		{},
		{Resource: "secret", Principal: "dev/alice", Action: "connect", Grant: "engineers", Priority: 1},
	} {
		if code := open(t, session, h); code != "policy_denied" {
			t.Errorf("%+v is answered %q", h, code)
		}
	}
	if code := open(t, session, tunnel.Header{Service: "admin"}); code == "" {
		t.Error("an unknown service opens")
	}
	if code := open(t, session, tunnel.Header{Resource: "phi3", Kind: "model"}); code != "" {
		t.Errorf("what is granted is answered %q", code)
	}
	if len(secret.requests()) != 0 {
		t.Error("the secret was reached")
	}
}

func TestTwoThousandStreamsOfOneAreNoTroubleForAnother(t *testing.T) {
	t.Parallel()
	const flood, allowed = 2000, 1024
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())
	session := s.dialTunnel(map[string]any{"sub": "carol"}, tunnel.Interactive)
	var mu sync.Mutex
	codes := map[string]int{}
	var group sync.WaitGroup
	for range flood {
		group.Go(func() {
			code := open(t, session, tunnel.Header{Resource: "phi3", Kind: "model"})
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	group.Wait()
	if codes[""] == 0 || codes[""] > allowed || codes[""]+codes["too_many_streams"] != flood {
		t.Errorf("%d streams were answered %v", flood, codes)
	}
	if got := web.ask("POST", "/v1/chat/completions", chatBody("demo", "beside a flood", true, 5)); got.status != 200 || !strings.Contains(got.body, "[DONE]") {
		t.Errorf("somebody else's request: %+v", got)
	}
	if err := session.Close(tunnel.CodeCanceled, "enough"); err != nil {
		t.Errorf("close: %v", err)
	}
	again := s.dialTunnel(map[string]any{"sub": "carol", "jti": "again"}, tunnel.Interactive)
	eventually(t, "the flood's streams are given back", func() bool {
		return open(t, again, tunnel.Header{Resource: "phi3", Kind: "model"}) == ""
	})
}

// A download that nobody reads holds up nothing beside it, and ends with its reader.
func TestClientThatStopsReadingHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	ended := make(chan struct{})
	app := http.NewServeMux()
	app.HandleFunc("GET /firehose", func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		for block := make([]byte, 1<<16); ; {
			if _, err := w.Write(block); err != nil || r.Context().Err() != nil {
				return
			}
		}
	})
	app.HandleFunc("GET /small", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "small") })
	up := startUpstream(t, app)
	s.startAgent(map[string]string{"app=http": up.url})
	c := s.loggedIn("alice").connect("app")
	stuck, err := net.Dial("tcp", c.address())
	if err != nil {
		t.Fatal(err)
	}
	defer stuck.Close()
	if _, err := io.WriteString(stuck, "GET /firehose HTTP/1.1\r\nHost: "+c.address()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stuck, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	web := newCaller(t, c.url())
	for range 20 {
		if got := web.ask("GET", "/small", ""); got.status != 200 || got.body != "small" {
			t.Fatalf("beside a download that nobody reads: %+v", got)
		}
	}
	select {
	case <-ended:
		t.Error("the download ended while its reader was there")
	default:
	}
	stuck.Close()
	ctx, cancel := limited(t)
	defer cancel()
	select {
	case <-ended:
	case <-ctx.Done():
		t.Error("the download goes on without its reader")
	}
}
