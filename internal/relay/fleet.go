package relay

import (
	"math/rand/v2"
	"slices"

	"iap/internal/fleet"
	"iap/internal/modelapi"
	"iap/tunnel"
)

// offered is what the agents of a resource offer together, kept for as long as
// they say the same: every request asks for it.
type offered struct {
	offers   []fleet.Offer
	all      tunnel.Announcement
	problems []string
}

// online tells how many agents serve the resource now, and what they offer
// together.
func (a *agents) online(name string) (int, tunnel.Announcement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j := a.joinLocked(name)
	return len(j.offers), j.all
}

// joinLocked is what the agents of a resource that are online offer together.
func (a *agents) joinLocked(name string) offered {
	r := a.resources[name]
	if r == nil {
		return offered{}
	}
	offers := make([]fleet.Offer, 0, len(r.members))
	for _, m := range r.members {
		if offer := m.offerLocked(name); offer != nil {
			offers = append(offers, fleet.Offer{Agent: m.record.ID, Announcement: offer})
		}
	}
	if slices.Equal(offers, r.joined.offers) { // the same announcements, not just equal ones
		return r.joined
	}
	before := r.joined.problems
	r.joined.offers = offers
	r.joined.all, r.joined.problems = fleet.Join(offers)
	for _, problem := range r.joined.problems {
		if !slices.Contains(before, problem) {
			a.log.Warn("the agents of a resource contradict each other", "resource", name, "problem", problem)
		}
	}
	return r.joined
}

// offerLocked is what the agent says of the resource; nil if it is not online or
// does not serve it. Of two sessions one may not have heard the latest.
func (m *member) offerLocked(name string) *tunnel.Announcement {
	var found *tunnel.Announcement
	for _, l := range m.links {
		if one := l.serves(name); one != nil && (found == nil || one.Healthy && !found.Healthy) {
			found = one
		}
	}
	return found
}

// want is what is asked of an agent.
type want struct {
	resource string
	class    tunnel.Class
	agent    string             // no other will do; "" any
	server   string             // kind model: how the request was read
	only     string             // kind model: and with which only model
	request  *modelapi.Class    // kind model
	avoid    func(l *link) bool // it has been tried
}

// chosen is the session of the agent that was chosen. The request is counted
// from now on, until leave.
type chosen struct {
	*link
	load   *fleet.Load
	ticket fleet.Ticket
}

func (c *chosen) leave() { c.load.End(c.ticket) }

// choose returns the session on which the request goes to the agent that should
// serve it; nil if none is there that can. others says whether the resource has
// agents online.
func (a *agents) choose(w want) (_ *chosen, others bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.resources[w.resource]
	if r == nil {
		return nil, false
	}
	var links []*link
	var all []fleet.Candidate
	for _, m := range r.members {
		if w.agent != "" && m.record.ID != w.agent {
			continue
		}
		l, announced := m.linkLocked(w)
		if l == nil {
			continue
		}
		others = true
		c := fleet.Candidate{Agent: m.record.ID, Healthy: announced.Healthy, Load: m.loads[w.resource].Now(), Capacity: announced.Capacity}
		if w.request != nil {
			var fits bool
			if fits, c.Models = fleet.Fits(announced, w.server, w.only, w.request); !fits {
				continue
			}
		}
		links, all = append(links, l), append(all, c)
	}
	i := fleet.Choose(all, rand.N[int])
	if i < 0 {
		return nil, others
	}
	load := a.members[all[i].Agent].loads[w.resource]
	return &chosen{link: links[i], load: load, ticket: load.Begin()}, true
}

// linkLocked is the session of the agent to use: of the class asked for, where
// there is one, and the least busy of those.
func (m *member) linkLocked(w want) (*link, *tunnel.Announcement) {
	var best *link
	var offer *tunnel.Announcement
	for _, l := range m.links {
		one := l.serves(w.resource)
		if one == nil || l.session.Draining() || w.avoid != nil && w.avoid(l) {
			continue
		}
		fitting := l.session.Class() == w.class
		switch {
		case best == nil, fitting && best.session.Class() != w.class:
			best, offer = l, one
		case fitting == (best.session.Class() == w.class) && l.busy() < best.busy():
			best, offer = l, one
		}
	}
	return best, offer
}

// heard notes what an agent says of the health of its resources.
func (a *agents) heard(agent string, list []tunnel.Announcement) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.members[agent]
	if m == nil {
		return
	}
	for _, one := range list {
		if h, known := m.health[one.Resource]; !known || h.healthy != one.Healthy || h.reason != one.Reason {
			m.health[one.Resource] = health{one.Healthy, one.Reason, a.now()}
		}
	}
}

// loaded notes how busy an agent says it is. What it says of resources that are
// not its own is passed over.
func (a *agents) loaded(agent string, list []tunnel.Load) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m := a.members[agent]
	if m == nil {
		return
	}
	for _, one := range list {
		if load := m.loads[one.Resource]; load != nil {
			load.Report(one.Running, one.Queued)
		}
	}
}
