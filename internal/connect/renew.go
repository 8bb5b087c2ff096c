package connect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iap/tunnel"
)

const (
	// renewAt is the part of a session's life after which it is renewed: late enough to matter, early enough for several tries.
	renewAt = 0.8
	// renewCheck bounds one sleep, so that a laptop that slept or whose clock jumped notices.
	renewCheck = 30 * time.Second
	// renewAgain is the pause after a failed or fruitless renewal.
	renewAgain = 15 * time.Second
	// renewTimeout bounds one renewal: the provider's answer and the relay's.
	renewTimeout = 30 * time.Second
)

// renewTime is when a session that began at start and ends at end is renewed.
func renewTime(start, end time.Time) time.Time {
	return start.Add(time.Duration(float64(end.Sub(start)) * renewAt))
}

// renewLoop renews the sessions in place, all with one new token. It is the only goroutine that renews.
func (s *Sessions) renewLoop(ctx context.Context) {
	since := map[*tunnel.Session]time.Time{} // when the present expiry of each was learnt
	pause := time.NewTimer(renewCheck)
	defer pause.Stop()
	for {
		next := s.renewDue(ctx, since)
		pause.Reset(min(renewCheck, max(0, next)))
		select {
		case <-ctx.Done():
			return
		case <-s.renewed:
		case <-pause.C:
		}
	}
}

// renewDue renews every session as soon as one is due, so that one new token serves all, and returns how long until the next look.
func (s *Sessions) renewDue(ctx context.Context, since map[*tunnel.Session]time.Time) time.Duration {
	now := time.Now().Round(0) // the wall clock: tokens expire by it, also while the machine sleeps
	next := renewCheck
	alive := map[*tunnel.Session]Login{}
	for _, l := range s.lines {
		session, login := l.current()
		if session == nil || session.Expires().IsZero() {
			continue
		}
		alive[session] = login
		if _, known := since[session]; !known {
			since[session] = now
		}
		next = min(next, renewTime(since[session], session.Expires()).Sub(now))
	}
	for session := range since {
		if _, ok := alive[session]; !ok {
			delete(since, session)
		}
	}
	if next > 0 {
		return next
	}
	return s.renewAll(ctx, alive, since)
}

// renewAll hands each session a new token; sessions of one login get the same one.
func (s *Sessions) renewAll(ctx context.Context, alive map[*tunnel.Session]Login, since map[*tunnel.Session]time.Time) time.Duration {
	next := renewCheck
	tokens := map[string]string{} // by login
	for session, login := range alive {
		token, err := tokens[login.ID], error(nil)
		if token == "" {
			token, err = freshToken(ctx, login)
			tokens[login.ID] = token
		}
		if err == nil {
			err = renew(ctx, session, token)
		}
		if err != nil {
			s.cfg.Logger.Debug("renew session", "class", session.Class(), "err", err)
			next = renewAgain
			continue
		}
		since[session] = time.Now().Round(0)
	}
	return next
}

var errNotLonger = errors.New("the new token lasts no longer than the old one")

func freshToken(ctx context.Context, login Login) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	token, err := login.Refresh(ctx)
	if err != nil {
		return "", fmt.Errorf("obtain token: %w", err)
	}
	return token, nil
}

// renew hands a session a newer token.
func renew(ctx context.Context, session *tunnel.Session, token string) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	before := session.Expires()
	until, err := session.Refresh(ctx, token)
	if err != nil {
		return fmt.Errorf("hand token to relay: %w", err)
	}
	if !until.After(before) {
		return errNotLonger
	}
	return nil
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
