package relay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/internal/version"
	"iap/tunnel"
)

const (
	frontDoor       = "/r/"
	keysPath        = "/.well-known/iap-assertion-keys"
	idleTimeout     = 2 * time.Minute // a kept-alive connection of a front-door client
	sessionCloses   = 500 * time.Millisecond
	bearerPrefix    = "Bearer "
	maxBearerLength = 16 << 10
	maxConnections  = 32 << 10 // open at once, with or without a session; each costs about 30 KiB
	maxShaking      = 64       // unauthenticated handshakes from one address at once
	expiryGrace     = 2 * time.Second
)

// publicHandler serves the one public port.
//
// The front door and the tunnel are told apart before the multiplexer, which
// would clean paths: a path that two readers could read in two ways is the
// guard's to refuse, not ours to mend.
func (r *Relay) publicHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+admin.DiscoveryPath, r.serveDiscovery)
	mux.HandleFunc("GET "+keysPath, r.assertions.serveKeys)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", r.serveReady)
	mux.HandleFunc("POST "+admin.JoinPath, func(w http.ResponseWriter, q *http.Request) {
		admin.JoinHandler(func(ctx context.Context, j admin.JoinRequest) (admin.JoinReply, error) {
			return r.join(ctx, sourceOf(q.RemoteAddr), j)
		}).ServeHTTP(w, q)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch {
		case tunnel.IsUpgrade(q):
			r.serveTunnel(w, q)
		case strings.HasPrefix(q.RequestURI, frontDoor):
			r.serveFrontDoor(w, q)
		default:
			w.Header().Set("X-Content-Type-Options", "nosniff")
			mux.ServeHTTP(w, q)
		}
	})
}

// serveDiscovery tells a client how to log in.
func (r *Relay) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	d := admin.Discovery{
		Relay: r.cfg.Name, Version: version.String(), Protocols: []string{tunnel.Protocol},
		ChannelBinding: string(r.cfg.ChannelBinding), RelayKey: r.key.Public().(ed25519.PublicKey),
	}
	for _, i := range r.cfg.Issuers {
		if !i.Workload {
			d.Issuers = append(d.Issuers, admin.DiscoveryIssuer{
				Name: i.Name, URL: i.URL, ClientID: i.ClientID, PublicClientSecret: i.PublicClientSecret,
				Scopes: i.Scopes, Audience: i.Audience, Token: i.Token,
			})
		}
	}
	admin.WriteJSON(w, http.StatusOK, d)
}

