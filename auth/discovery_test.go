package auth

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// ID-19.
func TestID19DiscoveryRefusesDocumentsOfOthers(t *testing.T) {
	set := func(name string, value any) func(map[string]any) {
		return func(doc map[string]any) { doc[name] = value }
	}
	for name, change := range map[string]func(map[string]any){
		"another issuer":           set("issuer", "https://evil.test"),
		"issuer with a slash":      set("issuer", "https://idp.test/"),
		"no issuer":                func(doc map[string]any) { delete(doc, "issuer") },
		"keys by http":             set("jwks_uri", "http://idp.test/jwks"),
		"keys at cloud metadata":   set("jwks_uri", "http://169.254.169.254/latest"),
		"the same by https":        set("jwks_uri", "https://169.254.169.254/latest"),
		"the same in IPv6":         set("jwks_uri", "https://[fe80::1]/"),
		"the same mapped":          set("jwks_uri", "https://[::ffff:169.254.169.254]/"),
		"keys on loopback":         set("jwks_uri", "https://127.0.0.1/jwks"),
		"keys on loopback by name": set("jwks_uri", "http://localhost/jwks"),
		"keys on a private net":    set("jwks_uri", "https://10.0.0.1/jwks"),
		"keys in a file":           set("jwks_uri", "file:///etc/passwd"),
		"user in the address":      set("token_endpoint", "https://idp.test@evil.test/token"),
		"line break":               set("token_endpoint", "https://idp.test/\ntoken"),
		"token by http":            set("token_endpoint", "http://idp.test/token"),
		"device by http":           set("device_authorization_endpoint", "http://idp.test/device"),
		"authorize by script":      set("authorization_endpoint", "javascript:alert(1)"),
		"number for an address":    set("token_endpoint", 7),
	} {
		p := newProvider(t, "https://idp.test")
		p.discovery = change
		if m, err := discover(t.Context(), newClient(p.client(), providerTimeout), p.issuer); err == nil {
			t.Errorf("%s: accepted %+v", name, m)
		}
	}
}

func TestID19DiscoveryDoesNotFollowToOtherHosts(t *testing.T) {
	var strayed atomic.Int32
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { strayed.Add(1) }))
	defer elsewhere.Close()
	for name, handler := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"html":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"huge":     func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat(" ", 2<<20)) },
		"loop":     func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
	} {
		p := listen(t)
		p.override["/.well-known/openid-configuration"] = handler
		if _, err := discover(t.Context(), newClient(nil, providerTimeout), p.issuer); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if strayed.Load() != 0 {
		t.Error("a request went to another host")
	}
}

func TestDiscoveryOverLoopback(t *testing.T) {
	p := listen(t)
	m, err := discover(t.Context(), newClient(nil, providerTimeout), p.issuer)
	if err != nil || m.KeysURL != p.issuer+"/jwks" || !m.IssuerInResponse {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestDiallerRefusesLinkLocal(t *testing.T) {
	for address, ok := range map[string]bool{
		"169.254.169.254:80": false, "[fe80::1%eth0]:443": false, "[::ffff:169.254.1.1]:80": false, "0.0.0.0:80": false, "224.0.0.1:80": false, "x": false,
		"10.0.0.1:443": true, "127.0.0.1:80": true, "[2001:db8::1]:443": true,
	} {
		if err := refuseLinkLocal(address); (err == nil) != ok {
			t.Errorf("%s: %v", address, err)
		}
	}
	// The same through the real transport.
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://169.254.169.254/", nil)
	if resp, err := NewTransport(nil).RoundTrip(req); err == nil || !strings.Contains(err.Error(), "link-local") {
		if resp != nil {
			_ = resp.Body.Close()
		}
		t.Errorf("dialled: %v", err)
	}
}
