package relay

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"iap/auth"
	"iap/internal/guard"
	"iap/internal/relay/settings"
	"iap/internal/state"
	"iap/policy"
	"iap/tunnel"
)

const (
	keyKept     = 7 * 24 * time.Hour // an expired key is known for so long, so that it is told why it fails
	keyUseNoted = time.Minute        // between two writes of when a key was used last
	ownerNoted  = time.Hour          // between two writes of when an owner was seen who did not change
)

// Reasons why a key is refused. Those of the policy come beside them.
const (
	reasonKeyInvalid  = "key_invalid"
	reasonKeyExpired  = "key_expired"
	reasonKeyUnseen   = "key_owner_unseen"
	reasonKeyScope    = "key_scope"    // the key's own list does not hold what is asked
	reasonKeyLifetime = "key_lifetime" // the grant allows shorter lives only
)

const messageKeyRevoked = "the key was revoked"

// programKey is a key for a program, as the state keeps it. It never changes but
// for LastUsed.
type programKey struct {
	ID        string    `json:"id"`
	Hash      []byte    `json:"hash"` // of the secret
	Name      string    `json:"name"`
	Owner     string    `json:"owner"` // principal id
	Login     string    `json:"login"` // id of the session key by which it was made
	Resources []string  `json:"resources"`
	Actions   []string  `json:"actions"`
	Models    []string  `json:"models,omitempty"` // lower-case, with their tags; empty: every model
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	LastUsed  time.Time `json:"last_used,omitzero"`
}

// keyOwner is what is known of whoever has keys.
type keyOwner struct {
	Principal auth.Principal `json:"principal"`
	Seen      time.Time      `json:"seen"`
	AsOf      time.Time      `json:"as_of"` // when the provider said so
}

// covers says whether the key's own list holds what is asked. It is the key's
// alone: what its owner may do is the policy's to say.
func (k *programKey) covers(resource, action, model string) bool {
	if !slices.Contains(k.Resources, resource) || action != policy.ActionAny && !slices.Contains(k.Actions, action) {
		return false
	}
	if len(k.Models) == 0 {
		return true
	}
	if model == "" {
		// As in grants: without a model only what makes none work.
		switch action {
		case policy.ActionChat, policy.ActionComplete, policy.ActionEmbed, policy.ActionRerank, policy.ActionTranscribe, policy.ActionManageModel:
			return false
		}
		return true
	}
	return slices.Contains(k.Models, strings.ToLower(model))
}

// heldKey is a key in memory.
type heldKey struct {
	programKey
	used  atomic.Int64 // last use that was noted, in seconds
	ended atomic.Bool  // revoked, and kept until the state has forgotten it
}

// heldOwner is the owner of keys in memory. Its fields are guarded by the keyring.
type heldOwner struct {
	who   *identity
	seen  time.Time
	asOf  time.Time // of the token that said who
	noted time.Time // when this was written
}

// keyring holds every key and what is known of their owners. The state has the
// same; it is read once, at the start.
type keyring struct {
	mu     sync.Mutex
	keys   map[string]*heldKey   // guarded by mu; by id
	owners map[string]*heldOwner // guarded by mu; by principal id, of those who have keys

	creating sync.Mutex // one creation at a time: names are unique and their number is bounded
	writing  sync.Mutex // an owner's record goes with the last key and comes with the first
}

// loadKeys reads the keyring.
func (r *Relay) loadKeys(ctx context.Context) error {
	ring := &r.keys
	ring.keys, ring.owners = map[string]*heldKey{}, map[string]*heldOwner{}
	keys, err := list[programKey](ctx, r.store, keyProgram)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	owners, err := list[keyOwner](ctx, r.store, keyOwners)
	if err != nil {
		return fmt.Errorf("read owners of keys: %w", err)
	}
	for _, k := range keys {
		held := &heldKey{programKey: k}
		held.used.Store(k.LastUsed.Unix())
		ring.keys[k.ID] = held
	}
	for _, o := range owners {
		if !r.sameIssuer(o.Principal) {
			r.log.Warn("keys are refused: their owner's issuer is no longer configured under its name", "principal", o.Principal.ID())
			continue
		}
		if !slices.ContainsFunc(keys, func(k programKey) bool { return k.Owner == o.Principal.ID() }) {
			continue // all of them have expired
		}
		ring.owners[o.Principal.ID()] = &heldOwner{who: ownerIdentity(o.Principal), seen: o.Seen, asOf: o.AsOf, noted: o.Seen}
	}
	return nil
}

