package relay

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/state"
	"iap/tunnel"
)

// tokenKilled stands in the place of the key a token is bound to.
const tokenKilled = "killed"

// refused is what an administrator refused since the start: what takes rights
// away holds in memory even while the state is away. It grows by people's acts
// alone.
type refused struct {
	mu  sync.RWMutex
	ids map[string]bool // guarded by mu; key ids, agent ids, principals and places of tokens; true: the state has it
}

func (r *refused) add(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ids == nil {
		r.ids = map[string]bool{}
	}
	if !r.ids[id] {
		r.ids[id] = false // the state may not have it yet
	}
}

// keep notes that the state has it: once the state has it no more, it was taken
// back.
func (r *refused) keep(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, there := r.ids[id]; there {
		r.ids[id] = true
	}
}

// kept reports whether the state has it.
func (r *refused) kept(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.ids[id]
}

func (r *refused) drop(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.ids, id)
}

func (r *refused) has(id string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, there := r.ids[id]
	return there
}

// empty spares whoever asks for several ids on the way of each request.
func (r *refused) empty() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.ids) == 0
}

// refusal is why nothing is granted to id any more, whatever the policy says:
// an administrator took it back, or its time is over. It is asked with each
// question, so that nothing rests on a timer or on who was there when somebody
// was revoked.
func (r *Relay) refusal(id *identity) *tunnel.Refusal {
	switch {
	case id.agent != nil:
		return nil
	case r.wasRevoked(id):
		return errRevoked()
	case r.wasRefused(id):
		return errKilled()
	case r.logouts.ended(id):
		return errLoggedOut()
	case !id.ends.IsZero() && !r.now().Round(0).Before(id.ends):
		return errExpired()
	}
	return nil
}

func errExpired() *tunnel.Refusal {
	return &tunnel.Refusal{Code: tunnel.CodeSessionExpired, Message: "your session has expired; run iapctl login"}
}

// whileHeld serves a session's API while the session has its right to it.
func (r *Relay) whileHeld(s *session, api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if no := r.refusal(s.identity()); no != nil {
			admin.WriteError(w, &admin.Error{Status: http.StatusUnauthorized, Code: no.Code.String(), Message: no.Message, Hint: "iapctl login"})
			return
		}
		api.ServeHTTP(w, q)
	})
}

func errRevoked() *tunnel.Refusal {
	return &tunnel.Refusal{Code: tunnel.CodeRevoked, Message: "your access was revoked by an administrator"}
}

func errKilled() *tunnel.Refusal {
	return &tunnel.Refusal{Code: tunnel.CodeRevoked, Message: "this login was ended by an administrator; run iapctl login"}
}

// wasRevoked reports whether the principal was revoked and not restored.
func (r *Relay) wasRevoked(id *identity) bool {
	return !r.refused.empty() && r.refused.has(keyPrincipal+id.id())
}

// wasRefused reports whether the session's key, or the token of a workload, was
// refused since the start.
func (r *Relay) wasRefused(id *identity) bool {
	return !r.refused.empty() && (r.refused.has(id.key) || id.principal.Workload && id.token != nil && r.refused.has(tokenPlace(id.token)))
}

// killed reports whether a live user's session is one that an administrator ended.
func (r *Relay) killed(s *session) bool {
	id := s.identity()
	return id.agent == nil && (r.wasRevoked(id) || r.wasRefused(id))
}

// isLost reports whether a denial's reason is the caller's loss of its right, not
// a grant's.
func isLost(reason string) bool {
	switch tunnel.ParseCode(reason) {
	case tunnel.CodeRevoked, tunnel.CodeSessionExpired, tunnel.CodeLoginRequired:
		return true
	}
	return false
}

// tokenPlace is where the state keeps whom a token belongs to.
func tokenPlace(t *auth.Token) string {
	return keyToken + t.Principal.Issuer + "/" + hex.EncodeToString(t.PayloadHash[:])
}

