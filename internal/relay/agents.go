package relay

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"iap/internal/admin"
	"iap/internal/modelapi"
	"iap/tunnel"
)

const (
	// maxWarm bounds the idle streams kept to one agent session: a burst of
	// requests finds one each, and they stay far below the session's cap, which
	// tcp streams need as well.
	maxWarm = 64
	// warmLife is how long one is kept idle.
	warmLife = 30 * time.Second
	// maxAliases of one resource, of maxAlias bytes, is more than people remember.
	maxAliases = 256
	maxAlias   = 256
)

// agents knows which live agent sessions serve which resource.
type agents struct {
	mu        sync.Mutex
	resources map[string]*resource // guarded by mu; known from enrolment, online or not
	links     map[string]*link     // guarded by mu; by session id
}

// resource is a named upstream and who may serve it.
type resource struct {
	admin.JoinResource
	agents map[string]bool // ids of the agents enrolled for it
}

// link is one session of an agent.
type link struct {
	session *tunnel.Session
	agent   *agentRecord

	mu   sync.Mutex
	warm []warmStream // guarded by mu; the most recently used last
}

func newAgents() *agents {
	return &agents{resources: map[string]*resource{}, links: map[string]*link{}}
}

// enrolled makes the resources of an agent known.
func (a *agents) enrolled(record *agentRecord) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, r := range record.Resources {
		known := a.resources[r.Name]
		if known == nil {
			known = &resource{JoinResource: r, agents: map[string]bool{}}
			a.resources[r.Name] = known
		}
		known.agents[record.ID] = true
	}
}

// revoked forgets what the agent was enrolled for and cuts its sessions.
func (a *agents) revoked(id string) {
	a.mu.Lock()
	var cut []*tunnel.Session
	for name, r := range a.resources {
		if delete(r.agents, id); len(r.agents) == 0 {
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

// taken reports whether another agent is enrolled for the name, or the name
// for another kind or with other labels: two agents of one name must be alike.
func (a *agents) taken(r admin.JoinResource) (agent string, differs bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known := a.resources[r.Name]
	if known == nil {
		return "", false
	}
	for id := range known.agents {
		agent = id
	}
	return agent, known.Kind != r.Kind || !maps.Equal(known.Labels, r.Labels)
}

// add enters a session that serves from now on; remove takes it out. Both are
// serveAgent's alone, so that no entry outlives its session.
func (a *agents) add(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.links[l.session.ID()] = l
}

func (a *agents) remove(l *link) {
	a.mu.Lock()
	delete(a.links, l.session.ID())
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

// pick returns the least busy live session that serves the resource: with its
// upstream up, and of the class asked for, where there is one. If an agent is
// named, no other will do.
func (a *agents) pick(name string, class tunnel.Class, agent string) *link {
	a.mu.Lock()
	defer a.mu.Unlock()
	var best *link
	bestScore := 0
	for _, l := range a.links {
		announced, serves := l.serves(name)
		if !serves || l.session.Draining() || agent != "" && l.agent.ID != agent {
			continue
		}
		score := l.busy()
		if !announced.Healthy { // it would fail fastest, and so always look least busy
			score += 1 << 31
		}
		if l.session.Class() != class {
			score += 1 << 30 // better than nothing
		}
		if best == nil || score < bestScore || score == bestScore && rand.N(2) == 0 {
			best, bestScore = l, score
		}
	}
	return best
}

// online tells how many agents serve the resource now, and what one of them
// announced. A healthy announcement is preferred; of several, the one of the
// agent that sorts first, so that each request is read the same way.
func (a *agents) online(name string) (int, tunnel.Announcement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	ids := map[string]bool{}
	var found tunnel.Announcement
	var by string
	for _, l := range a.links {
		one, ok := l.serves(name)
		if !ok {
			continue
		}
		if len(ids) == 0 || one.Healthy && !found.Healthy || one.Healthy == found.Healthy && l.agent.ID < by {
			found, by = one, l.agent.ID
		}
		ids[l.agent.ID] = true
	}
	return len(ids), found
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

// serves returns what the session announced of the resource. A session that has
// ended serves nothing.
func (l *link) serves(name string) (tunnel.Announcement, bool) {
	if l.session.Err() != nil {
		return tunnel.Announcement{}, false
	}
	list := l.session.Announced()
	i := slices.IndexFunc(list, func(a tunnel.Announcement) bool { return a.Resource == name })
	if i < 0 {
		return tunnel.Announcement{}, false
	}
	return list[i], true
}

// takeWarm returns an idle stream that is still good, or nil.
func (l *link) takeWarm() *tunnel.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.warm) > 0 {
		last := len(l.warm) - 1
		st := l.warm[last].stream
		l.warm[last] = warmStream{}
		l.warm = l.warm[:last]
		select {
		case <-st.Done():
		default:
			return st
		}
	}
	return nil
}

// keepWarm puts back a stream whose last request is complete in both
// directions.
func (l *link) keepWarm(st *tunnel.Stream) {
	l.mu.Lock()
	if len(l.warm) < maxWarm && !l.session.Draining() {
		l.warm = append(l.warm, warmStream{st, time.Now()})
		l.mu.Unlock()
		l.coolDown(warmLife)
		return
	}
	l.mu.Unlock()
	st.Abort(tunnel.CodeNone)
}

// warmStream is an idle stream and since when it is.
type warmStream struct {
	stream *tunnel.Stream
	since  time.Time
}

// coolDown ends the streams that have been idle for longer than life.
func (l *link) coolDown(life time.Duration) {
	before := time.Now().Add(-life)
	l.mu.Lock()
	n := 0
	for n < len(l.warm) && !l.warm[n].since.After(before) {
		n++
	}
	old := slices.Clone(l.warm[:n])
	l.warm = slices.Delete(l.warm, 0, n)
	l.mu.Unlock()
	for _, w := range old {
		w.stream.Abort(tunnel.CodeNone)
	}
}

// busy counts the streams that carry something.
func (l *link) busy() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session.NumStreams() - len(l.warm)
}
