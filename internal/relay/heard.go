package relay

import (
	"context"
	"slices"
	"strings"
	"time"

	"iap/internal/guard"
	"iap/internal/relay/settings"
	"iap/internal/state"
	"iap/tunnel"
)

// What other relays did. Everything here holds as well for what this relay did
// itself, and is then no news.

// settled is for what this relay did a moment ago: a list read just then may lack
// it.
const settled = time.Minute

// unreadable notes an item that no relay of this version wrote.
func (r *Relay) unreadable(item state.Item, err error) {
	r.log.Error("another relay's word cannot be read: update all relays to one version", "item", item.Key, "error", err)
}

func (r *Relay) heardRevocation(item state.Item, deleted bool) {
	id := strings.TrimPrefix(item.Key, keyPrincipal)
	if deleted {
		r.refused.drop(keyPrincipal + id)
		return
	}
	r.endRevoked(id)
	r.refused.keep(keyPrincipal + id)
}

// heardRevocations takes the whole list: whoever stands no more on it was
// restored. A revocation that the state has not been told of yet stays.
func (r *Relay) heardRevocations(items []state.Item) {
	there := map[string]bool{}
	for _, item := range items {
		there[strings.TrimPrefix(item.Key, keyPrincipal)] = true
		r.heardRevocation(item, false)
	}
	for _, id := range r.refused.below(keyPrincipal) {
		if !there[id] && r.refused.kept(keyPrincipal+id) {
			r.refused.drop(keyPrincipal + id)
		}
	}
}

// heardKill refuses a login, or a workload's token, that was killed.
func (r *Relay) heardKill(item state.Item, deleted bool) {
	if deleted { // it has expired, and so has whatever it was about
		return
	}
	r.refused.add(strings.TrimPrefix(item.Key, keyKilled))
	for _, s := range r.sessions.all(r.killed) {
		s.stop(tunnel.CodeRevoked, killedMessage)
	}
}

// heardLogout ends the logins that a provider has ended.
func (r *Relay) heardLogout(item state.Item, deleted bool) {
	if deleted {
		return
	}
	one, err := decode[logouts](item)
	if err != nil {
		r.unreadable(item, err)
		return
	}
	now := r.now()
	if now.Sub(one.latest()) > logoutFresh {
		return
	}
	r.logouts.mu.Lock()
	r.logouts.putLocked(item.Key, &one, now)
	r.logouts.mu.Unlock()
	r.endLoggedOut()
}

// heardKeys takes the whole list of keys for programs.
func (r *Relay) heardKeys(items []state.Item) {
	there := map[string]bool{}
	for _, item := range items {
		there[strings.TrimPrefix(item.Key, keyProgram)] = true
		r.heardKey(item, false)
	}
	before := r.now().Add(-settled)
	for _, held := range r.keys.of(func(k *programKey) bool { return !there[k.ID] && k.Created.Before(before) }) {
		r.dropKey(held)
	}
}

// heardKey enters a key that was made elsewhere, or ends one that was revoked.
func (r *Relay) heardKey(item state.Item, deleted bool) {
	id := strings.TrimPrefix(item.Key, keyProgram)
	if deleted {
		if held := r.keys.find(id); held != nil {
			r.dropKey(held)
		}
		return
	}
	k, err := decode[programKey](item)
	if err != nil || k.ID != id {
		r.unreadable(item, err)
		return
	}
	r.keys.enter(k)
}

// find returns a key by its id.
func (l *keyring) find(id string) *heldKey {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys[id]
}

// enter takes a key into memory, or notes when it was used last.
func (l *keyring) enter(k programKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := l.keys[k.ID]
	if held == nil {
		held = &heldKey{programKey: k}
		l.keys[k.ID] = held
	}
	if used := k.LastUsed.Unix(); used > held.used.Load() {
		held.used.Store(used)
	}
}

// dropKey ends a key that the state has forgotten.
func (r *Relay) dropKey(held *heldKey) {
	r.endHeld(held)
	r.keys.forget(held)
}

// heardOwner takes what a login elsewhere said of the owner of keys, unless what is
// known is newer.
func (r *Relay) heardOwner(item state.Item, deleted bool) {
	if deleted { // it goes with the last key
		return
	}
	o, err := decode[keyOwner](item)
	if err != nil {
		r.unreadable(item, err)
		return
	}
	id := o.Principal.ID()
	if !r.sameIssuer(o.Principal) {
		return
	}
	r.keys.mu.Lock()
	owner := r.keys.owners[id]
	known := owner != nil
	if !known {
		owner = &heldOwner{who: ownerIdentity(o.Principal)}
		r.keys.owners[id] = owner
	}
	changed := false
	if !known || !o.AsOf.Before(owner.asOf) {
		if changed = known && !samePrincipal(owner.who.principal, o.Principal); changed {
			owner.who = ownerIdentity(o.Principal)
		}
		owner.asOf = o.AsOf
	}
	if o.Seen.After(owner.seen) {
		owner.seen, owner.noted = o.Seen, o.Seen
	}
	r.keys.mu.Unlock()
	if changed {
		r.spawn(func() { r.recheckKeys(id) })
	}
}

// heardAgent takes in an agent that enrolled elsewhere, has a new key, or was
// revoked.
func (r *Relay) heardAgent(item state.Item, deleted bool) {
	if deleted {
		return
	}
	record, err := decode[agentRecord](item)
	if err != nil {
		r.unreadable(item, err)
		return
	}
	if record.Revoked != nil {
		r.refused.add(record.ID)
		r.agents.revoked(record.ID)
		return
	}
	if r.refused.has(record.ID) { // revoked here, and the state does not know it yet
		return
	}
	r.agents.enrolled(&record)
	if slices.ContainsFunc(r.agents.openedOtherwise(record.ID, record.PublicKey), func(l *link) bool { return !l.replaced.Load() }) {
		r.spawn(func() { r.replaceSessions(r.ctx, record.ID, record.PublicKey) })
	}
}

// endRevoked refuses a principal in memory and ends what it runs.
func (r *Relay) endRevoked(id string) {
	r.refused.add(keyPrincipal + id)
	message := errRevoked().Message
	for _, s := range r.sessions.all(ofPrincipal(id)) {
		s.stop(tunnel.CodeRevoked, message)
	}
	r.guard.End(func(c *guard.Caller) bool { return c.Principal == id }, &guard.Ended{Code: tunnel.CodeRevoked.String(), Message: message})
}

// tellKill has the other relays refuse what this one has: the id of a key, or the
// place of a workload's token.
func (r *Relay) tellKill(ctx context.Context, id string) error {
	if !r.cfg.IsShared() {
		return nil
	}
	item, err := r.store.Get(ctx, keyKilled+id)
	version := int64(0)
	if err == nil {
		version = item.Version
	}
	_, err = r.store.Swap(ctx, keyKilled+id, version, []byte(r.cluster.Instance()), r.now().Add(killedKept(r.cfg)))
	return err
}

// killedKept is how long other relays are told of a kill: longer than any session
// lives that was open then. New ones ask the state.
func killedKept(cfg *settings.Config) time.Duration {
	return max(24*time.Hour, 2*time.Duration(cfg.Sessions.MaxAge))
}
