package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/relaykey"
)

const (
	defaultKeyOverlap = 24 * time.Hour      // agents and laptops that are on within a day need no chain
	maxKeyOverlap     = 30 * 24 * time.Hour // longer is a rotation that was forgotten
	keyLook           = time.Minute         // between two looks whether the next key's time has come
)

// openKeys reads the relay's own keys. A next key whose time came while the relay
// was down is put in force.
func (r *Relay) openKeys() (err error) {
	r.ring, err = relaykey.Open(r.cfg.Data, relaykey.Files{
		LoadKey: auth.LoadKey, SaveKey: auth.SaveKey, NewKey: auth.NewKey, Rename: auth.RenameKey, Write: auth.WriteFile,
	})
	if err != nil {
		return fmt.Errorf("relay key in %s: %w", filepath.Clean(r.cfg.Data), err)
	}
	return nil
}

// watchKeys puts the next key in force when its time comes. Until then, and
// after, whoever connects is shown both.
func (r *Relay) watchKeys() {
	for {
		r.activateKey(r.ctx)
		if !sleep(r.ctx, r.keyDue()) {
			return
		}
	}
}

// activateKey is recorded afterwards: agents and clients have followed the link
// for as long as it was shown, and staying with the old key would cut them off.
func (r *Relay) activateKey(ctx context.Context) {
	pending, ok := r.ring.Pending()
	if !ok {
		return
	}
	done, err := r.ring.Activate(r.now())
	if err != nil {
		r.log.Error("the next relay key could not be put in force: the current one stays", "error", err)
	}
	if err != nil || !done {
		return
	}
	r.log.Info("the next relay key is in force", "key", relaykey.ID(pending.New), "number", pending.Number)
	e := audit.Event{Kind: audit.KindRelay, Reason: "key_activated", Detail: map[string]string{"key": relaykey.ID(pending.New), "old_key": relaykey.ID(pending.Old)}}
	if err := r.audit.Record(ctx, e); err != nil {
		r.log.Error("record relay key", "error", err)
	}
}

// RotateRelay prepares the relay's next key and shows it to whoever is connected.
func (a *adminAPI) RotateRelay(ctx context.Context, q admin.NewRelayKey) (admin.RelayRotation, error) {
	r := a.relay
	var none admin.RelayRotation
	overlap := defaultKeyOverlap
	if q.Overlap != "" {
		var err error
		if overlap, err = time.ParseDuration(q.Overlap); err != nil || overlap < 0 || overlap > maxKeyOverlap {
			return none, badRequest(fmt.Sprintf("overlap: %q is no time from 0s to %s", q.Overlap, maxKeyOverlap))
		}
	}
	link, err := r.prepareKey(ctx, r.now().Add(overlap))
	if errors.Is(err, relaykey.ErrPrepared) {
		return none, &admin.Error{
			Status: http.StatusConflict, Code: "rotation_under_way", Message: fmt.Sprintf("the next relay key %s is announced already, in force from %s", relaykey.ID(link.New), link.From.Format(time.RFC3339)),
			Hint: "wait until then: a second announcement would make agents refuse both",
		}
	}
	if err != nil {
		r.log.Error("prepare the next relay key", "error", err)
		return none, &admin.Error{Status: http.StatusServiceUnavailable, Code: "rotation_failed", Message: "the relay could not write its next key; the current one stays", Hint: "see the relay's log, its database and the space on its disk"}
	}
	r.showKeys()
	if overlap == 0 {
		r.activateKey(ctx)
	}
	return admin.RelayRotation{Key: relaykey.ID(link.Old), Next: relaykey.ID(link.New), From: link.From, Number: link.Number}, nil
}
