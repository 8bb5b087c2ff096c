package guard

import (
	"crypto/sha256"
	"net"
	"net/url"
	"strings"
	"testing"
)

func local(rule LocalRule) option {
	return func(f *fixture) { f.caller.Local = &rule }
}

func TestLL03WhatAWebPageCouldHaveCausedIsRefused(t *testing.T) {
	f := newFixture(t, local(LocalRule{AllowOrigins: []string{"http://localhost:3000"}, AllowHosts: []string{"host.docker.internal", "box:11434"}}))
	for _, try := range []struct {
		header []string
		want   string // the reason; "" passes
	}{
		{nil, ""},
		{[]string{"Host: localhost:11434"}, ""},
		{[]string{"Host: LOCALHOST"}, ""},
		{[]string{"Host: 127.0.0.1:1"}, ""},
		{[]string{"Host: 127.8.9.1"}, ""},
		{[]string{"Host: [::1]:11434"}, ""},
		{[]string{"Host: [::1]"}, ""},
		{[]string{"Host: host.docker.internal:11434"}, ""},
		{[]string{"Host: box:11434"}, ""},
		{[]string{"Host: box:11435"}, "host_refused"},
		{[]string{"Host: box"}, "host_refused"},
		{[]string{"Host: evil.example"}, "host_refused"},
		{[]string{"Host: localhost.evil.example"}, "host_refused"},
		{[]string{"Host: localhost."}, "host_refused"},
		{[]string{"Host: 127.0.0.1.nip.io"}, "host_refused"},
		{[]string{"Host: 192.168.1.2"}, "host_refused"},
		{[]string{"Host: 0.0.0.0"}, "host_refused"},
		{[]string{"Host: [::]"}, "host_refused"},
		{[]string{"Host: localhost:"}, "host_refused"},
		{[]string{"Host: localhost:99x"}, "host_refused"},
		{[]string{"Host: 2130706433"}, "host_refused"},

		{[]string{"Origin: https://evil.example"}, "origin_refused"},
		{[]string{"Origin: null"}, "origin_refused"},
		{[]string{"Origin: "}, "origin_refused"},
		{[]string{"Origin: http://localhost:3001"}, "origin_refused"},
		{[]string{"Origin: http://localhost:3000"}, ""},
		{[]string{"Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"}, ""},
		{[]string{"Origin: HTTP://localhost:3000"}, "origin_refused"},
		{[]string{"Origin: http://localhost:3000", "Origin: https://evil.example"}, "origin_refused"},
		{[]string{"Host: localhost:80", "Origin: http://localhost:80", "Sec-Fetch-Site: same-origin"}, ""},
		{[]string{"Origin: vscode-webview://1a2b", "Sec-Fetch-Site: cross-site"}, ""},
		{[]string{"Origin: vscode-file://vscode-app", "Sec-Fetch-Site: cross-site"}, ""},
		{[]string{"Origin: app://obsidian.md", "Sec-Fetch-Site: cross-site"}, ""},
		{[]string{"Origin: tauri://localhost", "Sec-Fetch-Site: cross-site"}, ""},
		{[]string{"Origin: https://app://x"}, "origin_refused"},
		{[]string{"Origin: application://x"}, "origin_refused"},

		{[]string{"Sec-Fetch-Site: none"}, ""},
		{[]string{"Sec-Fetch-Site: same-origin"}, ""},
		{[]string{"Sec-Fetch-Site: same-site"}, "fetch_site_refused"},
		{[]string{"Sec-Fetch-Site: cross-site"}, "fetch_site_refused"},
		{[]string{"Sec-Fetch-Site: none", "Sec-Fetch-Site: cross-site"}, "fetch_site_refused"},
		{[]string{"Sec-Fetch-Site: "}, "fetch_site_refused"},

		{[]string{"Referer: https://evil.example/page"}, "referer_refused"},
		{[]string{"Referer: http://localhost:3000/page"}, ""},
		{[]string{"Host: localhost:80", "Referer: http://localhost:80/page"}, ""},
		{[]string{"Referer: %zz"}, "referer_refused"},
		{[]string{"Referer: http://localhost:3000@evil.example/"}, "referer_refused"},
	} {
		response := f.chat(try.header...)
		got := strings.TrimPrefix(response.Header.Get("X-Iap-Decision"), "deny; reason=")
		if got != try.want || (response.StatusCode == 403) != (try.want != "") {
			t.Errorf("%q: got %d %q, want %q", try.header, response.StatusCode, got, try.want)
		}
		origin := ""
		if try.want == "" {
			for _, line := range try.header {
				if o, ok := strings.CutPrefix(line, "Origin: "); ok && o != "http://localhost:80" {
					origin = o
				}
			}
		}
		if got := response.Header.Get("Access-Control-Allow-Origin"); got != origin {
			t.Errorf("%q: may be read by %q, want %q", try.header, got, origin)
		}
	}
}

