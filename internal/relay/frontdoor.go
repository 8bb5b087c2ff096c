package relay

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/policy"
)

// codeTokenMissing is for a request that shows nothing at all.
const codeTokenMissing = "token_missing"

// doorCaller is who a request at the front door comes from.
type doorCaller struct {
	principalSource
	via     string    // "bearer" or "key"
	expires time.Time // of what was presented
}

// expired is why an answer ends at the end of what was presented for it.
func (c *doorCaller) expired() *guard.Ended {
	if c.via == policy.ViaKey {
		return &guard.Ended{Code: reasonKeyExpired, Message: "the key expired while the answer was running"}
	}
	return &guard.Ended{Code: auth.CodeTokenExpired, Message: "the token expired while the answer was running"}
}

// serveFrontDoor serves /r/RESOURCE/… to whoever presents a bearer token or a
// key: model resources alone, by header alone.
func (r *Relay) serveFrontDoor(w http.ResponseWriter, q *http.Request) {
	if crossOrigin(r.cfg.FrontDoor.CORSOrigins, w, q) {
		return
	}
	if no := readable(q); no != nil {
		refuseAtDoor(w, q, http.StatusBadRequest, no.Code, no.Message)
		return
	}
	who, err := r.atDoor(q)
	if err != nil {
		refuseCredential(w, q, err)
		return
	}
	proven(q)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // the guard has deadlines of its own
	// The credential's end is the answer's: what is running then ends with a word.
	ctx, end := context.WithCancelCause(q.Context())
	defer end(nil)
	defer r.doors.add(who, end)()
	expiry := time.AfterFunc(who.expires.Sub(r.now()), func() {
		end(who.expired())
	})
	defer expiry.Stop()
	if r.stateLost.Load() {
		r.refuseBlind(w, q)
		return
	}
	name := resourceOf(q)
	res, ctx := r.doorResource(ctx, who, name)
	r.guard.Handler(res, r.callerAtDoor(who, q, frontDoor+name)).ServeHTTP(w, q.WithContext(ctx))
}

// resourceOf is the resource that the request line names.
func resourceOf(q *http.Request) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(q.RequestURI, frontDoor), "/")
	name, _, _ = strings.Cut(name, "?")
	return name
}

// doorResource is the resource with what its agents say of it, for a caller who
// may reach it: what the guard tells before it decides must not tell a resource
// from none. The context is the request's, and knows if the answer was no.
func (r *Relay) doorResource(ctx context.Context, who *doorCaller, name string) (guard.Resource, context.Context) {
	blank := guard.Resource{Name: name, Kind: guard.KindModel}
	if key, ok := who.principalSource.(*keyCaller); ok && !slices.Contains(key.key.Resources, name) {
		return blank, ctx
	}
	found, d := r.reach(ctx, who.identity(), name, who.via)
	switch {
	case !d.Allow:
		return blank, context.WithValue(ctx, unreachedKey{}, d)
	case found.Kind != guard.KindModel:
		return blank, ctx
	}
	return r.guardResource(found), ctx
}

// unreachedKey marks the context of a request whose caller could not reach its
// resource when the request came: a policy that allows it a moment later decides on
// the next one, which is read as what it is.
type unreachedKey struct{}

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
	leaked := &modelapi.Error{Code: "credential_in_query", Message: "a credential does not belong in the address, where logs keep it: consider it leaked, and send a new one as Authorization: Bearer …"}
	if plain, err := url.PathUnescape(q.RequestURI); strings.Contains(q.RequestURI, auth.ProgramKeyPrefix) || err == nil && strings.Contains(plain, auth.ProgramKeyPrefix) {
		return leaked
	}
	_, query, _ := strings.Cut(q.RequestURI, "?")
	for pair := range strings.FieldsFuncSeq(query, func(c rune) bool { return c == '&' || c == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if isCredentialName(name) {
			return leaked
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
func (r *Relay) atDoor(q *http.Request) (*doorCaller, error) {
	text, err := credential(q.Header)
	if err != nil {
		return nil, err
	}
	who, err := r.holder(q.Context(), text)
	if err != nil {
		r.deniedAtDoor(q, text, err)
		return nil, err
	}
	if no := r.refusal(who.identity()); no != nil {
		err := &auth.TokenError{Code: no.Code.String(), Public: no.Message}
		r.deniedAtDoor(q, text, err)
		return nil, err
	}
	return who, nil
}

// credential is what the request shows: a token or key as Authorization: Bearer,
// or a key as X-Api-Key, where Anthropic's clients put it. In both places it must
// be the same: which of two counts would be a guess.
func credential(h http.Header) (string, error) {
	missing := &auth.TokenError{Code: codeTokenMissing, Public: "send one Authorization: Bearer header with a token for this relay's front door, or a key of iapctl keys create"}
	bearers, keys := h.Values("Authorization"), h.Values("X-Api-Key")
	if len(bearers) > 1 || len(keys) > 1 || len(bearers)+len(keys) == 0 {
		return "", missing
	}
	if len(keys) == 1 && !auth.IsProgramKey(keys[0]) {
		return "", missing // tokens have one place
	}
	if len(bearers) == 0 {
		return keys[0], nil
	}
	if len(bearers[0]) > maxBearerLength || len(bearers[0]) < len(bearerPrefix) || !strings.EqualFold(bearers[0][:len(bearerPrefix)], bearerPrefix) {
		return "", missing
	}
	text := bearers[0][len(bearerPrefix):]
	if len(keys) == 1 && keys[0] != text {
		return "", missing
	}
	return text, nil
}

// holder is whose credential text is.
func (r *Relay) holder(ctx context.Context, text string) (*doorCaller, error) {
	if auth.IsProgramKey(text) {
		key, err := r.keys.check(text, r.now(), time.Duration(r.cfg.Keys.MaxUnseen))
		if err != nil {
			return nil, err
		}
		r.usedKey(key.key)
		return &doorCaller{principalSource: key, via: policy.ViaKey, expires: key.key.Expires}, nil
	}
	token, err := r.verifier.Verify(ctx, text, auth.UseBearer)
	if err != nil {
		return nil, err
	}
	id := newIdentity(token)
	id.principal.Binding, id.login = auth.BindingNone, loginOf(token)
	id.policy = policyPrincipal(id.principal)
	return &doorCaller{principalSource: bearer{id}, via: policy.ViaBearer, expires: token.Expires}, nil
}

// deniedAtDoor records a credential that was refused, with the name of the key it
// claims to be.
func (r *Relay) deniedAtDoor(q *http.Request, text string, err error) {
	e := audit.Event{Kind: audit.KindLogin, Decision: audit.Deny, Reason: "token_invalid", Source: sourceOf(q.RemoteAddr), Via: policy.ViaBearer}
	var cause *auth.TokenError
	if errors.As(err, &cause) {
		e.Reason = cause.Code
	}
	if auth.IsProgramKey(text) {
		e.Via = policy.ViaKey
		if key, err := auth.ParseProgramKey(text); err == nil {
			e.Detail = map[string]string{"key": key.ID}
		}
	}
	if recordErr := r.audit.Denied(q.Context(), e); recordErr != nil {
		r.log.Error("record refused credential", "error", recordErr)
	}
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
