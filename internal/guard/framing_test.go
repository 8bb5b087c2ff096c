package guard

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"iap/internal/modelapi"
)

func TestHT01AChunkedRequestIsTheLastOfItsConnection(t *testing.T) {
	const head = "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	f := newFixture(t)
	// A length beside the chunks, and a second request where a front end that goes by the length sees a body.
	smuggled := head + "Content-Length: 30\r\nTransfer-Encoding: chunked\r\n\r\n" +
		chunk(chatBody) + "0\r\n\r\nGET /api/tags HTTP/1.1\r\nHost: x\r\n\r\n"
	got := f.rawOpen(smuggled) // returns only because the server closes
	if n := len(f.forwarded()); n != 1 || strings.Count(got, "HTTP/1.1") != 1 {
		t.Errorf("%d requests went upstream; answered %q", n, got)
	}
}

func chunk(data string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(data), data) }

func TestRequestsThatAreNotOneRequestAreRefused(t *testing.T) {
	const body = "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
	for name, request := range map[string]string{
		"absolute form":        "GET http://x/api/tags HTTP/1.1\r\nHost: x\r\n\r\n",
		"absolute, other host": "GET http://y/api/tags HTTP/1.1\r\nHost: x\r\n\r\n",
		"connect":              "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n",
		"asterisk":             "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
		"two hosts":            "GET /api/tags HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"no host":              "GET /api/tags HTTP/1.1\r\n\r\n",
		"two lengths":          "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" + body,
		"negative length":      "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"other coding":         "POST /api/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"space before colon":   "GET /api/tags HTTP/1.1\r\nHost : x\r\n\r\n",
		"fragment":             "GET /api/tags#/x HTTP/1.1\r\nHost: x\r\n\r\n",
		"backslash":            "GET /api\\tags HTTP/1.1\r\nHost: x\r\n\r\n",
		"h2c":                  "GET /api/tags HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\r\n",
	} {
		f := newFixture(t)
		got := f.raw(request)
		if len(f.forwarded()) != 0 || strings.Contains(got, " 200 ") {
			t.Errorf("%s: answered %q", name, got)
		}
	}
}

func TestOldProtocolVersionsCloseTheirConnection(t *testing.T) {
	f := newFixture(t)
	got := f.rawOpen("POST /api/chat HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}GET /api/tags HTTP/1.0\r\n\r\n")
	if len(f.forwarded()) != 0 || strings.Count(got, "HTTP/1.0 ") != 1 {
		t.Errorf("answered %q", got)
	}
}

func TestStreamsAreNotSentOverHTTP10(t *testing.T) {
	f := newFixture(t)
	request := fmt.Sprintf("POST /v1/chat/completions HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(chatBody), chatBody)
	if got := f.rawOpen(request); !strings.Contains(got, "http_version") || len(f.forwarded()) != 0 {
		t.Errorf("answered %q", got)
	}
}

func TestAmbiguousTargetsOfApplicationsAreRefused(t *testing.T) {
	for path, want := range map[string]bool{
		"/": false, "/a/b": false, "/a//b": false, "/a%20b": false, "/a%2Fb": false, "/group%2Fproject/x": false, "/.well-known/x": false, "/a...": false,
		"/a/../b": true, "/..": true, "/a/.": true, "/./a": true, "/%2e%2e/a": true, "/a/%2E": true, "/a%2f..%2fb": true, "/a/..%5cb": true,
		"//host/a": true, `/a\b`: true, "/a#b": true, "/a%00": true, "/a%0d%0ab": true, "/a\x01": true, "/a%": true, "/a%zz": true, "/a\x7f": true,
	} {
		if got := modelapi.AmbiguousPath(path); got != want {
			t.Errorf("%q: got %v", path, got)
		}
	}
}

func FuzzOpaquePath(f *testing.F) {
	for _, path := range []string{"/a/../b", "/%2e%2e", "/a%2f..", "//x", "/a;b/c"} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if modelapi.AmbiguousPath(path) {
			return
		}
		if strings.Contains(path, "/../") || bytes.ContainsAny([]byte(path), "\x00\r\n\\") || strings.HasPrefix(path, "//") {
			t.Errorf("%q passes", path)
		}
	})
}
