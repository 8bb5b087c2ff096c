package relay

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/guard"
	"iap/policy"
	"iap/tunnel"
)

const (
	defaultKeyTTL = 30 * 24 * time.Hour
	minKeyTTL     = time.Minute
	maxKeyList    = 32 // resources, actions or models of one key
)

// keyName is what a key may be called: it stands in lists and on command lines,
// and is never taken for an id, which has no dash and eight letters.
var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CreateKey makes a key for a program. The caller's session is bound to a key of
// its own; whoever merely holds a token makes none.
func (a *userAPI) CreateKey(ctx context.Context, q admin.NewKey) (admin.KeyCreated, error) {
	r, id := a.relay, a.session.identity()
	if id.principal.Binding == auth.BindingNone {
		return admin.KeyCreated{}, &admin.Error{
			Status: http.StatusForbidden, Code: "binding_required", Message: "a program without a login of its own makes no keys", Hint: "iapctl login",
		}
	}
	models, err := checkNewKey(q)
	if err != nil {
		return admin.KeyCreated{}, err
	}
	ttl, err := a.keyTTL(ctx, q, models)
	if err != nil {
		if recordErr := a.did(ctx, "iap:keys.create", q.Name, err); recordErr != nil {
			r.log.Error("record the refusal of a key", "principal", id.id(), "error", recordErr)
		}
		return admin.KeyCreated{}, err
	}
	r.keys.creating.Lock()
	defer r.keys.creating.Unlock()
	now := r.now().UTC().Truncate(time.Second)
	if err := a.makeRoom(ctx, q.Name, now); err != nil {
		return admin.KeyCreated{}, err
	}
	secret := auth.NewProgramKey()
	hash := secret.Hash()
	k := programKey{
		ID: secret.ID, Hash: hash[:], Name: q.Name, Owner: id.id(), Login: auth.KeyID(a.session.tunnel.PublicKey()), Resources: q.Resources, Actions: q.Actions, Models: models,
		Created: now, Expires: now.Add(ttl),
	}
	if err := a.did(ctx, "iap:keys.create", k.ID+" "+k.Name, nil); err != nil {
		return admin.KeyCreated{}, auditUnavailable()
	}
	if err := r.addKey(ctx, id, k); err != nil {
		return admin.KeyCreated{}, stateUnavailable(err)
	}
	if r.refused.has(k.Login) { // killed just now by somebody who did not see this key
		if err := r.endKeysOf(ctx, k.Login); err != nil {
			r.log.Error("end the keys of a killed login", "principal", k.Owner, "error", err)
		}
		return admin.KeyCreated{}, &admin.Error{Status: http.StatusForbidden, Code: tunnel.CodeRevoked.String(), Message: "this login was ended by an administrator", Hint: "iapctl login"}
	}
	return admin.KeyCreated{Key: r.keyInfo(&heldKey{programKey: k}), Text: secret.Text(), URL: "https://" + r.cfg.Name + frontDoor}, nil
}

// makeRoom refuses a name that is taken, and one key too many. Those that are over
// are kept for a while, as long as there is room for them.
func (a *userAPI) makeRoom(ctx context.Context, name string, now time.Time) error {
	r, id := a.relay, a.session.identity()
	mine := r.keys.of(func(k *programKey) bool { return k.Owner == id.id() })
	over := func(k *heldKey) bool { return k.ended.Load() || !now.Before(k.Expires) }
	current := slices.DeleteFunc(slices.Clone(mine), over)
	switch {
	case slices.ContainsFunc(current, func(k *heldKey) bool { return k.Name == name }):
		return &admin.Error{
			Status: http.StatusConflict, Code: "key_exists", Message: fmt.Sprintf("you have a key %q already", name), Hint: "choose another --name, or: iapctl keys revoke " + name,
		}
	case len(current) >= r.cfg.Keys.PerPrincipal:
		return &admin.Error{
			Status: http.StatusTooManyRequests, Code: "limit_reached", Message: fmt.Sprintf("you have %d keys, which is the most", len(current)), Hint: "iapctl keys ls, then iapctl keys revoke one of them",
		}
	}
	if len(mine) >= 2*r.cfg.Keys.PerPrincipal {
		if err := r.endKey(ctx, mine[slices.IndexFunc(mine, over)]); err != nil {
			return stateUnavailable(err)
		}
	}
	return nil
}

