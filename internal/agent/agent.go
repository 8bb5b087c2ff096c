package agent

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"iap/internal/keyfile"
	"iap/internal/modelapi"
	"iap/internal/version"
	"iap/tunnel"
)

const (
	resolveEvery = 30 * time.Second // how soon a new relay behind the name is found
	maxRelays    = 16               // addresses of one name that are dialled
	drainLimit   = 30 * time.Second // running answers of an agent that stops
	drainPoll    = 100 * time.Millisecond
	drainCalm    = 3 // polls without a request: what was on its way is told no, and goes elsewhere
)

// errStopping keeps a stopping agent from dialling again.
var errStopping = errors.New("the agent is stopping")

// Agent is one agent process. New reads what it needs, Run serves until the
// context ends.
type Agent struct {
	cfg       *Config
	log       *slog.Logger
	now       func() time.Time
	keyFile   keyfile.File
	pin       *pin
	witness   *witness
	tls       *tls.Config
	table     *modelapi.Table
	upstreams []*upstream
	buffers   buffers
	transport *http.Transport
	lingers   *lingers
	pace      waitPace
	running   sync.WaitGroup
	busy      atomic.Int64 // requests and tcp streams that run
	stopping  atomic.Bool
	doubt     chan struct{}         // somebody wants a probe
	loaded    chan struct{}         // somebody began or ended
	told      []tunnel.Announcement // what the relays heard last; owned by keepProbing

	mu       sync.Mutex
	lastKeys keyfile.Keys                 // guarded by mu
	nextAsk  time.Time                    // guarded by mu; before it no relay has the key changed
	sessions map[*tunnel.Session]struct{} // guarded by mu
	changed  chan struct{}                // guarded by mu; closed and replaced when sessions changes
}

// upstream is one resource: its configuration and what is known of it.
type upstream struct {
	cfg       *ResourceConfig
	transport *http.Transport
	queue     *queue // of generations; nil: no bound

	active atomic.Int64 // requests that need no place in the queue

	mu      sync.Mutex
	state   probed  // what the last good probe found; guarded by mu
	health  tracker // guarded by mu
	cleared bool    // of kind http and tcp: it was asked, and is no model server; guarded by mu
}

// New prepares an agent. It dials nothing yet.
func New(cfg *Config, log *slog.Logger) (*Agent, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{
		cfg: cfg, log: log, now: time.Now, table: modelapi.Default(), lingers: newLingers(log), pace: waitPace{firstComment, lookEvery, repeatComment},
		sessions: map[*tunnel.Session]struct{}{}, changed: make(chan struct{}),
		doubt: make(chan struct{}, 1), loaded: make(chan struct{}, 1),
	}
	a.transport = newTransport(a.lingers)
	var err error
	a.keyFile = keyfile.File(cfg.KeyFile)
	if a.lastKeys, err = a.keyFile.Read(); err != nil {
		return nil, fmt.Errorf("key_file: %w; run iap-agent join TOKEN", err)
	}
	if a.pin, err = openPin(cfg, log); err != nil {
		return nil, err
	}
	if a.witness, err = openWitness(cfg, a.pin, log); err != nil {
		return nil, err
	}
	if a.tls, err = tlsConfig(cfg.CAFile); err != nil {
		return nil, err
	}
	for i := range cfg.Resources {
		u := openUpstream(&cfg.Resources[i], a.transport)
		if u.queue != nil {
			u.queue.changed = a.busier
		}
		a.upstreams = append(a.upstreams, u)
	}
	return a, nil
}

func openUpstream(cfg *ResourceConfig, transport *http.Transport) *upstream {
	u := &upstream{cfg: cfg, transport: transport}
	if cfg.Capacity > 0 {
		u.queue = newQueue(cfg.Capacity, queueLimits{cfg.Queue.Max, cfg.Queue.PerPrincipal, time.Duration(cfg.Queue.MaxWait)}, time.Now)
	}
	return u
}

// tlsConfig trusts the certificates in file beside nothing else, or the
// system's if file is empty.
func tlsConfig(file string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS13}
	if file == "" {
		return c, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", file)
	}
	return c, nil
}

