package doctor

import (
	"context"
	"crypto/tls"
	"net/http/httptrace"
	"sync"
	"time"
)

// Way is what was found on the way to a relay, as far as it came.
type Way struct {
	Proxy     string               // host:port of the HTTP proxy; empty: none
	Addresses []string             // of the name that was looked up, the proxy's if there is one; empty: nothing was
	Reached   string               // the address that took the connection
	TLS       *tls.ConnectionState // nil: the handshake failed or was not reached

	// How long each stage took; 0 for those that were not reached. With a proxy,
	// Via is the whole way to the relay's port.
	Resolve, Via, TCP, Handshake, Upgrade time.Duration
}

// Trace has a dial to target with the context tell of its stages; end is the way
// as it is once the dial has returned.
func Trace(ctx context.Context, target string) (traced context.Context, end func() Way) {
	t := &tracer{}
	return httptrace.WithClientTrace(ctx, t.hooks(target)), t.end
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
