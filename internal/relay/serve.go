package relay

import (
	"bytes"
	"context"
	"errors"
	"io"

	"iap/internal/audit"
	"iap/internal/guard"
	"iap/tunnel"
)

// serveUser serves the streams of a user's session.
func (r *Relay) serveUser(t *tunnel.Session, source string) {
	id, ok := t.Peer().Token.(*identity)
	if !ok {
		_ = t.Close(tunnel.CodeInternal, "the relay lost track of this login")
		return
	}
	s := newSession(r.ctx, t, id, source)
	defer s.end(nil)
	s.expire(r.now) // before a refresh can find the session
	defer s.expiry.Stop()
	if !r.sessions.add(s) {
		_ = t.Close(tunnel.CodeTooManyStreams, "you have too many sessions; run iapctl disconnect --all")
		return
	}
	defer r.sessions.remove(s)
	if no := r.refusal(s.identity()); no != nil { // between the handshake and here
		_ = t.Close(no.Code, no.Message)
		return
	}
	log := r.log.With("session", t.ID(), "principal", id.id())
	log.Info("session opened", "class", t.Class(), "source", source)
	// What ends a session (a kill, the relay's stop) ends its requests first, so
	// that each can still say why in its own protocol.
	stop := context.AfterFunc(s.ctx, func() { r.closeSession(s) })
	defer stop()
	err := t.Serve(r.ctx, func(ctx context.Context, st *tunnel.Stream, h tunnel.Header) { r.serveStream(ctx, s, st, h) })
	log.Info("session closed", "reason", endReason(err))
	r.recordSessionEnd(s, err)
}

// closeSession gives the session's requests a moment to end in their own
// protocol, then closes it. When the relay stops, one without requests is closed
// at once; else all of a login's end together, so that none of them answers for
// one that is gone.
func (r *Relay) closeSession(s *session) {
	code, message := tunnel.CodeRelayShutdown, "the relay is going away"
	var ended *guard.Ended
	if errors.As(context.Cause(s.ctx), &ended) {
		code, message = tunnel.ParseCode(ended.Code), ended.Message
	}
	moment, cancel := context.WithTimeout(context.Background(), sessionCloses)
	defer cancel()
	until(moment.Done(), closePoll, func() bool { return r.stopping.Load() && s.tunnel.NumStreams() == 0 || s.tunnel.Err() != nil })
	_ = s.tunnel.Close(code, message)
}

// serveAgent keeps an agent's session. Agents open no streams: whatever they
// try is refused.
func (r *Relay) serveAgent(t *tunnel.Session, source string) {
	id, ok := t.Peer().Token.(*identity)
	if !ok || id.agent == nil {
		_ = t.Close(tunnel.CodeInternal, "the relay lost track of this agent")
		return
	}
	s := newSession(r.ctx, t, id, source)
	defer s.end(nil)
	stop := context.AfterFunc(s.ctx, func() { _ = t.Close(tunnel.CodeRelayShutdown, "the relay is going away") })
	defer stop()
	if !r.sessions.add(s) {
		_ = t.Close(tunnel.CodeOverloaded, "this agent has too many sessions")
		return
	}
	defer r.sessions.remove(s)
	if r.refused.has(id.agent.ID) { // nobody's request may find it
		_ = t.Close(tunnel.CodeRevoked, "this agent was revoked")
		return
	}
	if !r.agents.knows(id.agent.ID) { // it enrolled at another relay, of which this one has yet to hear
		r.agents.enrolled(id.agent)
	}
	l := &link{session: t, agent: id.agent}
	r.agents.add(l)
	defer r.agents.remove(l)
	if r.refused.has(id.agent.ID) { // while it was entered
		r.agents.revoked(id.agent.ID)
		_ = t.Close(tunnel.CodeRevoked, "this agent was revoked")
		return
	}
	if !bytes.Equal(id.agent.PublicKey, t.PublicKey()) { // opened in the overlap after a rotation
		ctx, over := context.WithCancel(r.ctx)
		defer over()
		r.spawn(func() { r.replaceAfter(ctx, l, id.agent.PreviousUntil) })
	}
	log := r.log.With("session", t.ID(), "agent", id.agent.ID, "name", id.agent.Name)
	log.Info("agent connected", "class", t.Class(), "source", source)
	if t.Class() == tunnel.Interactive {
		ctx, over := context.WithCancel(r.ctx)
		defer over()
		r.spawn(func() { r.showLog(ctx, t, id.agent.ID) })
	}
	err := t.Serve(r.ctx, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) { st.Abort(tunnel.CodeRefused) })
	log.Info("agent disconnected", "reason", endReason(err))
	r.recordSessionEnd(s, err)
}

// announced judges what an agent says it serves; the session keeps it.
func (r *Relay) announced(t *tunnel.Session, list []tunnel.Announcement) error {
	id, ok := t.Peer().Token.(*identity)
	if !ok || id.agent == nil {
		return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: "only agents announce resources"}
	}
	if err := checkAnnouncement(id.agent, list); err != nil {
		return err
	}
	if !r.agents.wasReplaced(t.ID()) {
		r.agents.heard(id.agent.ID, list)
	}
	return nil
}

// mayAnnounce judges what an agent only asks about.
func (r *Relay) mayAnnounce(t *tunnel.Session, list []tunnel.Announcement) error {
	id, ok := t.Peer().Token.(*identity)
	if !ok || id.agent == nil {
		return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: "only agents announce resources"}
	}
	return checkAnnouncement(id.agent, list)
}

// loaded notes how busy an agent says it is.
func (r *Relay) loaded(t *tunnel.Session, list []tunnel.Load) {
	if id, ok := t.Peer().Token.(*identity); ok && id.agent != nil && !r.agents.wasReplaced(t.ID()) {
		r.agents.loaded(id.agent.ID, list)
	}
}

func (r *Relay) recordSessionEnd(s *session, err error) {
	id := s.identity()
	e := audit.Event{Kind: audit.KindSession, Session: s.tunnel.ID(), Source: s.source, Ended: endReason(err), Reason: "ended"}
	if id.agent != nil {
		e.Agent = id.agent.ID
	} else {
		e.Principal, e.Issuer = id.id(), id.principal.Issuer
	}
	if err := r.audit.Record(context.Background(), e); err != nil { // the end of a session is told whatever ended it
		r.log.Error("record session end", "session", e.Session, "error", err)
	}
}

// endReason is a session's end in a word.
func endReason(err error) string {
	var lost *tunnel.SessionError
	if errors.As(err, &lost) {
		return lost.Code.String()
	}
	if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, io.EOF) {
		return "failed"
	}
	return "closed"
}
