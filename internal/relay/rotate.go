package relay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"time"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/state"
	"iap/tunnel"
)

const (
	// rotateOverlap is how long an agent's replaced key still opens sessions: the
	// agent may have died between the relay's yes and its own last write, and has
	// other sessions to bring over.
	rotateOverlap = 2 * time.Minute
	// replaceWait is how long a session of the old key waits for its successor
	// before the next one is asked to leave: an agent dials anew within 250 ms.
	replaceWait = 5 * time.Second
	// replaceLook is between two looks whether its successor is there.
	replaceLook = 20 * time.Millisecond
	// replaceGrace is for requests that had chosen the session just before it was
	// asked to leave.
	replaceGrace = time.Second
	// replacedDrain is how long requests on a session of a replaced key may run.
	replacedDrain = 10 * time.Minute
	// askRotation is what an agent may take: less than an API client waits.
	askRotation = 12 * time.Second
)

// opensWith reports whether the key opens sessions of the agent.
func (a *agentRecord) opensWith(key []byte, now time.Time) bool {
	return bytes.Equal(a.PublicKey, key) || len(a.Previous) > 0 && bytes.Equal(a.Previous, key) && now.Before(a.PreviousUntil)
}

var errRotated = errors.New("this is the agent's key already")

// rotateAgent stores the next key of the agent at the other end of t; the tunnel
// has verified that the old key named it and that the new one is at hand. It is
// recorded before it is stored: what has no record does not exist. The same call
// again is answered as the first was, for its answer may have been lost.
func (r *Relay) rotateAgent(ctx context.Context, t *tunnel.Session, next ed25519.PublicKey) error {
	id, ok := t.Peer().Token.(*identity)
	if !ok || id.agent == nil {
		return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: "only agents rotate keys here"}
	}
	old := t.PublicKey()
	now := r.now().UTC()
	record, _, err := load[agentRecord](ctx, r.store, keyAgent+id.agent.ID)
	if err != nil {
		return stateRefusal(err)
	}
	err = mayRotate(&record, old, next, now)
	e := audit.Event{
		Kind: audit.KindAgent, Agent: record.ID, Session: t.ID(), Decision: audit.Allow, Reason: "key_rotated",
		Detail: map[string]string{"key": keyID(next), "old_key": keyID(old)},
	}
	switch {
	case errors.Is(err, errRotated):
		return nil
	case err != nil:
		return r.rotationDenied(ctx, e, err)
	}
	if r.audit.Record(ctx, e) != nil {
		return &tunnel.Refusal{Code: tunnel.CodeAuditUnavailable, Message: "the relay cannot write its audit log and takes no new key until it can"}
	}
	_, err = update(ctx, r.store, keyAgent+record.ID, func(a *agentRecord) error {
		if err := mayRotate(a, old, next, now); err != nil { // somebody was faster
			return err
		}
		a.Previous, a.PreviousUntil = a.PublicKey, now.Add(rotateOverlap)
		a.PublicKey, a.Rotated = next, &now
		return nil
	})
	var refused *tunnel.Refusal
	switch {
	case errors.Is(err, errRotated):
		return nil
	case errors.As(err, &refused):
		return r.rotationDenied(ctx, e, err)
	case err != nil:
		return r.rotationDenied(ctx, e, stateRefusal(err))
	}
	r.log.Info("agent rotated its key", "agent", record.ID, "key", keyID(next), "old_key", keyID(old), "old_until", now.Add(rotateOverlap))
	if !r.cfg.IsShared() { // else every relay, this one too, hears of it from the state
		r.spawn(func() { r.replaceSessions(r.ctx, record.ID, next) })
	}
	return nil
}

// rotationDenied records why a key was not taken, also after it was to be.
func (r *Relay) rotationDenied(ctx context.Context, e audit.Event, err error) error {
	e.Decision, e.Reason, e.Message = audit.Deny, "key_rotation_refused", err.Error()
	if recordErr := r.audit.Denied(ctx, e); recordErr != nil {
		r.log.Error("record refused key rotation", "error", recordErr)
	}
	return err
}

// mayRotate judges a rotation: only the agent's current key names a next one,
// and not twice within an overlap, in which a key would be lost that still opens
// sessions.
func mayRotate(a *agentRecord, old, next []byte, now time.Time) error {
	switch {
	case a.Revoked != nil:
		return &tunnel.Refusal{Code: tunnel.CodeRevoked, Message: "this agent is not enrolled here; join again with a new token"}
	case bytes.Equal(a.PublicKey, next) && bytes.Equal(a.Previous, old):
		return errRotated
	case !bytes.Equal(a.PublicKey, old):
		return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: "this key was replaced already: another process has rotated it"}
	case now.Before(a.PreviousUntil):
		return &tunnel.Refusal{Code: tunnel.CodeOverloaded, Message: fmt.Sprintf("the key was rotated a moment ago; again from %s on", a.PreviousUntil.Format(time.TimeOnly))}
	}
	return nil
}

// replaceSessions has the agent bring its sessions over to its new key, one after
// the other, so that there is always one to open streams on; and again when the
// overlap is over. What runs goes on.
func (r *Relay) replaceSessions(ctx context.Context, agent string, key ed25519.PublicKey) {
	if !sleep(ctx, replaceGrace) { // the agent still has to put the key in use, and to answer who asked for it
		return
	}
	for _, l := range r.agents.openedOtherwise(agent, key) {
		r.replace(ctx, l)
		r.awaitReplaced(ctx, l, key)
	}
	if !sleep(ctx, rotateOverlap) {
		return
	}
	for _, l := range r.agents.openedOtherwise(agent, key) {
		r.replace(ctx, l)
	}
}

