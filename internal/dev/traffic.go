package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
)

// Endpoint names what a request asked of the provider. Requests to the token endpoint are told apart by their grant.
type Endpoint string

// The endpoints that are counted and can be scripted.
const (
	EndpointDiscovery           Endpoint = "discovery"
	EndpointKeys                Endpoint = "keys"
	EndpointAuthorize           Endpoint = "authorize"
	EndpointDeviceAuthorization Endpoint = "device_authorization"
	EndpointDevicePoll          Endpoint = "device_poll" // token endpoint, device_code grant
	EndpointCode                Endpoint = "code"        // token endpoint, authorization_code grant
	EndpointRefresh             Endpoint = "refresh"     // token endpoint, refresh_token grant
	EndpointRevocation          Endpoint = "revocation"
	EndpointUserinfo            Endpoint = "userinfo"
	EndpointPage                Endpoint = "page" // what a person looks at
	EndpointOther               Endpoint = "other"
)

// Forever as Fault.Times makes a fault stay until the script is replaced.
const Forever = -1

const (
	maxHitTimes = 1024     // enough for any script of polls; older ones are forgotten
	fillerChunk = 64 << 10 // how a huge body is written
)

// Fault is how an endpoint misbehaves. The first field that is set decides; Edit alone changes the true answer.
type Fault struct {
	Times int // how many requests; 0 means one, Forever all

	Pass     bool   // no fault: the request is served as usual
	Hang     bool   // no answer until the client leaves or the provider closes
	Drop     bool   // the connection is closed without an answer
	OAuth    string // an OAuth error code, status 400
	Redirect string // status 302 to this URL
	Status   int    // this status with Body and ContentType; 0 with a Body means 200
	Body     []byte
	// Size fills the body up to this many bytes, with blanks, after Body.
	Size        int64
	ContentType string // default text/html
	// Edit changes the JSON of the true answer.
	Edit func(document map[string]any)
}

// traffic counts requests and holds the scripts. Guarded by mu.
type traffic struct {
	mu      sync.Mutex
	count   map[Endpoint]int
	times   map[Endpoint][]time.Time
	scripts map[Endpoint][]Fault
	changed chan struct{} // closed and replaced at each hit
}

func newTraffic() *traffic {
	return &traffic{
		count: map[Endpoint]int{}, times: map[Endpoint][]time.Time{}, scripts: map[Endpoint][]Fault{},
		changed: make(chan struct{}),
	}
}

// hit counts a request and takes the fault that is meant for it.
func (t *traffic) hit(e Endpoint) Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count[e]++
	close(t.changed)
	t.changed = make(chan struct{})
	times := append(t.times[e], time.Now())
	t.times[e] = times[max(0, len(times)-maxHitTimes):]
	script := t.scripts[e]
	if len(script) == 0 {
		return Fault{Pass: true}
	}
	fault := script[0]
	switch {
	case fault.Times == Forever:
	case fault.Times > 1:
		script[0].Times--
	default:
		t.scripts[e] = script[1:]
	}
	return fault
}

// Script makes the next requests to an endpoint meet these faults in turn; after the last one the endpoint works again. It
// replaces the script before it; with no faults it heals the endpoint.
func (p *Provider) Script(e Endpoint, faults ...Fault) {
	p.traffic.mu.Lock()
	defer p.traffic.mu.Unlock()
	p.traffic.scripts[e] = append([]Fault(nil), faults...)
}

// Hits is how many requests an endpoint has seen, those that met a fault included.
func (p *Provider) Hits(e Endpoint) int {
	p.traffic.mu.Lock()
	defer p.traffic.mu.Unlock()
	return p.traffic.count[e]
}

// AwaitHits waits until an endpoint has seen n requests in all, or returns ctx's error.
func (p *Provider) AwaitHits(ctx context.Context, e Endpoint, n int) error {
	for {
		p.traffic.mu.Lock()
		enough, changed := p.traffic.count[e] >= n, p.traffic.changed
		p.traffic.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("await %d requests to %s: %w", n, e, ctx.Err())
		}
	}
}

// HitTimes returns when the latest requests came, at most 1024 of them.
func (p *Provider) HitTimes(e Endpoint) []time.Time {
	p.traffic.mu.Lock()
	defer p.traffic.mu.Unlock()
	return append([]time.Time(nil), p.traffic.times[e]...)
}

// scripted counts each request and lets the script answer before next does.
func (p *Provider) scripted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxFormBytes)
		fault := p.traffic.hit(endpointOf(r))
		switch {
		case fault.Pass:
			next.ServeHTTP(w, r)
		case fault.Hang:
			select {
			case <-r.Context().Done():
			case <-p.closing:
			}
			panic(http.ErrAbortHandler)
		case fault.Drop:
			panic(http.ErrAbortHandler)
		case fault.OAuth != "":
			writeOAuthError(w, fault.OAuth, "scripted")
		case fault.Redirect != "":
			http.Redirect(w, r, fault.Redirect, http.StatusFound)
		case fault.Edit != nil:
			edited(w, r, next, fault.Edit)
		default:
			fault.write(w)
		}
	})
}

// write sends the scripted body, in pieces so that a huge one costs no memory here.
func (f Fault) write(w http.ResponseWriter) {
	kind := f.ContentType
	setDefault(&kind, "text/html; charset=utf-8")
	w.Header().Set("Content-Type", kind)
	size := max(f.Size, int64(len(f.Body)))
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	setDefault(&f.Status, http.StatusOK)
	w.WriteHeader(f.Status)
	if _, err := w.Write(f.Body); err != nil {
		return
	}
	filler := bytes.Repeat([]byte(" "), fillerChunk)
	for left := size - int64(len(f.Body)); left > 0; {
		n, err := w.Write(filler[:min(left, fillerChunk)])
		if err != nil {
			return
		}
		left -= int64(n)
	}
}

// edited serves the true answer and changes its JSON on the way out.
func edited(w http.ResponseWriter, r *http.Request, next http.Handler, edit func(map[string]any)) {
	answer := &heldAnswer{header: http.Header{}, status: http.StatusOK}
	next.ServeHTTP(answer, r)
	document := map[string]any{}
	decoder := json.NewDecoder(&answer.body)
	decoder.UseNumber()
	if err := decoder.Decode(&document); err != nil {
		http.Error(w, "the scripted answer is not JSON", http.StatusInternalServerError)
		return
	}
	edit(document)
	w.Header().Set("Content-Type", answer.header.Get("Content-Type"))
	w.WriteHeader(answer.status)
	_, _ = io.Copy(w, bytes.NewReader(mustJSON(document))) // the client may have left; that is its right
}

// heldAnswer keeps an answer back until it has been edited.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *heldAnswer) Header() http.Header         { return h.header }
func (h *heldAnswer) WriteHeader(status int)      { h.status = status }
func (h *heldAnswer) Write(b []byte) (int, error) { return h.body.Write(b) }

// writeOAuthError answers in the shape of RFC 6749, section 5.2.
func writeOAuthError(w http.ResponseWriter, code, description string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	status := http.StatusBadRequest
	if code == string(oidc.InvalidClient) {
		status = http.StatusUnauthorized
	}
	w.WriteHeader(status)
	_, _ = w.Write(mustJSON(map[string]string{"error": code, "error_description": description}))
}