// Run keeps sessions to every relay that the name yields, and serves them until
// ctx ends; then it lets running answers finish for a while.
func (a *Agent) Run(ctx context.Context) error {
	release, err := a.keyFile.Claim()
	if errors.Is(err, keyfile.ErrTaken) {
		return err
	}
	if err != nil { // a folder that cannot be written
		a.log.Warn("a second agent with this key would not be noticed", "error", err)
	} else {
		defer release()
	}
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer a.transport.CloseIdleConnections()
	defer a.lingers.stop()
	a.probeAll(ctx) // so that the first announcement tells what is there
	probing, stopProbing := context.WithCancel(ctx)
	defer stopProbing()
	a.running.Go(func() { a.keepProbing(probing) })
	a.running.Go(func() { a.keepReporting(probing) })
	a.running.Go(func() { a.keepRotating(probing) })
	err = a.keepRelays(ctx, serving)
	stopProbing()
	stop()
	a.running.Wait()
	return err
}

// keepRelays runs one set of keepers for each address of the relay's name and
// follows the name's changes. When ctx ends it drains and returns.
func (a *Agent) keepRelays(ctx, serving context.Context) error {
	keepers := map[netip.AddrPort]context.CancelFunc{}
	var group sync.WaitGroup
	defer group.Wait()
	defer func() {
		for _, cancel := range keepers {
			cancel()
		}
	}()
	failed := make(chan error, 1)
	tick := time.NewTicker(resolveEvery)
	defer tick.Stop()
	for {
		addresses := a.resolve(ctx)
		for at := range addresses {
			if keepers[at] != nil {
				continue
			}
			keeping, cancel := context.WithCancel(serving)
			keepers[at] = cancel
			for _, class := range []tunnel.Class{tunnel.Interactive, tunnel.Bulk} {
				group.Go(func() { a.keep(keeping, serving, at, class, failed) })
			}
		}
		for at, cancel := range keepers {
			if len(addresses) > 0 && !addresses[at] {
				cancel()
				delete(keepers, at)
			}
		}
		select {
		case <-ctx.Done():
			a.stopping.Store(true) // no keeper dials again
			a.drain(serving)
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
		}
	}
}

// resolve lists the relay's addresses. Behind a proxy the name is the proxy's
// to resolve; while it cannot be resolved the zero address dials by name, which
// gives the keeper's backoff something to report.
func (a *Agent) resolve(ctx context.Context) map[netip.AddrPort]bool {
	byName := map[netip.AddrPort]bool{{}: true}
	if usesProxy(splitName(a.cfg.Relay)) {
		return byName
	}
	names := a.cfg.Relays
	if len(names) == 0 {
		names = []string{a.cfg.Relay}
	}
	found := map[netip.AddrPort]bool{}
	for _, name := range names {
		all, err := addressesOf(ctx, name)
		if err != nil {
			a.log.Debug("a relay's name cannot be resolved", "relay", name, "error", err)
		}
		for _, at := range all {
			if len(found) < maxRelays {
				found[at] = true
			}
		}
	}
	if len(found) == 0 {
		return byName
	}
	return found
}

// addressesOf resolves host[:port].
func addressesOf(ctx context.Context, name string) ([]netip.AddrPort, error) {
	host, port := splitName(name)
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, err
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	all := make([]netip.AddrPort, len(ips))
	for i, ip := range ips {
		all[i] = netip.AddrPortFrom(ip.Unmap(), uint16(number))
	}
	return all, err
}

// splitName takes host[:port] apart.
func splitName(name string) (host, port string) {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return name, "443"
	}
	return host, port
}

func usesProxy(host, port string) bool {
	r, err := http.NewRequest(http.MethodGet, "https://"+net.JoinHostPort(host, port), nil)
	if err != nil {
		return false
	}
	proxy, err := http.ProxyFromEnvironment(r)
	return err == nil && proxy != nil
}

