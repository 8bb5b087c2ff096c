package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/agent"
	"iap/internal/audit"
	"iap/internal/config"
	"iap/internal/dev"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// patience bounds waits for events that must happen; no test passes by it.
const patience = 20 * time.Second

// bearerAudience is the audience of the front door in every test.
const bearerAudience = "iap-api"

// allowAll lets the engineers do everything on everything.
const allowAll = `version: 1
grants:
  - name: engineers
    to: ["group:corp/ml-eng"]
    resources: ["*"]
    actions: [connect, chat, complete, embed, tokenize, list-models, inspect-model, manage-model, health, observe, ui]
`

// system is a relay as it runs in production, with a real provider, real TLS, a real database and a real audit log.
type system struct {
	t        testing.TB
	dir      string
	grants   string         // path
	name     string         // of the relay, with its port
	connect  netip.AddrPort // where it listens, if that is not what the name says
	caFile   string
	roots    *x509.CertPool
	provider *dev.Provider
	cfg      *settings.Config
	now      func() time.Time // nil: time.Now
	adjust   func(*Relay)     // between New and Run; may be nil
	relay    *Relay
	admin    *admin.Client
	force    chan struct{}
	stop     context.CancelFunc
	done     chan error
	stopped  sync.Once
	err      error
	agents   []*runningAgent
	spoilt   bool // the test broke what the relay needs to stop well
}

// change adapts the configuration of one test.
type change func(*settings.Config)

// errorOf is the error of a call of the admin API that also tells what it ended.
func errorOf(_ admin.Ended, err error) error { return err }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// newSystem starts a provider and a relay that runs until the test ends.
func newSystem(t testing.TB, grants string, changes ...change) *system {
	t.Helper()
	s := prepareSystem(t, grants, changes...)
	s.start()
	return s
}

// subtest runs a part of the test on the same system; what fails in it fails the part.
func (s *system) subtest(name string, part func(*testing.T)) {
	whole := s.t
	defer func() { s.t = whole }()
	whole.(*testing.T).Run(name, func(t *testing.T) {
		s.t = t
		part(t)
	})
}

// prepareSystem does all but start the relay.
func prepareSystem(t testing.TB, grants string, changes ...change) *system {
	t.Helper()
	dir, err := os.MkdirTemp("", "iap") // short: a socket's path has its limit
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &system{t: t, dir: dir, grants: filepath.Join(dir, "grants.yaml")}
	s.provider, err = dev.StartProvider(context.Background(), dev.ProviderOptions{Algorithm: "ES256"})
	must(t, err)
	t.Cleanup(func() { s.provider.Close() })
	t.Cleanup(func() {
		for _, a := range s.agents {
			_ = a.stop()
		}
	})
	files, err := dev.Certificates(dir, "localhost", "127.0.0.1")
	must(t, err)
	s.caFile, s.roots = files.CA, x509.NewCertPool()
	pem, err := os.ReadFile(files.CA)
	must(t, err)
	s.roots.AppendCertsFromPEM(pem)
	s.name = freeAddress(t)
	file, err := settings.Setup{
		Dir: dir, Name: s.name, Listen: s.name, Issuer: s.provider.Issuer(), ClientID: s.provider.ClientID(),
		CertFile: files.Cert, KeyFile: files.Key, Data: filepath.Join(dir, "data"), Grants: grants,
	}.Write()
	must(t, err)
	s.cfg, err = settings.Load(file)
	must(t, err)
	s.cfg.Issuers[0].BearerAudiences = []string{bearerAudience}
	for _, c := range changes {
		c(s.cfg)
	}
	return s
}

// freeAddress is an address that nobody listens on now.
func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

// start runs the relay, anew if it was stopped.
func (s *system) start() {
	s.t.Helper()
	var err error
	s.relay, err = New(context.Background(), s.cfg, Options{Now: s.now})
	must(s.t, err)
	if s.adjust != nil {
		s.adjust(s.relay)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.force, s.done, s.stopped = cancel, make(chan struct{}), make(chan error, 1), sync.Once{}
	running, done, force := s.relay, s.done, s.force
	go func() { done <- running.Run(ctx, force) }()
	s.admin = adminClient(s.relay.AdminSocket())
	s.t.Cleanup(func() {
		if err := s.end(); err != nil && !s.spoilt {
			s.t.Errorf("relay: %v", err)
		}
	})
}

// end stops the relay at once and returns what Run returned.
func (s *system) end() error {
	s.stopped.Do(func() {
		s.admin.Close()
		s.stop()
		close(s.force)
		s.err = <-s.done
	})
	return s.err
}

func adminClient(socket string) *admin.Client {
	return admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	})
}

// setPolicy writes the grants and has the relay read them.
func (s *system) setPolicy(text string) {
	s.t.Helper()
	writeFile(s.t, s.grants, text)
	_, err := s.admin.ReloadPolicy(within(s.t))
	must(s.t, err)
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path+".new", []byte(text), 0o600))
	must(t, os.Rename(path+".new", path))
}

