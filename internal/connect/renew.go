package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iap/auth"
	"iap/tunnel"
)

const (
	// renewAt is the part of a session's life after which it is renewed: late enough to matter, early enough for several tries.
	renewAt = 0.8
	// renewMargin is what is left of a session's life at least when it is renewed, unless that were more than half of it: a provider
	// that is away for a moment, and one try that hangs, must not cost the session.
	renewMargin = time.Minute
	// renewCheck bounds one sleep, so that a laptop that slept or whose clock jumped notices.
	renewCheck = 30 * time.Second
	// renewAgain is the pause after a failed or fruitless renewal. It doubles up to renewAgainMax, and shrinks as the end comes near,
	// down to renewAgainMin.
	renewAgain    = 5 * time.Second
	renewAgainMin = time.Second
	renewAgainMax = time.Minute
	// renewTimeout bounds one renewal: the provider's answer and the relay's. It too shrinks as the end comes near.
	renewTimeout    = 30 * time.Second
	renewTimeoutMin = 2 * time.Second
	// renewEvery is the shortest interval a relay may ask for; it takes no more refreshes of a session itself.
	renewEvery = 10 * time.Second
	// withdrawWait is how long the relay may take to end what runs in its own protocols, before the session is cut here.
	withdrawWait = 3 * time.Second
)

// A term is what is known of one session's renewals. It belongs to the renewal loop.
type term struct {
	expires time.Time // the end that was last learnt
	learnt  time.Time // when
	asked   time.Time // when the provider last gave a token for it
	failed  int       // renewals that failed since
	notYet  time.Time // no further try before; zero: now
	token   string    // the one handed over last, to tell a source that has no newer one
}

// renewTime is when a session that began at start and ends at end is renewed.
func renewTime(start, end time.Time) time.Time {
	life := end.Sub(start)
	margin := max(time.Duration(float64(life)*(1-renewAt)), min(renewMargin, life/2))
	return end.Add(-margin)
}

// due is when to renew, and false if nothing but the session's end is in sight. With an interval, a session that carries streams is
// renewed so often that a right the provider has withdrawn does not outlast it.
func (t term) due(every time.Duration, active bool) (time.Time, bool) {
	var at time.Time
	if !t.expires.IsZero() {
		at = renewTime(t.learnt, t.expires)
	}
	if every > 0 && active {
		if next := t.asked.Add(every); at.IsZero() || next.Before(at) {
			at = next
		}
	}
	if at.IsZero() {
		return at, false
	}
	if at.Before(t.notYet) {
		at = t.notYet
	}
	return at, true
}

// left is how long the session lives, or enough of it if it has no end.
func (t term) left(now time.Time) time.Duration {
	if t.expires.IsZero() {
		return time.Hour
	}
	return t.expires.Sub(now)
}

// fail puts the next try off.
func (t *term) fail(now time.Time) {
	wait := min(renewAgain<<min(t.failed, 8), renewAgainMax, max(renewAgainMin, t.left(now)/4))
	t.failed++
	t.notYet = now.Add(wait)
}

// SetInterval sets how often sessions with streams are renewed whatever their end; 0 stands for never. Any goroutine may call it.
func (s *Sessions) SetInterval(every time.Duration) {
	if every > 0 {
		every = max(every, renewEvery)
	}
	s.every.Store(int64(every))
	s.wakeRenewal()
}

// renewLoop renews the sessions in place, all with one new token. It is the only goroutine that renews.
func (s *Sessions) renewLoop(ctx context.Context) {
	terms := map[*tunnel.Session]*term{}
	pause := time.NewTimer(renewCheck)
	defer pause.Stop()
	for {
		next := s.renewDue(ctx, terms)
		pause.Reset(min(renewCheck, max(0, next)))
		select {
		case <-ctx.Done():
			return
		case <-s.renewed:
		case <-pause.C:
		}
	}
}

// lease is a live session with whose it is and what is known of it.
type lease struct {
	line    *line
	session *tunnel.Session
	login   Login
	term    *term
}

// renewDue renews every session of a login as soon as one of them is due, so that one new token serves all, and returns how long
// until the next look.
func (s *Sessions) renewDue(ctx context.Context, terms map[*tunnel.Session]*term) time.Duration {
	now, every := s.now(), time.Duration(s.every.Load())
	next := renewCheck
	byLogin := map[string][]lease{}
	late := map[string]bool{}
	for _, one := range s.leases(terms, now) {
		byLogin[one.login.ID] = append(byLogin[one.login.ID], one)
		if at, ok := one.term.due(every, one.line.busy(one.session)); ok {
			next = min(next, at.Sub(now))
			late[one.login.ID] = late[one.login.ID] || !at.After(now)
		}
	}
	for login := range late {
		if late[login] {
			s.renewLogin(ctx, byLogin[login])
			next = 0 // look again at what has changed
		}
	}
	return next
}

