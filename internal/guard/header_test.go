package guard

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func identify(h http.Header, r Resource) {
	h.Set("X-Iap-Principal", "corp/ann")
	h.Set("X-Iap-Resource", r.Name)
}

// forged are headers a caller must not be able to send.
var forged = []string{
	"Authorization: Bearer stolen", "X-Api-Key: k", "Cookie: a=b", "X-Iap-Principal: root", "X-Iap-Email: root@x", "X_iap_principal: root",
	"X-Iap_principal: root", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-User: root", "X-Forwarded-Host: x", "X-Forwarded-Uri: /api/pull",
	"X-Forwarded-Method: DELETE", "X_forwarded_for: 1.2.3.4", "Forwarded: for=1.2.3.4", "X-Real-Ip: 1.2.3.4", "X-Original-Url: /api/pull",
	"X-Rewrite-Url: /api/pull", "X-Http-Method-Override: DELETE", "X-Conversation-Id: 1", "X-Body-Compressed: zstd", "X-Request-Id: mine",
	"Remote-User: root", "X-Remote-User: root", "Proxy-Authorization: Basic x", "Te: trailers", "Accept-Encoding: gzip",
	"Connection: X-Iap-Principal, x-iap-resource, X-Request-ID, Accept", "Connection: Authorization",
}

func TestOnlyListedHeadersReachAModelServer(t *testing.T) {
	f := newFixture(t, func(f *fixture) { f.caller.Identity = identify })
	f.chat(append(forged, "Accept: text/event-stream", "Anthropic-Version: 2023-06-01", "User-Agent: curl/8", "X-Custom: y")...)
	want := http.Header{
		"Anthropic-Version": {"2023-06-01"}, "User-Agent": {"curl/8"}, "Content-Type": {"application/json"},
		"X-Request-Id": {"req-1"}, "X-Iap-Principal": {"corp/ann"}, "X-Iap-Resource": {"phi3"},
	}
	got := f.forwarded()[0].Header
	for name := range got {
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: %q went upstream, want %q", name, got[name], want[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
}

func TestOnlyListedHeadersLeaveAModelServer(t *testing.T) {
	f := newFixture(t, func(f *fixture) {
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			r := answerWith(200, "text/html", "<script>")
			for _, name := range []string{
				"Set-Cookie", "Access-Control-Allow-Origin", "Access-Control-Allow-Credentials", "Location", "Alt-Svc", "Trailer",
				"Connection", "Keep-Alive", "Transfer-Encoding", "Www-Authenticate", "X-Iap-Decision", "Strict-Transport-Security",
				"Server", "X-Request-Id", "Refresh", "Link", "Content-Security-Policy", "Clear-Site-Data",
			} {
				r.Header.Set(name, "evil")
			}
			r.Header.Set("Cache-Control", "no-cache")
			return r, nil
		}
	})
	response := f.chat()
	if body := readAll(t, response); body != "<script>" {
		t.Errorf("got %q", body)
	}
	want := map[string]string{
		"Content-Type": "text/html", "Content-Length": "8", "Cache-Control": "no-cache", "X-Request-Id": "req-1",
		"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'",
	}
	for name, values := range response.Header {
		if name != "Date" && (len(values) != 1 || values[0] != want[name]) {
			t.Errorf("%s: %q", name, values)
		}
	}
}

