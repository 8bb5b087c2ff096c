package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/audit/recording"
	"iap/internal/audit/sink"
	"iap/internal/cluster"
	"iap/internal/guard"
	"iap/internal/limit"
	"iap/internal/relay/settings"
	"iap/internal/relaykey"
	"iap/internal/state"
	"iap/internal/usage"
	"iap/internal/version"
	"iap/policy/rego"
	"iap/tunnel"
)

// Relay is one relay process. New wires it, Run serves until the context ends
// and then drains.
type Relay struct {
	cfg          *settings.Config
	log          *slog.Logger
	now          func() time.Time
	started      time.Time
	ring         *relaykey.Ring // the relay's own keys
	store        state.Store
	cluster      *cluster.Cluster // the relays that share the state
	instance     string           // which of them this one is
	audit        *audit.Log
	recordings   *recording.Keeper // nil: nothing can be recorded
	sinks        *sink.Sinks       // of the audit log
	policy       *rego.Engine
	verifier     *auth.Verifier
	guard        *guard.Guard
	assertions   *assertions
	assertionKey ed25519.PrivateKey // salts come from it too: it stays when the relay's key changes
	cert         *certificate

	sessions   *sessions
	agents     *agents
	live       liveStreams
	doors      doorRequests
	stateLost  atomic.Bool // for so long that revocations may have been missed
	limits     *limit.Book
	usage      *usage.Book
	asking     asking // about usage
	ids        *ids
	inflight   inflight
	refused    refused
	owed       owed
	logouts    logoutBook
	logoutDoor logoutDoor
	keys       keyring
	line       line
	subjects   *subjects
	explaining chan struct{} // one place
	reads      recentReads   // of administrators
	auditors   auditReaders
	policyNews policyNews
	joins      attempts // failed tries to join, by source
	logins     attempts // sessions opened, by principal
	handshakes *handshakes
	enrolling  sync.Mutex // one enrolment at a time: two tokens may name one resource

	listener net.Listener
	public   *http.Server
	streams  *streamServer
	admin    *adminServer

	ctx      context.Context // of everything that runs; ends after the drain
	cancel   context.CancelFunc
	stopping atomic.Bool
	running  sync.WaitGroup
	closers  []func() error // last in, first out
}

// Options are what the surroundings supply. The zero value is useful.
type Options struct {
	Logger *slog.Logger     // nil: silent
	Now    func() time.Time // nil: time.Now
}

