package relay

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// FrontDoorConfig is what the front door lets in beyond programs.
type FrontDoorConfig struct {
	// CORSOrigins are the origins, such as https://chat.example.com, whose pages
	// may send requests and read the answers. Compared exactly. Default none: no
	// page of another site can use the front door.
	CORSOrigins []string `yaml:"cors_origins"`
}

func (c FrontDoorConfig) validate() error {
	for _, origin := range c.CORSOrigins {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Scheme+"://"+u.Host != origin {
			return fmt.Errorf("front_door.cors_origins: %q is no origin: write https://chat.example.com", origin)
		}
	}
	return nil
}

// crossOrigin says to a browser whether a page of another site may ask, and
// whether that was the request itself. OPTIONS has no other use here and is
// always answered: a model server that skips its checks for it never sees one.
func (c FrontDoorConfig) crossOrigin(w http.ResponseWriter, q *http.Request) (answered bool) {
	h := w.Header()
	if len(c.CORSOrigins) > 0 {
		h.Add("Vary", "Origin")
	}
	origins := q.Header["Origin"]
	allowed := len(origins) == 1 && slices.Contains(c.CORSOrigins, origins[0])
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