// serveReady says whether the relay can do its work. The text goes to whoever
// asks, so it names no cause.
func (r *Relay) serveReady(w http.ResponseWriter, q *http.Request) {
	if problem := r.problem(q.Context()); problem != "" {
		http.Error(w, problem, http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// problem is what keeps the relay from serving, or "".
func (r *Relay) problem(ctx context.Context) string {
	if r.stopping.Load() {
		return "draining"
	}
	if r.audit.Healthy() != nil {
		return "audit_unavailable"
	}
	if _, err := r.store.List(ctx, keyJoin, "", 1); err != nil {
		return "state_unavailable"
	}
	return ""
}

// serveTunnel turns the connection into a session and serves it to its end.
func (r *Relay) serveTunnel(w http.ResponseWriter, q *http.Request) {
	source := sourceOf(q.RemoteAddr)
	if !r.handshakes.begin(source) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many handshakes at once", http.StatusServiceUnavailable)
		return
	}
	t, err := r.accept(w, q, source)
	r.handshakes.end(source)
	if err != nil {
		r.log.Debug("handshake failed", "source", source, "error", err)
		return
	}
	if t.Role() == tunnel.RoleAgent {
		r.serveAgent(t, source)
		return
	}
	r.serveUser(t, source)
}

func (r *Relay) accept(w http.ResponseWriter, q *http.Request, source string) (*tunnel.Session, error) {
	if r.stopping.Load() {
		http.Error(w, "this relay is going away", http.StatusServiceUnavailable)
		return nil, errors.New("stopping")
	}
	conn, err := tunnel.Upgrade(w, q)
	if err != nil {
		return nil, err
	}
	return tunnel.Accept(r.ctx, conn, r.serverConfig(source))
}

// serveUser serves the streams of a user's session.
func (r *Relay) serveUser(t *tunnel.Session, source string) {
	id, ok := t.Peer().Token.(*identity)
	if !ok {
		_ = t.Close(tunnel.CodeInternal, "the relay lost track of this login")
		return
	}
	s := &session{tunnel: t, source: source}
	s.setIdentity(id)
	s.ctx, s.end = context.WithCancelCause(r.ctx)
	defer s.end(nil)
	if !r.sessions.add(s) {
		_ = t.Close(tunnel.CodeTooManyStreams, "you have too many sessions; run iapctl disconnect --all")
		return
	}
	defer r.sessions.remove(s)
	s.expireAt(t.Expires().Add(-expiryGrace))
	defer func() { s.expiry.Load().Stop() }()
	if r.killed(s) { // between the handshake and here
		_ = t.Close(tunnel.CodeRevoked, "this login was ended by an administrator")
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
// protocol, then closes it.
func (r *Relay) closeSession(s *session) {
	code, message := tunnel.CodeRelayShutdown, "the relay is going away"
	var ended *guard.Ended
	if errors.As(context.Cause(s.ctx), &ended) {
		code, message = tunnel.ParseCode(ended.Code), ended.Message
	}
	timer := time.NewTimer(sessionCloses)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.tunnel.Done():
	}
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
	s := &session{tunnel: t, source: source}
	s.setIdentity(id)
	s.ctx, s.end = context.WithCancelCause(r.ctx)
	defer s.end(nil)
	stop := context.AfterFunc(s.ctx, func() { _ = t.Close(tunnel.CodeRelayShutdown, "the relay is going away") })
	defer stop()
	if !r.sessions.add(s) {
		_ = t.Close(tunnel.CodeOverloaded, "this agent has too many sessions")
		return
	}
	defer r.sessions.remove(s)
	l := r.agents.link(t, id.agent)
	defer r.agents.remove(l)
	if r.refused.has(id.agent.ID) { // between the handshake and here
		_ = t.Close(tunnel.CodeRevoked, "this agent was revoked")
		return
	}
	log := r.log.With("session", t.ID(), "agent", id.agent.ID, "name", id.agent.Name)
	log.Info("agent connected", "class", t.Class(), "source", source)
	err := t.Serve(r.ctx, func(_ context.Context, st *tunnel.Stream, _ tunnel.Header) { st.Abort(tunnel.CodeRefused) })
	log.Info("agent disconnected", "reason", endReason(err))
	r.recordSessionEnd(s, err)
}

// announced takes what an agent says it serves.
func (r *Relay) announced(t *tunnel.Session, list []tunnel.Announcement) error {
	id, ok := t.Peer().Token.(*identity)
	if !ok || id.agent == nil {
		return &tunnel.Refusal{Code: tunnel.CodeRefused, Message: "only agents announce resources"}
	}
	return r.agents.link(t, id.agent).announce(list)
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

// serveFrontDoor serves /r/RESOURCE/… to whoever holds a bearer token: model
// resources alone, by the Authorization header alone.
func (r *Relay) serveFrontDoor(w http.ResponseWriter, q *http.Request) {
	name, _, _ := strings.Cut(strings.TrimPrefix(q.RequestURI, frontDoor), "/")
	name, _, _ = strings.Cut(name, "?")
	prefix := frontDoor + name
	ctx, source := q.Context(), sourceOf(q.RemoteAddr)
	var res *admin.JoinResource
	id, err := r.bearer(ctx, q, source)
	if err == nil {
		// What the guard tells before it decides must not tell a resource from none.
		if found, d := r.reach(ctx, id, name, "bearer"); d.Allow && found.Kind == guard.KindModel {
			res = &found
		}
	}
	caller := &guard.Caller{Via: "bearer", Source: source, Prefix: prefix, Value: bearer{id}}
	if err != nil {
		refuseBearer(w, q, strings.TrimPrefix(q.RequestURI, prefix), err)
		return
	}
	// The token's end is the answer's: what is running then ends with a word.
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	expiry := time.AfterFunc(id.token.Expires.Sub(r.now()), func() {
		end(&guard.Ended{Code: auth.CodeTokenExpired, Message: "the token expired while the answer was running"})
	})
	defer expiry.Stop()
	q = q.WithContext(ctx)
	caller.Principal = id.id()
	caller.Identity = func(h http.Header, target guard.Resource) { id.setHeaders(h, target, r.assertions, r.now()) }
	target := guard.Resource{Name: name, Kind: guard.KindModel}
	if res != nil {
		target = r.guardResource(*res)
	}
	r.guard.Handler(target, caller).ServeHTTP(w, q)
}

// bearer verifies the token of a front-door request.
func (r *Relay) bearer(ctx context.Context, q *http.Request, source string) (*identity, error) {
	values := q.Header.Values("Authorization")
	if len(values) != 1 || len(values[0]) > maxBearerLength || len(values[0]) < len(bearerPrefix) || !strings.EqualFold(values[0][:len(bearerPrefix)], bearerPrefix) {
		return nil, &auth.TokenError{Code: "token_missing", Public: "send one Authorization: Bearer header with a token for this relay's front door"}
	}
	token, err := r.verifier.Verify(ctx, values[0][len(bearerPrefix):], auth.UseBearer)
	if err != nil {
		reason := "token_invalid"
		var cause *auth.TokenError
		if errors.As(err, &cause) {
			reason = cause.Code
		}
		e := audit.Event{Kind: audit.KindLogin, Decision: audit.Deny, Reason: reason, Source: source, Via: "bearer"}
		if recordErr := r.audit.Denied(ctx, e); recordErr != nil {
			r.log.Error("record refused token", "error", recordErr)
		}
		return nil, err
	}
	id := newIdentity(token)
	id.principal.Binding = auth.BindingNone
	id.policy = policyPrincipal(id.principal)
	return id, nil
}

// refuseBearer answers a request without a good token in the shape its client
// reads, as RFC 6750 has it.
func refuseBearer(w http.ResponseWriter, q *http.Request, path string, err error) {
	no := &modelapi.Error{Status: http.StatusUnauthorized, Code: "token_invalid", Message: "the token is not acceptable"}
	var cause *auth.TokenError
	if errors.As(err, &cause) {
		no.Code, no.Message = cause.Code, cause.Public
	}
	h := w.Header()
	h.Set("WWW-Authenticate", `Bearer realm="iap"`)
	h.Set("Content-Type", modelapi.ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("X-Iap-Decision", "deny; reason="+no.Code)
	w.WriteHeader(no.Status)
	_, _ = w.Write(no.Body(modelapi.ProtocolOf(path))) // a client that left needs no answer
	_ = q.Body.Close()
}

// sourceOf is the host of a network address.
func sourceOf(remote string) string {
	if host, _, err := net.SplitHostPort(remote); err == nil {
		return host
	}
	return remote
}

// silentLog drops what net/http would print about every scanner.
func silentLog() *log.Logger { return log.New(io.Discard, "", 0) }
