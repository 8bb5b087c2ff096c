package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/state"
	"iap/policy"
	"iap/tunnel"
)

// enterWait is how long a session may take from its handshake to the list.
const enterWait = time.Second

// handshake answers the questions that tunnel.Accept asks about one
// connection, and remembers what the audit needs.
type handshake struct {
	relay  *Relay
	source string        // network address of the peer
	hello  *tunnel.Hello // of a peer whose proof is awaited
	owner  string        // whose token it shows
}

// serverConfig is what one connection's handshake runs with.
func (r *Relay) serverConfig(h *handshake) tunnel.ServerConfig {
	key, chain := r.ring.Shown()
	return tunnel.ServerConfig{
		Key: key, Chain: chain, Rotate: r.rotateAgent, Binding: r.cfg.ChannelBinding, Names: r.cfg.Names(),
		Authenticate: h.authenticate, Bind: h.bind, Refresh: r.refresh, OnWithdraw: r.withdrawn, OnAnnounce: r.announced, CheckAnnounce: r.mayAnnounce, OnLoad: r.loaded,
		MaxStreams: r.cfg.SessionStreams(), Logger: r.log,
	}
}

// authenticate tells who hello would be if the peer holds the key. Nothing is
// stored yet: the proof comes next.
func (h *handshake) authenticate(ctx context.Context, hello tunnel.Hello) (tunnel.Peer, error) {
	var peer tunnel.Peer
	var err error
	switch hello.Role {
	case tunnel.RoleUser:
		peer, err = h.user(ctx, hello)
	case tunnel.RoleAgent:
		peer, err = h.agent(ctx, hello)
	default:
		err = &tunnel.Refusal{Code: tunnel.CodeProtocolError, Message: "unknown role"}
	}
	if err != nil {
		h.denied(ctx, hello, err)
		return peer, err
	}
	h.hello, h.owner = &hello, peer.Name
	return peer, nil
}

// unproven records who showed a good token, or an agent's id, and had not the key: a
// thief, or a handshake that somebody recorded and plays again.
func (h *handshake) unproven(err error) {
	if h.hello != nil && err != nil && tunnel.CodeOf(err) == tunnel.CodePopFailed {
		h.denied(h.relay.ctx, *h.hello, err)
	}
}

func (h *handshake) user(ctx context.Context, hello tunnel.Hello) (tunnel.Peer, error) {
	r := h.relay
	token, err := r.verifier.Verify(ctx, hello.Token, auth.UseTunnel)
	if err != nil {
		return tunnel.Peer{}, tokenRefusal(err)
	}
	end, err := r.sessionEnd(token, r.now().Round(0))
	if err != nil {
		return tunnel.Peer{}, err
	}
	return tunnel.Peer{
		Token: newIdentity(token), Name: token.Principal.ID(),
		Expires: end.Add(expiryGrace), TokenHash: token.PayloadHash[:],
	}, nil
}

func (h *handshake) agent(ctx context.Context, hello tunnel.Hello) (tunnel.Peer, error) {
	record, _, err := load[agentRecord](ctx, h.relay.store, keyAgent+hello.AgentID)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return tunnel.Peer{}, stateRefusal(err)
	}
	// One answer for an unknown agent, a foreign key and a revoked agent:
	// nobody learns which ids exist.
	if err != nil || record.Revoked != nil || !record.opensWith(hello.PublicKey, h.relay.now()) {
		return tunnel.Peer{}, &tunnel.Refusal{Code: tunnel.CodeRevoked, Message: "this agent is not enrolled here; join again with a new token"}
	}
	return tunnel.Peer{Token: &identity{agent: &record}, Name: record.ID}, nil
}