// sameIssuer reports whether the alias still names the provider that vouched for
// the principal: another provider's user of the same name is somebody else.
func (r *Relay) sameIssuer(p auth.Principal) bool {
	return slices.ContainsFunc(r.cfg.Issuers, func(i settings.IssuerConfig) bool {
		return i.Name == p.Issuer && strings.TrimPrefix(i.URL, "https://") == strings.TrimPrefix(p.IssuerURL, "https://") // Google's iss may lack it
	})
}

func ownerIdentity(p auth.Principal) *identity {
	return &identity{principal: p, policy: policyPrincipal(p)}
}

// keyCaller is a program that calls with a key. Its rights are its owner's as
// last seen, within the key's own list.
type keyCaller struct {
	key  *heldKey
	ring *keyring
	who  *identity // when the key was shown, should the owner's record go meanwhile
}

func (c *keyCaller) identity() *identity {
	c.ring.mu.Lock()
	defer c.ring.mu.Unlock()
	if owner := c.ring.owners[c.key.Owner]; owner != nil {
		return owner.who
	}
	return c.who
}

// check finds the key that text shows. Whoever shows a wrong secret learns no more
// than who shows a key that never was.
func (l *keyring) check(text string, now time.Time, maxUnseen time.Duration) (*keyCaller, error) {
	refuse := func(code, public string) (*keyCaller, error) {
		return nil, &auth.TokenError{Code: code, Public: public}
	}
	shown, err := auth.ParseProgramKey(text)
	if err != nil {
		return refuse(reasonKeyInvalid, "the key is damaged; copy all of it")
	}
	hash := shown.Hash()
	l.mu.Lock()
	held := l.keys[shown.ID]
	var owner heldOwner
	if held != nil && l.owners[held.Owner] != nil {
		owner = *l.owners[held.Owner]
	}
	l.mu.Unlock()
	switch {
	case held == nil || held.ended.Load() || owner.who == nil || subtle.ConstantTimeCompare(held.Hash, hash[:]) != 1:
		return refuse(reasonKeyInvalid, "the key is not known here, or was revoked")
	case !now.Before(held.Expires):
		return refuse(reasonKeyExpired, "the key has expired; make a new one with iapctl keys create")
	case now.Sub(owner.seen) > maxUnseen:
		return refuse(reasonKeyUnseen, "the key's owner has not logged in for too long; any iapctl command of theirs wakes the key")
	}
	return &keyCaller{key: held, ring: l, who: owner.who}, nil
}

// has reports whether the principal has keys.
func (l *keyring) has(principal string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owners[principal] != nil
}

