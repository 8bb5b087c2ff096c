package relay

import (
	"context"
	"fmt"

	"iap/internal/state"
)

// Forgotten says what of a restored state was taken out, since it may have been
// used, ended or forbidden after the backup was taken.
type Forgotten struct {
	JoinTokens int `json:"join_tokens"` // that were not used
	Logins     int `json:"logins"`
}

// Settle makes a state that was restored from a backup one to begin with: nothing
// that was good once is good again. Join tokens are void. Logins are forgotten,
// unless logins is true: who was killed or logged out after the backup would be
// let in with the same key. Revocations and keys for programs stay as they were;
// which ones came later, nobody can know here.
func Settle(ctx context.Context, s state.Store, logins bool) (Forgotten, error) {
	var f Forgotten
	tokens, err := forget(ctx, s, keyJoin)
	if err != nil {
		return f, err
	}
	for _, item := range tokens {
		if j, err := decode[joinRecord](item); err != nil || j.UsedBy == "" {
			f.JoinTokens++
		}
	}
	if logins {
		return f, nil
	}
	keys, err := forget(ctx, s, keyKey)
	f.Logins = len(keys)
	return f, err
}

// forget deletes everything below prefix and returns what it was.
func forget(ctx context.Context, s state.Store, prefix string) ([]state.Item, error) {
	var all []state.Item
	for item, err := range state.All(ctx, s, prefix) {
		if err != nil {
			return nil, fmt.Errorf("settle the restored state: %w", err)
		}
		all = append(all, item)
	}
	for _, item := range all {
		if err := s.Delete(ctx, item.Key, -1); err != nil {
			return nil, fmt.Errorf("settle the restored state: %w", err)
		}
	}
	return all, nil
}
