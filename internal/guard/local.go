package guard

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// editorOrigins are schemes of programs on the user's machine that are built from web parts. No web page has such an
// origin.
func isEditorOrigin(origin string) bool {
	for _, scheme := range [...]string{"vscode-webview://", "vscode-file://", "app://", "tauri://"} {
		if strings.HasPrefix(origin, scheme) {
			return true
		}
	}
	return false
}

// checkLocal refuses what a web page in the user's browser could have caused: a name that merely resolves to this
// machine, a foreign origin, a foreign page as referrer. It then asks for the listener's key, if it has one.
func (x *exchange) checkLocal(rule *LocalRule) *refusal {
	if !allowedHost(x.r.Host, rule.AllowHosts) {
		return &refusal{status: 403, code: "host_refused", message: "this listener answers to localhost only; --allow-host lets another name in"}
	}
	foreign, no := x.checkOrigin(rule)
	if no != nil {
		return no
	}
	if site := x.r.Header["Sec-Fetch-Site"]; foreign == "" && len(site) > 0 {
		if len(site) > 1 || site[0] != "none" && site[0] != "same-origin" {
			return &refusal{status: 403, code: "fetch_site_refused", message: "a page of another site may not send requests here"}
		}
	}
	for _, referer := range x.r.Header["Referer"] {
		if !x.ownPage(referer, rule) {
			return &refusal{status: 403, code: "referer_refused", message: "a page of another site may not send requests here"}
		}
	}
	if foreign != "" {
		x.allowOrigin(foreign)
	}
	// A browser asks before it shows the key.
	isPreflight := foreign != "" && x.r.Method == "OPTIONS" && x.r.Header.Get("Access-Control-Request-Method") != ""
	if rule.KeyHash != nil && !isPreflight && !hasKey(x.r.Header, rule.KeyHash) {
		return &refusal{
			status: 401, code: "local_key_required", message: "this listener needs its key, as API key or bearer token",
			header: map[string][]string{"Www-Authenticate": {"Bearer"}},
		}
	}
	return nil
}

// checkOrigin returns the foreign origin that was let in, "" if the request has none.
func (x *exchange) checkOrigin(rule *LocalRule) (foreign string, no *refusal) {
	origins := x.r.Header["Origin"]
	if len(origins) == 0 {
		return "", nil
	}
	origin := origins[0]
	switch {
	case len(origins) > 1:
	case isEditorOrigin(origin) || slices.Contains(rule.AllowOrigins, origin):
		return origin, nil
	case origin == "http://"+x.r.Host || origin == "https://"+x.r.Host:
		return "", nil // the listener's own page; its host was checked
	}
	return "", &refusal{status: 403, code: "origin_refused", message: "a page of another site may not send requests here; --allow-origin lets one in"}
}

// ownPage says whether a referrer is the listener's own page, or one of an origin that is let in.
func (x *exchange) ownPage(referer string, rule *LocalRule) bool {
	if isEditorOrigin(referer) {
		return true
	}
	u, err := url.Parse(referer)
	if err != nil || u.Host == "" || u.User != nil {
		return false
	}
	return u.Host == x.r.Host || slices.Contains(rule.AllowOrigins, u.Scheme+"://"+u.Host)
}

// allowOrigin lets a page of that origin read the answer.
func (x *exchange) allowOrigin(origin string) {
	x.origin = origin
	x.w.Header().Set("Access-Control-Allow-Origin", origin)
	x.w.Header().Add("Vary", "Origin")
}

// allowedHost says whether a Host header names this machine itself, or what the user added.
func allowedHost(host string, allowed []string) bool {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:i], host[i+1:]
		if port == "" || len(port) > 5 || strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	if slices.Contains(allowed, host) || slices.Contains(allowed, name) {
		return name != ""
	}
	if strings.EqualFold(name, "localhost") {
		return true
	}
	bracketed := strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]")
	if bracketed {
		name = name[1 : len(name)-1]
	}
	address, err := netip.ParseAddr(name)
	return err == nil && address.Zone() == "" && address.Is6() == bracketed && address.IsLoopback()
}

// hasKey compares what the caller presents, hashed, in constant time.
func hasKey(h map[string][]string, want []byte) bool {
	found := 0
	for _, value := range h["Authorization"] {
		if scheme, key, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
			found |= isKey(strings.TrimSpace(key), want)
		}
	}
	for _, value := range h["X-Api-Key"] {
		found |= isKey(value, want)
	}
	return found == 1
}

func isKey(key string, want []byte) int {
	sum := sha256.Sum256([]byte(key))
	return subtle.ConstantTimeCompare(sum[:], want)
}