// of lists the keys for which keep is true, oldest first.
func (l *keyring) of(keep func(*programKey) bool) []*heldKey {
	l.mu.Lock()
	all := slices.Collect(maps.Values(l.keys))
	l.mu.Unlock()
	all = slices.DeleteFunc(all, func(k *heldKey) bool { return !keep(&k.programKey) })
	slices.SortFunc(all, func(a, b *heldKey) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all
}

// seen notes what a login or a refresh says of the owner of keys: first in memory,
// where it counts at once. What an older token says than the one before it does
// not count: a session that is still open must not bring back what a newer login
// has taken away.
func (r *Relay) seen(ctx context.Context, id *identity) {
	if id.agent != nil || !r.keys.has(id.id()) {
		return
	}
	now := r.now().UTC()
	r.keys.mu.Lock()
	owner := r.keys.owners[id.id()]
	if owner == nil || id.token.IssuedAt.Before(owner.asOf) { // its last key may have been revoked just now
		r.keys.mu.Unlock()
		return
	}
	changed := !samePrincipal(owner.who.principal, id.principal)
	due := changed || now.Sub(owner.noted) >= ownerNoted
	owner.seen, owner.asOf = now, id.token.IssuedAt
	if changed {
		owner.who = ownerIdentity(id.principal)
	}
	if due {
		owner.noted = now
	}
	r.keys.mu.Unlock()
	if due {
		if err := r.saveOwner(ctx, id, now); err != nil {
			r.log.Error("note the owner of keys", "principal", id.id(), "error", err)
		}
	}
	if changed {
		r.spawn(func() { r.recheckKeys(id.id()) })
	}
}

// saveOwner writes what is known of an owner, whatever stood there.
func (r *Relay) saveOwner(ctx context.Context, id *identity, seen time.Time) error {
	at := keyOwners + id.id()
	for range maxUpdateTries {
		item, err := r.store.Get(ctx, at)
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return err
		}
		err = save(ctx, r.store, at, item.Version, keyOwner{id.principal, seen, id.token.IssuedAt}, time.Time{})
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	return state.ErrConflict
}

// samePrincipal compares what the policy and the upstream are told.
func samePrincipal(a, b auth.Principal) bool {
	return a.MFA == b.MFA && a.ACR == b.ACR && a.AuthTime.Equal(b.AuthTime) && a.Binding == b.Binding && a.Workload == b.Workload &&
		a.GroupsUnknown == b.GroupsUnknown && a.Email == b.Email && a.EmailVerified == b.EmailVerified && slices.Equal(a.Groups, b.Groups) &&
		maps.EqualFunc(a.Claims, b.Claims, slices.Equal)
}

// recheckKeys asks again about what runs with keys of the principal.
func (r *Relay) recheckKeys(principal string) {
	ctx := context.WithValue(r.ctx, recheckKey{}, true)
	r.guard.Recheck(ctx, tunnel.CodePolicyChanged.String(), func(c *guard.Caller) bool {
		_, isKey := c.Value.(*keyCaller)
		return isKey && c.Principal == principal
	})
}

// usedKey notes that a key was used, coarsely: at most one write a minute, by
// nobody's request.
func (r *Relay) usedKey(held *heldKey) {
	now, before := r.now(), held.used.Load()
	if now.Unix()-before < int64(keyUseNoted/time.Second) || !held.used.CompareAndSwap(before, now.Unix()) {
		return
	}
	r.spawn(func() {
		_, err := update(r.ctx, r.store, keyProgram+held.ID, func(k *programKey) error {
			k.LastUsed = now.UTC().Truncate(time.Second)
			return nil
		})
		if err != nil && !errors.Is(err, state.ErrNotFound) { // revoked meanwhile
			r.log.Warn("note the use of a key", "key", held.ID, "error", err)
		}
	})
}

// endKey ends a key and what runs with it, then forgets it: in memory first, as
// everything that takes rights away. A key that the state cannot forget stays here,
// ended, so that it can be revoked once more.
func (r *Relay) endKey(ctx context.Context, held *heldKey) error {
	r.endHeld(held)
	return r.orOwe(ctx, keyProgram+held.ID, func(ctx context.Context) error { return r.forgetKey(ctx, held) })
}

// endHeld ends a key in memory, and what runs with it.
func (r *Relay) endHeld(held *heldKey) {
	held.ended.Store(true)
	with := func(c *guard.Caller) bool {
		caller, ok := c.Value.(*keyCaller)
		return ok && caller.key == held
	}
	r.guard.End(with, &guard.Ended{Code: tunnel.CodeRevoked.String(), Message: messageKeyRevoked})
	r.guard.Recheck(context.WithValue(r.ctx, recheckKey{}, true), tunnel.CodeRevoked.String(), with) // who is between its decision and its answer
}

// forgetKey has the state forget a key that has ended, and its owner with the last.
func (r *Relay) forgetKey(ctx context.Context, held *heldKey) error {
	r.keys.writing.Lock()
	defer r.keys.writing.Unlock()
	if err := r.store.Delete(ctx, keyProgram+held.ID, -1); err != nil && !errors.Is(err, state.ErrNotFound) {
		return err
	}
	if !r.keys.forget(held) {
		return nil
	}
	if err := r.store.Delete(ctx, keyOwners+held.Owner, -1); err != nil && !errors.Is(err, state.ErrNotFound) {
		r.log.Warn("forget an owner who has no keys", "principal", held.Owner, "error", err) // it is read by nobody
	}
	return nil
}

// forget drops a key from memory, and says whether it was its owner's last.
func (l *keyring) forget(held *heldKey) (last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.keys, held.ID)
	for _, other := range l.keys {
		if other.Owner == held.Owner {
			return false
		}
	}
	delete(l.owners, held.Owner)
	return true
}

// endKeysOf ends the keys that a login made: whoever was refused has them still.
func (r *Relay) endKeysOf(ctx context.Context, login string) error {
	var errs []error
	for _, held := range r.keys.of(func(k *programKey) bool { return k.Login == login }) {
		errs = append(errs, r.endKey(ctx, held))
	}
	return errors.Join(errs...)
}