// checkNewKey says what of the request cannot be, and returns the models in every
// spelling that will be asked for.
func checkNewKey(q admin.NewKey) ([]string, error) {
	switch {
	case !keyName.MatchString(q.Name):
		return nil, badRequest(fmt.Sprintf("name: %q is no name: letters, digits, dots and dashes, such as openwebui", q.Name))
	case len(q.Resources) == 0 || len(q.Resources) > maxKeyList:
		return nil, badRequest("resources: name at least one, and not more than 32")
	case len(q.Actions) == 0 || len(q.Actions) > maxKeyList:
		return nil, badRequest("actions: name at least one, such as chat")
	case len(q.Models) > maxKeyList:
		return nil, badRequest("models: not more than 32")
	case q.TTL != 0 && time.Duration(q.TTL) < minKeyTTL/time.Second || q.TTL > int64(10*365*24*time.Hour/time.Second):
		return nil, badRequest("ttl_seconds: a key lives for a minute at least")
	}
	for _, name := range q.Resources {
		if !resourceName.MatchString(name) {
			return nil, badRequest(fmt.Sprintf("resources: %q is no resource's name; a key names each", name))
		}
	}
	for _, action := range q.Actions {
		if !policy.IsAction(action) || action == policy.ActionConnect {
			return nil, badRequest(fmt.Sprintf("actions: %q is not one of %v", action, policy.Actions()[1:]))
		}
	}
	var models []string
	for _, model := range q.Models {
		if policy.IsGlob(model) || model == "" || len(model) > 256 {
			return nil, badRequest(fmt.Sprintf("models: %q is no model's name; a key names each", model))
		}
		models = append(models, policy.ModelPattern(model).Names()...)
	}
	return models, nil
}

// keyTTL asks the policy whether the caller's grants let a key do all that, and
// for how long it may live.
func (a *userAPI) keyTTL(ctx context.Context, q admin.NewKey, models []string) (time.Duration, error) {
	asked := time.Duration(q.TTL) * time.Second
	ttl := asked
	if ttl == 0 {
		ttl = defaultKeyTTL
	}
	for _, name := range q.Resources {
		res, known := a.relay.agents.find(name)
		if !known || res.Kind != guard.KindModel {
			res = admin.JoinResource{Name: name, Kind: guard.KindModel}
		}
		_, announced := a.relay.agents.online(name)
		for _, action := range q.Actions {
			d := a.bestForKey(ctx, policyResource(res), action, models, announced.Models)
			if d.Allow && !known {
				d = policy.Decision{Reason: reasonUnknown, Message: "no agent is enrolled for a resource of this name"}
			}
			switch {
			case !d.Allow:
				return 0, a.keyDenied(name, action, d)
			case asked > d.Keys.MaxTTL:
				return 0, &admin.Error{
					Status: http.StatusForbidden, Code: reasonKeyLifetime, Hint: "--ttl " + policy.FormatDuration(d.Keys.MaxTTL),
					Message: fmt.Sprintf("the grant %s, by which you may %s on %s, lets keys live for %s at most", d.Grant, action, name, policy.FormatDuration(d.Keys.MaxTTL)),
				}
			}
			ttl = min(ttl, d.Keys.MaxTTL)
		}
	}
	return ttl, nil
}

// bestForKey is the decision by which a key can do the action, with one of the
// key's models, or of those there are.
func (a *userAPI) bestForKey(ctx context.Context, res policy.Resource, action string, models, announced []string) policy.Decision {
	if len(models) == 0 {
		models = append([]string{""}, announced...)
	}
	var best policy.Decision
	for i, model := range models {
		d := a.relay.ask(ctx, a.session.identity(), policy.Input{Resource: res, Action: action, Model: model, Via: policy.ViaKey})
		if i == 0 || d.Allow && (!best.Allow || d.Keys.MaxTTL > best.Keys.MaxTTL) || !best.Allow && d.Reason == policy.ReasonKeysNotGranted {
			best = d
		}
	}
	return best
}

func (a *userAPI) keyDenied(resource, action string, d policy.Decision) error {
	message := fmt.Sprintf("you may not %s on %s yourself, so no key of yours may: %s", action, resource, d.Message)
	hint := "iapctl policy explain " + resource + " --action " + action
	switch {
	case d.Reason == policy.ReasonKeysNotGranted:
		message = fmt.Sprintf("you may %s on %s, but no grant of yours lets a key do it", action, resource)
		hint = "ask the relay's operator for keys: {max_ttl: 90d} in the grant"
	case d.StepUp != nil:
		message = d.Message
	}
	return &admin.Error{Status: http.StatusForbidden, Code: d.Reason, Message: message, Hint: hint, StepUp: a.relay.stepUpOf(a.session.identity(), d.StepUp)}
}

