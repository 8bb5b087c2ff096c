package dev

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	defaultListen          = "127.0.0.1:0"
	defaultClientID        = "iapctl"
	defaultAccessAudience  = "iap-dev-api"
	defaultIDLifetime      = 15 * time.Minute
	defaultAccessLifetime  = 15 * time.Minute
	defaultRefreshLifetime = 12 * time.Hour
	defaultDeviceLifetime  = 10 * time.Minute
	// The unit of RFC 8628 is the whole second; five is its default.
	defaultInterval = 5 * time.Second

	// Nobody reads a form larger than this, and no header arrives later.
	maxFormBytes      = 64 << 10
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	// Answers that run when Close is called get this long, then their connections are cut.
	closeGrace = 500 * time.Millisecond
)

// ProviderOptions configure a development provider. The zero value is a working one on a free port.
type ProviderOptions struct {
	// Listen is the address, a loopback IP or "localhost" with a port. Default 127.0.0.1:0.
	Listen string
	// Users are the people on the login page. Default: alice, bob and mallory (DefaultUsers).
	Users []User
	// Clients are the registered applications; the first is ClientID. Default: the public client iapctl.
	Clients []Client
	// IDLifetime and AccessLifetime are the lifetimes of the tokens, 15 minutes by default; RefreshLifetime is that of
	// a refresh token, 12 hours by default.
	IDLifetime, AccessLifetime, RefreshLifetime time.Duration
	// DeviceLifetime is how long a user code can be approved, 10 minutes by default.
	DeviceLifetime time.Duration
	// Interval is what the provider asks between two polls of a device, in whole seconds, 5 s by default. A device that
	// polls faster is told slow_down.
	Interval time.Duration
	// DropAtRefresh leaves claims out of refreshed ID tokens, as some providers do: any of amr, auth_time, groups, email, profile.
	DropAtRefresh []string
	// Algorithm signs tokens: RS256 (default), PS256, ES256 or EdDSA.
	Algorithm string
	// TLS makes the issuer an https one.
	TLS *tls.Config
	// Logger hears of logins and refusals; nil is silent.
	Logger *slog.Logger
}

// User is someone the provider lets in.
type User struct {
	Subject, Name, Email string
	Password             string // empty: the page asks for none
	EmailVerified        bool
	Groups               []string
	AMR                  []string            // how the login counts, e.g. "pwd", "mfa"
	ACR                  string              // optional
	Classes              map[string][]string // classes that a login reaches if acr_values asks for one, and its amr then
	Claims               map[string]any      // further claims of the ID token, verbatim
	Disabled             bool                // no login, and refresh answers invalid_grant
}

// Client is a registered application.
type Client struct {
	ID string
	// Secret is asked for at the token endpoint, in the form or by Basic authentication. Empty: a public client. PKCE is
	// required of both.
	Secret string
	// RedirectURIs match on any port when they are loopback addresses (RFC 8252, section 7.3). Default: the paths / and
	// /callback on 127.0.0.1, [::1] and localhost.
	RedirectURIs []string
	// AccessAudience is the audience of the access tokens. Default: iap-dev-api.
	AccessAudience []string
}

// DefaultUsers returns the three people of the demo: alice may use models, bob is in no group, mallory is nobody's friend.
func DefaultUsers() []User {
	return []User{
		{
			Subject: "alice", Name: "Alice Aster", Email: "alice@example.test", EmailVerified: true,
			Groups: []string{"ml-eng", "llm-users"}, AMR: []string{"pwd", "mfa"},
		},
		{Subject: "bob", Name: "Bob Birch", Email: "bob@example.test", EmailVerified: true, AMR: []string{"pwd"}},
		{Subject: "mallory", Name: "Mallory Moss", Email: "mallory@example.test", Groups: []string{"guests"}, AMR: []string{"pwd"}},
	}
}

// Provider is a running OpenID provider. Its methods may be called from several goroutines.
type Provider struct {
	options  ProviderOptions
	issuer   string
	clientID string
	log      *slog.Logger

	store   *store
	keys    *keyring
	traffic *traffic
	op      *op.Provider

	server  *http.Server
	closing chan struct{} // closed first by Close; frees scripted hangs
	served  chan struct{} // closed when the accept loop has ended
	unhook  func() bool   // detaches from the context of StartProvider
	once    sync.Once
	closed  error
}

