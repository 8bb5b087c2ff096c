package relay

import (
	"cmp"
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/guard"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

// session is one live session of a user.
type session struct {
	tunnel *tunnel.Session
	source string
	who    atomic.Pointer[identity]
	expiry *time.Timer // of users; nil for agents
	now    func() time.Time

	renewing   sync.Mutex   // held while a newer token takes effect
	refreshed  atomic.Int64 // when, in nanoseconds of the wall clock; 0 never
	toldStepUp atomic.Int64 // when, likewise, that a fresh login is due

	ctx context.Context // ends with the session; a *guard.Ended is the cause
	end context.CancelCauseFunc
}

// newSession is a session of id whose context ends with ctx, or when its end is
// called.
func newSession(ctx context.Context, t *tunnel.Session, id *identity, source string) *session {
	s := &session{tunnel: t, source: source}
	s.who.Store(id)
	s.ctx, s.end = context.WithCancelCause(ctx)
	return s
}

func (s *session) identity() *identity { return s.who.Load() }

// expire ends the session at its end, which a renewal moves: the tunnel closes it
// a moment later, when its requests have said why in their own protocol.
func (s *session) expire(now func() time.Time) {
	const later = time.Duration(math.MaxInt64) // the timer is there before it fires
	s.now = now
	s.expiry = time.AfterFunc(later, func() {
		if left := s.left(); left > 0 {
			s.expiry.Reset(left)
			return
		}
		no := errExpired()
		s.stop(no.Code, no.Message)
	})
	s.expiry.Reset(s.left())
}

// clockCheck is how often the sessions' ends are held against the wall clock. Their
// timers stand still while a machine sleeps, and do not see a clock that is set.
const clockCheck = time.Second

// watchClock ends sessions, and requests at the front door, whose time is over though
// their timers do not know it.
func (r *Relay) watchClock() {
	tick := time.NewTicker(clockCheck)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		no := errExpired()
		for _, s := range r.sessions.all(func(s *session) bool { return s.identity().agent == nil && s.left() <= 0 }) {
			s.stop(no.Code, no.Message)
		}
		r.expireDoors(r.now().Round(0))
	}
}

// left is the time until the session's end, by the wall clock.
func (s *session) left() time.Duration { return s.identity().ends.Sub(s.now().Round(0)) }

// mayRefresh bounds refreshes, each of which is a record and a write: one for
// each settings.MinRefresh, of which some may be saved up.
func (s *session) mayRefresh(now time.Time) bool {
	for {
		last := s.refreshed.Load()
		next := max(last, now.UnixNano()) + int64(settings.MinRefresh)
		if next-now.UnixNano() > refreshBurst*int64(settings.MinRefresh) {
			return false
		}
		if s.refreshed.CompareAndSwap(last, next) {
			return true
		}
	}
}

// newSince is when the session is as fresh as token makes it: now, but for a token
// that it has already. An older one is refused: it would bring back what the newer
// has taken away.
func (s *session) newSince(token *auth.Token, now time.Time) (time.Time, error) {
	id := s.identity()
	switch {
	case token.PayloadHash == id.token.PayloadHash:
		return id.since, nil
	case token.IssuedAt.Before(id.token.IssuedAt):
		return time.Time{}, &tunnel.Refusal{Code: tunnel.CodeTokenInvalid, Message: "the token is older than the one the session has"}
	}
	return now.Round(0), nil
}

// renew gives the session the identity of a newer token, and its end.
func (s *session) renew(id *identity) {
	s.who.Store(id)
	s.expiry.Reset(s.left())
}

func (s *session) stop(code tunnel.Code, message string) {
	s.end(&guard.Ended{Code: code.String(), Message: message})
}

// info is the session as the API shows it.
func (s *session) info() admin.SessionInfo {
	id, t := s.identity(), s.tunnel
	info := admin.SessionInfo{
		ID: t.ID(), Role: string(t.Role()), Class: string(t.Class()), Key: auth.KeyID(t.PublicKey()), Source: s.source,
		Software: t.Hello().Software, ChannelBinding: string(t.Binding()), Started: t.Started(), Streams: t.NumStreams(),
	}
	if id.agent != nil {
		info.Agent = id.agent.ID
	} else {
		info.Principal = id.id()
	}
	if expires := t.Expires(); !expires.IsZero() {
		info.Expires = &expires
	}
	return info
}

// sessions are the live sessions of users and agents, and what each principal
// holds of what is shared. Nothing of it outlives the process.
type sessions struct {
	maxSessions int
	maxStreams  int

	mu         sync.Mutex
	byID       map[string]*session // guarded by mu
	added      chan struct{}       // guarded by mu; closed and replaced when a session comes
	principals map[string]*holding // guarded by mu; by principal or agent: their names never meet, only one has a slash
}

// holding is what one principal uses over all its sessions.
type holding struct{ sessions, streams, bulk int }

const (
	refreshBurst = 6 // refreshes that may follow each other at once
)

// maxBulk bounds a principal's streams on bulk sessions: each may hold a window
// of 4 MiB that its reader has not read.
const maxBulk = 128

func newSessions(maxSessions, maxStreams int) *sessions {
	return &sessions{
		maxSessions: maxSessions, maxStreams: maxStreams,
		byID: map[string]*session{}, principals: map[string]*holding{}, added: make(chan struct{}),
	}
}

// add enters s unless its principal, or its agent, has too many sessions.
func (l *sessions) add(s *session) bool {
	id := s.identity()
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holding(id.id())
	if h.sessions >= l.maxSessions {
		return false
	}
	h.sessions++
	l.byID[s.tunnel.ID()] = s
	close(l.added)
	l.added = make(chan struct{})
	return true
}

func (l *sessions) remove(s *session) {
	id := s.identity()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byID, s.tunnel.ID())
	l.holding(id.id()).sessions--
	l.drop(id.id())
}

// openStream counts a stream of principal, or refuses it.
func (l *sessions) openStream(principal string, class tunnel.Class) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holding(principal)
	if h.streams >= l.maxStreams || class == tunnel.Bulk && h.bulk >= maxBulk {
		return false
	}
	h.streams++
	if class == tunnel.Bulk {
		h.bulk++
	}
	return true
}

func (l *sessions) closeStream(principal string, class tunnel.Class) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.holding(principal)
	h.streams--
	if class == tunnel.Bulk {
		h.bulk--
	}
	l.drop(principal)
}

// holding returns the principal's entry. mu is held.
func (l *sessions) holding(principal string) *holding {
	h := l.principals[principal]
	if h == nil {
		h = new(holding)
		l.principals[principal] = h
	}
	return h
}

// drop forgets a principal that holds nothing. mu is held.
func (l *sessions) drop(principal string) {
	if h := l.principals[principal]; h != nil && h.sessions == 0 && h.streams == 0 {
		delete(l.principals, principal)
	}
}

// await finds a session that may be about to be entered: its peer can be faster
// than we are.
func (l *sessions) await(ctx context.Context, id string) *session {
	for {
		l.mu.Lock()
		s, added := l.byID[id], l.added
		l.mu.Unlock()
		if s != nil {
			return s
		}
		select {
		case <-added:
		case <-ctx.Done():
			return nil
		}
	}
}

func (l *sessions) find(id string) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byID[id]
}

// all lists the sessions for which keep is true, oldest first.
func (l *sessions) all(keep func(*session) bool) []*session {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []*session
	for _, s := range l.byID {
		if keep(s) {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b *session) int {
		return cmp.Or(a.tunnel.Started().Compare(b.tunnel.Started()), cmp.Compare(a.tunnel.ID(), b.tunnel.ID()))
	})
	return found
}
