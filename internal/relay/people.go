package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/state"
	"iap/tunnel"
)

const (
	defaultPage = 500  // entries of one answer
	maxPage     = 2000 // more would not fit into what a client reads
)

// Sessions lists live sessions.
func (a *adminAPI) Sessions(ctx context.Context, q admin.SessionQuestion) (admin.SessionList, error) {
	own, err := a.localSessions(q)
	if err != nil || !a.relay.cfg.IsShared() {
		return own, err
	}
	limit, _ := pageSize(q.Limit)
	q.Limit = min(limit, peerPage)
	answers, silent := askPeers[admin.SessionList](ctx, a.relay, askSessions, q)
	return joinSessions(own, answers, silent, limit), nil
}

// localSessions are those of this relay.
func (a *adminAPI) localSessions(q admin.SessionQuestion) (admin.SessionList, error) {
	if q.Role != "" && q.Role != string(tunnel.RoleUser) && q.Role != string(tunnel.RoleAgent) {
		return admin.SessionList{}, badRequest(fmt.Sprintf("role: %q is neither user nor agent", q.Role))
	}
	limit, err := pageSize(q.Limit)
	if err != nil {
		return admin.SessionList{}, err
	}
	list := admin.SessionList{Sessions: []admin.SessionInfo{}}
	for _, s := range a.relay.sessions.all(live) {
		if q.Cursor != "" && placeOf(s) <= q.Cursor || !wanted(s, q) {
			continue
		}
		if len(list.Sessions) == limit {
			break
		}
		list.Sessions, list.Next = append(list.Sessions, a.relay.info(s)), placeOf(s)
	}
	if len(list.Sessions) < limit {
		list.Next = ""
	}
	return list, nil
}

// placeOf is where a session stands in the order of all, as a text that sorts so.
func placeOf(s *session) string { return placeOfInfo(s.info()) }

func placeOfInfo(s admin.SessionInfo) string {
	return fmt.Sprintf("%020d-%s", s.Started.UnixNano(), s.ID)
}

// info is the session as administrators are shown it: with its relay, where there
// are several.
func (r *Relay) info(s *session) admin.SessionInfo {
	one := s.info()
	if r.cfg.IsShared() {
		one.Relay = r.cluster.Instance()
	}
	return one
}

func wanted(s *session, q admin.SessionQuestion) bool {
	id := s.identity()
	switch {
	case q.Role != "" && q.Role != string(s.tunnel.Role()),
		q.Principal != "" && (id.agent != nil || id.id() != q.Principal),
		q.Agent != "" && (id.agent == nil || id.agent.ID != q.Agent),
		q.Key != "" && auth.KeyID(s.tunnel.PublicKey()) != q.Key:
		return false
	}
	return true
}

func pageSize(limit int) (int, error) {
	if limit < 0 || limit > maxPage {
		return 0, badRequest("limit: " + strconv.Itoa(limit) + " is not from 1 to " + strconv.Itoa(maxPage))
	}
	return cmp.Or(limit, defaultPage), nil
}

// Principals lists who has sessions or keys for programs, and who is revoked. It
// answers without the state as well, with what is in memory.
func (a *adminAPI) Principals(ctx context.Context, q admin.PrincipalQuestion) (admin.PrincipalList, error) {
	if q.State != "" && q.State != "live" && q.State != "revoked" {
		return admin.PrincipalList{}, badRequest(fmt.Sprintf("state: %q is neither live nor revoked", q.State))
	}
	limit, err := pageSize(q.Limit)
	if err != nil {
		return admin.PrincipalList{}, err
	}
	known, silent := a.relay.knownPrincipals(ctx)
	list := admin.PrincipalList{Principals: []admin.PrincipalInfo{}, Silent: silent}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		p := known[name]
		switch {
		case name <= q.Cursor && q.Cursor != "",
			q.Principal != "" && name != q.Principal,
			q.State == "live" && p.Sessions == 0,
			q.State == "revoked" && p.Revoked == nil:
			continue
		}
		if len(list.Principals) == limit {
			break
		}
		list.Principals, list.Next = append(list.Principals, *p), name
	}
	if len(list.Principals) < limit {
		list.Next = ""
	}
	return list, nil
}

