package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"iap/internal/admin"
	"iap/internal/state"
	"iap/internal/version"
)

// adminAPI is what administrators can have done, by whichever way they come: the
// gate before it has asked for their right and keeps the record.
type adminAPI struct {
	relay  *Relay
	caller string // for what is kept beside the record
}

// AdminStatus tells how the relay is.
func (a *adminAPI) AdminStatus(ctx context.Context) (admin.Status, error) {
	st := a.relay.status(func(*session) bool { return true })
	st.SessionCount = len(st.Sessions)
	st.Sessions = st.Sessions[:min(len(st.Sessions), defaultPage)]
	if a.relay.cfg.IsShared() {
		answers, silent := askPeers[admin.RelayState](ctx, a.relay, askState, nil)
		st.Relays, st.Silent = append(slices.Collect(maps.Values(answers)), a.relay.relayState()), silent
		slices.SortFunc(st.Relays, func(x, y admin.RelayState) int { return strings.Compare(x.Instance, y.Instance) })
	}
	return st, nil
}

// relayState is this relay as one of several.
func (r *Relay) relayState() admin.RelayState {
	one := admin.RelayState{
		Instance: r.cluster.Instance(), Version: version.String(), Started: r.started, PolicyRevision: r.policy.Revision(), Audit: "ok",
		RelayKey: keyID(r.ring.Public()), Agents: len(r.agents.sessionCounts()),
	}
	if err := r.audit.Healthy(); err != nil {
		one.Audit = err.Error()
	}
	for _, s := range r.sessions.all(live) {
		one.Streams += s.tunnel.NumStreams()
		if s.identity().agent == nil {
			one.Sessions++
		}
	}
	return one
}

// Agents lists those that are enrolled.
func (a *adminAPI) Agents(ctx context.Context) ([]admin.Agent, error) {
	records, err := list[agentRecord](ctx, a.relay.store, keyAgent)
	if err != nil {
		return nil, stateUnavailable(err)
	}
	all := make([]admin.Agent, 0, len(records))
	counts := a.relay.agents.sessionCounts()
	answers, silent := askPeers[map[string]int](ctx, a.relay, askAgents, nil)
	for _, theirs := range answers {
		for id, n := range theirs {
			counts[id] += n
		}
	}
	for _, r := range records {
		n := counts[r.ID]
		all = append(all, admin.Agent{
			ID: r.ID, Name: r.Name, Key: keyID(r.PublicKey), Enrolled: r.Enrolled, Revoked: r.Revoked,
			Online: n > 0, Sessions: n, Resources: r.Resources,
		})
		if n == 0 && r.Revoked == nil {
			all[len(all)-1].Silent = silent
		}
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
	err := a.relay.orOwe(ctx, keyAgent+id, func(ctx context.Context) error {
		_, err := update(ctx, a.relay.store, keyAgent+id, func(r *agentRecord) error {
			r.Revoked = &now
			return nil
		})
		return err
	})
	if errors.Is(err, state.ErrNotFound) {
		a.relay.owed.forgive(keyAgent + id)
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