// eventually waits for a state that nothing announces.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("did not happen: %s", what)
		}
	}
}

// --- agents

// served is a resource and the upstream behind it.
type served struct{ name, kind, upstream string }

func (s *system) joinToken(share bool, resources ...served) admin.JoinTokenCreated {
	s.t.Helper()
	q := admin.NewJoinToken{Name: "agent", Share: share}
	for _, r := range resources {
		q.Resources = append(q.Resources, admin.JoinResource{Name: r.name, Kind: r.kind})
	}
	created, err := s.admin.CreateJoinToken(within(s.t), q)
	must(s.t, err)
	return created
}

// runningAgent is an agent that serves until its end.
type runningAgent struct {
	id   string
	file string
	stop func() error // once; again it returns the same
}

// startAgent enrols an agent and waits until the relay offers its resources.
func (s *system) startAgent(resources ...served) *runningAgent {
	s.t.Helper()
	file := filepath.Join(s.dir, "agent-"+rand.Text(), "agent.yaml")
	upstreams := map[string]string{}
	for _, r := range resources {
		upstreams[r.name] = r.upstream
	}
	joined, err := agent.Join(within(s.t), agent.JoinOptions{
		Token: s.joinToken(true, resources...).Token, Config: file, CAFile: s.caFile, Upstreams: upstreams,
	})
	must(s.t, err)
	a := s.runAgent(file)
	a.id = joined.AgentID
	s.awaitOnline(a.id, 2)
	for _, r := range resources {
		eventually(s.t, r.name+" is offered", func() bool { n, _ := s.relay.agents.online(r.name); return n > 0 })
	}
	return a
}

// awaitOnline waits until n sessions of the agent have announced something.
func (s *system) awaitOnline(id string, n int) {
	s.t.Helper()
	eventually(s.t, "the agent is online", func() bool {
		s.relay.agents.mu.Lock()
		defer s.relay.agents.mu.Unlock()
		found := 0
		for _, l := range s.relay.agents.links {
			if l.agent.ID == id && l.session.Announced() != nil {
				found++
			}
		}
		return found >= n
	})
}

// closeAudit breaks the audit log.
func (s *system) closeAudit() {
	s.t.Helper()
	s.spoilt = true
	must(s.t, s.relay.audit.Close())
}

func (s *system) runAgent(file string) *runningAgent {
	s.t.Helper()
	cfg, err := agent.LoadConfig(file)
	must(s.t, err)
	a, err := agent.New(cfg, nil)
	must(s.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	s.t.Cleanup(cancel) // it is waited for when the relay has gone, which is sooner
	running := &runningAgent{file: file, stop: stop}
	s.agents = append(s.agents, running)
	return running
}

// fakeAgent is an enrolled agent that does what the test wants.
type fakeAgent struct {
	s   *system
	id  string
	key ed25519.PrivateKey
}

func (s *system) enrolFake(share bool, resources ...served) *fakeAgent {
	s.t.Helper()
	token, err := auth.ParseJoinToken(s.joinToken(share, resources...).Token)
	must(s.t, err)
	reply, key, err := s.postJoin(token)
	must(s.t, err)
	return &fakeAgent{s: s, id: reply.AgentID, key: key}
}

// postJoin spends a join token with a new key.
func (s *system) postJoin(token auth.JoinToken) (admin.JoinReply, ed25519.PrivateKey, error) {
	s.t.Helper()
	key := newKey(s.t)
	reply, err := s.sendJoin(joinRequest(token, key))
	return reply, key, err
}

func joinRequest(token auth.JoinToken, key ed25519.PrivateKey) admin.JoinRequest {
	public := key.Public().(ed25519.PublicKey)
	nonce := make([]byte, 32)
	rand.Read(nonce)
	return admin.JoinRequest{
		TokenID: token.ID, Secret: token.Secret, PublicKey: public, Nonce: nonce,
		Signature: ed25519.Sign(key, auth.JoinRequestBytes(token.Relay, token.ID, "", public, nonce)),
	}
}

func (s *system) sendJoin(q admin.JoinRequest) (admin.JoinReply, error) {
	transport := &http.Transport{TLSClientConfig: s.tls(), DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		if s.connect.IsValid() {
			address = s.connect.String()
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	return admin.Join(within(s.t), &http.Client{Transport: transport}, s.name, q)
}

func (s *system) tls() *tls.Config {
	return &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS13}
}

// connect opens a session of the agent, with what it announces first.
func (a *fakeAgent) connect(class tunnel.Class, announce ...tunnel.Announcement) (*tunnel.Session, error) {
	return a.s.dial(tunnel.ClientConfig{Role: tunnel.RoleAgent, Class: class, AgentID: a.id, Key: a.key, Announce: announce})
}

// serve answers every stream with handle until the session ends.
func (a *fakeAgent) serve(class tunnel.Class, handle func(context.Context, *tunnel.Stream, tunnel.Header), announce ...tunnel.Announcement) *tunnel.Session {
	a.s.t.Helper()
	session, err := a.connect(class, announce...)
	must(a.s.t, err)
	done := make(chan struct{})
	go func() { defer close(done); _ = session.Serve(context.Background(), handle) }()
	a.s.t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, ""); <-done })
	a.s.awaitOnline(a.id, 1)
	return session
}

