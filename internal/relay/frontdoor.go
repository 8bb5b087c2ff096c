package relay

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/tunnel"
)

// codeTokenMissing is for a request that shows nothing at all.
const codeTokenMissing = "token_missing"

// doorCaller is who a request at the front door comes from.
type doorCaller struct {
	principalSource
	via     string    // "bearer" or "key"
	expires time.Time // of what was presented
}

// serveFrontDoor serves /r/RESOURCE/… to whoever presents a bearer token or a
// key: model resources alone, by header alone.
func (r *Relay) serveFrontDoor(w http.ResponseWriter, q *http.Request) {
	if r.cfg.FrontDoor.crossOrigin(w, q) {
		return
	}
	if no := readable(q); no != nil {
		refuseAtDoor(w, q, http.StatusBadRequest, no.Code, no.Message)
		return
	}
	who, err := r.atDoor(q.Context(), q, sourceOf(q.RemoteAddr))
	if err != nil {
		refuseCredential(w, q, err)
		return
	}
	proven(q)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the guard has deadlines of its own
	// The credential's end is the answer's: what is running then ends with a word.
	ctx, end := context.WithCancelCause(q.Context())
	defer end(nil)
	expiry := time.AfterFunc(who.expires.Sub(r.now()), func() {
		end(&guard.Ended{Code: auth.CodeTokenExpired, Message: "the token expired while the answer was running"})
	})
	defer expiry.Stop()
	name := resourceOf(q)
	r.guard.Handler(r.doorResource(ctx, who, name), r.callerAtDoor(who, q, frontDoor+name)).ServeHTTP(w, q.WithContext(ctx))
}

// resourceOf is the resource that the request line names.
func resourceOf(q *http.Request) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(q.RequestURI, frontDoor), "/")
	name, _, _ = strings.Cut(name, "?")
	return name
}

// doorResource is the resource with what its agents say of it, for a caller who
// may reach it: what the guard tells before it decides must not tell a resource
// from none.
func (r *Relay) doorResource(ctx context.Context, who *doorCaller, name string) guard.Resource {
	if found, d := r.reach(ctx, who.identity(), name, who.via); d.Allow && found.Kind == guard.KindModel {
		return r.guardResource(found)
	}
	return guard.Resource{Name: name, Kind: guard.KindModel}
}

func (r *Relay) callerAtDoor(who *doorCaller, q *http.Request, prefix string) *guard.Caller {
	return &guard.Caller{
		Principal: who.identity().id(), Via: who.via, Source: sourceOf(q.RemoteAddr), Prefix: prefix, Value: who.principalSource,
		Identity: func(h http.Header, target guard.Resource) {
			who.identity().setHeaders(h, target, r.assertions, r.now())
		},
	}
}

// readable refuses credentials in the address, which every proxy and every log
// on the way keeps, and what HTTP/2 lets a request say twice.
func readable(q *http.Request) *modelapi.Error {
	if host := q.Header["Host"]; len(host) > 1 || len(host) == 1 && host[0] != q.Host {
		return &modelapi.Error{Code: "host_ambiguous", Message: "the request names two hosts"}
	}
	if len(q.Header["Content-Length"]) > 1 {
		return &modelapi.Error{Code: "header_ambiguous", Message: "a header that may stand once stands twice"}
	}
	_, query, _ := strings.Cut(q.RequestURI, "?")
	for pair := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if isCredentialName(name) {
			return &modelapi.Error{Code: "credential_in_query", Message: "a credential does not belong in the address, where logs keep it: consider it leaked, and send a new one as Authorization: Bearer …"}
		}
	}
	return nil
}

// isCredentialName tells by the name of a query parameter that its value is
// secret, however the name is spelled.
func isCredentialName(name string) bool {
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	switch strings.NewReplacer("-", "", "_", "", " ", "").Replace(strings.ToLower(name)) {
	case "accesstoken", "idtoken", "refreshtoken", "token", "authtoken", "bearer", "bearertoken", "jwt", "apikey", "xapikey", "key", "auth", "authorization",
		"secret", "clientsecret", "password", "credential", "credentials", "subscriptionkey":
		return true
	}
	return false
}

// atDoor tells who sends a request by the one credential it carries.
func (r *Relay) atDoor(ctx context.Context, q *http.Request, source string) (*doorCaller, error) {
	id, err := r.bearer(ctx, q, source)
	if err != nil {
		return nil, err
	}
	return &doorCaller{principalSource: bearer{id}, via: "bearer", expires: id.token.Expires}, nil
}

// bearer verifies the token of a front-door request.
func (r *Relay) bearer(ctx context.Context, q *http.Request, source string) (*identity, error) {
	values := q.Header.Values("Authorization")
	if len(values) != 1 || len(values[0]) > maxBearerLength || len(values[0]) < len(bearerPrefix) || !strings.EqualFold(values[0][:len(bearerPrefix)], bearerPrefix) {
		return nil, &auth.TokenError{Code: codeTokenMissing, Public: "send one Authorization: Bearer header with a token for this relay's front door"}
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

// refuseCredential answers a request without a good credential in the shape its
// client reads, with the challenge of RFC 6750.
func refuseCredential(w http.ResponseWriter, q *http.Request, err error) {
	code, message := "token_invalid", "the token is not acceptable"
	var cause *auth.TokenError
	if errors.As(err, &cause) {
		code, message = cause.Code, cause.Public
	}
	challenge := `Bearer realm="iap"`
	if code != codeTokenMissing {
		challenge += `, error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	refuseAtDoor(w, q, http.StatusUnauthorized, code, message)
}

// refuseAtDoor answers a request that never meets the guard.
func refuseAtDoor(w http.ResponseWriter, q *http.Request, status int, code, message string) {
	no := &modelapi.Error{Status: status, Code: code, Message: message}
	path := strings.TrimPrefix(q.RequestURI, frontDoor+resourceOf(q))
	h := w.Header()
	h.Set("Content-Type", modelapi.ContentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("X-Iap-Decision", "deny; reason="+no.Code)
	w.WriteHeader(no.Status)
	_, _ = w.Write(no.Body(modelapi.ProtocolOf(path))) // a client that left needs no answer
	_ = q.Body.Close()
}