func TestAnswersAModelServerMayNotGiveBecome502(t *testing.T) {
	for _, try := range []struct {
		path string
		want string
	}{
		{"/v1/chat/completions", `"type":"server_error"`},
		{"/v1/messages", `"type":"api_error"`},
		{"/api/chat", `{"error":"the upstream answered `},
	} {
		for _, status := range []int{0, 100, 101, 103, 199, 300, 301, 302, 304, 307, 401, 407, 600} {
			f := newFixture(t, func(f *fixture) {
				f.guard.Forward = func(context.Context, *Request) (*Response, error) {
					r := answerWith(status, "application/json", "secret")
					r.Header.Set("Location", "http://169.254.169.254/")
					return r, nil
				}
			})
			response := f.do(f.request("POST", try.path, chatBody))
			body := readAll(t, response)
			if response.StatusCode != 502 || !strings.Contains(body, try.want) || strings.Contains(body, "secret") {
				t.Errorf("%s, %d: got %d %s", try.path, status, response.StatusCode, body)
			}
			if o := f.outcome(); o.Ended != "upstream_status" || o.Status != 502 {
				t.Errorf("outcome %+v", o)
			}
		}
	}
	for _, status := range []int{200, 201, 400, 403, 422, 429, 500, 503} {
		f := newFixture(t, func(f *fixture) {
			f.guard.Forward = func(context.Context, *Request) (*Response, error) {
				r := answerWith(status, "application/json", "{}")
				r.Header.Set("Retry-After", "7")
				return r, nil
			}
		})
		if response := f.chat(); response.StatusCode != status || response.Header.Get("Retry-After") != "7" {
			t.Errorf("%d became %d", status, response.StatusCode)
		}
		if n := len(f.forwarded()); n != 1 {
			t.Errorf("%d: sent %d times", status, n)
		}
	}
}

func TestACompressedAnswerIsNotPassedOn(t *testing.T) {
	f := newFixture(t, func(f *fixture) {
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			r := answerWith(200, "application/json", "\x1f\x8b")
			r.Header.Set("Content-Encoding", "gzip")
			return r, nil
		}
	})
	if response := f.chat(); response.StatusCode != 502 {
		t.Errorf("got %d", response.StatusCode)
	}
}

func TestTrailersDoNotPass(t *testing.T) {
	f := newFixture(t)
	request := "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-Iap-Principal\r\n\r\n" +
		chunk(chatBody) + "0\r\nX-Iap-Principal: root\r\nContent-Length: 3\r\n\r\n"
	if got := f.rawOpen(request); !strings.Contains(got, " 200 ") {
		t.Fatalf("answered %q", got)
	}
	for name := range f.forwarded()[0].Header {
		if strings.HasPrefix(name, "X-Iap") || name == "Trailer" {
			t.Errorf("%s went upstream", name)
		}
	}
}

func app(f *fixture) { f.resource = Resource{Name: "grafana", Kind: KindHTTP} }

func TestAnApplicationKeepsItsOwnHeaders(t *testing.T) {
	f := newFixture(t, app, func(f *fixture) {
		f.caller.Identity = identify
		f.guard.Forward = func(context.Context, *Request) (*Response, error) {
			r := answerWith(302, "text/html", "moved")
			r.Header.Set("Location", "/login")
			r.Header["Set-Cookie"] = []string{"a=b", "c=d"}
			r.Header.Set("Alt-Svc", "h3=evil:443")
			r.Header.Set("X-Iap-Decision", "allow")
			r.Header.Set("Connection", "X-Secret")
			r.Header.Set("X-Secret", "x")
			return r, nil
		}
	})
	response := f.do(f.request("GET", "/d/x?orgId=1&q=%2e%2e", "", append(forged, "X-Csrf-Token: t")...))
	if response.StatusCode != 302 || response.Header.Get("Location") != "/login" || len(response.Header["Set-Cookie"]) != 2 {
		t.Errorf("got %d %v", response.StatusCode, response.Header)
	}
	for _, name := range []string{"Alt-Svc", "X-Iap-Decision", "X-Secret", "Content-Security-Policy"} {
		if response.Header.Get(name) != "" {
			t.Errorf("%s passed", name)
		}
	}
	r := f.forwarded()[0]
	want := map[string]string{
		"X-Csrf-Token": "t", "Cookie": "a=b", "X-Api-Key": "k", "Accept-Encoding": "gzip", "X-Request-Id": "req-1",
		"X-Iap-Principal": "corp/ann", "X-Iap-Resource": "grafana", "X-Conversation-Id": "1", "X-Body-Compressed": "zstd", "User-Agent": "Go-http-client/1.1",
	}
	for name, values := range r.Header {
		if len(values) != 1 || values[0] != want[name] {
			t.Errorf("%s: %q went upstream, want %q", name, values, want[name])
		}
	}
	if r.Target != "/d/x?orgId=1&q=%2e%2e" || f.recorded()[0].Path != "/d/x" || f.recorded()[0].Action != "connect" {
		t.Errorf("sent %q, recorded %+v", r.Target, f.recorded()[0])
	}
}

