package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"iap/internal/admin"
	"iap/internal/state"
)

// Keys of the state store. Each names its value.
const (
	keyAgent = "agent/" // + agent id: agentRecord
	keyJoin  = "join/"  // + token id: joinRecord
	keyToken = "token/" // + issuer/payload hash: id of the key that presented it first
	keyKey   = "key/"   // + key id: keyRecord

	keyOwned = "id/" // + hash of resource, kind and id: ownedID

	keyKilled    = "killed/"    // + key id, or place of a token: by which relay; read by those that have its sessions
	keyPrincipal = "principal/" // + principal id: revocation; there while it holds

	keyLogout      = "logout/"       // + issuer/sub/subject or issuer/sid/hash: logouts
	keyLogoutToken = "logout-token/" // + hash of its jti: there while it could come again

	keyProgram = "program-key/" // + id: programKey
	keyOwners  = "key-owner/"   // + principal id: keyOwner; there while it has keys

	keyNextRelay = "relay-key/" // + number: sealedKey; the next key of relays that share one
	keyEnrolling = "enrolling"  // instance of the relay that enrols an agent just now
)

// agentRecord is an enrolled agent.
type agentRecord struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	PublicKey []byte `json:"public_key"`

	// The key before the current one, which opens sessions until PreviousUntil.
	Previous      []byte     `json:"previous,omitempty"`
	PreviousUntil time.Time  `json:"previous_until,omitzero"`
	Rotated       *time.Time `json:"rotated,omitempty"`

	Resources []admin.JoinResource `json:"resources"`
	Enrolled  time.Time            `json:"enrolled"`
	Revoked   *time.Time           `json:"revoked,omitempty"`
}

// joinRecord is a join token that was handed out. UsedBy ends it.
type joinRecord struct {
	SecretHash []byte               `json:"secret_hash"`
	Name       string               `json:"name"`
	Resources  []admin.JoinResource `json:"resources"`
	Share      bool                 `json:"share"`
	UsedBy     string               `json:"used_by,omitempty"`
}

// keyRecord is one login: the key that `iapctl login` made.
type keyRecord struct {
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"`
	Binding  string    `json:"binding"`
	AuthTime time.Time `json:"auth_time"`
	MFA      string    `json:"mfa,omitempty"` // source that asserted it at login
	ACR      string    `json:"acr,omitempty"` // of the login
	Killed   bool      `json:"killed,omitempty"`
	Began    time.Time `json:"began,omitzero"`    // when its first token was issued
	Session  string    `json:"session,omitempty"` // hash of the provider's name for the login, "sid"
}

// revocation is a principal that was revoked.
type revocation struct {
	Principal string    `json:"principal"`
	At        time.Time `json:"at"`
	By        string    `json:"by,omitempty"`     // who did it
	Reason    string    `json:"reason,omitempty"` // in their words
}

// load reads the value at key.
func load[T any](ctx context.Context, s state.Store, key string) (T, int64, error) {
	var v T
	item, err := s.Get(ctx, key)
	if err != nil {
		return v, 0, err
	}
	v, err = decode[T](item)
	return v, item.Version, err
}

// decode reads the value of an item.
func decode[T any](item state.Item) (T, error) {
	var v T
	if err := json.Unmarshal(item.Value, &v); err != nil {
		return v, fmt.Errorf("read %s from state: %w", item.Key, err)
	}
	return v, nil
}

// save writes v at key if the version still is the one given; 0 creates.
func save(ctx context.Context, s state.Store, key string, version int64, v any, expires time.Time) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = s.Swap(ctx, key, version, data, expires)
	return err
}

// maxUpdateTries bounds how often update starts over: the records are written
// by logins and by people, never by every request.
const maxUpdateTries = 8

// update changes the value at key with f, starting over when somebody else was
// faster.
func update[T any](ctx context.Context, s state.Store, key string, f func(*T) error) (T, error) {
	for range maxUpdateTries {
		item, err := s.Get(ctx, key)
		var v T
		if err != nil {
			return v, err
		}
		if err := json.Unmarshal(item.Value, &v); err != nil {
			return v, fmt.Errorf("read %s from state: %w", key, err)
		}
		if err := f(&v); err != nil {
			return v, err
		}
		if err := save(ctx, s, key, item.Version, v, item.Expires); !errors.Is(err, state.ErrConflict) {
			return v, err
		}
	}
	var v T
	return v, fmt.Errorf("change %s in state: %w", key, state.ErrConflict)
}

// list reads every value below prefix, in key order.
func list[T any](ctx context.Context, s state.Store, prefix string) ([]T, error) {
	var all []T
	for item, err := range state.All(ctx, s, prefix) {
		if err != nil {
			return nil, err
		}
		var v T
		if err := json.Unmarshal(item.Value, &v); err != nil {
			return nil, fmt.Errorf("read %s from state: %w", item.Key, err)
		}
		all = append(all, v)
	}
	return all, nil
}
