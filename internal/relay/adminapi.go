package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"iap/internal/admin"
	"iap/internal/state"
)

// adminAPI is what administrators can have done, by whichever way they come: the
// gate before it has asked for their right and keeps the record.
type adminAPI struct {
	relay  *Relay
	caller string // for what is kept beside the record
}

// AdminStatus tells how the relay is.
func (a *adminAPI) AdminStatus(context.Context) (admin.Status, error) {
	st := a.relay.status(func(*session) bool { return true })
	st.SessionCount = len(st.Sessions)
	st.Sessions = st.Sessions[:min(len(st.Sessions), defaultPage)]
	return st, nil
}

// Agents lists those that are enrolled.
func (a *adminAPI) Agents(ctx context.Context) ([]admin.Agent, error) {
	records, err := list[agentRecord](ctx, a.relay.store, keyAgent)
	if err != nil {
		return nil, stateUnavailable(err)
	}
	all := make([]admin.Agent, 0, len(records))
	for _, r := range records {
		n := a.relay.agents.sessionsOf(r.ID)
		all = append(all, admin.Agent{
			ID: r.ID, Name: r.Name, Key: keyID(r.PublicKey), Enrolled: r.Enrolled, Revoked: r.Revoked,
			Online: n > 0, Sessions: n, Resources: r.Resources,
		})
	}
	return all, nil
}

// agentID is the form of an agent's id. What is refused in memory are also keys,
// tokens and principals: whoever may revoke agents must not name one of those.
var agentID = regexp.MustCompile(`\Aagent-[0-9a-f]{1,64}\z`)

// RevokeAgent refuses the agent's key and cuts its sessions.
func (a *adminAPI) RevokeAgent(ctx context.Context, q admin.ByID) (admin.Ended, error) {
	id := q.ID
	unknown := &admin.Error{Status: http.StatusNotFound, Code: "unknown_agent", Message: fmt.Sprintf("no agent %q is enrolled", id), Hint: "iapctl agents ls"}
	if !agentID.MatchString(id) {
		return admin.Ended{}, unknown
	}
	ended := stillRunning(a.relay.sessions.all(ofAgent(id)))
	a.relay.refused.add(id) // first in memory: it takes rights away even with disk and state gone
	a.relay.agents.revoked(id)
	now := a.relay.now().UTC()
	_, err := update(ctx, a.relay.store, keyAgent+id, func(r *agentRecord) error {
		r.Revoked = &now
		return nil
	})
	if errors.Is(err, state.ErrNotFound) {
		return admin.Ended{}, unknown
	}
	return ended, stateFailed(err)
}

// ReloadPolicy reads the policy's files again.
func (a *adminAPI) ReloadPolicy(ctx context.Context) (admin.PolicyReloaded, error) {
	if err := a.relay.reloadPolicy(ctx, a.caller); err != nil {
		return admin.PolicyReloaded{}, &admin.Error{Status: http.StatusUnprocessableEntity, Code: "policy_broken", Message: err.Error(), Hint: "the policy loaded before stays in force"}
	}
	return admin.PolicyReloaded{Revision: a.relay.policy.Revision()}, nil
}

// stateFailed is stateUnavailable where there is an error.
func stateFailed(err error) error {
	if err == nil {
		return nil
	}
	return stateUnavailable(err)
}