// awaitReplaced waits until a session of the new key offers what l did.
func (r *Relay) awaitReplaced(ctx context.Context, l *link, key ed25519.PublicKey) {
	ctx, cancel := context.WithTimeout(ctx, replaceWait)
	defer cancel()
	for !r.agents.replaced(l, key) && sleep(ctx, replaceLook) {
	}
}

// replace asks for no more streams on a session and closes it when those that run
// are over.
func (r *Relay) replace(ctx context.Context, l *link) {
	if l.replaced.Swap(true) { // whether the agent has said that it leaves counts for nothing
		return
	}
	_ = l.session.GoAway("the key of this session was replaced") // a session that cannot be told is about to end
	r.spawn(func() {
		waiting, cancel := context.WithTimeout(ctx, replacedDrain)
		defer cancel()
		sleep(waiting, replaceGrace)
		l.coolDown(0)
		_ = l.session.DrainWait(waiting) // it closes either way
		_ = l.session.Close(tunnel.CodeRelayShutdown, "the key of this session was replaced")
	})
}

// replaceAfter does so once the overlap is over, for a session that a replaced key
// has opened.
func (r *Relay) replaceAfter(ctx context.Context, l *link, until time.Time) {
	if sleep(ctx, until.Sub(r.now())) {
		r.replace(r.ctx, l)
	}
}

// sleep waits, and reports whether it was not cut short.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// openedOtherwise lists the agent's live sessions that another key than its
// current one has opened.
func (a *agents) openedOtherwise(agent string, key ed25519.PublicKey) []*link {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*link
	for _, l := range a.links {
		if l.agent.ID == agent && !key.Equal(l.session.PublicKey()) {
			all = append(all, l)
		}
	}
	return all
}

// replaced reports whether another session of the agent and the class, which the
// key has opened, has announced something.
func (a *agents) replaced(old *link, key ed25519.PublicKey) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		if l.agent.ID == old.agent.ID && l.session.Class() == old.session.Class() && key.Equal(l.session.PublicKey()) && len(l.session.Announced()) > 0 {
			return true
		}
	}
	return false
}

// wasReplaced reports whether a session is one of a replaced key that was told to
// leave: whoever holds it speaks for the agent no longer.
func (a *agents) wasReplaced(session string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.links[session]
	return l != nil && l.replaced.Load()
}

// current picks a live session of the agent that its current key has opened: one
// that serves, where there is one, and not that of a check.
func (a *agents) current(agent string, key ed25519.PublicKey) (found *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		if l.agent.ID != agent || !key.Equal(l.session.PublicKey()) || l.session.Err() != nil || l.session.Draining() {
			continue
		}
		if len(l.session.Announced()) > 0 {
			return l
		}
		found = l
	}
	return found
}

// RotateAgent has a live agent make itself a new key.
func (a *adminAPI) RotateAgent(ctx context.Context, q admin.ByID) (admin.AgentRotation, error) {
	r, id := a.relay, q.ID
	var none admin.AgentRotation
	record, _, err := load[agentRecord](ctx, r.store, keyAgent+id)
	if err != nil || record.Revoked != nil {
		return none, noAgent(id, err)
	}
	link := r.agents.current(id, record.PublicKey)
	if link == nil {
		return none, &admin.Error{
			Status: http.StatusConflict, Code: tunnel.CodeAgentOffline.String(), Message: fmt.Sprintf("agent %s is not connected", id),
			Hint: "start it and try again, or run iap-agent rotate on its machine",
		}
	}
	asking, cancel := context.WithTimeout(ctx, askRotation)
	defer cancel()
	before := record.PublicKey
	askErr := link.session.AskRotation(asking)
	if record, _, err = load[agentRecord](ctx, r.store, keyAgent+id); err != nil {
		return none, stateUnavailable(err)
	}
	if askErr != nil && bytes.Equal(record.PublicKey, before) { // else it was done, and only the word of it was lost
		return none, rotationRefused(id, askErr)
	}
	return admin.AgentRotation{Agent: id, Key: keyID(record.PublicKey), OldKey: keyID(record.Previous), OldUntil: record.PreviousUntil}, nil
}

// noAgent says why there is nobody to ask.
func noAgent(id string, err error) error {
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return stateUnavailable(err)
	}
	return &admin.Error{Status: http.StatusNotFound, Code: "unknown_agent", Message: fmt.Sprintf("no agent %q is enrolled", id), Hint: "iapctl agents ls"}
}

func rotationRefused(id string, err error) error {
	refused := &admin.Error{Status: http.StatusConflict, Code: "rotation_refused", Message: fmt.Sprintf("agent %s did not rotate its key", id), Hint: "the agent's log says why"}
	var said *tunnel.Refusal
	switch {
	case errors.As(err, &said) && said.Message != "":
		refused.Message += ": " + said.Message
	case errors.Is(err, context.DeadlineExceeded):
		refused.Status, refused.Code = http.StatusGatewayTimeout, "agent_silent"
		refused.Message, refused.Hint = fmt.Sprintf("agent %s did not answer; its version may know no rotation", id), "upgrade it; or revoke it and enrol it anew"
	}
	return refused
}
