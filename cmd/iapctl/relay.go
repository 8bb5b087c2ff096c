package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"iap/internal/admin"
	"iap/internal/config"
	"iap/internal/connect"
	"iap/internal/profile"
	"iap/internal/version"
	"iap/tunnel"
)

const (
	// callTimeout bounds a command that asks the relay one thing.
	callTimeout = 30 * time.Second
	// learnTimeout is how long the profile's file may be locked by others while a relay's key is remembered.
	learnTimeout = 5 * time.Second
	// tlsTimeout bounds one handshake of an HTTPS request.
	tlsTimeout = 10 * time.Second
)

// tlsConfig trusts the profile's authority instead of the system's, where it names one.
func tlsConfig(p *profile.Profile) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	if p.Settings.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(p.Settings.CAFile)
	if err != nil {
		return nil, caFailure("cannot be read", p.Settings.CAFile, err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, caFailure("holds no certificate in PEM form", p.Settings.CAFile, nil)
	}
	return c, nil
}

func caFailure(what, file string, err error) *failure {
	return &failure{code: "ca_file_invalid", what: fmt.Sprintf("the authority's file %s %s", clean(file), what), next: "--ca-file FILE", cause: err}
}

// httpClient speaks HTTPS to the relay, through the environment's proxy.
func httpClient(tc *tls.Config) *http.Client {
	return &http.Client{Timeout: callTimeout, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, OnProxyConnectResponse: tunnel.ProxyAnswer, TLSClientConfig: tc, TLSHandshakeTimeout: tlsTimeout, DisableKeepAlives: true,
	}}
}

// discover reads what the relay says of itself and compares it with what the profile remembers.
func discover(ctx context.Context, p *profile.Profile) (admin.Discovery, error) {
	tc, err := tlsConfig(p)
	if err != nil {
		return admin.Discovery{}, err
	}
	d, err := admin.FetchDiscovery(ctx, httpClient(tc), p.Settings.Relay)
	if err != nil {
		return d, err
	}
	state, err := p.State()
	if err != nil {
		return d, err
	}
	return d, state.CheckRelay(d.RelayKey, d.RelayChain, d.ChannelBinding)
}

// connectConfig says how this profile's sessions are made.
func (a *app) connectConfig(p *profile.Profile) (connect.Config, error) {
	tc, err := tlsConfig(p)
	if err != nil {
		return connect.Config{}, err
	}
	state, err := p.State()
	if err != nil {
		return connect.Config{}, err
	}
	cfg := connect.Config{
		Dialer:  &tunnel.Dialer{Address: p.Settings.Relay, TLS: tc, NetDial: dialAny(p.Settings.Relay, state.Relays)},
		Relay:   p.Settings.Relay,
		Version: version.String(),
		Login:   a.loginReader(p),
		Logger:  a.logger(),
	}
	if !a.external() {
		cfg.LoginID = func() string { return loginID(p) }
	}
	if state.Binding == profile.BindingExporter {
		cfg.MinBinding = tunnel.BindingExporter
	}
	cfg.CheckRelay = func(pub ed25519.PublicKey, chain [][]byte) error {
		err := p.CheckRelayKey(pub, chain)
		if errors.Is(err, profile.ErrRelayKeyChanged) {
			err = fmt.Errorf("%w: %w", connect.ErrRelayChanged, err)
		}
		return err
	}
	cfg.OnRelayKeys = func(pub ed25519.PublicKey, chain [][]byte) {
		ctx, cancel := context.WithTimeout(context.Background(), learnTimeout)
		defer cancel()
		if err := p.LearnRelayKeys(ctx, pub, chain); err != nil {
			a.logger().Warn("the relay's new key is not remembered", "error", err)
		}
	}
	return cfg, nil
}

// withSession runs f with one session to the relay and closes it.
func (a *app) withSession(ctx context.Context, p *profile.Profile, f func(context.Context, *tunnel.Session) error) error {
	cfg, err := a.connectConfig(p)
	if err != nil {
		return err
	}
	dialCtx, cancel := context.WithTimeout(ctx, callTimeout)
	session, err := connect.Once(dialCtx, cfg, tunnel.Interactive)
	cancel()
	if err != nil {
		return err
	}
	defer func() { _ = session.Close(tunnel.CodeCanceled, "done") }()
	session.SetActive(true)
	if err := p.Remember(ctx, session.PublicKey(), nil, string(session.Binding())); err != nil {
		return err
	}
	return f(ctx, session)
}

// withRelay runs f with a client of the relay's API.
func (a *app) withRelay(ctx context.Context, p *profile.Profile, f func(context.Context, *admin.Client) error) error {
	return a.withSession(ctx, p, func(ctx context.Context, session *tunnel.Session) error {
		client := apiClient(session)
		defer client.Close()
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return f(ctx, client)
	})
}

func apiClient(session *tunnel.Session) *admin.Client {
	return admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		return connect.DialStream(ctx, session, tunnel.Header{Service: "api"})
	})
}

// fetchResources asks for the list and remembers its names, for completion.
func fetchResources(ctx context.Context, p *profile.Profile, client *admin.Client) ([]admin.Resource, error) {
	list, err := client.Resources(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]profile.Resource, 0, len(list.Resources))
	for _, r := range list.Resources {
		names = append(names, profile.Resource{Name: r.Name, Kind: r.Kind})
	}
	err = p.Update(ctx, func(s *profile.State) error { s.Resources = names; return nil })
	return list.Resources, err
}

// findResource picks one by name, and otherwise says which name may have been meant.
func (a *app) findResource(list []admin.Resource, name string) (admin.Resource, error) {
	names := make([]string, 0, len(list))
	for _, r := range list {
		if r.Name == name && r.StepUp != nil {
			return r, a.stepUpFailure(r.Reason, r.Message, r.StepUp)
		}
		if r.Name == name {
			return r, nil
		}
		names = append(names, r.Name)
	}
	f := &failure{code: "unknown_resource", what: fmt.Sprintf("there is no resource %q, or it is not for you", clean(name)), next: "iapctl resources"}
	if near := config.Nearest(name, names); near != "" {
		f.what += fmt.Sprintf("; did you mean %q?", clean(near))
	}
	if len(list) == 0 {
		f.next = "iapctl whoami (its lines go into the relay's grants.yaml)"
	}
	return admin.Resource{}, f
}
