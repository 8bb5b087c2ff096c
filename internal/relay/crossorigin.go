package relay

import (
	"net/http"
	"slices"
)

// crossOrigin says to a browser whether a page of another site may ask, and
// whether that was the request itself. OPTIONS has no other use here and is
// always answered: a model server that skips its checks for it never sees one.
func crossOrigin(cors []string, w http.ResponseWriter, q *http.Request) (answered bool) {
	h := w.Header()
	if len(cors) > 0 {
		h.Add("Vary", "Origin")
	}
	origins := q.Header["Origin"]
	allowed := len(origins) == 1 && slices.Contains(cors, origins[0])
	if allowed {
		h.Set("Access-Control-Allow-Origin", origins[0])
		h.Set("Access-Control-Expose-Headers", "X-Request-Id, X-Iap-Decision, X-Iap-Error, Retry-After")
	}
	if q.Method != http.MethodOptions {
		return false
	}
	if !allowed || q.Header.Get("Access-Control-Request-Method") == "" {
		refuseAtDoor(w, q, http.StatusForbidden, "preflight_refused", "pages of other sites may not send requests here")
		return true
	}
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key, Anthropic-Version, Anthropic-Beta")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}