// leases are the live sessions, and those before them that drain; what is known of others is forgotten.
func (s *Sessions) leases(terms map[*tunnel.Session]*term, now time.Time) []lease {
	var all []lease
	for _, l := range s.lines {
		sessions, login := l.draining()
		if live, of := l.current(); live != nil {
			sessions, login = append(sessions, live), of
		}
		for _, session := range sessions {
			all = append(all, lease{l, session, login, terms[session]})
		}
	}
	clear(terms)
	for i, one := range all {
		if one.term == nil {
			one.term = &term{asked: now}
		}
		if end := one.session.Expires(); one.term.learnt.IsZero() || !end.Equal(one.term.expires) {
			one.term.expires, one.term.learnt = end, now
		}
		all[i], terms[one.session] = one, one.term
	}
	return all
}

// renewLogin gets one new token and hands it to each session of the login. A failure touches nothing that runs, unless it is the
// provider's word that this login is over.
func (s *Sessions) renewLogin(ctx context.Context, all []lease) {
	left := renewTimeout
	for _, one := range all {
		left = min(left, max(renewTimeoutMin, one.term.left(s.now())/3))
	}
	login := all[0].login
	token, err := freshToken(ctx, login, left)
	if ctx.Err() != nil {
		return
	}
	if LoginOver(err) {
		s.cfg.Logger.Info("the provider has ended this login", "err", err)
		s.withdraw(ctx, all, err)
		return
	}
	for _, one := range all {
		handed := err
		if handed == nil {
			handed = one.renew(ctx, token, left, s.now())
		}
		if handed != nil {
			s.cfg.Logger.Debug("renew session", "class", one.session.Class(), "err", handed)
			one.term.fail(s.now())
			continue
		}
		one.term.failed, one.term.notYet = 0, time.Time{}
	}
}

var errNotLonger = errors.New("the new token lasts no longer than the old one")

func freshToken(ctx context.Context, login Login, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	token, err := login.Refresh(ctx)
	if err != nil {
		return "", fmt.Errorf("obtain token: %w", err)
	}
	return token, nil
}

// renew hands the session a newer token. That the provider gave one counts even if it lasts no longer: the login stands.
func (l lease) renew(ctx context.Context, token string, limit time.Duration, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	before, end := l.session.Expires(), time.Time{}
	if token != l.term.token { // a file or a command may have none that is newer
		var err error
		if end, err = l.session.Refresh(ctx, token); err != nil {
			return fmt.Errorf("hand token to relay: %w", err)
		}
	}
	l.term.asked, l.term.token = now, token
	if !before.IsZero() && !end.After(before) && !renewTime(l.term.learnt, before).After(now) {
		return errNotLonger
	}
	return nil
}

// withdraw ends the sessions of a login that the provider has ended: new requests are refused from here on, and what runs is ended by
// the relay, which knows the protocols.
func (s *Sessions) withdraw(ctx context.Context, all []lease, why error) {
	for _, one := range all {
		one.line.deny(one.login.ID, why)
		one.term.notYet = s.now().Add(renewAgainMax)
	}
	wait, cancel := context.WithTimeout(ctx, withdrawWait)
	defer cancel()
	for _, one := range all {
		_ = one.session.Withdraw(tunnel.CodeLoginRequired) // where it fails the session is cut below
	}
	for _, one := range all {
		select {
		case <-one.session.Done():
		case <-wait.Done():
			_ = one.session.Close(tunnel.CodeLoginRequired, "the provider has ended this login")
		}
	}
}

// LoginOver reports whether an error is the provider's own word that a login has ended. Nothing else ends what runs: not a provider
// that is away, not one in trouble, not a command for tokens that fails.
func LoginOver(err error) bool {
	var failed *auth.LoginError
	return errors.As(err, &failed) && failed.Code == auth.CodeRefreshRefused
}

// Expires is when the earliest of the live sessions ends, if nothing renews it; zero while there is none or they have no end.
func (s *Sessions) Expires() time.Time {
	var first time.Time
	for _, l := range s.lines {
		if session, _ := l.current(); session != nil {
			if e := session.Expires(); !e.IsZero() && (first.IsZero() || e.Before(first)) {
				first = e
			}
		}
	}
	return first
}