// bind runs once the key's proof holds: from here on the peer is who it says.
func (h *handshake) bind(ctx context.Context, hello tunnel.Hello, peer tunnel.Peer) (tunnel.Peer, error) {
	h.hello = nil // proven
	id, ok := peer.Token.(*identity)
	if !ok {
		return peer, &tunnel.Refusal{Code: tunnel.CodeInternal, Message: "the relay lost track of this login"}
	}
	if id.agent == nil {
		bound, err := h.relay.bindToken(ctx, ed25519.PublicKey(hello.PublicKey), id.token)
		if err != nil {
			h.denied(ctx, hello, err)
			return peer, err
		}
		id = bound
		id.since, id.ends = h.relay.now().Round(0), peer.Expires.Add(-expiryGrace)
	}
	if id.agent == nil && !h.relay.logins.allow(id.id(), h.relay.now()) {
		return peer, &tunnel.Refusal{Code: tunnel.CodeOverloaded, Message: "you open sessions faster than anybody needs; wait a minute"}
	}
	peer.Token = id
	err := h.relay.audit.Record(ctx, h.event(hello, id))
	if err != nil {
		return peer, &tunnel.Refusal{Code: tunnel.CodeAuditUnavailable, Message: "the relay cannot write its audit log and lets nobody in until it can"}
	}
	h.relay.seen(ctx, id)
	return peer, nil
}

func (h *handshake) event(hello tunnel.Hello, id *identity) audit.Event {
	e := audit.Event{
		Kind: audit.KindLogin, Decision: audit.Allow, Source: h.source, Via: "tunnel", Binding: id.principal.Binding,
		Detail: map[string]string{"key": auth.KeyID(hello.PublicKey), "class": string(hello.Class), "software": hello.Software},
	}
	if id.agent != nil {
		e.Kind, e.Agent = audit.KindAgent, id.agent.ID
		return e
	}
	e.Principal, e.Issuer = id.id(), id.principal.Issuer
	if id.newKey {
		e.Detail["new_key"] = "true"
	}
	return e
}

// denied records a refused login.
func (h *handshake) denied(ctx context.Context, hello tunnel.Hello, err error) {
	e := audit.Event{Kind: audit.KindLogin, Reason: refusalReason(err), Source: h.source, Via: policy.ViaTunnel, Agent: hello.AgentID}
	if e.Reason == tunnel.CodePopFailed.String() {
		e.Detail = map[string]string{"token_of": h.owner}
	}
	h.relay.recordDenied(ctx, e)
}

// recordDenied records a refusal. That it could not be recorded changes nothing: it
// is refused all the same.
func (r *Relay) recordDenied(ctx context.Context, e audit.Event) {
	e.Decision = audit.Deny
	if err := r.audit.Denied(ctx, e); err != nil {
		r.log.Error("record refused login", "error", err)
	}
}

// refusalReason is why a token was refused, in a word.
func refusalReason(err error) string {
	var cause *auth.TokenError
	if errors.As(err, &cause) {
		return cause.Code
	}
	var refusal *tunnel.Refusal
	if errors.As(err, &refusal) {
		return refusal.Code.String()
	}
	return tunnel.CodeInternal.String()
}

// refresh renews a session in place. The tunnel has verified that the session's
// key signed the new token.
func (r *Relay) refresh(ctx context.Context, s *tunnel.Session, raw string) (time.Time, error) {
	waiting, cancel := context.WithTimeout(ctx, enterWait)
	live := r.sessions.await(waiting, s.ID())
	cancel()
	if live == nil {
		return time.Time{}, errExpired()
	}
	end, err := r.renew(ctx, live, raw)
	if err != nil {
		id := live.identity()
		r.recordDenied(ctx, audit.Event{
			Kind: audit.KindLogin, Reason: refusalReason(err), Via: policy.ViaTunnel, Source: live.source,
			Session: s.ID(), Principal: id.id(), Issuer: id.principal.Issuer, Detail: map[string]string{"asked": "refresh"},
		})
		return time.Time{}, err
	}
	return end.Add(expiryGrace), nil
}

