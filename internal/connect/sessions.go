package connect

import (
	"context"
	"crypto/ed25519"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"iap/tunnel"
)

// WaitForSession is how long a request waits for a session while the relay is away.
const WaitForSession = 10 * time.Second

// Login is what a session needs to prove who it belongs to. It holds closures so that where tokens come from stays with the caller.
type Login struct {
	ID      string // changes with each login; a session that needs a new login waits for another ID
	Key     ed25519.PrivateKey
	Token   func(ctx context.Context) (string, error) // a token that is good for a while
	Refresh func(ctx context.Context) (string, error) // a newer one than that
	Source  string                                    // where tokens come from that no login gives, "IAP_TOKEN_FILE"; "" for a login
}

// Config says how a profile's sessions are made.
type Config struct {
	Dialer     *tunnel.Dialer
	Relay      string // name as the user types it; signed
	Version    string
	MinBinding tunnel.Binding // weaker ones are refused
	// CheckRelay judges the relay's key, and OnRelayKeys is told of it once it is proven: as in tunnel.ClientConfig. Nil: any key.
	CheckRelay  func(pub ed25519.PublicKey, chain [][]byte) error
	OnRelayKeys func(pub ed25519.PublicKey, chain [][]byte)
	Login       func(ctx context.Context) (Login, error) // reads who is logged in
	LoginID     func() string                            // only its ID, cheaply, "" if there is none; nil: logins cannot be told apart
	// OnUp runs after each session's handshake, OnDown when one is lost, OnNotice with words of the relay. None may block.
	OnUp     func(*tunnel.Session)
	OnDown   func(class tunnel.Class, err error, retry time.Duration)
	OnNotice func(tunnel.Notice)
	Logger   *slog.Logger     // nil: silent
	Now      func() time.Time // nil: time.Now; for renewal
}

// Sessions keeps one interactive and one bulk session to the relay, so that a download never stands before an answer's tokens.
// Run keeps them; the other methods may be called from any goroutine while it runs.
type Sessions struct {
	cfg     Config
	lines   map[tunnel.Class]*line // fixed after New
	renewed chan struct{}          // capacity 1: a session came up or carries streams again
	every   atomic.Int64           // nanoseconds between renewals of sessions that carry streams; 0: by their end alone
}

// NewSessions prepares the sessions of the given classes; a command that needs one only asks for one.
func NewSessions(cfg Config, classes ...tunnel.Class) *Sessions {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sessions{cfg: cfg, lines: map[tunnel.Class]*line{}, renewed: make(chan struct{}, 1)}
	for _, c := range classes {
		s.lines[c] = newLine(cfg, c, s.wakeRenewal)
	}
	return s
}

// ClassOf is the session a kind of resource uses.
func ClassOf(kind string) tunnel.Class {
	if kind == "model" {
		return tunnel.Interactive
	}
	return tunnel.Bulk
}

// Run keeps the sessions until ctx ends.
func (s *Sessions) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range s.lines {
		wg.Go(func() { l.run(ctx) })
	}
	wg.Go(func() { s.renewLoop(ctx) })
	if s.cfg.LoginID != nil {
		wg.Go(func() { s.watchLogin(ctx) })
	}
	wg.Wait()
	return ctx.Err()
}

// Session returns a live session of the class, or waits for one until ctx ends. While a login is needed it fails at once.
func (s *Sessions) Session(ctx context.Context, class tunnel.Class) (*tunnel.Session, error) {
	l, ok := s.lines[class]
	if !ok {
		return nil, errors.New("no session of class " + string(class) + " is kept")
	}
	return l.session(ctx)
}

// now is the wall clock: tokens expire by it, also while the machine sleeps.
func (s *Sessions) now() time.Time {
	if s.cfg.Now != nil {
		return s.cfg.Now()
	}
	return time.Now().Round(0)
}

func (s *Sessions) wakeRenewal() {
	select {
	case s.renewed <- struct{}{}:
	default:
	}
}
