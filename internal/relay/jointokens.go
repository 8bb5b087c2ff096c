package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"iap/internal/admin"
	"iap/internal/state"
)

// maxJoinTokens bounds a list: tokens live for minutes or hours.
const maxJoinTokens = 1000

// JoinTokens lists the join tokens that the state still has. What makes one good
// is no part of it.
func (a *adminAPI) JoinTokens(ctx context.Context) ([]admin.JoinToken, error) {
	all := []admin.JoinToken{}
	for item, err := range state.All(ctx, a.relay.store, keyJoin) {
		if err != nil {
			return nil, stateUnavailable(err)
		}
		var j joinRecord
		if err := json.Unmarshal(item.Value, &j); err != nil {
			return nil, stateUnavailable(fmt.Errorf("read %s: %w", item.Key, err))
		}
		if len(all) == maxJoinTokens {
			break
		}
		all = append(all, admin.JoinToken{
			ID: strings.TrimPrefix(item.Key, keyJoin), Name: j.Name, Resources: j.Resources, Share: j.Share, Expires: item.Expires.UTC(), UsedBy: j.UsedBy,
		})
	}
	return all, nil
}

// CreateJoinToken makes a single-use join token.
func (a *adminAPI) CreateJoinToken(ctx context.Context, q admin.NewJoinToken) (admin.JoinTokenCreated, error) {
	return a.relay.createJoinToken(ctx, q)
}

// RevokeJoinToken makes an unused token worthless. The agent that a used one made
// is revoked by itself.
func (a *adminAPI) RevokeJoinToken(ctx context.Context, q admin.ByID) (admin.Done, error) {
	unknown := &admin.Error{Status: http.StatusNotFound, Code: "unknown_token", Message: fmt.Sprintf("there is no join token %q that could be used", q.ID), Hint: "iapctl agents token ls"}
	if len(q.ID) > maxTokenID {
		return admin.Done{}, unknown
	}
	item, err := a.relay.store.Get(ctx, keyJoin+q.ID)
	if err == nil {
		var j joinRecord
		if json.Unmarshal(item.Value, &j) == nil && j.UsedBy != "" {
			return admin.Done{}, &admin.Error{Status: http.StatusConflict, Code: "token_used", Message: "this token was used by " + j.UsedBy, Hint: "iapctl agents revoke " + j.UsedBy}
		}
		err = a.relay.store.Delete(ctx, keyJoin+q.ID, item.Version) // a conflict: somebody uses it just now
	}
	switch {
	case errors.Is(err, state.ErrNotFound):
		return admin.Done{}, unknown
	case errors.Is(err, state.ErrConflict):
		return admin.Done{}, &admin.Error{Status: http.StatusConflict, Code: "token_used", Message: "this token was used just now", Hint: "iapctl agents ls"}
	}
	return admin.Done{}, stateFailed(err)
}

// maxTokenID is more than any has.
const maxTokenID = 64
