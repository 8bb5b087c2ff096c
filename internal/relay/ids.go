package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/internal/state"
)

const (
	idLife        = 24 * time.Hour  // what a server keeps longer is not found again
	idWait        = 3 * time.Second // for the store
	idsEach       = 4096            // of one principal; its oldest give way
	idsAll        = 1 << 17         // of all, about 16 MB; the oldest of whoever has most give way
	maxIDTries    = 4               // against other relays
	saltLabel     = "iap cache salt v1"
	saltSecretLen = 32
)

// ids knows whose the ids are that model servers hand out: responses, sessions,
// running requests. They are kept in the state store, for a bounded time; in
// memory there is only what bounds their number, of those that this relay noted.
type ids struct {
	store state.Store
	now   func() time.Time

	mu      sync.Mutex
	holders map[string][]heldID // guarded by mu; by principal, oldest first
	count   int                 // guarded by mu
}

type heldID struct {
	key     string
	expires time.Time
}

// ownedID is an id as the store has it.
type ownedID struct {
	Key       string    `json:"key"`       // its own
	Principal string    `json:"principal"` // holderOf
	Agent     string    `json:"agent"`
	Noted     time.Time `json:"noted"`
}

// openIDs counts what an earlier run has left.
func openIDs(ctx context.Context, store state.Store, now func() time.Time) (*ids, error) {
	l := &ids{store: store, now: now, holders: map[string][]heldID{}}
	all, err := list[ownedID](ctx, store, keyOwned)
	if err != nil {
		return nil, fmt.Errorf("read ids that servers handed out: %w", err)
	}
	for _, one := range all {
		l.holders[one.Principal] = append(l.holders[one.Principal], heldID{one.Key, one.Noted.Add(idLife)})
		l.count++
	}
	for _, held := range l.holders {
		slices.SortFunc(held, func(a, b heldID) int { return a.expires.Compare(b.expires) })
	}
	return l, nil
}

// idKey is where an id is kept: it may be of any length and hold anything.
func idKey(resource string, id modelapi.ID) string {
	h := sha256.New()
	for _, part := range []string{resource, id.Kind, id.Value} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part) // a hash takes everything
	}
	return keyOwned + hex.EncodeToString(h.Sum(nil))
}

// own notes an id for the guard. Whoever was told an id first has it.
func (l *ids) own(ctx context.Context, o guard.Owner, id modelapi.ID) error {
	ctx, cancel := context.WithTimeout(ctx, idWait)
	defer cancel()
	key, now := idKey(o.Resource, id), l.now()
	record := ownedID{Key: key, Principal: holderOf(o.Caller), Agent: o.Agent, Noted: now}
	for range maxIDTries {
		err := save(ctx, l.store, key, 0, record, now.Add(idLife))
		if err == nil {
			l.noted(ctx, record.Principal, heldID{key, now.Add(idLife)})
			return nil
		}
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
		there, version, err := load[ownedID](ctx, l.store, key)
		switch {
		case errors.Is(err, state.ErrNotFound):
			continue
		case err != nil:
			return err
		case there.Principal != record.Principal:
			return guard.ErrNotOwner
		case there.Agent == record.Agent:
			return nil
		}
		if err := save(ctx, l.store, key, version, record, now.Add(idLife)); !errors.Is(err, state.ErrConflict) {
			return err
		}
	}
	return state.ErrConflict
}

// holderOf is whose an id becomes. What a program began with a key is that key's,
// and nothing else is: the key may be for less than what its owner talks about.
func holderOf(c *guard.Caller) string {
	if key, ok := c.Value.(*keyCaller); ok {
		return c.Principal + "\n" + key.key.ID // no principal's name has a line break
	}
	return c.Principal
}

// owned returns the agent that serves an id of the caller's.
func (l *ids) owned(ctx context.Context, res guard.Resource, caller *guard.Caller, id modelapi.ID) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, idWait)
	defer cancel()
	there, _, err := load[ownedID](ctx, l.store, idKey(res.Name, id))
	switch {
	case errors.Is(err, state.ErrNotFound):
		return "", guard.ErrNotOwner
	case err != nil:
		return "", err
	case there.Principal != holderOf(caller):
		return "", guard.ErrNotOwner
	}
	return there.Agent, nil
}

// noted counts an id and forgets others that are too many.
func (l *ids) noted(ctx context.Context, principal string, id heldID) {
	for _, key := range l.add(principal, id) {
		// One that stays in the store expires there; its owner may use it until then.
		_ = l.store.Delete(ctx, key, -1)
	}
}

// add enters an id and returns the keys of those that give way to it.
func (l *ids) add(principal string, id heldID) (gone []string) {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holders[principal] = append(l.holders[principal], id)
	l.count++
	l.prune(principal, now)
	for len(l.holders[principal]) > idsEach {
		gone = append(gone, l.dropOldest(principal))
	}
	if l.count > idsAll {
		for who := range l.holders {
			l.prune(who, now)
		}
	}
	for l.count > idsAll {
		gone = append(gone, l.dropOldest(l.largest()))
	}
	return gone
}

// prune forgets what has expired in the store by itself. mu is held.
func (l *ids) prune(principal string, now time.Time) {
	held := l.holders[principal]
	n := 0
	for n < len(held) && !held[n].expires.After(now) {
		n++
	}
	l.keep(principal, held[n:])
}

// dropOldest forgets a principal's oldest id. mu is held.
func (l *ids) dropOldest(principal string) (key string) {
	held := l.holders[principal]
	l.keep(principal, held[1:])
	return held[0].key
}

// keep puts what is left in place of what was there. mu is held.
func (l *ids) keep(principal string, left []heldID) {
	l.count -= len(l.holders[principal]) - len(left)
	if len(left) == 0 {
		delete(l.holders, principal)
		return
	}
	l.holders[principal] = left
}

// largest is the principal with most ids. mu is held.
func (l *ids) largest() (most string) {
	for who, held := range l.holders {
		if len(held) > len(l.holders[most]) {
			most = who
		}
	}
	return most
}

// salts makes the cache_salt of each caller from a key of the relay's: nobody shares
// a prompt cache with another, or can tell by its speed what another has asked.
func salts(key ed25519.PrivateKey) (func(*guard.Caller) string, error) {
	secret, err := hkdf.Key(sha256.New, key.Seed(), nil, saltLabel, saltSecretLen)
	if err != nil {
		return nil, fmt.Errorf("derive the secret of cache salts: %w", err)
	}
	return func(c *guard.Caller) string {
		m := hmac.New(sha256.New, secret)
		_, _ = io.WriteString(m, c.Principal) // a hash takes everything
		return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}, nil
}
