package connect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"iap/auth"
	"iap/tunnel"
)

// kickPause is the least time between two tries that waiting requests cause; redialling by itself is slower.
const kickPause = time.Second

// line keeps the session of one class.
type line struct {
	cfg   Config
	class tunnel.Class
	// changing wakes the renewal: a session came up, or carries streams again.
	changing func()

	mu      sync.Mutex
	keeper  *tunnel.Keeper    // guarded by mu; nil while blocked
	life    context.Context   // guarded by mu; ends with keeper's Run, its cause is why
	next    Login             // guarded by mu; the one last tried
	login   Login             // guarded by mu; the one live was made with
	live    *tunnel.Session   // guarded by mu; last session that came up
	old     []*tunnel.Session // guarded by mu; those of the same login before it, whose streams end in peace
	active  int               // guarded by mu; streams open
	kicked  time.Time         // guarded by mu; last try that a waiting request caused
	blocked error             // guarded by mu; why no session is tried for
	lost    error             // guarded by mu; why there is no session just now
	denied  error             // guarded by mu; why the login over is no login any more
	over    string            // guarded by mu; login that denied is about
	changed chan struct{}     // guarded by mu; closed and replaced at each change of keeper or blocked
}

func newLine(cfg Config, class tunnel.Class, changing func()) *line {
	return &line{cfg: cfg, class: class, changing: changing, changed: make(chan struct{})}
}

// run keeps a session until only a new login can help, then waits for one.
func (l *line) run(ctx context.Context) {
	for times := 0; ctx.Err() == nil; times++ {
		err := l.keep(ctx)
		if ctx.Err() != nil {
			return
		}
		if l.letIn() {
			times = 0
		}
		refused := l.tried()
		if l.cfg.LoginID != nil && l.cfg.LoginID() != refused {
			continue // there has been another login meanwhile
		}
		l.cfg.Logger.Debug("no session until the next login", "class", l.class, "err", err)
		l.set(nil, nil, err)
		l.down(err, 0)
		l.waitForLogin(ctx, refused, times)
	}
}

// letIn reports whether there was a session since the last refusal.
func (l *line) letIn() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live != nil
}

// keep returns only for a reason that trying again cannot mend, or at the end of ctx. Sessions that still drain are cut then:
// they belong to a login that is over.
func (l *line) keep(ctx context.Context) error {
	life, end := context.WithCancelCause(ctx)
	defer end(nil)
	k := &tunnel.Keeper{
		Dial: func(ctx context.Context) (*tunnel.Session, error) {
			s, err := l.dial(ctx)
			if tunnel.IsPermanent(err) {
				end(err)
			}
			return s, err
		},
		OnUp:   l.up,
		OnDown: l.down,
		Logger: l.cfg.Logger,
	}
	l.set(k, life, nil)
	err := k.Run(life)
	if cause := context.Cause(life); cause != nil {
		err = cause
	}
	return err
}

func (l *line) set(k *tunnel.Keeper, life context.Context, blocked error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keeper, l.life, l.blocked = k, life, blocked
	if k == nil {
		l.live = nil
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// Once makes one session and keeps nothing: for a command that asks the relay one thing and ends. Close it.
func Once(ctx context.Context, cfg Config, class tunnel.Class) (*tunnel.Session, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return (&line{cfg: cfg, class: class}).dial(ctx)
}

// dial makes one session with the login of this moment. A token that the relay calls invalid is renewed once: the clocks of
// laptop and provider may differ.
func (l *line) dial(ctx context.Context) (*tunnel.Session, error) {
	login, err := l.cfg.Login(ctx)
	if denied := l.begin(login); denied != nil {
		return nil, tunnel.Permanent(denied)
	}
	var s *tunnel.Session
	if err == nil {
		s, err = l.dialWith(ctx, login, login.Token)
		if code := tunnel.CodeOf(err); code == tunnel.CodeTokenInvalid || code == tunnel.CodeSessionExpired {
			s, err = l.dialWith(ctx, login, login.Refresh)
		}
	}
	if err != nil && needsPerson(err) {
		return nil, tunnel.Permanent(tokenRefused(login.Source, err))
	}
	return s, err
}

// begin notes which login is tried. One that the provider has ended is not, though its token may be good for a while.
func (l *line) begin(login Login) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = login
	if l.over != login.ID {
		l.over, l.denied = "", nil
	}
	return l.denied
}

// deny refuses every new request until there is another login.
func (l *line) deny(login string, why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over, l.denied = login, why
}

// tried is the ID of the login that was last tried.
func (l *line) tried() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next.ID
}

