package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"iap/auth"
	"iap/internal/state"
	"iap/tunnel"
)

// keyRecordLife is how long a login's key is remembered after its last use. A
// key that comes back later is a new login.
const keyRecordLife = 90 * 24 * time.Hour

// bindToken gives token to the key that presents it first, and id what that
// key's login adds. It is called once the key's proof has been verified.
//
// A workload's token is shared by the processes of a job: it is bound to none.
func (r *Relay) bindToken(ctx context.Context, key ed25519.PublicKey, token *auth.Token) (*identity, error) {
	id := newIdentity(token)
	id.key = auth.KeyID(key)
	if err := r.refuseKeyOf(key); err != nil {
		return nil, err
	}
	if err := r.checkPrincipal(id.id()); err != nil {
		return nil, err
	}
	if err := r.checkPrincipalInState(ctx, id.id()); err != nil {
		return nil, err
	}
	if token.Principal.Workload {
		if err := r.checkWorkload(ctx, token); err != nil {
			return nil, err
		}
		id.principal.Binding = auth.BindingNone
		id.policy = policyPrincipal(id.principal)
		return id, nil
	}
	named := token.Nonce == auth.NonceForKey(key)
	switch {
	case !named && token.Nonce != "":
		return nil, &tunnel.Refusal{Code: tunnel.CodePopFailed, Message: "this token was made for another key; log in again with iapctl login"}
	case !named:
		if err := r.firstUse(ctx, key, token); err != nil {
			return nil, err
		}
	}
	return id, r.joinLogin(ctx, key, id, named)
}

// firstUse is one compare-and-swap: whoever comes second with another key has
// stolen the token, or the first has.
func (r *Relay) firstUse(ctx context.Context, key ed25519.PublicKey, token *auth.Token) error {
	at := tokenPlace(token)
	mine := auth.KeyID(key)
	_, err := r.store.Swap(ctx, at, 0, []byte(mine), token.Expires.Add(time.Minute))
	if !errors.Is(err, state.ErrConflict) {
		return stateRefusal(err)
	}
	item, err := r.store.Get(ctx, at)
	if err != nil {
		return stateRefusal(err)
	}
	if string(item.Value) != mine {
		return &tunnel.Refusal{Code: tunnel.CodePopFailed, Message: "this token belongs to another key; log in again with iapctl login"}
	}
	return nil
}

// joinLogin finds or makes the record of the login that key stands for, and
// gives id what the provider says at login and drops at refresh.
func (r *Relay) joinLogin(ctx context.Context, key ed25519.PublicKey, id *identity, named bool) error {
	at := keyKey + auth.KeyID(key)
	for range maxUpdateTries {
		record, version, err := load[keyRecord](ctx, r.store, at)
		switch {
		case errors.Is(err, state.ErrNotFound):
			record = keyRecord{Issuer: id.principal.Issuer, Subject: id.principal.Subject, Binding: auth.BindingFirstUse}
			id.newKey = true
		case err != nil:
			return stateRefusal(err)
		case record.Issuer != id.principal.Issuer || record.Subject != id.principal.Subject:
			return &tunnel.Refusal{Code: tunnel.CodePopFailed, Message: "this key belongs to another login; run iapctl login"}
		case record.Killed:
			return errKilled()
		}
		record.merge(id, named)
		if err := r.checkLogin(ctx, id); err != nil {
			return err
		}
		err = save(ctx, r.store, at, version, record, r.now().Add(keyRecordLife))
		if err == nil {
			id.policy = policyPrincipal(id.principal)
			return nil
		}
		if !errors.Is(err, state.ErrConflict) {
			return stateRefusal(err)
		}
	}
	return &tunnel.Refusal{Code: tunnel.CodeStateUnavailable, Message: "the relay is busy; try again"}
}

// merge brings record and principal together. What was proven at login stays
// true of the key; a later authentication replaces it.
func (k *keyRecord) merge(id *identity, named bool) {
	p := &id.principal
	if named {
		k.Binding = auth.BindingNonce
	}
	p.Binding = k.Binding
	if p.AuthTime.After(k.AuthTime) {
		k.AuthTime, k.MFA, k.ACR = p.AuthTime, "", ""
	}
	p.AuthTime = k.AuthTime
	switch {
	case p.MFA.Asserted && p.MFA.Source != auth.MFASourceIssuerPolicy:
		k.MFA = p.MFA.Source
	case k.MFA != "": // a claim of the login says more than the provider's own rule
		p.MFA = auth.MFA{Asserted: true, Source: k.MFA}
	}
	if p.ACR != "" {
		k.ACR = p.ACR
	}
	p.ACR = k.ACR
	if k.Began.IsZero() && id.newKey {
		k.Began = id.token.IssuedAt
	}
	if s := sessionHash(id.token.SessionID); s != "" {
		k.Session = s
	}
	id.login = login{began: k.AuthTime, session: k.Session}
	if id.login.began.IsZero() {
		id.login.began = k.Began
	}
}

// killKey refuses the key's sessions until its owner logs in anew, which makes
// a new key.
func (r *Relay) killKey(ctx context.Context, key ed25519.PublicKey) error {
	_, err := update(ctx, r.store, keyKey+auth.KeyID(key), func(k *keyRecord) error {
		k.Killed = true
		return nil
	})
	if err != nil {
		return fmt.Errorf("refuse key: %w", err)
	}
	return nil
}

// stateRefusal turns a failing store into a refusal: without it no new session
// begins.
func stateRefusal(err error) error {
	if err == nil {
		return nil
	}
	return &tunnel.Refusal{Code: tunnel.CodeStateUnavailable, Message: "the relay cannot reach its database; running streams go on, new sessions must wait"}
}
