package relay

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/tunnel"
)

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
	proven(q)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the guard has deadlines of its own
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
	if r.checkPrincipal(id.id()) != nil {
		return nil, &auth.TokenError{Code: tunnel.CodeRevoked.String(), Public: "your access was revoked by an administrator"}
	}
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