// keep holds one session of one class to one relay address.
func (a *Agent) keep(ctx, serving context.Context, at netip.AddrPort, class tunnel.Class, failed chan<- error) {
	log := a.log.With("relay", a.cfg.Relay, "class", class)
	if at.IsValid() {
		log = log.With("address", at.String())
	}
	k := &tunnel.Keeper{
		Dial:   func(ctx context.Context) (*tunnel.Session, error) { return a.connect(ctx, at, class) },
		Logger: log,
		OnUp: func(s *tunnel.Session) {
			log.Info("connected to the relay", "session", s.ID())
			a.serveSession(serving, s)
		},
		OnDown: func(err error, wait time.Duration) {
			log.Warn("not connected to the relay", "error", err, "next_try", wait.Round(time.Millisecond).String())
		},
	}
	if err := k.Run(ctx); err != nil && ctx.Err() == nil && !a.stopping.Load() {
		select {
		case failed <- err:
		default:
		}
	}
}

// connect dials the relay and opens a session.
func (a *Agent) connect(ctx context.Context, at netip.AddrPort, class tunnel.Class) (*tunnel.Session, error) {
	if a.stopping.Load() {
		return nil, tunnel.Permanent(errStopping)
	}
	s, err := a.connectAny(ctx, at, class)
	if isRevoked(err) {
		// Trying again cannot help: an operator must enrol the agent anew.
		return nil, tunnel.Permanent(fmt.Errorf("%w (or another process has rotated a copy of %s)", err, a.cfg.KeyFile))
	}
	return s, err
}

// connectWith opens a session with one key.
func (a *Agent) connectWith(ctx context.Context, at netip.AddrPort, class tunnel.Class, key ed25519.PrivateKey) (*tunnel.Session, error) {
	d := tunnel.Dialer{Address: a.cfg.Relay, Connect: at, TLS: a.tls}
	conn, err := d.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return tunnel.Connect(ctx, conn, tunnel.ClientConfig{
		Role: tunnel.RoleAgent, Class: class, Relay: a.cfg.Relay, AgentID: a.cfg.AgentID, Version: version.String(),
		Key: key, CheckRelay: a.pin.check, OnRelayKeys: a.pin.learn, OnRotate: a.rotateAsAsked, OnCheckpoint: a.witness.take, Announce: a.announcements(), Logger: a.log, MaxStreams: maxStreams(class),
	})
}

// maxStreams is how many streams the relay may open on one session: it bounds
// people's streams itself, and a bulk stream's window costs more.
func maxStreams(class tunnel.Class) int {
	if class == tunnel.Bulk {
		return 256
	}
	return 16 << 10
}

// serveSession serves a session until it ends, in a goroutine of its own.
func (a *Agent) serveSession(ctx context.Context, s *tunnel.Session) {
	a.track(s, true)
	a.running.Go(func() {
		defer a.track(s, false)
		err := s.Serve(ctx, a.serveStream)
		a.log.Debug("session ended", "session", s.ID(), "error", err)
	})
}

func (a *Agent) track(s *tunnel.Session, live bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if live {
		a.sessions[s] = struct{}{}
	} else {
		delete(a.sessions, s)
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *Agent) live() ([]*tunnel.Session, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := make([]*tunnel.Session, 0, len(a.sessions))
	for s := range a.sessions {
		all = append(all, s)
	}
	return all, a.changed
}

// drain asks the relays for no more streams, waits for the running ones within
// the limit and closes the sessions.
func (a *Agent) drain(ctx context.Context) {
	limit, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	all, _ := a.live()
	var group sync.WaitGroup
	for _, s := range all {
		group.Go(func() {
			if s.GoAway("the agent is stopping") == nil {
				// Its answer says that the relay has read what was said before.
				if err := s.Announce(limit, a.announcements()); err != nil {
					a.log.Debug("announce while stopping", "session", s.ID(), "error", err)
				}
				a.idle(limit, s.Done())
			}
			_ = s.Close(tunnel.CodeCanceled, "the agent is stopping")
		})
	}
	group.Wait()
}

// idle waits until no request runs, or the relay is gone. The streams themselves
// stay open: the relay keeps them warm.
func (a *Agent) idle(ctx context.Context, gone <-chan struct{}) {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for calm := 0; calm < drainCalm; calm++ {
		select {
		case <-tick.C:
		case <-gone:
			return
		case <-ctx.Done():
			return
		}
		if a.busy.Load() > 0 {
			calm = -1
		}
	}
}

// Connected waits until the agent has n sessions, for callers that start
// several processes in one.
func (a *Agent) Connected(ctx context.Context, n int) error {
	for {
		all, changed := a.live()
		if len(all) >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
