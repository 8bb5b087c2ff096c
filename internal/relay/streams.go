package relay

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"iap/internal/admin"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/policy"
	"iap/tunnel"
)

const (
	refusalRead     = time.Second      // for the opener of a refused stream to read why
	refusalBytes    = 1 << 20          // of what it sends meanwhile
	tcpReplyTimeout = 15 * time.Second // an agent dials its upstream within this
	headerTimeout   = 10 * time.Second // a request's head, once its first byte is there
	maxHeaderBytes  = 64 << 10
)

// serveStream carries one stream of a user's session, from its header to its
// end.
func (r *Relay) serveStream(ctx context.Context, s *session, st *tunnel.Stream, h tunnel.Header) {
	who := s.identity().id()
	class := s.tunnel.Class()
	if !r.sessions.openStream(who, class) {
		refuse(st, tunnel.CodeTooManyStreams, "you have too many streams open; close some")
		return
	}
	defer r.sessions.closeStream(who, class)
	if no := r.refusal(s.identity()); no != nil {
		refuse(st, no.Code, no.Message)
		return
	}
	if h.Service == "api" {
		r.serveHTTP(s, st, r.whileHeld(s, admin.UserHandler(&userAPI{r, s}, &adminAPI{relay: r, caller: who}, &adminGate{r, s})))
		return
	}
	if h.Service != "" {
		refuse(st, tunnel.CodeUnknownResource, "this relay offers no such service")
		return
	}
	res, d := r.reach(ctx, s.identity(), h.Resource, "tunnel")
	no := tunnel.CodePolicyDenied
	if isLost(d.Reason) {
		no = tunnel.ParseCode(d.Reason)
	}
	if d.Allow && res.Kind == modelapi.KindTCP {
		var end func()
		if d, end = r.reserveStream(ctx, s.identity(), d); !d.Allow {
			no = tunnel.CodeLimitReached
		}
		defer end()
	}
	rec, err := r.recordStream(ctx, s, h, res, d)
	switch {
	case err != nil:
		refuse(st, tunnel.CodeAuditUnavailable, "the relay cannot write its audit log and lets nothing through until it can")
	case !d.Allow:
		r.tellStepUp(s, h.Resource, d)
		refuse(st, no, d.Message+" ("+d.Reason+")")
	case res.Kind == modelapi.KindTCP:
		r.serveTCP(ctx, s, st, res, rec, d)
	default:
		caller := r.tunnelCaller(s, h)
		sent, received := r.serveHTTP(s, st, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			// The resource anew for each request: its agent may have come, or its
			// server changed, since the connection was made.
			r.guard.Handler(r.guardResource(res), caller).ServeHTTP(w, q)
		}))
		rec.ended(streamEnd(st.Err()), "", received, sent)
	}
}

// refuse answers a stream's header with no and ends the stream. What the opener
// sent behind its header is read and dropped for a moment, so that it reads the
// reply; then the stream is cut, so that a refused stream holds no memory.
func refuse(st *tunnel.Stream, code tunnel.Code, message string) {
	defer st.Abort(code)
	if st.WriteReply(tunnel.Reply{Code: code.String(), Message: message}, nil) != nil || st.CloseWrite() != nil {
		return
	}
	_ = st.SetReadDeadline(time.Now().Add(refusalRead))
	_, _ = io.CopyN(io.Discard, st, refusalBytes) // its end, in whichever way, is all that is waited for
}

// tunnelCaller is the session as the guard knows callers.
func (r *Relay) tunnelCaller(s *session, h tunnel.Header) *guard.Caller {
	c := &guard.Caller{
		Principal: s.identity().id(), Session: s.tunnel.ID(), Source: s.source, Via: "tunnel", Value: s,
		Identity: func(header http.Header, res guard.Resource) {
			s.identity().setHeaders(header, res, r.assertions, r.now())
		},
	}
	if h.Local != nil {
		c.Local = &guard.LocalRule{AllowOrigins: h.Local.AllowOrigins, AllowHosts: h.Local.AllowHosts, KeyHash: h.Local.KeyHash}
	}
	return c
}

// guardResource is a resource with what its agents say of the server behind it.
func (r *Relay) guardResource(res admin.JoinResource) guard.Resource {
	online, announced := r.agents.online(res.Name)
	return guard.Resource{
		Name: res.Name, Kind: res.Kind, Labels: res.Labels, Server: announced.Server, Only: modelapi.OnlyModel(announced.Server, announced.Models),
		Models: announced.Models, Aliases: announced.Aliases, Several: online > 1,
	}
}