// addKey keeps a key, with what is known of its owner.
func (r *Relay) addKey(ctx context.Context, id *identity, k programKey) error {
	ring, now := &r.keys, r.now().UTC()
	ring.writing.Lock()
	defer ring.writing.Unlock()
	if !ring.has(k.Owner) {
		if err := r.saveOwner(ctx, id, now); err != nil {
			return err
		}
	}
	if err := save(ctx, r.store, keyProgram+k.ID, 0, k, k.Expires.Add(keyKept)); err != nil {
		return err
	}
	ring.mu.Lock()
	defer ring.mu.Unlock()
	ring.keys[k.ID] = &heldKey{programKey: k}
	if ring.owners[k.Owner] == nil { // who has keys is known from the login
		ring.owners[k.Owner] = &heldOwner{who: ownerIdentity(id.principal), seen: now, asOf: id.token.IssuedAt, noted: now}
	}
	return nil
}

// Keys lists the caller's keys.
func (a *userAPI) Keys(context.Context) ([]admin.Key, error) {
	mine := a.session.identity().id()
	return a.relay.keyInfos(func(k *programKey) bool { return k.Owner == mine }), nil
}

// RevokeKey ends a key of the caller's by its name or id.
func (a *userAPI) RevokeKey(ctx context.Context, q admin.ByID) (admin.Key, error) {
	which := q.ID
	r, id := a.relay, a.session.identity()
	found := r.keys.of(func(k *programKey) bool { return k.Owner == id.id() && (k.ID == which || k.Name == which) })
	if len(found) == 0 {
		return admin.Key{}, unknownKey(which, "iapctl keys ls")
	}
	for _, held := range found { // of one name at most one is current; the others have expired
		err := r.endKey(ctx, held)
		if recordErr := a.did(ctx, "iap:keys.revoke", held.ID+" "+held.Name, nil); recordErr != nil {
			r.log.Error("record the revocation of a key", "key", held.ID, "error", recordErr)
		}
		if err != nil {
			return admin.Key{}, stateUnavailable(err)
		}
	}
	return r.keyInfo(found[len(found)-1]), nil
}

// AdminKeys lists everybody's keys.
func (a *adminAPI) AdminKeys(context.Context) ([]admin.Key, error) {
	return a.relay.keyInfos(func(*programKey) bool { return true }), nil
}

// AdminRevokeKey ends anybody's key, by its id.
func (a *adminAPI) AdminRevokeKey(ctx context.Context, q admin.ByID) (admin.Done, error) {
	found := a.relay.keys.of(func(k *programKey) bool { return k.ID == q.ID })
	if len(found) == 0 {
		return admin.Done{}, unknownKey(q.ID, "iapctl keys ls --all")
	}
	return admin.Done{}, stateFailed(a.relay.endKey(ctx, found[0]))
}

func unknownKey(which, hint string) error {
	return &admin.Error{Status: http.StatusNotFound, Code: "unknown_key", Message: fmt.Sprintf("there is no key %q", which), Hint: hint}
}

func (r *Relay) keyInfos(keep func(*programKey) bool) []admin.Key {
	all := []admin.Key{}
	for _, held := range r.keys.of(keep) {
		all = append(all, r.keyInfo(held))
	}
	return all
}

// keyInfo is the key as the API shows it.
func (r *Relay) keyInfo(held *heldKey) admin.Key {
	k := admin.Key{
		ID: held.ID, Name: held.Name, Owner: held.Owner, Resources: held.Resources, Actions: held.Actions, Models: held.Models,
		Created: held.Created, Expires: held.Expires, State: "good",
	}
	if used := held.used.Load(); used > 0 {
		at := time.Unix(used, 0).UTC()
		k.LastUsed = &at
	}
	r.keys.mu.Lock()
	owner := r.keys.owners[held.Owner]
	asleep := owner != nil && r.now().Sub(owner.seen) > time.Duration(r.cfg.Keys.MaxUnseen)
	r.keys.mu.Unlock()
	switch {
	case held.ended.Load():
		k.State = "revoked"
	case !r.now().Before(held.Expires):
		k.State = "expired"
	case asleep:
		k.State = "asleep"
	}
	return k
}
