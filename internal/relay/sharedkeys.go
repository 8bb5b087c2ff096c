package relay

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"iap/internal/audit"
	"iap/internal/relaykey"
	"iap/internal/state"
)

// Relays that share a state share their key, and so the next one: whoever is asked
// to rotate puts it into the state, sealed under the key in force, which they all
// have and the database has not.

const (
	sealLabel     = "iap next relay key v1"
	nextKeyKept   = 90 * 24 * time.Hour // a relay that was down for longer is given its keys by hand
	nextKeyNumber = "%s%08d"            // in the order of their numbers
)

// sealedKey is the next key of relays that share one.
type sealedKey struct {
	Link   []byte `json:"link"` // relaykey.Link, encoded
	Nonce  []byte `json:"nonce"`
	Sealed []byte `json:"sealed"` // AES-256-GCM of the key's seed
}

func nextKeyCipher(current ed25519.PrivateKey) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, current.Seed(), nil, sealLabel, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func sealKey(current, next ed25519.PrivateKey, link relaykey.Link) (sealedKey, error) {
	s := sealedKey{Link: link.Encode(), Nonce: make([]byte, 12)}
	_, _ = rand.Read(s.Nonce) // never fails
	c, err := nextKeyCipher(current)
	if err == nil {
		s.Sealed = c.Seal(nil, s.Nonce, next.Seed(), s.Link)
	}
	return s, err
}

// open returns the link and the key it leads to.
func (s sealedKey) open(current ed25519.PrivateKey) (relaykey.Link, ed25519.PrivateKey, error) {
	link, err := relaykey.Parse(s.Link)
	if err != nil {
		return link, nil, err
	}
	c, err := nextKeyCipher(current)
	if err != nil {
		return link, nil, err
	}
	if len(s.Nonce) != c.NonceSize() {
		return link, nil, errors.New("the sealed key is malformed")
	}
	seed, err := c.Open(nil, s.Nonce, s.Sealed, s.Link)
	if err != nil || len(seed) != ed25519.SeedSize {
		return link, nil, errors.New("the sealed key is not sealed under the key in force")
	}
	return link, ed25519.NewKeyFromSeed(seed), nil
}

// prepareKey makes the relay's next key and, where the state is shared, gives it to
// the others: the first to put one there has made it for all.
func (r *Relay) prepareKey(ctx context.Context, from time.Time) (relaykey.Link, error) {
	if !r.cfg.IsShared() {
		return r.ring.Prepare(from)
	}
	link, next, err := r.ring.Propose(from)
	if err != nil {
		return link, err
	}
	sealed, err := sealKey(r.ring.Current(), next, link)
	if err != nil {
		return link, err
	}
	at := fmt.Sprintf(nextKeyNumber, keyNextRelay, link.Number)
	err = save(ctx, r.store, at, 0, sealed, link.From.Add(nextKeyKept))
	if errors.Is(err, state.ErrConflict) {
		if item, err := r.store.Get(ctx, at); err == nil {
			r.heardRelayKey(item, false)
		}
		pending, _ := r.ring.Pending()
		return pending, relaykey.ErrPrepared
	}
	if err != nil {
		return link, err
	}
	return link, r.ring.Adopt(link, next)
}

// heardRelayKey takes over the next key that another relay has made.
func (r *Relay) heardRelayKey(item state.Item, deleted bool) {
	if deleted {
		return
	}
	var s sealedKey
	if err := json.Unmarshal(item.Value, &s); err != nil {
		r.unreadable(item, err)
		return
	}
	r.activateKey(r.ctx) // the one before may be due
	link, err := relaykey.Parse(s.Link)
	if err == nil && !r.ring.Awaits(link) { // ours already, or long past
		return
	}
	var next ed25519.PrivateKey
	if err == nil {
		link, next, err = s.open(r.ring.Current())
	}
	if err == nil {
		err = r.ring.Adopt(link, next)
	}
	if err != nil {
		r.log.Error("another relay has made the next relay key, and this one cannot take it over: copy relay.key, relay.key.next and relay.key.chain from it", "item", item.Key, "error", err)
		return
	}
	r.log.Info("another relay has made the next relay key", "key", relaykey.ID(link.New), "from", link.From)
	e := audit.Event{Kind: audit.KindRelay, Reason: "key_announced", Detail: map[string]string{"key": relaykey.ID(link.New), "old_key": relaykey.ID(link.Old)}}
	if err := r.audit.Record(r.ctx, e); err != nil {
		r.log.Error("record relay key", "error", err)
	}
	r.showKeys()
	r.activateKey(r.ctx)
}

// showKeys shows who is connected which key comes next.
func (r *Relay) showKeys() {
	_, chain := r.ring.Shown()
	for _, s := range r.sessions.all(func(*session) bool { return true }) {
		_ = s.tunnel.ShowRelayKeys(chain) // whoever misses it is shown it at the next handshake
	}
}

// keyDue is how long to wait before looking whether the next key's time has come.
// Relays that share it put it in force together: agents that have seen the new one
// do not go back to the old.
func (r *Relay) keyDue() time.Duration {
	if pending, ok := r.ring.Pending(); ok {
		return min(keyLook, max(pending.From.Sub(r.now()), 0)+time.Millisecond)
	}
	return keyLook
}