// serveTCP joins the user's stream with one to an agent. Nothing but bytes
// passes: what is in them is between the two ends.
func (r *Relay) serveTCP(ctx context.Context, s *session, st *tunnel.Stream, res admin.JoinResource, rec *streamRecord, d policy.Decision) {
	opening, cancel := context.WithTimeout(ctx, tcpReplyTimeout)
	running := &liveStream{session: s, resource: policyResource(res), user: st}
	defer running.leave()
	defer r.live.add(running)() // before the dial: a policy that changes meanwhile finds it
	l, up, failed := r.openTCP(opening, tcpHeader(s, res.Kind, res.Name, rec.line.Request, d))
	cancel()
	if failed != nil {
		rec.tried = failed.Tried
		rec.ended(failed.Code, failed.Agent, 0, 0)
		code, message := tunnel.ParseCode(failed.Code), "the agent could not connect to "+res.Name // its own words are nobody's business
		if code == tunnel.CodeNone || code == tunnel.CodeAgentOffline {
			code, message = tunnel.CodeAgentOffline, "no agent serves "+res.Name+" right now"
		}
		refuse(st, code, message)
		return
	}
	defer l.leave()
	if err := st.WriteReply(tunnel.Reply{OK: true}, nil); err != nil {
		up.Abort(tunnel.CodeCanceled)
		rec.ended(streamEnd(err), l.agent.ID, 0, 0)
		return
	}
	running.join(up)
	stop := context.AfterFunc(s.ctx, func() { running.stop(endCode(s.ctx)) })
	defer stop()
	r.recheckTCP(context.WithValue(ctx, recheckKey{}, true), running, tunnel.CodePolicyChanged) // it stands in nobody's way either
	spliced, err := tunnel.Splice(r.ctx, st, up)
	rec.ended(streamEnd(err), l.agent.ID, spliced.AToB, spliced.BToA)
}

// endCode is why a session's context ended.
func endCode(ctx context.Context) tunnel.Code {
	var ended *guard.Ended
	if errors.As(context.Cause(ctx), &ended) {
		return tunnel.ParseCode(ended.Code)
	}
	return tunnel.CodeRelayShutdown
}

// streamEnd is why a stream ended, in a word.
func streamEnd(err error) string {
	var ended *guard.Ended
	var abort *tunnel.AbortError
	var lost *tunnel.SessionError
	switch {
	case err == nil:
		return "completed"
	case errors.As(err, &ended):
		return ended.Code
	case errors.As(err, &abort):
		return abort.Code.String()
	case errors.As(err, &lost):
		return "connection_lost"
	default:
		return "failed"
	}
}

// serveHTTP serves HTTP on a stream until the stream ends, and returns the
// bytes sent and received on it.
func (r *Relay) serveHTTP(s *session, st *tunnel.Stream, handler http.Handler) (sent, received int64) {
	if err := st.WriteReply(tunnel.Reply{OK: true}, nil); err != nil {
		return 0, 0
	}
	c := &streamConn{Stream: st, session: s, handler: handler, closed: make(chan struct{})}
	if !r.streams.offer(c) {
		st.Abort(tunnel.CodeRelayShutdown)
		return 0, 0
	}
	<-c.closed
	return c.sent.Load(), c.received.Load()
}

// streamConn is a stream as net/http's server uses it.
type streamConn struct {
	*tunnel.Stream
	session        *session
	handler        http.Handler
	sent, received atomic.Int64
	broken         atomic.Bool // an answer was cut that only the connection's end delimits
	forget         func() bool // takes the connection off its session, which lives longer
	once           sync.Once
	closed         chan struct{}
}

func (c *streamConn) Read(p []byte) (int, error) {
	n, err := c.Stream.Read(p)
	c.received.Add(int64(n))
	return n, err
}

func (c *streamConn) Write(p []byte) (int, error) {
	n, err := c.Stream.Write(p)
	c.sent.Add(int64(n))
	return n, err
}

// Close is net/http's last call on the connection. A cut answer of HTTP/1.1 shows
// by its framing; an abort would overtake the words that say why.
func (c *streamConn) Close() error {
	c.once.Do(func() {
		if c.broken.Load() {
			c.Abort(tunnel.CodeUpstreamReset)
		} else {
			_ = c.Stream.Close()
		}
		c.forget()
		close(c.closed)
	})
	return nil
}

// streamServer is the HTTP server of all users' streams: a listener whose
// connections are streams.
type streamServer struct {
	http  *http.Server
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

type connKey struct{}

func newStreamServer() *streamServer {
	s := &streamServer{conns: make(chan net.Conn), done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           http.HandlerFunc(serveConn),
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ConnContext:       connContext,

		DisableGeneralOptionsHandler: true, // OPTIONS is the guard's to answer
		ErrorLog:                     silentLog(),
	}
	return s
}

// connContext makes the end of a session the end of its requests, with the
// reason as cause.
func connContext(ctx context.Context, c net.Conn) context.Context {
	sc := c.(*streamConn) // the listener hands out nothing else
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, connKey{}, sc))
	sc.forget = context.AfterFunc(sc.session.ctx, func() { cancel(context.Cause(sc.session.ctx)) })
	return ctx
}

// serveConn serves a request with the handler its stream was opened for.
func serveConn(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*streamConn)
	defer func() {
		if p := recover(); p != nil {
			c.broken.Store(!r.ProtoAtLeast(1, 1))
			panic(p)
		}
	}()
	c.handler.ServeHTTP(w, r)
}

func (s *streamServer) offer(c *streamConn) bool {
	select {
	case s.conns <- c:
		return true
	case <-s.done:
		return false
	}
}

// Accept, Close and Addr make it a net.Listener.
func (s *streamServer) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

func (s *streamServer) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

func (s *streamServer) Addr() net.Addr { return &net.UnixAddr{Name: "streams", Net: "stream"} }