// refuseLogin refuses, in memory, what a session was opened with: a person's
// key, a workload's token, whose processes share it under keys of their own.
func (r *Relay) refuseLogin(s *session) {
	r.refused.add(auth.KeyID(s.tunnel.PublicKey()))
	if id := s.identity(); id.principal.Workload {
		r.refused.add(tokenPlace(id.token))
	}
}

// storeRefusal makes it outlive the process.
func (r *Relay) storeRefusal(ctx context.Context, s *session) error {
	id := s.identity()
	if id.principal.Workload {
		at := tokenPlace(id.token)
		return errors.Join(r.killToken(ctx, at, id.token.Expires), r.tellKill(ctx, at))
	}
	key := s.tunnel.PublicKey()
	return errors.Join(r.killKey(ctx, key), r.tellKill(ctx, auth.KeyID(key)))
}

func (r *Relay) killToken(ctx context.Context, at string, expires time.Time) error {
	_, err := r.store.Swap(ctx, at, 0, []byte(tokenKilled), expires.Add(time.Minute))
	if errors.Is(err, state.ErrConflict) { // killed before
		return nil
	}
	return err
}

// checkWorkload refuses a workload's token that was killed.
func (r *Relay) checkWorkload(ctx context.Context, token *auth.Token) error {
	_, err := r.store.Get(ctx, tokenPlace(token))
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil
	case err != nil:
		return stateRefusal(err)
	}
	return &tunnel.Refusal{Code: tunnel.CodeRevoked, Message: "this token was refused by an administrator"}
}

// loadRevocations brings the revoked principals back into memory.
func (r *Relay) loadRevocations(ctx context.Context) error {
	all, err := list[revocation](ctx, r.store, keyPrincipal)
	if err != nil {
		return fmt.Errorf("read revoked principals: %w", err)
	}
	for _, one := range all {
		r.refused.add(keyPrincipal + one.Principal)
		r.refused.keep(keyPrincipal + one.Principal)
	}
	return nil
}

// revokePrincipal refuses every key and token of the principal until it is
// restored, and ends what runs: first in memory.
func (r *Relay) revokePrincipal(ctx context.Context, one revocation) error {
	id := one.Principal
	r.endRevoked(id)
	return r.orOwe(ctx, keyPrincipal+id, func(ctx context.Context) error {
		err := save(ctx, r.store, keyPrincipal+id, 0, one, time.Time{})
		if err == nil || errors.Is(err, state.ErrConflict) { // revoked before
			r.refused.keep(keyPrincipal + id)
			return nil
		}
		return err
	})
}

// restorePrincipal takes a revocation back, first where it would come back from.
func (r *Relay) restorePrincipal(ctx context.Context, id string) error {
	r.owed.forgive(keyPrincipal + id)
	if err := r.store.Delete(ctx, keyPrincipal+id, -1); err != nil {
		return err
	}
	r.refused.drop(keyPrincipal + id)
	return nil
}

// checkPrincipal refuses whom an administrator revoked.
func (r *Relay) checkPrincipal(id string) error {
	if r.refused.has(keyPrincipal + id) {
		return errRevoked()
	}
	return nil
}

// checkPrincipalInState refuses whom another relay has revoked a moment ago.
func (r *Relay) checkPrincipalInState(ctx context.Context, id string) error {
	if !r.cfg.IsShared() {
		return nil
	}
	_, err := r.store.Get(ctx, keyPrincipal+id)
	switch {
	case err == nil:
		return errRevoked()
	case errors.Is(err, state.ErrNotFound):
		return nil
	}
	return stateRefusal(err)
}

// refuseKeyOf is the refusal of a key that was killed in memory only.
func (r *Relay) refuseKeyOf(key ed25519.PublicKey) error {
	if r.refused.has(auth.KeyID(key)) {
		return errKilled()
	}
	return nil
}
