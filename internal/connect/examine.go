package connect

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http/httptrace"
	"sync"
	"time"

	"iap/tunnel"
)

// Way is what was found on the way to a session, as far as it came.
type Way struct {
	Proxy     string               // host:port of the HTTP proxy; empty: none
	Addresses []string             // of the name that was looked up, the proxy's if there is one; empty: nothing was
	Reached   string               // the address that took the connection
	TLS       *tls.ConnectionState // nil: the handshake failed or was not reached

	// How long each stage took; 0 for those that were not reached.
	Resolve, Via, TCP, Handshake, Upgrade, Token, Session time.Duration
}

// Examine makes one session as Once does, and tells of each stage. With a proxy, Via is the whole way to the relay's port.
// The session is nil if err is not; close it.
func Examine(ctx context.Context, cfg Config, class tunnel.Class) (*tunnel.Session, Way, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	t := &tracer{}
	conn, err := cfg.Dialer.Dial(httptrace.WithClientTrace(ctx, t.hooks(cfg.Dialer.Target())))
	way := t.end()
	if err != nil {
		return nil, way, err
	}
	begun := time.Now()
	login, err := cfg.Login(ctx)
	token := ""
	if err == nil {
		token, err = login.Token(ctx)
	}
	way.Token = time.Since(begun)
	if err != nil {
		conn.Close() // nothing was said on it yet
		return nil, way, err
	}
	begun = time.Now()
	session, err := (&line{cfg: cfg, class: class}).prove(ctx, conn, login, func(context.Context) (string, error) { return token, nil })
	if code := tunnel.CodeOf(err); code == tunnel.CodeTokenInvalid || code == tunnel.CodeSessionExpired {
		session, err = Once(ctx, cfg, class) // which renews the token if it is refused again
	}
	way.Session = time.Since(begun)
	return session, way, err
}

// tracer hears of a dial's stages. Package net may call it from several goroutines, and after the dial too.
type tracer struct {
	mu    sync.Mutex
	way   Way       // guarded by mu
	begun time.Time // guarded by mu; of the stage that runs
	conn  time.Time // guarded by mu; begin of the first stage
	over  bool      // guarded by mu
}

func (t *tracer) hooks(target string) *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GetConn: func(address string) {
			t.note(func(w *Way, _ time.Duration) {
				t.conn = time.Now()
				if address != target {
					w.Proxy = address
				}
			})
		},
		DNSStart: func(httptrace.DNSStartInfo) { t.note(func(*Way, time.Duration) {}) },
		DNSDone: func(info httptrace.DNSDoneInfo) {
			t.note(func(w *Way, took time.Duration) {
				w.Resolve = took
				for _, a := range info.Addrs {
					w.Addresses = append(w.Addresses, a.String())
				}
			})
		},
		ConnectDone: func(_, address string, err error) {
			t.note(func(w *Way, took time.Duration) {
				w.TCP += took // of all that were tried until one answered
				if err == nil && w.Reached == "" {
					w.Reached = address
				}
			})
		},
		TLSHandshakeStart: func() { t.note(func(w *Way, _ time.Duration) { w.Via = time.Since(t.conn) }) },
		TLSHandshakeDone: func(state tls.ConnectionState, err error) {
			t.note(func(w *Way, took time.Duration) {
				if w.Handshake = took; err == nil {
					w.TLS = &state
				}
			})
		},
	}
}

// note hands f the time since the last note, which is how long the stage took that ends now.
func (t *tracer) note(f func(w *Way, took time.Duration)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	now := time.Now()
	f(&t.way, now.Sub(t.begun))
	t.begun = now
}

// end is the way as it was when the dial returned.
func (t *tracer) end() Way {
	t.note(func(w *Way, took time.Duration) {
		if w.TLS != nil {
			w.Upgrade = took
		} else if w.Via == 0 && !t.conn.IsZero() {
			w.Via = time.Since(t.conn)
		}
	})
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	return t.way
}
