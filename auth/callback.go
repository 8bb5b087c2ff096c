package auth

import (
	"context"
	"crypto/subtle"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// callback receives the browser's redirect on a loopback port. It answers one request
// that has the right state; others, which any page in the browser can send, do not
// end the login.
type callback struct {
	state          string
	issuer         string
	issuerRequired bool
	taken          atomic.Bool
	answers        chan authorizationAnswer // capacity 1: the one answer
}

func newCallback(state, issuer string, issuerRequired bool) *callback {
	return &callback{state: state, issuer: issuer, issuerRequired: issuerRequired, answers: make(chan authorizationAnswer, 1)}
}

func (c *callback) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != RedirectPath:
		page(w, http.StatusNotFound, "Nothing is here.")
		return
	case r.Method != http.MethodGet:
		page(w, http.StatusMethodNotAllowed, "Nothing is here.")
		return
	case !c.ours(r.URL.Query()["state"]):
		page(w, http.StatusBadRequest, "This is not the login that was started in the terminal.")
		return
	case c.taken.Swap(true):
		page(w, http.StatusGone, "This login has been answered already.")
		return
	}
	answer := readAnswer(r, c.issuer, c.issuerRequired)
	if answer.err != nil {
		page(w, http.StatusOK, "The login did not succeed. The terminal says why; you can close this window.")
	} else {
		page(w, http.StatusOK, "Thank you. Go back to the terminal; you can close this window.")
	}
	c.answers <- answer
}

func (c *callback) ours(states []string) bool {
	return len(states) == 1 && subtle.ConstantTimeCompare([]byte(states[0]), []byte(c.state)) == 1
}

// page writes a fixed sentence: nothing of the request comes back to the browser.
func page(w http.ResponseWriter, status int, sentence string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// A browser that has left is told nothing.
	_, _ = io.WriteString(w, "<!doctype html><meta charset=utf-8><title>iapctl login</title><p>"+sentence+"</p>\n")
}

// callbackServer is the running server; stop ends it and waits for it.
type callbackServer struct {
	server  *http.Server
	running sync.WaitGroup
}

func (c *callback) serve(ln net.Listener) *callbackServer {
	s := &callbackServer{server: &http.Server{
		Handler:           c,
		ReadTimeout:       callbackTimeout,
		ReadHeaderTimeout: callbackTimeout,
		WriteTimeout:      callbackTimeout,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          log.New(io.Discard, "", 0),
	}}
	s.server.SetKeepAlivesEnabled(false)
	s.running.Go(func() { _ = s.server.Serve(ln) }) // ends with ErrServerClosed
	return s
}

// stop lets the last page reach the browser, for a moment.
func (s *callbackServer) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), callbackDrain)
	defer cancel()
	if s.server.Shutdown(ctx) != nil {
		_ = s.server.Close() // connections that browsers open ahead of need
	}
	s.running.Wait()
}
