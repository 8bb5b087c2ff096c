package relay

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/state"
	"iap/tunnel"
)

const (
	// logoutPath is where providers post logout tokens, one for all of them: a
	// token says whose it is.
	logoutPath    = "/v1/backchannel-logout"
	maxLogoutForm = 32 << 10 // a token is at most half of it
	logoutWaits   = 2 * time.Second
	logoutsAtOnce = 16 // some may be waiting for a provider's keys
	logoutState   = 5 * time.Second
	viaLogout     = "backchannel-logout" // how records name the way in
)

// logoutDoor is what stands before the work on a logout token.
type logoutDoor struct {
	tries attempts      // refused ones, by source
	slots chan struct{} // of logoutsAtOnce
}

// enter takes a place, or says with which status to turn the caller away.
func (d *logoutDoor) enter(ctx context.Context, source string, now time.Time) (leave func(), status int) {
	if source != "" && !d.tries.allowed(source, now) {
		return nil, http.StatusTooManyRequests
	}
	timer := time.NewTimer(logoutWaits)
	defer timer.Stop()
	select {
	case d.slots <- struct{}{}:
		return func() { <-d.slots }, 0
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, http.StatusServiceUnavailable
}

// logoutError is the body of OpenID Connect Back-Channel Logout 1.0, section 2.8.
type logoutError struct {
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// serveLogout takes a provider's word that a login has ended (OpenID Connect
// Back-Channel Logout 1.0).
func (r *Relay) serveLogout(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	source, key := sourceOf(q.RemoteAddr), sourceKey(q.RemoteAddr)
	if r.cfg.ChannelBinding == tunnel.BindingNonce {
		key = "" // everybody comes from one source there: nobody may keep the provider out
	}
	leave, status := r.logoutDoor.enter(q.Context(), key, r.now())
	if status != 0 {
		w.Header().Set("Retry-After", "60")
		admin.WriteJSON(w, status, logoutError{"temporarily_unavailable", "too many logout tokens; try again later"})
		return
	}
	defer leave()
	o, err := r.readLogout(w, q)
	if err == nil {
		err = r.providerLogout(q.Context(), o, source)
	}
	if err == nil {
		w.WriteHeader(http.StatusOK)
		return
	}
	refused := logoutRefusal(err)
	if refused.Error == "invalid_request" {
		r.logoutDoor.tries.fail(key)
		r.recordDenied(q.Context(), audit.Event{Kind: audit.KindLogin, Reason: refusalReason(err), Source: source, Via: viaLogout})
	}
	admin.WriteJSON(w, http.StatusBadRequest, refused)
}

// readLogout reads the form's one field and verifies what is in it.
func (r *Relay) readLogout(w http.ResponseWriter, q *http.Request) (*auth.Logout, error) {
	malformed := &auth.TokenError{Code: auth.CodeLogoutInvalid, Public: "post one logout_token as application/x-www-form-urlencoded"}
	kind, _, err := mime.ParseMediaType(q.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, malformed
	}
	q.Body = http.MaxBytesReader(w, q.Body, maxLogoutForm)
	if q.ParseForm() != nil || len(q.PostForm["logout_token"]) != 1 || q.URL.RawQuery != "" {
		return nil, malformed
	}
	return r.verifier.VerifyLogout(q.Context(), q.PostForm.Get("logout_token"))
}

var (
	errLogoutReplayed = &auth.TokenError{Code: "logout_replayed", Public: "this logout token has been used"}
	errLogoutNotKept  = errors.New("logout not kept")
)

// providerLogout ends the logins that a logout is about and refuses them until a new
// one: in memory first, as everything that takes rights away. What the state could
// not keep the provider is asked to send again.
func (r *Relay) providerLogout(ctx context.Context, o *auth.Logout, source string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutState) // a provider that hangs up has spoken
	defer cancel()
	used := keyLogoutToken + o.ID
	ended := r.endLogins(o) // a copy of an old token ends what has ended, and nothing that began since
	_, err := r.store.Swap(ctx, used, 0, []byte(source), r.now().Add(auth.LogoutKept))
	if errors.Is(err, state.ErrConflict) {
		return errLogoutReplayed
	}
	if err == nil {
		if err = r.saveLogout(ctx, o); err != nil {
			_ = r.store.Delete(ctx, used, -1) // so that it can come again; else it comes too late
		}
	}
	e := audit.Event{
		Kind: audit.KindSession, Reason: "provider_logout", Issuer: o.Issuer, Via: viaLogout, Source: source,
		Detail: map[string]string{"sessions": strconv.Itoa(ended)},
	}
	if o.Subject != "" {
		e.Principal = o.Issuer + "/" + o.Subject
	}
	if o.SessionID != "" {
		e.Detail["provider_session"] = sessionHash(o.SessionID)
	}
	if recordErr := r.audit.Record(ctx, e); recordErr != nil {
		r.log.Error("record logout", "principal", e.Principal, "error", recordErr)
	}
	if err != nil {
		r.log.Error("logout holds in memory only", "principal", e.Principal, "error", err)
		return errLogoutNotKept
	}
	return nil
}

// endLogins ends what runs with the logins, and counts their sessions.
func (r *Relay) endLogins(o *auth.Logout) (sessions int) {
	r.logouts.add(logoutPlace(o), o, r.now())
	return r.endLoggedOut()
}

// endLoggedOut ends what runs with logins that a provider has ended.
func (r *Relay) endLoggedOut() (sessions int) {
	no := errLoggedOut()
	for _, s := range r.sessions.all(func(s *session) bool { return r.logouts.ended(s.identity()) }) {
		if s.ctx.Err() == nil {
			sessions++
		}
		s.stop(no.Code, no.Message)
	}
	r.guard.End(func(c *guard.Caller) bool {
		who, ok := c.Value.(principalSource)
		return ok && r.logouts.ended(who.identity())
	}, &guard.Ended{Code: no.Code.String(), Message: no.Message})
	return sessions
}

func logoutRefusal(err error) logoutError {
	var cause *auth.TokenError
	switch {
	case errors.As(err, &cause) && cause.Code == auth.CodeIssuerUnavailable:
		return logoutError{"temporarily_unavailable", cause.Public}
	case errors.As(err, &cause):
		return logoutError{"invalid_request", cause.Public + " (" + cause.Code + ")"}
	}
	return logoutError{"logout_failed", "the login has ended, and the relay could not write it down; send it again"}
}