func TestAnApplicationsBodyStreamsBothWays(t *testing.T) {
	f := newFixture(t, app, func(f *fixture) {
		f.guard.Forward = func(_ context.Context, r *Request) (*Response, error) {
			if r.ContentLength != -1 {
				t.Errorf("length %d", r.ContentLength)
			}
			return &Response{Status: 200, Header: http.Header{}, Body: io.NopCloser(r.Stream)}, nil
		}
	})
	body, feed := io.Pipe()
	request := f.request("PUT", "/echo", "")
	request.Body, request.ContentLength = body, -1
	response := f.do(request)
	for _, piece := range []string{"one", "two", strings.Repeat("x", 100_000)} {
		if _, err := io.WriteString(feed, piece); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(piece))
		if _, err := io.ReadFull(response.Body, got); err != nil || string(got) != piece {
			t.Fatalf("echo of %d bytes: %v", len(piece), err)
		}
	}
	_ = feed.Close()
	if rest, err := io.ReadAll(response.Body); err != nil || len(rest) != 0 {
		t.Errorf("end: %q, %v", rest, err)
	}
	if o := f.outcome(); o.BytesIn != 100_006 || o.BytesOut != 100_006 || o.Ended != completed {
		t.Errorf("outcome %+v", o)
	}
}

func TestAnUploadThatBreaksOffIsTheCallersDoing(t *testing.T) {
	f := newFixture(t, app, func(f *fixture) {
		f.guard.Forward = func(_ context.Context, r *Request) (*Response, error) {
			_, err := io.ReadAll(r.Stream)
			return nil, err
		}
	})
	f.raw("PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\npart")
	if o := f.outcome(); o.Ended != clientGone {
		t.Errorf("outcome %+v", o)
	}
}

func TestTheKeyToUsIsNotTheApplications(t *testing.T) {
	for _, try := range []struct {
		change option
		passes bool
	}{
		{func(*fixture) {}, true},
		{func(f *fixture) { f.caller.Local = &LocalRule{} }, true},
		{func(f *fixture) { f.caller.Via = "bearer" }, false},
	} {
		f := newFixture(t, app, try.change)
		f.do(f.request("GET", "/", "", "Authorization: Bearer t"))
		if got := f.forwarded()[0].Header.Get("Authorization") != ""; got != try.passes {
			t.Errorf("%+v: passes %v", f.caller, got)
		}
	}
}

func TestNoIdentityOfAnotherProductReachesAnApplication(t *testing.T) {
	f := newFixture(t, app)
	response := f.rawOpen("GET /d/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-App: yes\r\n" +
		"X.iap.principal: root\r\nX~iap~principal: root\r\nX-Webauth-User: root\r\nX-Auth-Request-User: root\r\nX-Authenticated-User: root\r\n" +
		"X-Goog-Authenticated-User-Email: root\r\nTailscale-User-Login: root\r\nImpersonate-User: root\r\nCf-Access-Jwt-Assertion: x\r\n" +
		"X-Remote-User: root\r\nRemote-User: root\r\nX-Scheme: https\r\nX-Host: evil\r\n\r\n")
	if !strings.HasPrefix(response, "HTTP/1.1 200") {
		t.Fatalf("got %q", response)
	}
	for name, values := range f.forwarded()[0].Header {
		if name != "X-App" && name != "X-Request-Id" {
			t.Errorf("%s: %q went upstream", name, values)
		}
	}
	if f.forwarded()[0].Header.Get("X-App") != "yes" {
		t.Error("the application's own header did not")
	}
}

func TestTargetsThatFitNoStreamHeaderAreRefused(t *testing.T) {
	f := newFixture(t, app)
	for target, want := range map[string]string{
		"/" + strings.Repeat("a", maxTarget): "HTTP/1.1 414", "/caf\xe9": "HTTP/1.1 400", "/x?q=\xff": "HTTP/1.1 400",
	} {
		if got := f.rawOpen("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("%.20q: got %.60q, want %s", target, got, want)
		}
	}
	if len(f.forwarded()) != 0 {
		t.Error("one of them went upstream")
	}
}
