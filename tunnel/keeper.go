package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

const (
	// stableAfter is how long a session must live for the backoff to forget the tries before it: a relay that accepts
	// and hangs up is no relay.
	stableAfter = 10 * time.Second
	// silenceLimit is how long a session may have been silent and still be handed out unprobed.
	silenceLimit = 5 * time.Second
	// probePatience is what a silent session has to answer in.
	probePatience = time.Second
	// drainLimit is how long the streams of a draining session may take.
	drainLimit = 10 * time.Minute
)

// A Keeper keeps one live session. When it is lost or draining, the Keeper dials anew, with jitter, forever; streams of
// a draining session end in peace. Run it once; the other methods may be called concurrently, also before Run.
type Keeper struct {
	// Dial makes a session: it resolves, dials and connects.
	Dial func(ctx context.Context) (*Session, error)
	// OnUp and OnDown report, from Run's goroutine; they may be nil and must not block. next is how long until the
	// next try.
	OnUp   func(*Session)
	OnDown func(err error, next time.Duration)
	Logger *slog.Logger // nil is silent
	// Backoff may be set for its clock and its source of chance.
	Backoff Backoff

	mu      sync.Mutex
	session *Session      // the one to hand out, or nil; guarded by mu
	changed chan struct{} // closed when session or stopped changes; guarded by mu
	stopped error         // why Run ended; guarded by mu
	kick    chan struct{} // guarded by mu until made
	probing sync.Mutex    // one probe at a time, for all who ask
}

type permanentError struct{ err error }

func (e *permanentError) Error() string { return e.err.Error() }
func (e *permanentError) Unwrap() error { return e.err }

// Permanent marks an error of Dial that no further try can mend: Run returns it.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanentError{err}
}

// IsPermanent reports whether err was marked.
func IsPermanent(err error) bool {
	var permanent *permanentError
	return errors.As(err, &permanent)
}

// Run dials and redials until ctx ends or Dial fails for good, and returns that error. It closes its sessions and waits
// for them.
func (k *Keeper) Run(ctx context.Context) error {
	var draining sync.WaitGroup
	err := k.run(ctx, &draining)
	k.set(nil, err)
	draining.Wait()
	return err
}

func (k *Keeper) run(ctx context.Context, draining *sync.WaitGroup) error {
	for {
		s, err := k.dial(ctx)
		if err != nil {
			return err
		}
		born := s.Started()
		k.set(s, nil)
		if k.OnUp != nil {
			k.OnUp(s)
		}
		select {
		case <-s.Done():
			k.set(nil, nil)
			err = s.Err()
		case <-s.leave:
			k.set(nil, nil)
			err = s.drainError()
			draining.Go(func() { drainAndClose(ctx, s) })
		case <-ctx.Done():
			s.Close(CodeCanceled, "client is going away") // it is gone either way
			return ctx.Err()
		}
		if time.Since(born) >= stableAfter {
			k.Backoff.Reset()
		}
		if err := k.pause(ctx, err); err != nil {
			return err
		}
	}
}

// dial tries until a session is there.
func (k *Keeper) dial(ctx context.Context) (*Session, error) {
	for {
		s, err := k.Dial(ctx)
		switch {
		case err == nil:
			return s, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case IsPermanent(err):
			return nil, err
		}
		if err := k.pause(ctx, err); err != nil {
			return nil, err
		}
	}
}

// pause waits for the next try, a kick or the end of ctx.
func (k *Keeper) pause(ctx context.Context, cause error) error {
	wait := k.Backoff.Next()
	if k.OnDown != nil {
		k.OnDown(cause, wait)
	}
	if k.Logger != nil {
		k.Logger.Debug("no session", "err", cause, "retry_in", wait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-k.kicks():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func drainAndClose(ctx context.Context, s *Session) {
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	s.DrainWait(ctx)                      // the session closes either way
	s.Close(CodeRelayShutdown, "drained") // it is gone either way
}

func (s *Session) drainError() error {
	return &SessionError{Code: CodeRelayShutdown, Reason: "the session is draining"}
}

func (k *Keeper) set(s *Session, stopped error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.session, k.stopped = s, stopped
	if k.changed != nil {
		close(k.changed)
		k.changed = nil
	}
}

// current is the session, or what to wait for.
func (k *Keeper) current() (*Session, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped != nil {
		return nil, nil, k.stopped
	}
	if s := k.session; s != nil && s.Err() == nil && !s.Draining() {
		return s, nil, nil
	}
	if k.changed == nil {
		k.changed = make(chan struct{})
	}
	return nil, k.changed, nil
}

// Session is the live session, or waits for one as long as ctx allows. A session that was silent for more than 5 s, by
// the wall clock, is probed first and given up after 1 s without an answer: the machine may have slept, or moved. Waiting
// for a session does not hurry the next try; Kick does.
func (k *Keeper) Session(ctx context.Context) (*Session, error) {
	for {
		s, changed, err := k.current()
		switch {
		case err != nil:
			return nil, err
		case s != nil && k.alive(ctx, s):
			return s, nil
		case s != nil:
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// alive probes a silent session and ends it if it is dead.
func (k *Keeper) alive(ctx context.Context, s *Session) bool {
	if !silent(s) {
		return true
	}
	k.probing.Lock()
	defer k.probing.Unlock()
	if !silent(s) || ctx.Err() != nil {
		return ctx.Err() == nil
	}
	probe, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	err := s.Probe(probe)
	if err == nil {
		return true
	}
	if ctx.Err() == nil {
		s.fail(&SessionError{Code: CodeDead, Reason: "no answer after a silence", Err: err})
		k.Kick()
	}
	return false
}

func silent(s *Session) bool {
	gap := time.Now().Round(0).Sub(s.LastReceived())
	return gap > silenceLimit || gap < -silenceLimit // a clock that jumped back hides a silence
}

// Kick makes the next try happen now.
func (k *Keeper) Kick() {
	select {
	case k.kicks() <- struct{}{}:
	default:
	}
}

func (k *Keeper) kicks() chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kick == nil {
		k.kick = make(chan struct{}, 1)
	}
	return k.kick
}
