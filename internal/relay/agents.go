package relay

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"iap/internal/admin"
	"iap/internal/fleet"
	"iap/internal/modelapi"
	"iap/tunnel"
)

const (
	// maxAliases of one resource, of maxAlias bytes, is more than people remember.
	maxAliases = 256
	maxAlias   = 256
	// maxModels and maxCapacity of one announcement: an agent's own bounds are
	// below.
	maxModels   = 1024
	maxCapacity = 1 << 20
)

// agents knows which live agent sessions serve which resource.
type agents struct {
	log *slog.Logger
	now func() time.Time

	mu        sync.Mutex
	resources map[string]*resource // guarded by mu; known from enrolment, online or not
	members   map[string]*member   // guarded by mu; by agent id
	links     map[string]*link     // guarded by mu; by session id
}

// resource is a named upstream and who may serve it. Guarded by the lock of
// agents.
type resource struct {
	admin.JoinResource
	members []*member // the agents enrolled for it
	joined  offered   // what they offer together
}

// member is an enrolled agent, online or not. Guarded by the lock of agents.
type member struct {
	record *agentRecord
	links  []*link                // its live sessions
	loads  map[string]*fleet.Load // by resource
	health map[string]health      // by resource, as it said last
	seen   time.Time              // when it was online last; zero: not since this relay's start
	system string                 // its software
}

// health is what an agent says of a resource, and since when it has said so.
type health struct {
	healthy bool
	reason  string
	since   time.Time
}

func newAgents(log *slog.Logger, now func() time.Time) *agents {
	return &agents{log: log, now: now, resources: map[string]*resource{}, members: map[string]*member{}, links: map[string]*link{}}
}

func newMember(record *agentRecord) *member {
	m := &member{record: record, loads: map[string]*fleet.Load{}, health: map[string]health{}}
	for _, r := range record.Resources {
		m.loads[r.Name] = &fleet.Load{}
	}
	return m
}

// enrolled makes the resources of an agent known.
func (a *agents) enrolled(record *agentRecord) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.members[record.ID]
	if m == nil {
		m = newMember(record)
		a.members[record.ID] = m
	}
	m.record = record // it may have another key by now
	for _, r := range record.Resources {
		known := a.resources[r.Name]
		if known == nil {
			known = &resource{JoinResource: r}
			a.resources[r.Name] = known
		}
		if !slices.Contains(known.members, m) {
			known.members = append(known.members, m)
		}
	}
}

// knows reports whether the agent's enrolment is known.
func (a *agents) knows(id string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.members[id] != nil
}

// revoked forgets what the agent was enrolled for and cuts its sessions.
func (a *agents) revoked(id string) {
	a.mu.Lock()
	var cut []*tunnel.Session
	delete(a.members, id)
	for name, r := range a.resources {
		r.members = slices.DeleteFunc(r.members, func(m *member) bool { return m.record.ID == id })
		if len(r.members) == 0 {
			delete(a.resources, name)
		}
	}
	for _, l := range a.links {
		if l.agent.ID == id {
			cut = append(cut, l.session)
		}
	}
	a.mu.Unlock()
	for _, s := range cut {
		_ = s.Close(tunnel.CodeRevoked, "this agent was revoked") // bounded; the session is gone either way
	}
}

// taken finds an agent that is enrolled for the name, and as what: two agents of
// one name must be alike.
func (a *agents) taken(r admin.JoinResource) (agent string, as admin.JoinResource) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.resources[r.Name]
	if known == nil {
		return "", as
	}
	for _, m := range known.members {
		agent = m.record.ID
	}
	return agent, admin.JoinResource{Name: r.Name, Kind: known.Kind, Labels: maps.Clone(known.Labels)}
}

// add enters a session that serves from now on; remove takes it out. Both are
// serveAgent's alone, so that no entry outlives its session.
func (a *agents) add(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.links[l.session.ID()] = l
	if m := a.members[l.agent.ID]; m != nil { // else it was revoked, and its session is about to end
		m.links = append(m.links, l)
		m.system = l.session.Hello().Software
	}
}

func (a *agents) remove(l *link) {
	a.mu.Lock()
	delete(a.links, l.session.ID())
	if m := a.members[l.agent.ID]; m != nil {
		m.links = slices.DeleteFunc(m.links, func(one *link) bool { return one == l })
		m.seen = a.now()
	}
	a.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.warm = nil // the session's end has aborted them
}

// checkAnnouncement refuses a list that names anything but what the agent is
// enrolled for.
func checkAnnouncement(agent *agentRecord, list []tunnel.Announcement) error {
	for _, one := range list {
		if !slices.ContainsFunc(agent.Resources, func(r admin.JoinResource) bool { return r.Name == one.Resource && r.Kind == one.Kind }) {
			return &tunnel.Refusal{Code: tunnel.CodeNotAnnounced, Message: fmt.Sprintf("this agent is not enrolled for resource %q of kind %q", one.Resource, one.Kind)}
		}
		if one.Capacity < 0 || one.Capacity > maxCapacity || len(one.Models) > maxModels || len(one.Reason) > maxAlias || modelapi.HasControl(one.Reason+one.Server) {
			return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: fmt.Sprintf("resource %q is announced with figures or names that no agent of ours says", one.Resource)}
		}
		if len(one.Aliases) > maxAliases {
			return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: fmt.Sprintf("resource %q has more than %d aliases", one.Resource, maxAliases)}
		}
		for alias, model := range one.Aliases {
			if alias == "" || model == "" || len(alias) > maxAlias || modelapi.HasControl(alias+model) {
				return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: fmt.Sprintf("resource %q has an alias that is no name", one.Resource)}
			}
		}
	}
	return nil
}

// find returns the resource as it was enrolled.
func (a *agents) find(name string) (admin.JoinResource, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.resources[name]
	if r == nil {
		return admin.JoinResource{}, false
	}
	return r.JoinResource, true
}

// names lists every resource in order.
func (a *agents) names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.resources))
}

// sessionCounts counts them for every agent that has any.
func (a *agents) sessionCounts() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]int{}
	for _, l := range a.links {
		all[l.agent.ID]++
	}
	return all
}

// sessionsOf counts the live sessions of an agent.
func (a *agents) sessionsOf(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, l := range a.links {
		if l.agent.ID == id {
			n++
		}
	}
	return n
}