func TestAZoneMakesAnAddressForeign(t *testing.T) {
	for _, host := range []string{"[::1%lo]", "[::1%25lo]", "::1", "[127.0.0.1]", "user@localhost", "localhost/x", ""} {
		if allowedHost(host, nil) {
			t.Errorf("%q is let in", host)
		}
	}
}

func FuzzHost(f *testing.F) {
	for _, host := range []string{"localhost:1", "[::1]:1", "127.0.0.1", "[::ffff:127.0.0.1]", "localhost@evil", "127.1"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !allowedHost(host, nil) {
			return
		}
		u, err := url.Parse("http://" + host + "/")
		if err != nil || u.User != nil || u.Path != "/" {
			t.Fatalf("%q is let in: %v", host, err)
		}
		if ip := net.ParseIP(u.Hostname()); !strings.EqualFold(u.Hostname(), "localhost") && (ip == nil || !ip.IsLoopback()) {
			t.Fatalf("%q is let in as %q", host, u.Hostname())
		}
	})
}

func TestLL03PreflightsAreRefusedExceptForAllowedOrigins(t *testing.T) {
	f := newFixture(t, local(LocalRule{AllowOrigins: []string{"http://localhost:3000"}, KeyHash: make([]byte, 32)}))
	ask := "Access-Control-Request-Method: POST"
	for _, try := range []struct {
		header []string
		status int
	}{
		{[]string{"Origin: https://evil.example", ask, "Access-Control-Request-Private-Network: true"}, 403},
		{[]string{ask}, 401},
		{nil, 401},
		{[]string{"Origin: http://localhost:3000", ask, "Access-Control-Request-Private-Network: true"}, 204},
		{[]string{"Origin: http://localhost:3000"}, 401},
	} {
		response := f.do(f.request("OPTIONS", "/v1/chat/completions", "", try.header...))
		if response.StatusCode != try.status {
			t.Errorf("%q: got %d, want %d", try.header, response.StatusCode, try.status)
		}
		granted := response.Header.Get("Access-Control-Allow-Private-Network") + response.Header.Get("Access-Control-Allow-Methods")
		if (granted != "") != (try.status == 204) {
			t.Errorf("%q: %v", try.header, response.Header)
		}
	}
	if n := len(f.forwarded()); n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
}

func TestTheLocalKeyIsAskedForAndNeverPassedOn(t *testing.T) {
	sum := sha256.Sum256([]byte("sk-local"))
	f := newFixture(t, local(LocalRule{KeyHash: sum[:]}))
	for _, try := range []struct {
		header []string
		status int
	}{
		{nil, 401},
		{[]string{"Authorization: Bearer wrong"}, 401},
		{[]string{"Authorization: Bearer"}, 401},
		{[]string{"Authorization: Basic sk-local"}, 401},
		{[]string{"X-Api-Key: wrong"}, 401},
		{[]string{"Authorization: Bearer sk-local"}, 200},
		{[]string{"Authorization: bearer sk-local"}, 200},
		{[]string{"X-Api-Key: sk-local"}, 200},
		{[]string{"Authorization: Bearer wrong", "X-Api-Key: sk-local"}, 200},
	} {
		response := f.chat(try.header...)
		if response.StatusCode != try.status {
			t.Errorf("%q: got %d, want %d", try.header, response.StatusCode, try.status)
		}
		if try.status == 401 && (response.Header.Get("Www-Authenticate") == "" || !strings.Contains(readAll(t, response), "local_key_required")) {
			t.Errorf("%q: answered %v", try.header, response.Header)
		}
	}
	for _, r := range f.forwarded() {
		if r.Header.Get("Authorization") != "" || r.Header.Get("X-Api-Key") != "" {
			t.Errorf("the key went upstream: %v", r.Header)
		}
	}
}