// New opens everything a relay needs and binds its listeners; on an error it
// closes what it opened.
func New(ctx context.Context, cfg *settings.Config, o Options) (_ *Relay, err error) {
	r := &Relay{cfg: cfg, log: o.Logger, now: o.Now}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	if r.now == nil {
		r.now = time.Now
	}
	r.started = r.now().UTC()
	r.ctx, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			r.cancel()
			err = errors.Join(err, r.close())
		}
	}()
	for _, open := range []func(context.Context) error{r.openData, r.openPolicy, r.openIdentity, r.openGuard, r.openServers} {
		if err := open(ctx); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// openData opens what outlives the process: keys, state, audit.
func (r *Relay) openData(ctx context.Context) error {
	if err := os.MkdirAll(r.cfg.Data, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := r.openKeys(); err != nil {
		return err
	}
	var err error
	if r.assertionKey, err = loadOrMakeKey(filepath.Join(r.cfg.Data, "assertion.key")); err != nil {
		return err
	}
	if r.assertions, err = newAssertions(r.cfg.Name, r.assertionKey); err != nil {
		return err
	}
	r.assertions.several = len(r.cfg.Issuers) > 1
	if r.store, err = state.OpenWith(ctx, r.cfg.State, state.Options{Now: r.now, Logger: r.log}); err != nil {
		return err
	}
	r.closers = append(r.closers, r.store.Close)
	if err := state.CheckCopied(ctx, r.store); err != nil {
		return err
	}
	if err := r.openCluster(ctx); err != nil {
		return err
	}
	r.audit, err = audit.Open(r.auditOptions())
	if err != nil {
		return err
	}
	r.subjects = &subjects{log: r.audit, now: r.now}
	r.closers = append(r.closers, r.audit.Close)
	if err := r.openRecording(); err != nil {
		return err
	}
	if err := r.startSinks(); err != nil {
		return err
	}
	return r.audit.Record(ctx, audit.Event{Kind: audit.KindRelay, Reason: "started", Message: version.String()})
}

func (r *Relay) openPolicy(ctx context.Context) (err error) {
	r.policy, err = rego.New(ctx, r.cfg.Rego(r.log, r.now))
	if err != nil {
		return err
	}
	return r.audit.Record(ctx, audit.Event{Kind: audit.KindPolicy, Reason: "loaded", Revision: r.policy.Revision()})
}

// openIdentity starts the verifier and reads who may come back.
func (r *Relay) openIdentity(ctx context.Context) (err error) {
	issuers := make([]auth.IssuerConfig, len(r.cfg.Issuers))
	for i, one := range r.cfg.Issuers {
		if issuers[i], err = one.Verifier(); err != nil {
			return err
		}
	}
	r.verifier, err = auth.NewVerifier(r.ctx, issuers, auth.VerifierOptions{Logger: r.log, Now: r.now})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, r.verifier.Close)
	r.sessions = newSessions(r.cfg.Sessions.SessionsPerPrincipal, r.cfg.Sessions.StreamsPerPrincipal)
	r.agents = newAgents(r.log, r.now)
	if err := r.loadRevocations(ctx); err != nil {
		return err
	}
	if err := r.loadLogouts(ctx); err != nil {
		return err
	}
	r.logoutDoor.slots = make(chan struct{}, logoutsAtOnce)
	if err := r.loadKeys(ctx); err != nil {
		return err
	}
	r.explaining = make(chan struct{}, 1)
	r.auditors = newAuditReaders()
	r.handshakes = newHandshakes(r.cfg.Sessions.Handshakes, r.perSource(maxShaking))
	records, err := list[agentRecord](ctx, r.store, keyAgent)
	if err != nil {
		return fmt.Errorf("read enrolled agents: %w", err)
	}
	for i := range records {
		if records[i].Revoked == nil {
			r.agents.enrolled(&records[i])
		}
	}
	return nil
}

// openGuard builds the guard from what the relay does for it.
func (r *Relay) openGuard(ctx context.Context) error {
	salt, err := salts(r.assertionKey)
	if err != nil {
		return err
	}
	if err := r.openLimits(ctx); err != nil {
		return err
	}
	if err := r.openUsage(); err != nil {
		return err
	}
	if r.ids, err = openIDs(ctx, r.store, r.now); err != nil {
		return err
	}
	r.guard = &guard.Guard{
		Decide:  r.decide,  // decide.go: the policy's answer
		Reserve: r.reserve, // limits.go: what the grant's limits leave
		Own:     r.ids.own, // ids.go: whose the ids are that servers hand out
		Owned:   r.ids.owned,
		Salt:    salt,
		Record:  r.record,  // record.go: the audit line
		Forward: r.forward, // forward.go: the way to an agent
		Logger:  r.log, Now: r.now,
		NewID: func() string { return newID("rq") },
	}
	if r.recordings != nil {
		r.guard.Keep = r.keep // recording.go: what an auditor may read
	}
	return nil
}

func (r *Relay) openServers(context.Context) (err error) {
	if r.cert, err = loadCertificate(r.cfg.TLS.CertFile, r.cfg.TLS.KeyFile); err != nil {
		return err
	}
	if r.listener, err = net.Listen("tcp", r.cfg.Listen); err != nil {
		return fmt.Errorf("listen on %s: %w", r.cfg.Listen, err)
	}
	r.listener = newStrangers(r.listener, maxConnections, r.perSource(maxStrangers))
	r.closers = append(r.closers, ignoreClosed(r.listener.Close))
	r.streams = newStreamServer()
	r.closers = append(r.closers, r.streams.Close)
	r.public = r.publicServer()
	if r.admin, err = newAdminServer(r); err != nil {
		return err
	}
	r.closers = append(r.closers, r.admin.close)
	return nil
}

// Addr is where the public port listens.
func (r *Relay) Addr() net.Addr { return r.listener.Addr() }

// AdminSocket is the path of the admin socket.
func (r *Relay) AdminSocket() string { return r.cfg.AdminSocket }

// Run serves until ctx ends, then drains: no new sessions and streams, running
// ones have until the configured limit, or until force is closed.
func (r *Relay) Run(ctx context.Context, force <-chan struct{}) error {
	failed := make(chan error, 8) // one for each of those below
	serve := func(what string, f func() error) {
		r.spawn(func() {
			if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) && r.ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	serve("serve streams", func() error { return r.streams.http.Serve(r.streams) })
	serve("serve admin socket", r.admin.serve)
	r.follow()
	serve("watch state", func() error { r.watchState(); return nil })
	if r.recordings != nil {
		serve("expire recordings", func() error { r.recordings.Run(r.ctx); return nil })
	}
	serve("tell the state", func() error { r.payOwed(); return nil })
	serve("watch relay key", func() error { r.watchKeys(); return nil })
	serve("watch clock", func() error { r.watchClock(); return nil })
	serve("watch policy", func() error {
		return r.policy.Watch(r.ctx, func(revision string, err error) { r.policyReloaded(revision, byWatch, err) })
	})
	serve("serve "+r.listener.Addr().String(), func() error { return r.public.ServeTLS(r.listener, "", "") })
	r.log.Info("relay is up", "name", r.cfg.Name, "listen", r.listener.Addr().String(), "policy", r.policy.Revision(), "version", version.String())
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	r.stopping.Store(true)
	r.drain(force)
	r.cancel()
	r.running.Wait()
	if recordErr := r.audit.Record(context.Background(), audit.Event{Kind: audit.KindRelay, Reason: "stopped"}); recordErr != nil {
		err = errors.Join(err, fmt.Errorf("record stop: %w", recordErr))
	}
	return errors.Join(err, r.close())
}

// Close releases what New opened, for a relay that was never run.
func (r *Relay) Close() error {
	r.cancel()
	return r.close()
}

func (r *Relay) close() error {
	var errs []error
	for i := len(r.closers) - 1; i >= 0; i-- {
		errs = append(errs, r.closers[i]())
	}
	r.closers = nil
	return errors.Join(errs...)
}

// spawn runs f as part of the relay: Run waits for it.
func (r *Relay) spawn(f func()) {
	r.running.Go(f)
}

// Reload reads the certificate and the policy again, as SIGHUP asks. What is
// broken stays as it was.
func (r *Relay) Reload(ctx context.Context) error {
	certErr := r.cert.reload()
	if certErr != nil {
		r.log.Error("certificate not reloaded: the old one stays", "error", certErr)
	}
	return errors.Join(certErr, r.reloadPolicy(ctx, bySignal))
}

func (r *Relay) reloadPolicy(ctx context.Context, by string) error {
	err := r.policy.Reload(ctx)
	r.policyReloaded(r.policy.Revision(), by, err)
	return err
}

// policyReloaded records a reload and ends what the new policy does not allow.
func (r *Relay) policyReloaded(revision, by string, err error) {
	r.policyNews.note(revision, by, err)
	e := audit.Event{Kind: audit.KindPolicy, Reason: "loaded", Revision: revision, Detail: map[string]string{"by": by}}
	if err != nil {
		e.Reason, e.Message = "broken", err.Error()
		r.log.Error("policy not reloaded: the old one stays in force", "error", err, "revision", revision)
	} else {
		r.log.Info("policy loaded", "revision", revision)
	}
	var told sync.WaitGroup
	told.Go(func() {
		if err := r.audit.Record(r.ctx, e); err != nil {
			r.log.Error("record policy reload", "error", err)
		}
	})
	r.recheckAll(r.ctx) // a disk that hangs delays the record and no cut
	told.Wait()
}

func loadOrMakeKey(path string) (ed25519.PrivateKey, error) {
	key, err := auth.LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = auth.NewKey(); err != nil {
		return nil, err
	}
	return key, auth.SaveKey(path, key)
}

func keyID(public []byte) string { return auth.KeyID(ed25519.PublicKey(public)) }

func ignoreClosed(f func() error) func() error {
	return func() error {
		if err := f(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

var (
	_ principalSource = (*session)(nil)
	_ tunnel.HalfConn = (*tunnel.Stream)(nil)
)