// StartProvider binds the listener and serves until Close is called or ctx ends. It returns an error for an address that is
// not loopback.
func StartProvider(ctx context.Context, o ProviderOptions) (*Provider, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	listener, host, err := listenLoopback(ctx, o.Listen)
	if err != nil {
		return nil, err
	}
	p, err := newProvider(o, listener, host)
	if err != nil {
		listener.Close()
		return nil, err
	}
	if o.TLS != nil {
		listener = tls.NewListener(listener, o.TLS)
	}
	go func() {
		defer close(p.served)
		if err := p.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("development provider stopped", "error", err)
		}
	}()
	p.unhook = context.AfterFunc(ctx, func() { p.shut() })
	return p, nil
}

// complete fills in the defaults and refuses what cannot work.
func (o *ProviderOptions) complete() error {
	setDefault(&o.Listen, defaultListen)
	setDefault(&o.IDLifetime, defaultIDLifetime)
	setDefault(&o.AccessLifetime, defaultAccessLifetime)
	setDefault(&o.RefreshLifetime, defaultRefreshLifetime)
	setDefault(&o.DeviceLifetime, defaultDeviceLifetime)
	setDefault(&o.Interval, defaultInterval)
	setDefault(&o.Algorithm, "RS256")
	if o.Interval < time.Second || o.Interval%time.Second != 0 {
		return fmt.Errorf("device interval %v: whole seconds only, at least one", o.Interval)
	}
	if len(o.Users) == 0 {
		o.Users = DefaultUsers()
	}
	if len(o.Clients) == 0 {
		o.Clients = []Client{{ID: defaultClientID}}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// listenLoopback binds addr, twice sure that nobody outside can reach it: by what was asked for and by what was bound.
func listenLoopback(ctx context.Context, addr string) (net.Listener, string, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", fmt.Errorf("listen on %q: %w", addr, err)
	}
	ip, err := netip.ParseAddr(host)
	if host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return nil, "", fmt.Errorf("listen on %q: the development provider asks for no passwords and serves loopback only", addr)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, "", fmt.Errorf("listen on %q: %w", addr, err)
	}
	bound, ok := listener.Addr().(*net.TCPAddr)
	if !ok || !bound.IP.IsLoopback() {
		listener.Close()
		return nil, "", fmt.Errorf("listen on %q: %v is not loopback", addr, listener.Addr())
	}
	return listener, net.JoinHostPort(host, fmt.Sprint(bound.Port)), nil
}

func newProvider(o ProviderOptions, listener net.Listener, host string) (*Provider, error) {
	p := &Provider{
		options: o, clientID: o.Clients[0].ID, log: o.Logger,
		closing: make(chan struct{}), served: make(chan struct{}),
	}
	p.issuer = "http://" + host
	if o.TLS != nil {
		p.issuer = "https://" + host
	}
	var err error
	if p.keys, err = newKeyring(o.Algorithm); err != nil {
		return nil, err
	}
	p.traffic = newTraffic()
	p.store = newStore(o, p.issuer, p.keys)
	if p.op, err = newProtocol(p.issuer, p.store, o); err != nil {
		return nil, err
	}
	p.server = &http.Server{
		Handler:           p.handler(host),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return p, nil
}

// Issuer is the provider's identifier, the base of all its URLs.
func (p *Provider) Issuer() string { return p.issuer }

// ClientID is the first registered client, iapctl unless configured otherwise.
func (p *Provider) ClientID() string { return p.clientID }

// Close ends the provider: running answers get a moment, then their connections are cut. It waits and may be called again.
func (p *Provider) Close() error {
	p.unhook()
	p.shut()
	<-p.served
	return p.closed
}

func (p *Provider) shut() {
	p.once.Do(func() {
		close(p.closing)
		ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
		defer cancel()
		if err := p.server.Shutdown(ctx); err != nil {
			p.closed = p.server.Close()
		}
	})
}
