package relay

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/config"
	"iap/internal/version"
	"iap/tunnel"
)

const (
	frontDoor       = "/r/"
	keysPath        = "/.well-known/iap-assertion-keys"
	idleTimeout     = 30 * time.Second       // a kept-alive connection; a client makes a new one
	strangerBody    = 10 * time.Second       // the rest of a request on which nothing is proven
	sessionCloses   = 500 * time.Millisecond // for the last words of a session's requests
	expiryGrace     = 2 * time.Second        // a session's requests end so long before the session, with a word
	bearerPrefix    = "Bearer "
	maxBearerLength = 16 << 10 // the verifier reads no longer token
	maxConnections  = 32 << 10 // open at once, with or without a session; each costs about 30 KiB
	maxShaking      = 64       // unauthenticated handshakes from one source at once
	maxStrangers    = 256      // connections from one source on which nothing is proven yet
)

// Bounds of one HTTP/2 connection. What net/http does not let us set it bounds
// itself: header blocks as MaxHeaderBytes says, streams that are opened and reset
// at once, control frames that wait to be sent.
const (
	h2Streams      = 100              // answers at once; RFC 9113 advises against less
	h2StreamWindow = 256 << 10        // of a request's body before the guard has read it
	h2ConnWindow   = 1 << 20          // of all bodies on the connection
	h2Frame        = 16 << 10         // the least there can be: tokens of others never wait behind a large one
	h2HeaderTable  = 4 << 10          // of compressed headers, for each direction
	h2Silence      = 15 * time.Second // then the client is asked whether it is there
	h2Answer       = 15 * time.Second // in which it must answer
	h2WriteStall   = 30 * time.Second // a client that takes no byte for so long is gone
)

// perSource is how many of what is limited one source may have. Behind something
// that ends TLS everybody comes from one source.
func (r *Relay) perSource(limit int) int {
	if r.cfg.ChannelBinding == tunnel.BindingNonce {
		return maxConnections
	}
	return limit
}

// publicServer is the server of the one public port. It speaks HTTP/1.1, which
// the tunnel needs, and HTTP/2 to whoever asks for it by ALPN.
func (r *Relay) publicServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           r.publicHandler(),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: r.cert.get},
		Protocols:         protocols,
		ReadHeaderTimeout: headerTimeout, // covers the TLS handshake as well
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          silentLog(),
		BaseContext:       func(net.Listener) context.Context { return r.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, publicConnKey{}, c)
		},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: h2Streams, MaxReadFrameSize: h2Frame,
			MaxReceiveBufferPerStream: h2StreamWindow, MaxReceiveBufferPerConnection: h2ConnWindow,
			MaxDecoderHeaderTableSize: h2HeaderTable, MaxEncoderHeaderTableSize: h2HeaderTable,
			SendPingTimeout: h2Silence, PingTimeout: h2Answer, WriteByteTimeout: h2WriteStall,
		},

		DisableGeneralOptionsHandler: true, // OPTIONS is the guard's to answer
	}
}

type publicConnKey struct{}

// proven tells the listener that the caller of q is known.
func proven(q *http.Request) {
	c, _ := q.Context().Value(publicConnKey{}).(net.Conn)
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if counted, ok := c.(*strangerConn); ok {
		counted.known()
	}
}

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
	mux.HandleFunc("POST "+logoutPath, r.serveLogout)
	mux.HandleFunc("POST "+admin.JoinPath, func(w http.ResponseWriter, q *http.Request) {
		admin.JoinHandler(func(ctx context.Context, j admin.JoinRequest) (admin.JoinReply, error) {
			return r.join(ctx, sourceOf(q.RemoteAddr), j)
		}).ServeHTTP(w, q)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		// A stranger that sends half a request does not keep the connection.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(strangerBody))
		r.running.Add(1) // the log stays open until what is served here has written its end
		defer r.running.Done()
		if r.stopping.Load() {
			w.Header().Set("Connection", "close") // net/http makes a GOAWAY of it in HTTP/2
		}
		switch {
		case q.ProtoMajor == 1 && tunnel.IsUpgrade(q):
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
	key, chain := r.ring.Shown()
	d := admin.Discovery{
		Relay: r.cfg.Name, Version: version.String(), Protocols: []string{tunnel.Protocol},
		ChannelBinding: string(r.cfg.ChannelBinding), RelayKey: key.Public().(ed25519.PublicKey), RelayChain: chain, Relays: r.cluster.Addresses(),
		RefreshSeconds: seconds(r.cfg.Sessions.Refresh), MaxTokenAgeSeconds: seconds(r.cfg.Sessions.MaxTokenAge),
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

func seconds(d config.Duration) int64 { return int64(time.Duration(d) / time.Second) }

// serveReady says whether the relay can do its work. The text goes to whoever
// asks, so it names no cause.
func (r *Relay) serveReady(w http.ResponseWriter, q *http.Request) {
	if problem := r.problem(q.Context()); problem != "" {
		http.Error(w, problem, http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, strings.TrimSpace("ready "+r.unproven())+"\n")
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
	return r.cluster.Problem()
}

// unproven is what the relay serves on in spite of, or "": the audit log takes
// records and gets no checkpoints.
func (r *Relay) unproven() string {
	if r.audit.Proving() != nil {
		return "audit_unproven"
	}
	return ""
}

// serveTunnel turns the connection into a session and serves it to its end.
func (r *Relay) serveTunnel(w http.ResponseWriter, q *http.Request) {
	source, key := sourceOf(q.RemoteAddr), sourceKey(q.RemoteAddr)
	if !r.handshakes.begin(key) {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many handshakes at once", http.StatusTooManyRequests)
		return
	}
	t, err := r.accept(w, q, source)
	r.handshakes.end(key)
	if err != nil {
		r.log.Debug("handshake failed", "source", source, "error", err)
		return
	}
	proven(q)
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
	h := &handshake{relay: r, source: source}
	session, err := tunnel.Accept(r.ctx, conn, r.serverConfig(h))
	h.unproven(err)
	return session, err
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
