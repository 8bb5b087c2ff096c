package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

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
	answers, silent := map[string]admin.Ended(nil), []string(nil)
	ended, err := a.relay.killSession(ctx, q.ID)
	if isCode(err, "unknown_session") { // it may be another relay's
		answers, silent = askPeers[admin.Ended](ctx, a.relay, askKill, q.ID)
		if all := addEnded(ended, answers, silent); all.Sessions > 0 {
			return all, nil
		}
		if len(silent) > 0 {
			return admin.Ended{}, relaysSilent(silent)
		}
	}
	return ended, err
}

// relaysSilent is the answer where the others had to be asked and could not all be.
func relaysSilent(silent []string) error {
	return &admin.Error{
		Status: http.StatusServiceUnavailable, Code: "relays_silent", Message: "not here, and these relays did not answer: " + strings.Join(silent, ", "), Hint: "try again; a relay that has died is forgotten after half a minute",
	}
}

// killSession does it for a session of this relay.
func (r *Relay) killSession(ctx context.Context, id string) (admin.Ended, error) {
	target := r.sessions.find(id)
	if target == nil || target.identity().agent != nil {
		return admin.Ended{}, &admin.Error{Status: http.StatusNotFound, Code: "unknown_session", Message: fmt.Sprintf("no user session %q is open", id), Hint: "iapctl sessions ls"}
	}
	return r.killLogins(ctx, []*session{target})
}

// KillSessions ends all sessions of a principal, whose logins are refused from
// then on, or of an agent, which may come back: its key is refused by RevokeAgent.
func (a *adminAPI) KillSessions(ctx context.Context, q admin.KillQuestion) (admin.Ended, error) {
	switch {
	case (q.Principal == "") == (q.Agent == ""):
		return admin.Ended{}, badRequest("say whose sessions: principal or agent")
	case q.Principal != "" && !a.relay.isPrincipal(q.Principal):
		return admin.Ended{}, notAPrincipal(q.Principal)
	}
	ended, err := a.relay.killSessions(ctx, q)
	answers, silent := askPeers[admin.Ended](ctx, a.relay, askKillAll, q)
	return addEnded(ended, answers, silent), err
}

// killSessions does it for those of this relay.
func (r *Relay) killSessions(ctx context.Context, q admin.KillQuestion) (admin.Ended, error) {
	if q.Agent != "" {
		all := r.sessions.all(ofAgent(q.Agent))
		ended := stillRunning(all)
		for _, s := range all {
			_ = s.tunnel.Close(tunnel.CodeRevoked, "an administrator ended this session") // bounded; it is gone either way
		}
		return ended, nil
	}
	return r.killLogins(ctx, r.sessions.all(ofPrincipal(q.Principal)))
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
		failures = append(failures, r.orOwe(ctx, keyKilled+login, func(ctx context.Context) error {
			return errors.Join(r.endKeysOf(ctx, login), r.storeRefusal(ctx, s))
		}))
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
