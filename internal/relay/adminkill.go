package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/state"
	"iap/tunnel"
)

const killedMessage = "an administrator ended this session; run iapctl login"

// KillSession ends every session of the login, not just the one named: the other
// class of the same key is the same hand, and so is a workload's token under
// another key. The keys that the login made for programs end with it.
func (a *adminAPI) KillSession(ctx context.Context, q admin.SessionAct) (admin.Ended, error) {
	target := a.relay.sessions.find(q.ID)
	if target == nil || target.identity().agent != nil {
		return admin.Ended{}, &admin.Error{Status: http.StatusNotFound, Code: "unknown_session", Message: fmt.Sprintf("no user session %q is open", q.ID), Hint: "iapctl sessions ls"}
	}
	return a.relay.killLogins(ctx, []*session{target})
}

// KillSessions ends all sessions of a principal, whose logins are refused from
// then on, or of an agent, which may come back: its key is refused by RevokeAgent.
func (a *adminAPI) KillSessions(ctx context.Context, q admin.KillQuestion) (admin.Ended, error) {
	switch {
	case (q.Principal == "") == (q.Agent == ""):
		return admin.Ended{}, badRequest("say whose sessions: principal or agent")
	case q.Agent != "":
		all := a.relay.sessions.all(ofAgent(q.Agent))
		ended := stillRunning(all)
		for _, s := range all {
			_ = s.tunnel.Close(tunnel.CodeRevoked, "an administrator ended this session") // bounded; it is gone either way
		}
		return ended, nil
	case !a.relay.isPrincipal(q.Principal):
		return admin.Ended{}, notAPrincipal(q.Principal)
	}
	return a.relay.killLogins(ctx, a.relay.sessions.all(ofPrincipal(q.Principal)))
}

// killLogins refuses the logins of the sessions and ends what they opened.
func (r *Relay) killLogins(ctx context.Context, targets []*session) (admin.Ended, error) {
	logins := map[string]*session{}
	for _, s := range targets { // in memory first: a slow database must not keep a session alive
		r.refuseLogin(s)
		logins[auth.KeyID(s.tunnel.PublicKey())] = s
	}
	all := r.sessions.all(r.killed)
	ended := stillRunning(all)
	for _, s := range all {
		s.stop(tunnel.CodeRevoked, killedMessage)
	}
	var failures []error
	for login, s := range logins {
		ended.Keys += len(r.keys.of(func(k *programKey) bool { return k.Login == login }))
		failures = append(failures, r.endKeysOf(ctx, login), r.storeRefusal(ctx, s))
	}
	return ended, stateFailed(errors.Join(failures...))
}

// refuseLoginsOf refuses every login that a principal has made here: who is
// restored begins with a new one, and what was stolen stays worthless.
func (r *Relay) refuseLoginsOf(ctx context.Context, principal string) error {
	var keys []string
	for item, err := range state.All(ctx, r.store, keyKey) {
		var k keyRecord
		if err == nil {
			err = json.Unmarshal(item.Value, &k)
		}
		if err != nil {
			return fmt.Errorf("read logins: %w", err)
		}
		if k.Issuer+"/"+k.Subject == principal && !k.Killed {
			keys = append(keys, item.Key)
		}
	}
	for _, key := range keys {
		_, err := update(ctx, r.store, key, func(k *keyRecord) error {
			k.Killed = true
			return nil
		})
		if err != nil && !errors.Is(err, state.ErrNotFound) { // it may have been forgotten meanwhile
			return fmt.Errorf("refuse login: %w", err)
		}
	}
	return nil
}

// stillRunning counts the sessions that have not ended yet, and their streams.
func stillRunning(all []*session) admin.Ended {
	var ended admin.Ended
	for _, s := range all {
		if live(s) {
			ended.Sessions++
			ended.Streams += s.tunnel.NumStreams()
		}
	}
	return ended
}

// live reports whether a session has not been ended: one that was may take a
// moment to close, in which its requests say why.
func live(s *session) bool { return s.ctx.Err() == nil }

func ofAgent(id string) func(*session) bool {
	return func(s *session) bool { return s.identity().agent != nil && s.identity().agent.ID == id }
}

func ofPrincipal(id string) func(*session) bool {
	return func(s *session) bool { return s.identity().agent == nil && s.identity().id() == id }
}