func (l *line) dialWith(ctx context.Context, login Login, token func(context.Context) (string, error)) (*tunnel.Session, error) {
	conn, err := l.cfg.Dialer.Dial(ctx)
	if err != nil {
		return nil, err
	}
	return l.prove(ctx, conn, login, token)
}

// prove begins a session on a connection, which it owns from here on.
func (l *line) prove(ctx context.Context, conn net.Conn, login Login, token func(context.Context) (string, error)) (*tunnel.Session, error) {
	s, err := tunnel.Connect(ctx, conn, tunnel.ClientConfig{
		Role: tunnel.RoleUser, Class: l.class, Relay: l.cfg.Relay, Version: l.cfg.Version,
		Token: token, Key: login.Key,
		CheckRelay: l.cfg.CheckRelay, OnRelayKeys: l.cfg.OnRelayKeys, MinBinding: l.cfg.MinBinding,
		Logger: l.cfg.Logger, OnNotice: l.cfg.OnNotice,
	})
	return s, err // a failed Connect has closed conn
}

func (l *line) up(s *tunnel.Session) {
	l.mu.Lock()
	if l.live != nil && l.login.ID == l.next.ID {
		l.old = append(l.running(), l.live)
	} else {
		l.old = nil // nothing renews a login that was replaced
	}
	l.live, l.login, l.active, l.lost = s, l.next, 0, nil
	l.mu.Unlock()
	l.changing()
	if l.cfg.OnUp != nil {
		l.cfg.OnUp(s)
	}
}

func (l *line) down(err error, retry time.Duration) {
	l.mu.Lock()
	if l.denied != nil {
		err = l.denied // that is why the session ended
	}
	l.lost = err
	l.mu.Unlock()
	if l.cfg.OnDown != nil {
		l.cfg.OnDown(l.class, err, retry)
	}
}

// session waits for a live session. A keeper that gives up while we wait ends the wait by its life's cause.
func (l *line) session(ctx context.Context) (*tunnel.Session, error) {
	for {
		l.mu.Lock()
		k, life, blocked, changed := l.keeper, l.life, l.blocked, l.changed
		if l.denied != nil {
			blocked = l.denied
		}
		l.mu.Unlock()
		if blocked != nil {
			return nil, blocked
		}
		if k == nil { // Run has not begun
			select {
			case <-changed:
				continue
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		l.hurry()
		s, err := sessionOf(ctx, k, life)
		if err != nil && ctx.Err() == nil && life.Err() != nil {
			select { // run publishes the reason right after the keeper's end
			case <-changed:
				continue
			case <-ctx.Done():
			}
		}
		return s, err
	}
}

// hurry lets a request that finds no session cause a try, so that it does not wait for the redial's pause.
func (l *line) hurry() {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.keeper == nil || now.Sub(l.kicked) < kickPause {
		return
	}
	if l.live != nil && l.live.Err() == nil && !l.live.Draining() {
		return
	}
	l.kicked = now
	l.keeper.Kick()
}

func sessionOf(ctx context.Context, k *tunnel.Keeper, life context.Context) (*tunnel.Session, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	defer stop()
	return k.Session(ctx)
}

// current is the live session and the login it was made with, or nil.
func (l *line) current() (*tunnel.Session, Login) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil {
		return nil, l.login
	}
	select {
	case <-l.live.Done():
		return nil, l.login
	default:
		return l.live, l.login
	}
}

// draining are the sessions before the live one that still carry streams, and their login.
func (l *line) draining() ([]*tunnel.Session, Login) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.old = l.running()
	return slices.Clone(l.old), l.login
}

// running are the old sessions that have not ended. mu is held.
func (l *line) running() []*tunnel.Session {
	return slices.DeleteFunc(l.old, func(s *tunnel.Session) bool { return s.Err() != nil })
}

// whyNone adds to an error of waiting in vain that it was the token's source that failed, and not the relay.
func (l *line) whyNone(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var source *auth.LoginError
	inVain := errors.Is(err, ErrNoSession) || errors.Is(err, context.DeadlineExceeded)
	if !inVain || !errors.As(l.lost, &source) {
		return err
	}
	return fmt.Errorf("%w: %w", err, source)
}

// busy reports whether the session carries streams, which an old one does for as long as it lasts.
func (l *line) busy(s *tunnel.Session) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return s != l.live || l.active > 0
}

// track counts the streams of a session, so that it is watched closely while it has some.
func (l *line) track(s *tunnel.Session, delta int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s != l.live {
		return
	}
	l.active += delta
	if l.active == 0 && delta < 0 || l.active == 1 && delta > 0 {
		s.SetActive(l.active > 0)
		l.changing() // after a long rest it may be time to ask the provider
	}
}
