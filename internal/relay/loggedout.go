package relay

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"iap/auth"
	"iap/internal/state"
	"iap/tunnel"
)

const (
	// logoutFresh is how long a logout is held in memory: no token lives longer,
	// and a login that comes back after it is looked up in the state.
	logoutFresh = 24 * time.Hour
	// maxLogouts bounds that memory, at some 200 bytes each.
	maxLogouts = 128 << 10
	// maxEndedSessions of one person are remembered one by one; beyond them all
	// that began before the oldest have ended.
	maxEndedSessions = 32
)

// login is what a provider's logout is held against: the authentication behind a
// session's key, or behind a bearer's token.
type login struct {
	began   time.Time // at the provider, by its clock; zero: not known, and ended by any logout
	session string    // hash of the provider's name for it; "" if it gave none
}

// loginOf is the login of a token that no key is bound to.
func loginOf(t *auth.Token) login {
	l := login{began: t.Principal.AuthTime, session: sessionHash(t.SessionID)}
	if l.began.IsZero() {
		l.began = t.IssuedAt
	}
	return l
}

// sessionHash is a provider's session id as the relay keeps it: of one length, and
// of no use to anybody.
func sessionHash(sid string) string {
	if sid == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(sid))
	return hex.EncodeToString(sum[:16])
}

// logouts is what a provider has said of the logins of one subject, or, where it
// named nobody, of one of its sessions.
type logouts struct {
	All      time.Time            `json:"all,omitzero"`       // what began until then has ended
	Unnamed  time.Time            `json:"unnamed,omitzero"`   // so has what began until then at a session that nobody named
	Sessions map[string]time.Time `json:"sessions,omitempty"` // by hash: have ended, and when
}

// add brings in a logout token. One that names a session of somebody ends the
// logins of that session and those of which the relay does not know whose they are.
func (l *logouts) add(o *auth.Logout) {
	if o.SessionID == "" {
		l.All = laterOf(l.All, o.IssuedAt)
		return
	}
	l.Unnamed = laterOf(l.Unnamed, o.IssuedAt)
	if l.Sessions == nil {
		l.Sessions = map[string]time.Time{}
	}
	l.Sessions[sessionHash(o.SessionID)] = o.IssuedAt
	for len(l.Sessions) > maxEndedSessions {
		oldest := ""
		for hash, at := range l.Sessions {
			if oldest == "" || at.Before(l.Sessions[oldest]) {
				oldest = hash
			}
		}
		l.All = laterOf(l.All, l.Sessions[oldest])
		delete(l.Sessions, oldest)
	}
}

// ended says whether it was this login.
func (l *logouts) ended(one login) bool {
	if l == nil {
		return false
	}
	if !one.began.After(l.All) {
		return true
	}
	if one.session == "" {
		return !one.began.After(l.Unnamed)
	}
	_, named := l.Sessions[one.session]
	return named
}

// latest is when the last of them was.
func (l *logouts) latest() time.Time {
	at := laterOf(l.All, l.Unnamed)
	for _, one := range l.Sessions {
		at = laterOf(at, one)
	}
	return at
}

func laterOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// logoutBook holds the logouts of the last day in memory, where each question
// looks. The state holds them for as long as it holds a login's key.
type logoutBook struct {
	mu  sync.RWMutex
	all map[string]*logouts // guarded by mu; by place in the state; its values never change
}

// add brings a logout in at a place.
func (b *logoutBook) add(at string, o *auth.Logout, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := new(logouts)
	if known := b.all[at]; known != nil {
		*next = known.clone()
	}
	next.add(o)
	b.putLocked(at, next, now)
}

func (b *logoutBook) putLocked(at string, l *logouts, now time.Time) {
	if b.all == nil {
		b.all = map[string]*logouts{}
	}
	if len(b.all) >= maxLogouts && b.all[at] == nil {
		for place, old := range b.all {
			if now.Sub(old.latest()) > logoutFresh {
				delete(b.all, place)
			}
		}
	}
	if len(b.all) < maxLogouts || b.all[at] != nil {
		b.all[at] = l
	}
}

func (l *logouts) clone() logouts {
	c := *l
	c.Sessions = make(map[string]time.Time, len(l.Sessions)+1)
	for hash, at := range l.Sessions {
		c.Sessions[hash] = at
	}
	return c
}

// ended reports whether the provider has ended the login of id.
func (b *logoutBook) ended(id *identity) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.all) == 0 || id.token == nil || id.principal.Workload {
		return false
	}
	for _, at := range logoutPlaces(id.principal.Issuer, id.principal.Subject, id.login.session) {
		if b.all[at].ended(id.login) {
			return true
		}
	}
	return false
}

// logoutPlaces are where the logouts stand that can be about a login.
func logoutPlaces(issuer, subject, session string) []string {
	var places []string
	if subject != "" {
		places = append(places, keyLogout+issuer+"/sub/"+subject)
	}
	if session != "" {
		places = append(places, keyLogout+issuer+"/sid/"+session)
	}
	return places
}

// logoutPlace is where a logout is written: with its subject, if it names one.
func logoutPlace(o *auth.Logout) string {
	if o.Subject != "" {
		return logoutPlaces(o.Issuer, o.Subject, "")[0]
	}
	return logoutPlaces(o.Issuer, "", sessionHash(o.SessionID))[0]
}

// loadLogouts brings the last day's logouts back into memory.
func (r *Relay) loadLogouts(ctx context.Context) error {
	now := r.now()
	for item, err := range state.All(ctx, r.store, keyLogout) {
		if err != nil {
			return fmt.Errorf("read logouts: %w", err)
		}
		one, err := decode[logouts](item)
		if err != nil {
			return err
		}
		if now.Sub(one.latest()) <= logoutFresh {
			r.logouts.mu.Lock()
			r.logouts.putLocked(item.Key, &one, now)
			r.logouts.mu.Unlock()
		}
	}
	return nil
}

// saveLogout makes it outlive the process, and the last use of every key.
func (r *Relay) saveLogout(ctx context.Context, o *auth.Logout) error {
	at := logoutPlace(o)
	for range maxUpdateTries {
		all, version, err := load[logouts](ctx, r.store, at)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		all.add(o)
		err = save(ctx, r.store, at, version, all, r.now().Add(keyRecordLife))
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	return state.ErrConflict
}

// checkLogin refuses a login that its provider has ended.
func (r *Relay) checkLogin(ctx context.Context, id *identity) error {
	for _, at := range logoutPlaces(id.principal.Issuer, id.principal.Subject, id.login.session) {
		all, _, err := load[logouts](ctx, r.store, at)
		switch {
		case errors.Is(err, state.ErrNotFound):
		case err != nil:
			return stateRefusal(err)
		case all.ended(id.login):
			return errLoggedOut()
		}
	}
	return nil
}

func errLoggedOut() *tunnel.Refusal {
	return &tunnel.Refusal{Code: tunnel.CodeLoginRequired, Message: "your identity provider says that you logged out; run iapctl login"}
}
