package relay

import (
	"context"
	"slices"
	"time"

	"iap/internal/admin"
	"iap/tunnel"
)

// How the agents of a resource are, together.
const (
	healthOK       = "ok"
	healthDegraded = "degraded" // some are not fit, and others are
	healthDown     = "down"     // some are there, and none is fit
	healthOffline  = "offline"
)

// AdminResources lists every resource with each of its agents.
func (a *adminAPI) AdminResources(ctx context.Context) (admin.ResourceStates, error) {
	list := a.localResources()
	answers, silent := askPeers[admin.ResourceStates](ctx, a.relay, askResources, nil)
	list.Silent = silent
	for _, other := range answers {
		for _, theirs := range other.Resources {
			i := slices.IndexFunc(list.Resources, func(one admin.ResourceState) bool { return one.Name == theirs.Name })
			if i >= 0 {
				joinAgents(&list.Resources[i], theirs)
			}
		}
	}
	return list, nil
}

// localResources is what this relay knows of them.
func (a *adminAPI) localResources() admin.ResourceStates {
	list := admin.ResourceStates{Resources: []admin.ResourceState{}}
	for _, name := range a.relay.agents.names() {
		if one, known := a.relay.agents.state(name); known {
			list.Resources = append(list.Resources, one)
		}
	}
	return list
}

// state is a resource with each of its agents.
func (a *agents) state(name string) (admin.ResourceState, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.resources[name]
	if r == nil {
		return admin.ResourceState{}, false
	}
	j := a.joinLocked(name)
	one := admin.ResourceState{
		Name: name, Kind: r.Kind, Labels: r.Labels, Server: j.all.Server, Online: len(j.offers) > 0 && j.all.Healthy, Agents: len(j.offers),
		Models: j.all.Models, Aliases: j.all.Aliases, Problems: j.problems, ServedBy: []admin.ServingAgent{},
	}
	for _, m := range r.members {
		one.ServedBy = append(one.ServedBy, m.servingLocked(name, a.now()))
	}
	one.Health, one.Load = together(one.ServedBy)
	one.Capacity = j.all.Capacity
	return one, true
}

// servingLocked is what is known of the agent as one that serves a resource.
func (m *member) servingLocked(name string, now time.Time) admin.ServingAgent {
	one := admin.ServingAgent{ID: m.record.ID, Name: m.record.Name, Software: m.system}
	if seen := m.seen.UTC(); !m.seen.IsZero() {
		one.LastSeen = &seen
	}
	offer := m.offerLocked(name)
	if len(m.links) > 0 {
		now = now.UTC()
		one.LastSeen = &now
	}
	if offer == nil { // offline, or it has stopped to announce it
		return one
	}
	one.Online, one.Healthy, one.Reason, one.Server, one.Models = true, offer.Healthy, offer.Reason, offer.Server, offer.Models
	one.Running, one.Queued = m.loads[name].Reported()
	one.Capacity = offer.Capacity
	if h := m.health[name]; !h.since.IsZero() {
		since := h.since.UTC()
		one.Since = &since
	}
	return one
}

// together is the health and the load of several agents.
func together(all []admin.ServingAgent) (string, admin.Load) {
	var load admin.Load
	online, fit := 0, 0
	for _, one := range all {
		load.Running += one.Running
		load.Queued += one.Queued
		if one.Online {
			online++
		}
		if one.Healthy {
			fit++
		}
	}
	switch {
	case online == 0:
		return healthOffline, load
	case fit == 0:
		return healthDown, load
	case fit < len(all): // one that is away is missed too
		return healthDegraded, load
	}
	return healthOK, load
}

// showHealth adds to a resource, as a principal may see it, how it is and how
// busy: figures, and nothing of who makes it so.
func (a *agents) showHealth(one *admin.Resource, announced tunnel.Announcement) {
	state, known := a.state(one.Name)
	if !known {
		return
	}
	one.Health = state.Health
	if one.Agents > 0 {
		one.Load = &admin.Load{Running: state.Running, Queued: state.Queued, Capacity: announced.Capacity}
	}
}
