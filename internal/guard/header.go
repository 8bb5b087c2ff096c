package guard

import (
	"net/http"
	"strings"

	"iap/internal/modelapi"
)

// setOwnHeaders sets what every answer carries, errors too. A model server's answers are data: shown as a page they
// could do nothing.
func (x *exchange) setOwnHeaders() {
	h := x.w.Header()
	h.Set("X-Request-Id", x.id)
	if x.resource.Kind == KindModel || x.caller.atDoor() {
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	}
}

// requestHeader is what goes upstream: what the kind lets through, then who calls. No header of the caller's survives
// that an upstream could take for ours.
func (x *exchange) requestHeader() http.Header {
	in := x.r.Header
	out := make(http.Header, 8)
	dropped := connectionListed(in)
	for name, values := range in {
		if dropped[name] {
			continue
		}
		if x.resource.Kind == KindModel && passesToModel(name) || x.resource.Kind != KindModel && x.passesToApp(name) {
			out[name] = values
		}
	}
	if x.resource.Kind == KindModel && x.class.Body != nil {
		out.Set("Content-Type", x.contentType())
	}
	x.upgrade.set(out)
	out.Set("X-Request-Id", x.id)
	if x.caller.Identity != nil {
		x.caller.Identity(out, x.resource)
	}
	return out
}

// contentType is that of the canonical body.
func (x *exchange) contentType() string {
	switch {
	case x.class.Body == nil:
		return ""
	case x.class.ContentType != "":
		return x.class.ContentType
	}
	return "application/json"
}

// passesToModel lists the headers that say something to a model server. Credentials, ids and compression do not.
func passesToModel(name string) bool {
	switch name {
	case "Accept", "User-Agent", "Anthropic-Version", "Anthropic-Beta", "Openai-Beta":
		return true
	}
	return false
}

// passesToApp lets an application's own headers through, cookies and credentials among them: in a tunnel the
// application owns its origin. What names a caller, a client address or another target is ours to say, in whatever
// spelling: a server that folds "_" to "-" would take the one for the other.
func (x *exchange) passesToApp(name string) bool {
	if isHopByHop(name) || strings.ContainsFunc(name, func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}) {
		return false
	}
	for _, prefix := range identityPrefixes {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	switch name {
	case "Forwarded", "Via", "True-Client-Ip", "X-Method-Override", "X-Request-Id", "X-Cluster-Client-Ip", "X-User", "X-Scheme", "X-Host",
		"X-Url-Scheme", "X-Email", "X-Groups", "Content-Length", "Expect":
		return false
	case "Authorization", "X-Api-Key":
		// Where it may be the key to us it is not the application's.
		return !x.caller.atDoor() && (x.caller.Local == nil || x.caller.Local.KeyHash == nil)
	}
	return true
}

// identityPrefixes begin the headers by which proxies and identity products tell an application who calls, from where
// and for what. An application that trusts one of them must get it from us or not at all.
var identityPrefixes = [...]string{
	"X-Iap-", "X-Forwarded", "X-Original-", "X-Rewrite-", "X-Envoy-", "X-Real-", "X-Client-", "X-Http-Method",
	"X-Webauth-", "X-Auth-", "X-Authenticated-", "X-Authentik-", "X-Remote-", "Remote-", "X-Goog-", "X-Ms-", "X-Amzn-", "X-Pomerium-",
	"X-Vouch-", "Tailscale-", "Cf-", "Impersonate-", "X-Ssl-", "Ssl-",
}

// copyResponseHeader lets the upstream's headers through to the caller.
func (x *exchange) copyResponseHeader(in http.Header) {
	out := x.w.Header()
	dropped := connectionListed(in)
	for name, values := range in {
		name = http.CanonicalHeaderKey(name)
		if name == "Vary" && !dropped[name] && x.resource.Kind != KindModel {
			out[name] = append(out[name], values...)
			continue
		}
		if dropped[name] || out[name] != nil {
			continue // what we set stands
		}
		if x.resource.Kind == KindModel && passesFromModel(name) || x.resource.Kind != KindModel && x.passesFromApp(name) {
			out[name] = values
		}
	}
}

// passesFromModel lists what a model server may tell its caller beside the body.
func passesFromModel(name string) bool {
	switch name {
	case "Content-Type", "Cache-Control", "Retry-After", "X-Accel-Buffering", "Openai-Processing-Ms", "Openai-Model":
		return true
	}
	return false
}

// passesFromApp lets an application set what belongs to its own origin: cookies, redirects, its cross-origin rules.
// It may not announce another way to reach that origin, nor speak in our name.
func (x *exchange) passesFromApp(name string) bool {
	if isHopByHop(name) || strings.HasPrefix(name, "X-Iap-") || strings.HasPrefix(name, "Proxy-") {
		return false
	}
	switch name {
	case "Alt-Svc", "Strict-Transport-Security", "Content-Length", "Public-Key-Pins":
		return false
	}
	return true
}

// isHopByHop names the fields of RFC 9110, section 7.6.1, and their old companions.
func isHopByHop(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings":
		return true
	}
	return false
}

// connectionListed are the fields a message names as meant for this hop only.
func connectionListed(h http.Header) map[string]bool {
	values := h["Connection"]
	if len(values) == 0 {
		return nil
	}
	out := map[string]bool{}
	for _, value := range values {
		for name := range strings.SplitSeq(value, ",") {
			out[http.CanonicalHeaderKey(strings.TrimSpace(name))] = true
		}
	}
	return out
}

// actualFraming tells by its type how an answer is cut, which may differ from what was asked for.
func actualFraming(contentType string) modelapi.Framing {
	kind, _, _ := strings.Cut(contentType, ";")
	switch strings.ToLower(strings.TrimSpace(kind)) {
	case "text/event-stream":
		return modelapi.SSE
	case "application/x-ndjson", "application/ndjson", "application/jsonl":
		return modelapi.NDJSON
	}
	return modelapi.JSON
}
