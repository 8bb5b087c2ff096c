package relay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"iap/internal/admin"
)

// What relays that share a state ask each other. Each answers for itself alone.
const (
	askSessions  = "sessions"  // admin.SessionQuestion → admin.SessionList
	askKill      = "kill"      // session id → admin.Ended
	askKillAll   = "kill-all"  // admin.KillQuestion → admin.Ended
	askResources = "resources" // → admin.ResourceStates
	askAgents    = "agents"    // → map of agent ids to their sessions
	askState     = "state"     // → admin.RelayState
	askPeople    = "people"    // → admin.PrincipalList: who has sessions
	peerPage     = 400         // sessions of one answer: it must fit into one item of the state
)

// answerPeer answers another relay.
func (r *Relay) answerPeer(ctx context.Context, kind string, question json.RawMessage) (any, error) {
	a := &adminAPI{relay: r}
	switch kind {
	case askSessions:
		return answerTo(question, func(q admin.SessionQuestion) (any, error) { return a.localSessions(q) })
	case askKill:
		return answerTo(question, func(id string) (any, error) {
			ended, err := r.killSession(ctx, id)
			if isCode(err, "unknown_session") {
				return admin.Ended{}, nil
			}
			return ended, err
		})
	case askKillAll:
		return answerTo(question, func(q admin.KillQuestion) (any, error) { return r.killSessions(ctx, q) })
	case askResources:
		return a.localResources(), nil
	case askAgents:
		return r.agents.sessionCounts(), nil
	case askPeople:
		return r.livePeople(), nil
	case askState:
		return r.relayState(), nil
	}
	return nil, fmt.Errorf("this relay knows no question %q: update all relays to one version", kind)
}

// maxPeople of one answer, which must fit into one item of the state.
const maxPeople = 800

// livePeople are the principals that have sessions here.
func (r *Relay) livePeople() admin.PrincipalList {
	all := map[string]*admin.PrincipalInfo{}
	r.addLive(all)
	list := admin.PrincipalList{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if len(list.Principals) == maxPeople {
			list.Next = name // there are more than can be told
			break
		}
		list.Principals = append(list.Principals, *all[name])
	}
	return list
}

// addPeers adds who has sessions at other relays, and returns which of them did
// not tell, or not of all.
func (r *Relay) addPeers(ctx context.Context, all map[string]*admin.PrincipalInfo) []string {
	answers, silent := askPeers[admin.PrincipalList](ctx, r, askPeople, nil)
	for relay, one := range answers {
		if one.Next != "" {
			silent = append(silent, relay)
		}
		for _, theirs := range one.Principals {
			mine := all[theirs.Principal]
			if mine == nil {
				all[theirs.Principal] = &theirs
				continue
			}
			mine.Sessions += theirs.Sessions
			if theirs.LastSeen != nil {
				mine.LastSeen = later(mine.LastSeen, *theirs.LastSeen)
			}
		}
	}
	slices.Sort(silent)
	return silent
}

func answerTo[Q any](question json.RawMessage, f func(Q) (any, error)) (any, error) {
	var q Q
	if err := json.Unmarshal(question, &q); err != nil {
		return nil, err
	}
	return f(q)
}

// askPeers asks every other relay. silent names those that did not answer.
func askPeers[A any](ctx context.Context, r *Relay, kind string, question any) (answers map[string]A, silent []string) {
	if !r.cfg.IsShared() {
		return nil, nil
	}
	all, silent, err := r.cluster.Ask(ctx, kind, question)
	if err != nil {
		r.log.Error("the other relays cannot be asked: the database is away", "asked", kind, "error", err)
		return nil, []string{allOthers}
	}
	answers = map[string]A{}
	for _, one := range all {
		var body A
		if err := json.Unmarshal(one.Body, &body); err != nil {
			r.log.Error("another relay's answer cannot be read", "relay", one.Relay, "asked", kind, "error", err)
			silent = append(silent, one.Relay)
			continue
		}
		answers[one.Relay] = body
	}
	slices.Sort(silent)
	return answers, silent
}

// allOthers stands for the relays that cannot even be listed.
const allOthers = "(all others)"

func isCode(err error, code string) bool {
	var e *admin.Error
	return errors.As(err, &e) && e.Code == code
}

// addEnded adds what other relays have ended.
func addEnded(ended admin.Ended, answers map[string]admin.Ended, silent []string) admin.Ended {
	for _, one := range answers {
		ended.Sessions += one.Sessions
		ended.Streams += one.Streams
		ended.Keys += one.Keys
	}
	ended.Silent = silent
	return ended
}

// joinSessions brings pages of several relays together into one.
func joinSessions(own admin.SessionList, answers map[string]admin.SessionList, silent []string, limit int) admin.SessionList {
	more := own.Next != ""
	all := own.Sessions
	for _, one := range answers {
		all = append(all, one.Sessions...)
		more = more || one.Next != ""
	}
	slices.SortFunc(all, func(a, b admin.SessionInfo) int { return cmp.Compare(placeOfInfo(a), placeOfInfo(b)) })
	// What a relay left out of its page comes behind the page's last.
	end := ""
	for _, page := range answers {
		if page.Next != "" && (end == "" || page.Next < end) {
			end = page.Next
		}
	}
	if own.Next != "" && (end == "" || own.Next < end) {
		end = own.Next
	}
	if end != "" {
		all = slices.DeleteFunc(all, func(s admin.SessionInfo) bool { return placeOfInfo(s) > end })
	}
	list := admin.SessionList{Sessions: all, Silent: silent}
	if len(all) > limit {
		list.Sessions, more = all[:limit], true
	}
	if more && len(list.Sessions) > 0 {
		list.Next = placeOfInfo(list.Sessions[len(list.Sessions)-1])
	}
	return list
}

// joinAgents brings together what relays say of a resource's agents: each is
// where it is connected, and says the same of its load to all.
func joinAgents(one *admin.ResourceState, other admin.ResourceState) {
	for _, theirs := range other.ServedBy {
		i := slices.IndexFunc(one.ServedBy, func(a admin.ServingAgent) bool { return a.ID == theirs.ID })
		switch {
		case i < 0:
			one.ServedBy = append(one.ServedBy, theirs)
		case theirs.Online && !one.ServedBy[i].Online:
			one.ServedBy[i] = theirs
		}
	}
	if other.Online && !one.Online {
		one.Server, one.Models, one.Aliases, one.Capacity = other.Server, other.Models, other.Aliases, other.Capacity
	}
	one.Online = one.Online || other.Online
	one.Agents = 0
	for _, a := range one.ServedBy {
		if a.Online {
			one.Agents++
		}
	}
	capacity := one.Capacity
	one.Health, one.Load = together(one.ServedBy)
	one.Capacity = capacity
}