// --- users

// user is a person with a session key.
type user struct {
	s      *system
	key    ed25519.PrivateKey
	claims map[string]any
}

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	key, err := auth.NewKey()
	must(t, err)
	return key
}

// user makes a login; claims are laid over those of alice, an engineer.
func (s *system) user(claims map[string]any) *user {
	s.t.Helper()
	return &user{s: s, key: newKey(s.t), claims: claims}
}

func (u *user) token() string { return u.s.provider.Mint(u.claims) }

// open makes a session with a fresh token.
func (u *user) open(class tunnel.Class) *tunnel.Session {
	u.s.t.Helper()
	session, err := u.present(class, u.token())
	must(u.s.t, err)
	u.s.t.Cleanup(func() { _ = session.Close(tunnel.CodeNone, "") })
	return session
}

// present makes a session with this very token.
func (u *user) present(class tunnel.Class, token string) (*tunnel.Session, error) {
	return u.s.dial(tunnel.ClientConfig{
		Role: tunnel.RoleUser, Class: class, Key: u.key, Token: func(context.Context) (string, error) { return token, nil },
	})
}

func (s *system) dial(cfg tunnel.ClientConfig) (*tunnel.Session, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d := tunnel.Dialer{Address: s.name, Connect: s.connect, TLS: s.tls()}
	conn, err := d.Dial(ctx)
	if err != nil {
		return nil, err
	}
	cfg.Relay, cfg.Version = s.name, "test"
	return tunnel.Connect(ctx, conn, cfg)
}

// openStream opens a stream for the resource and reads the relay's reply.
func openStream(ctx context.Context, session *tunnel.Session, h tunnel.Header) (*tunnel.Stream, tunnel.Reply, error) {
	st, err := session.Open(ctx, h, nil)
	if err != nil {
		return nil, tunnel.Reply{}, err
	}
	reply, err := st.ReadReply(ctx)
	return st, reply, err
}

// mustOpen is openStream where the relay must say yes.
func mustOpen(t testing.TB, session *tunnel.Session, resource string) *tunnel.Stream {
	t.Helper()
	st, reply, err := openStream(within(t), session, tunnel.Header{Resource: resource})
	must(t, err)
	if !reply.OK {
		t.Fatalf("open %s: %+v", resource, reply)
	}
	return st
}

// client speaks HTTP to a resource through the session, a stream for each connection.
func client(t testing.TB, session *tunnel.Session, h tunnel.Header) *http.Client {
	t.Helper()
	transport := &http.Transport{
		DisableCompression: true, MaxIdleConnsPerHost: 256,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			st, reply, err := openStream(ctx, session, h)
			if err != nil {
				return nil, err
			}
			if !reply.OK {
				st.Close()
				return nil, &replyError{reply}
			}
			return st, nil
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// replyError is a no of the relay to a stream.
type replyError struct{ tunnel.Reply }

func (e *replyError) Error() string { return e.Code + ": " + e.Message }

// api is the relay's own API as the session's owner sees it.
func api(t testing.TB, session *tunnel.Session) *admin.Client {
	t.Helper()
	c := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		st, reply, err := openStream(ctx, session, tunnel.Header{Service: "api"})
		if err != nil {
			return nil, err
		}
		if !reply.OK {
			return nil, &replyError{reply}
		}
		return st, nil
	})
	t.Cleanup(c.Close)
	return c
}

// --- audit

// events are the records of the log that fit, oldest first.
func (s *system) events(fits func(audit.Event) bool) []audit.Event {
	s.t.Helper()
	return readAudit(s.t, s.cfg.Audit.Dir, fits)
}

func readAudit(t testing.TB, dir string, fits func(audit.Event) bool) []audit.Event {
	t.Helper()
	var all []audit.Event
	for e, err := range audit.Read(dir) {
		if err != nil {
			if strings.Contains(err.Error(), audit.ErrTorn.Error()) {
				continue // a record that is just being written
			}
			t.Errorf("audit log: %v", err)
			continue
		}
		if fits(e) {
			all = append(all, e)
		}
	}
	return all
}

// awaitEvent waits for a record.
func (s *system) awaitEvent(what string, fits func(audit.Event) bool) audit.Event {
	s.t.Helper()
	var found []audit.Event
	eventually(s.t, "audit: "+what, func() bool { found = s.events(fits); return len(found) > 0 })
	return found[0]
}

// setMaxAge bounds the life of sessions.
func setMaxAge(c *settings.Config, age time.Duration) { c.Sessions.MaxAge = config.Duration(age) }
