package agent

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"iap/auth"
	"iap/internal/keyfile"
	"iap/tunnel"
)

const (
	rotateLook     = time.Hour        // between two looks whether the key is old enough
	rotatePatience = 15 * time.Second // for the relay to take the new key

	// A relay that was taken over must not wear out keys, disk and log: it has the
	// key changed once an hour at most, and a try that failed repeated after a while.
	askedEvery = time.Hour
	askedAgain = 10 * time.Second
)

// keys reads the key file. Each session reads it anew: another process, such as
// `iap-agent rotate`, may have changed it.
func (a *Agent) keys() keyfile.Keys {
	keys, err := a.keyFile.Read()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.log.Warn("the key file cannot be read any more: going on with the key read before", "file", a.cfg.KeyFile, "error", err)
		return a.lastKeys
	}
	a.lastKeys = keys
	return keys
}

// rotate puts a new key in the place of the agent's, over a session. Whatever
// stops it on the way, the key that the relay believes is on disk: the old one
// until the relay has stored the new one, the new one from before it was sent.
func (a *Agent) rotate(ctx context.Context, s *tunnel.Session) error {
	next, err := a.keyFile.Prepare(ctx)
	if err != nil {
		return err
	}
	if held(s).Equal(next.Public()) { // another process was faster, up to here
		return a.keyFile.Promote(ctx, next)
	}
	asking, cancel := context.WithTimeout(ctx, rotatePatience)
	defer cancel()
	if err := s.Rotate(asking, next); err != nil {
		return err
	}
	if err := a.keyFile.Promote(ctx, next); err != nil {
		return err
	}
	a.log.Info("the key was rotated", "key", auth.KeyID(next.Public().(ed25519.PublicKey)), "old_key", auth.KeyID(held(s)))
	return nil
}

// held is the key that opened the session.
func held(s *tunnel.Session) ed25519.PublicKey { return s.Hello().PublicKey }

// rotateAsAsked answers the relay's wish. The session that brought it may be one
// that an older key has opened: the relay takes the word of the current one alone.
func (a *Agent) rotateAsAsked(ctx context.Context, s *tunnel.Session) error {
	if err := a.admitAsk(); err != nil {
		return err
	}
	a.log.Info("the relay asks for a new key")
	if best := a.currentSession(); best != nil {
		s = best
	}
	err := a.rotate(ctx, s)
	var refused *tunnel.Refusal
	switch {
	case err == nil:
		a.putOffAsks(askedEvery)
		return nil
	case errors.As(err, &refused):
		a.log.Error("the relay did not take the new key: the old one stays", "error", err)
		return refused
	default:
		a.log.Error("no new key: the old one stays", "error", err)
		return &tunnel.Refusal{Code: tunnel.CodeInternal, Message: "the agent could not change its key; its log says why"}
	}
}

// admitAsk lets one wish of the relay's through, and no further one for a while.
func (a *Agent) admitAsk() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if left := a.nextAsk.Sub(now); left > 0 {
		return &tunnel.Refusal{
			Code:    tunnel.CodeOverloaded,
			Message: fmt.Sprintf("the agent changes its key for a relay once an hour at most: again in %s, or with iap-agent rotate on its machine", left.Round(time.Second)),
		}
	}
	a.nextAsk = now.Add(askedAgain)
	return nil
}

func (a *Agent) putOffAsks(wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.nextAsk = a.now().Add(wait)
}

// currentSession is a live session that the key in use has opened.
func (a *Agent) currentSession() *tunnel.Session {
	current := a.keys().Current.Public()
	all, _ := a.live()
	for _, s := range all {
		if held(s).Equal(current) && s.Err() == nil && !s.Draining() {
			return s
		}
	}
	return nil
}

// keepRotating finishes a rotation that was cut short, and begins one when the
// key is as old as the configuration allows.
func (a *Agent) keepRotating(ctx context.Context) {
	for {
		a.rotateIfDue(ctx)
		if !pause(ctx, rotateLook) {
			return
		}
	}
}

func (a *Agent) rotateIfDue(ctx context.Context) {
	waiting, cancel := context.WithTimeout(ctx, rotateLook)
	defer cancel()
	if a.Connected(waiting, 1) != nil {
		return
	}
	keys := a.keys()
	after := time.Duration(a.cfg.Key.RotateAfter)
	due := after > 0 && !time.Now().Before(rotationDue(keys, after))
	if keys.Next == nil && !due {
		return
	}
	s := a.currentSession()
	if s == nil {
		return
	}
	if err := a.rotate(ctx, s); err != nil && ctx.Err() == nil {
		a.log.Warn("the key was not rotated; trying again in a while", "error", err)
	}
}

// rotationDue spreads the rotations of agents that were enrolled together over
// the last tenth of the time: always the same moment for one key, whatever
// restarts.
func rotationDue(keys keyfile.Keys, after time.Duration) time.Time {
	chance := binary.BigEndian.Uint32(auth.KeyHash(keys.Current.Public().(ed25519.PublicKey)))
	early := time.Duration(float64(after) / 10 * float64(chance) / (1 << 32))
	return keys.Since.Add(after - early)
}

// pause waits, and reports whether it was not cut short.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// connectAny opens a session with the key in use, or, if the relay does not know
// that, with its successor: a rotation may have been cut short when the relay had
// taken the new key.
func (a *Agent) connectAny(ctx context.Context, at netip.AddrPort, class tunnel.Class) (*tunnel.Session, error) {
	keys := a.keys()
	s, err := a.connectWith(ctx, at, class, keys.Current)
	if !isRevoked(err) || keys.Next == nil {
		return s, err
	}
	s, nextErr := a.connectWith(ctx, at, class, keys.Next)
	if nextErr != nil {
		return nil, nextErr
	}
	if err := a.keyFile.Promote(ctx, keys.Next); err != nil { // both stay on disk: the next session finds its way again
		a.log.Warn("the rotated key was not put in use", "error", err)
	}
	return s, nil
}

func isRevoked(err error) bool {
	var refused *tunnel.DialError
	return errors.As(err, &refused) && refused.Code == tunnel.CodeRevoked
}

// Rotate changes the key of the agent with the configuration file, whether the
// agent runs or not: one that runs brings its sessions over.
func Rotate(ctx context.Context, file string) (key string, err error) {
	cfg, err := LoadConfig(file)
	if err != nil {
		return "", err
	}
	a, err := New(cfg, nil)
	if err != nil {
		return "", err
	}
	s, err := a.connectAny(ctx, netip.AddrPort{}, tunnel.Interactive)
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close(tunnel.CodeCanceled, "done") }()
	if err := a.rotate(ctx, s); err != nil {
		return "", fmt.Errorf("the old key stays in use: %w", err)
	}
	return auth.KeyID(a.keys().Current.Public().(ed25519.PublicKey)), nil
}