// renew gives a session what a newer token says, and its end.
func (r *Relay) renew(ctx context.Context, live *session, raw string) (end time.Time, err error) {
	token, err := r.verifier.Verify(ctx, raw, auth.UseTunnel)
	if err != nil {
		return end, tokenRefusal(err)
	}
	live.renewing.Lock() // the newer of two tokens stays, whichever comes first
	defer live.renewing.Unlock()
	if live.ctx.Err() != nil {
		return end, errExpired()
	}
	if live.identity().id() != token.Principal.ID() {
		return end, &tunnel.Refusal{Code: tunnel.CodeTokenInvalid, Message: "the fresh token belongs to somebody else"}
	}
	since, err := live.newSince(token, r.now())
	if err != nil {
		return end, err
	}
	if end, err = r.sessionEnd(token, since); err != nil {
		return end, err
	}
	if !live.mayRefresh(r.now()) {
		return end, &tunnel.Refusal{Code: tunnel.CodeOverloaded, Message: "the session was renewed a moment ago"}
	}
	id, err := r.bindToken(ctx, live.tunnel.PublicKey(), token)
	if err != nil {
		return end, err
	}
	event := audit.Event{
		Kind: audit.KindSession, Reason: "refreshed", Session: live.tunnel.ID(), Principal: id.id(), Issuer: id.principal.Issuer, Binding: id.principal.Binding,
	}
	if err := r.audit.Record(ctx, event); err != nil {
		return end, &tunnel.Refusal{Code: tunnel.CodeAuditUnavailable, Message: "the relay cannot write its audit log"}
	}
	id.since, id.ends = since, end
	live.renew(id)
	r.seen(ctx, id)
	r.spawn(func() { r.recheck(live) }) // groups may have changed; the streams that lost their right end
	return end, nil
}

// withdrawn ends a session whose user tells that the provider renews its token no more. Only the user's own end can say so, and
// nothing of what it says is repeated.
func (r *Relay) withdrawn(s *tunnel.Session, _ tunnel.Code) {
	waiting, cancel := context.WithTimeout(r.ctx, enterWait)
	defer cancel()
	if live := r.sessions.await(waiting, s.ID()); live != nil {
		live.stop(tunnel.CodeLoginRequired, "the identity provider has ended this login; run iapctl login")
		id := live.identity()
		e := audit.Event{Kind: audit.KindSession, Reason: "withdrawn", Message: "the provider renews its token no more, says the client", Session: s.ID(), Principal: id.id(), Issuer: id.principal.Issuer, Source: live.source}
		if err := r.audit.Record(r.ctx, e); err != nil {
			r.log.Error("record withdrawal", "session", s.ID(), "error", err)
		}
	}
}

// sessionEnd is when the requests end of a session that presents token and is not
// renewed; the tunnel closes it expiryGrace later. since is when the session
// began, or was given a token that was newer than the one before.
func (r *Relay) sessionEnd(token *auth.Token, since time.Time) (time.Time, error) {
	limits := r.cfg.Sessions
	end := since.Add(time.Duration(limits.MaxAge))
	for _, other := range []time.Time{token.Expires, token.IssuedAt.Add(time.Duration(limits.MaxTokenAge))} {
		if other.Before(end) {
			end = other
		}
	}
	if now := r.now().Round(0); now.Before(end) || !now.Before(token.Expires) {
		return end, nil // a token within the skew of clocks opens a session that ends at once
	}
	return end, tokenRefusal(&auth.TokenError{
		Code:   auth.CodeTokenTooOld,
		Public: fmt.Sprintf("the token was issued %s ago; this relay takes none older than %s: get a fresh one", r.now().Sub(token.IssuedAt).Round(time.Second), time.Duration(limits.MaxTokenAge)),
	})
}

// refusedToken is a refusal that keeps the verifier's error for the audit.
type refusedToken struct {
	tunnel.Refusal
	cause *auth.TokenError
}

func (e *refusedToken) Unwrap() []error { return []error{&e.Refusal, e.cause} }

// tokenRefusal turns the verifier's error into what the peer may read.
func tokenRefusal(err error) error {
	var cause *auth.TokenError
	if !errors.As(err, &cause) {
		return &tunnel.Refusal{Code: tunnel.CodeTokenInvalid, Message: "the token is not acceptable"}
	}
	return &refusedToken{tunnel.Refusal{Code: tunnel.CodeTokenInvalid, Message: cause.Public + " (" + cause.Code + ")"}, cause}
}