// addLive adds who has sessions here.
func (r *Relay) addLive(all map[string]*admin.PrincipalInfo) {
	for _, s := range r.sessions.all(func(s *session) bool { return s.identity().agent == nil && live(s) }) {
		id := s.identity()
		p := all[id.id()]
		if p == nil {
			p = &admin.PrincipalInfo{Principal: id.id()}
			all[id.id()] = p
		}
		p.Sessions++
		p.Name, p.Workload = id.principal.DisplayName, id.principal.Workload
		p.LastSeen = later(p.LastSeen, id.since)
	}
}

// knownPrincipals gathers what is known of each principal. silent are relays that
// did not tell of their sessions.
func (r *Relay) knownPrincipals(ctx context.Context) (all map[string]*admin.PrincipalInfo, silent []string) {
	all = map[string]*admin.PrincipalInfo{}
	of := func(id string) *admin.PrincipalInfo {
		if all[id] == nil {
			all[id] = &admin.PrincipalInfo{Principal: id}
		}
		return all[id]
	}
	r.addLive(all)
	silent = r.addPeers(ctx, all)
	for _, k := range r.keys.of(func(*programKey) bool { return true }) {
		if !k.ended.Load() && r.now().Before(k.Expires) {
			of(k.Owner).Keys++
		}
	}
	r.keys.mu.Lock()
	for id, owner := range r.keys.owners {
		p := of(id)
		p.Name, p.Workload = owner.who.principal.DisplayName, owner.who.principal.Workload
		p.LastSeen = later(p.LastSeen, owner.seen)
	}
	r.keys.mu.Unlock()
	for _, id := range r.refused.below(keyPrincipal) {
		of(id).Revoked = &admin.RevocationInfo{}
	}
	stored, err := list[revocation](ctx, r.store, keyPrincipal)
	if err != nil {
		r.log.Error("read revoked principals", "error", err)
	}
	for _, one := range stored {
		of(one.Principal).Revoked = &admin.RevocationInfo{At: one.At, By: one.By, Reason: one.Reason}
	}
	return all, silent
}

// later is the later of two times, of which the first may be missing.
func later(a *time.Time, b time.Time) *time.Time {
	if a != nil && !a.Before(b) || b.IsZero() {
		return a
	}
	b = b.UTC().Round(0)
	return &b
}

// below lists what is refused under a prefix, without it.
func (r *refused) below(prefix string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var ids []string
	for id := range r.ids {
		if rest, ok := strings.CutPrefix(id, prefix); ok {
			ids = append(ids, rest)
		}
	}
	return ids
}

// RevokePrincipal takes a principal as whoami prints it, issuer/subject. It need
// not have been seen yet.
func (a *adminAPI) RevokePrincipal(ctx context.Context, q admin.PrincipalAct) (admin.Ended, error) {
	if !a.relay.isPrincipal(q.ID) {
		return admin.Ended{}, notAPrincipal(q.ID)
	}
	ended := stillRunning(a.relay.sessions.all(ofPrincipal(q.ID)))
	ended.Keys = len(a.relay.keys.of(func(k *programKey) bool { return k.Owner == q.ID }))
	return ended, stateFailed(a.relay.revokePrincipal(ctx, revocation{Principal: q.ID, At: a.relay.now().UTC(), By: a.caller, Reason: q.Reason}))
}

// RestorePrincipal takes that back.
func (a *adminAPI) RestorePrincipal(ctx context.Context, q admin.PrincipalAct) (admin.Done, error) {
	if !a.relay.isPrincipal(q.ID) {
		return admin.Done{}, notAPrincipal(q.ID)
	}
	if a.relay.refused.has(keyPrincipal + q.ID) { // nobody's login ends by being restored from nothing
		if err := a.relay.refuseLoginsOf(ctx, q.ID); err != nil {
			return admin.Done{}, stateUnavailable(err)
		}
	}
	err := a.relay.restorePrincipal(ctx, q.ID)
	if errors.Is(err, state.ErrNotFound) {
		return admin.Done{}, &admin.Error{Status: http.StatusNotFound, Code: "unknown_principal", Message: fmt.Sprintf("%q is not revoked", q.ID), Hint: "iapctl principals ls --state revoked"}
	}
	return admin.Done{}, stateFailed(err)
}

func notAPrincipal(id string) error {
	return badRequest(fmt.Sprintf("principal %q is not of the form ISSUER/SUBJECT with an issuer of relay.yaml", id))
}
