package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"iap/internal/admin"
	"iap/internal/state"
)

// adminAPI is what administrators can have done, by whichever way they come: the
// gate before it has asked for their right and keeps the record.
type adminAPI struct {
	relay  *Relay
	caller string // for what is kept beside the record
}

func (a *adminAPI) AdminStatus(context.Context) (admin.Status, error) {
	return a.relay.status(func(*session) bool { return true }), nil
}

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

func (a *adminAPI) CreateJoinToken(ctx context.Context, q admin.NewJoinToken) (admin.JoinTokenCreated, error) {
	return a.relay.createJoinToken(ctx, q)
}

func (a *adminAPI) RevokeAgent(ctx context.Context, q admin.ByID) (admin.Ended, error) {
	id := q.ID
	ended := stillRunning(a.relay.sessions.all(ofAgent(id)))
	a.relay.refused.add(id) // first in memory: it takes rights away even with disk and state gone
	a.relay.agents.revoked(id)
	now := a.relay.now().UTC()
	_, err := update(ctx, a.relay.store, keyAgent+id, func(r *agentRecord) error {
		r.Revoked = &now
		return nil
	})
	if errors.Is(err, state.ErrNotFound) {
		return admin.Ended{}, &admin.Error{Status: http.StatusNotFound, Code: "unknown_agent", Message: fmt.Sprintf("no agent %q is enrolled", id), Hint: "iapctl agents ls"}
	}
	return ended, stateFailed(err)
}

// RevokePrincipal takes a principal as whoami prints it, issuer/subject. It need
// not have been seen yet.
func (a *adminAPI) RevokePrincipal(ctx context.Context, q admin.PrincipalAct) (admin.Ended, error) {
	if !a.relay.isPrincipal(q.ID) {
		return admin.Ended{}, badRequest(fmt.Sprintf("principal %q is not of the form ISSUER/SUBJECT with an issuer of relay.yaml", q.ID))
	}
	ended := stillRunning(a.relay.sessions.all(ofPrincipal(q.ID)))
	ended.Keys = len(a.relay.keys.of(func(k *programKey) bool { return k.Owner == q.ID }))
	return ended, stateFailed(a.relay.revokePrincipal(ctx, q.ID))
}

// RestorePrincipal takes that back.
func (a *adminAPI) RestorePrincipal(ctx context.Context, q admin.PrincipalAct) (admin.Done, error) {
	err := a.relay.restorePrincipal(ctx, q.ID)
	if errors.Is(err, state.ErrNotFound) {
		return admin.Done{}, &admin.Error{Status: http.StatusNotFound, Code: "unknown_principal", Message: fmt.Sprintf("%q is not revoked", q.ID)}
	}
	return admin.Done{}, stateFailed(err)
}

// ReloadPolicy reads the policy's files again.
func (a *adminAPI) ReloadPolicy(ctx context.Context) (admin.PolicyReloaded, error) {
	if err := a.relay.reloadPolicy(ctx); err != nil {
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

// Sessions lists live sessions.
func (a *adminAPI) Sessions(_ context.Context, q admin.SessionQuestion) (admin.SessionList, error) {
	list := admin.SessionList{Sessions: []admin.SessionInfo{}}
	for _, s := range a.relay.sessions.all(func(*session) bool { return true }) {
		list.Sessions = append(list.Sessions, s.info())
	}
	return list, nil
}

// AdminResources lists every resource.
func (a *adminAPI) AdminResources(context.Context) (admin.ResourceStates, error) {
	list := admin.ResourceStates{Resources: []admin.ResourceState{}}
	for _, name := range a.relay.agents.names() {
		res, known := a.relay.agents.find(name)
		if !known {
			continue
		}
		n, announced := a.relay.agents.online(name)
		list.Resources = append(list.Resources, admin.ResourceState{
			Name: name, Kind: res.Kind, Labels: res.Labels, Server: announced.Server, Online: n > 0 && announced.Healthy, Agents: n, Models: announced.Models,
		})
	}
	return list, nil
}
