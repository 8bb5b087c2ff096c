package relay

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/tunnel"
)

// door speaks raw HTTP to the relay's public port: what a URL type would mend stays as it is.
func (s *system) door(request string) (*http.Response, string, error) {
	s.t.Helper()
	r, closing, err := s.beginAtDoor(request)
	if err != nil {
		return nil, "", err
	}
	defer closing()
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

// beginAtDoor reads the head of the answer alone.
func (s *system) beginAtDoor(request string) (r *http.Response, closing func(), err error) {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.name, s.tls())
	must(s.t, err)
	must(s.t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, request)
	must(s.t, err)
	method, _, _ := strings.Cut(request, " ")
	r, err = http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return r, func() { conn.Close() }, nil
}

// ask is a GET of the raw target with further header lines.
func (s *system) ask(target string, headers ...string) (*http.Response, string) {
	s.t.Helper()
	r, body, err := s.door("GET " + target + " HTTP/1.1\r\nHost: " + s.name + "\r\nConnection: close\r\n" + strings.Join(append(headers, ""), "\r\n") + "\r\n")
	must(s.t, err)
	return r, body
}

func (s *system) bearer(claims map[string]any) string {
	all := map[string]any{"aud": bearerAudience}
	for k, v := range claims {
		all[k] = v
	}
	return "Authorization: Bearer " + s.provider.Mint(all)
}

func newDoor(t *testing.T, grants string) (*system, *modelServer) {
	t.Helper()
	m := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		completion(w, r.Header.Get("X-Iap-Principal")+r.Header.Get("Authorization"))
	})
	s := newSystem(t, grants)
	s.startAgent(served{"phi3", "model", m.URL}, served{"secret", "model", m.URL}, served{"db", "tcp", echo(t)}, served{"web", "http", "http://" + freeAddress(t)})
	return s, m
}

func TestFrontDoorServesModelsToBearers(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	body := chatBody("phi3", false)
	r, text, err := s.door(fmt.Sprintf("POST /r/phi3/v1/chat/completions HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		s.name, s.bearer(nil), len(body), body))
	must(t, err)
	if r.StatusCode != 200 || !strings.Contains(text, `"corp/alice"`) {
		t.Errorf("%s %s", r.Status, text)
	}
	for name, want := range map[string]string{"Content-Security-Policy": "sandbox; default-src 'none'", "X-Content-Type-Options": "nosniff"} {
		if r.Header.Get(name) != want {
			t.Errorf("%s: %q", name, r.Header.Get(name))
		}
	}
	if m.hits.Load() != 1 {
		t.Errorf("%d requests", m.hits.Load())
	}
	e := s.awaitEvent("the decision", func(e audit.Event) bool { return e.Kind == audit.KindDecision && e.Via == "bearer" })
	if e.Decision != audit.Allow || e.Binding != "none" || e.Principal != "corp/alice" || e.Path != "/v1/chat/completions" {
		t.Errorf("%+v", e)
	}
}

func TestFrontDoorRefusesEverythingButOneGoodToken(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	good := s.bearer(nil)
	for name, headers := range map[string][]string{
		"none": nil, "tunnel's audience": {"Authorization: Bearer " + s.provider.Mint(nil)}, "both audiences": {s.bearer(map[string]any{"aud": []string{bearerAudience, "iapctl"}})},
		"basic": {"Authorization: Basic eDp5"}, "twice": {good, good}, "cookie": {strings.Replace(good, "Authorization: Bearer ", "Cookie: token=", 1)},
		"api key": {strings.Replace(good, "Authorization: Bearer", "X-Api-Key:", 1)}, "empty": {"Authorization: Bearer "}, "underscore": {strings.Replace(good, "Authorization", "Authoriza_tion", 1)},
		"expired": {s.bearer(map[string]any{"iat": time.Now().Add(-2 * time.Hour).Unix(), "exp": time.Now().Add(-time.Hour).Unix()})},
		"huge":    {"Authorization: Bearer " + strings.Repeat("a", maxBearerLength)},
	} {
		r, text := s.ask("/r/phi3/v1/models", headers...)
		if r.StatusCode != http.StatusUnauthorized || !strings.HasPrefix(r.Header.Get("WWW-Authenticate"), "Bearer") || r.Header.Get("X-Content-Type-Options") != "nosniff" ||
			r.Header.Get("Content-Security-Policy") == "" || !strings.Contains(text, `"code"`) {
			t.Errorf("%s: %s %v %s", name, r.Status, r.Header, text)
		}
	}
	if m.hits.Load() != 0 {
		t.Errorf("%d requests went upstream", m.hits.Load())
	}
	// Scheme names know no case (RFC 9110, section 11.1).
	if r, _ := s.ask("/r/phi3/v1/models", strings.Replace(good, "Bearer", "bEARER", 1)); r.StatusCode != 200 {
		t.Errorf("bEARER: %s", r.Status)
	}
}

func TestFrontDoorReadsPathsInOneWayOnly(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	for _, target := range []string{
		"/r/phi3//v1/models", "//r/phi3/v1/models", "/r//phi3/v1/models", "/r/phi3/./v1/models", "/r/phi3/../phi3/v1/models", "/r/secret/../phi3/v1/models",
		"/r/phi3/v1/../v1/models", "/r/phi3/%2e%2e/secret/v1/models", "/r/phi3%2fv1/models", "/r/phi3/v1%2fmodels", "/r/%70hi3/v1/models", "/%72/phi3/v1/models",
		"/r/phi3/v1/models%00", "/r/phi3/v1/models;x=y", "/r/phi3/v1\\models", "/r/PHI3/v1/models", "/r/phi3/V1/models", "/r/phi3/v1/models/", "/r/phi3%20/v1/models",
		"/R/phi3/v1/models", "/./r/phi3/v1/models", "/x/../r/phi3/v1/models", "/r", "/r/", "/r/?x", "/r/phi3", "/r/phi3?x=/v1/models", "*",
		"http://" + s.name + "/r/phi3/v1/models", "https://evil/r/phi3/v1/models", "/r/phi3/v1/models#x", "/r/phi3@evil/v1/models",
	} {
		r, text, err := s.door("GET " + target + " HTTP/1.1\r\nHost: " + s.name + "\r\nConnection: close\r\n" + s.bearer(nil) + "\r\n\r\n")
		if err != nil {
			continue // the connection was closed: refused as well
		}
		if r.StatusCode < 300 && !strings.HasPrefix(target, "http://"+s.name) {
			t.Errorf("%s: %s %s", target, r.Status, text)
		}
		if location := r.Header.Get("Location"); strings.Contains(location, "evil") {
			t.Errorf("%s: redirected to %s", target, location)
		}
	}
	if n := m.hits.Load(); n != 0 {
		t.Errorf("%d requests went upstream", n)
	}
}

func TestFrontDoorReachesNothingButModels(t *testing.T) {
	s, _ := newDoor(t, allowAll)
	absent, _ := s.ask("/r/absent/v1/models", s.bearer(nil))
	for _, name := range []string{"db", "web"} {
		for _, path := range []string{"/v1/models", "/", "/index.html"} {
			r, text := s.ask("/r/"+name+path, s.bearer(nil))
			if r.StatusCode < 400 || r.StatusCode >= 500 {
				t.Errorf("%s%s: %s %s", name, path, r.Status, text)
			}
			if path == "/v1/models" && r.StatusCode != absent.StatusCode {
				t.Errorf("%s answers %s, an absent one %s", name, r.Status, absent.Status)
			}
		}
	}
	for _, path := range []string{"/v1/whoami", "/v1/admin/status", "/v1/admin/agents", "/v1/resources", "/metrics", "/debug/pprof/", "/", "/tunnel"} {
		if r, text := s.ask(path, s.bearer(nil)); r.StatusCode < 400 {
			t.Errorf("%s: %s %s", path, r.Status, text)
		}
	}
}

// changing is what differs between two answers to the same question.
var changing = regexp.MustCompile(`rq-[0-9a-f]+|absent|secret`)

func TestFrontDoorTellsNobodyWhichResourcesExist(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	for _, claims := range []map[string]any{nil, {"sub": "mallory", "groups": []string{"guests"}}} {
		for _, path := range []string{"/v1/models", "/v1/chat/completions", "/api/tags", "/api/version", "/slots", "/props", "/metrics", "/health", "/", "/nothing", "/v1/completions?x=y"} {
			var answers [2]string
			for i, name := range []string{"absent", "secret"} {
				r, text := s.ask("/r/"+name+path, s.bearer(claims))
				answers[i] = changing.ReplaceAllString(fmt.Sprint(r.Status, r.Header["X-Iap-Decision"], r.Header["Content-Type"], r.Header["Content-Length"] == nil, text), "…")
			}
			if answers[0] != answers[1] {
				t.Errorf("%s:\nabsent: %s\nsecret: %s", path, answers[0], answers[1])
			}
		}
	}
	if m.hits.Load() != 0 {
		t.Errorf("%d requests went upstream", m.hits.Load())
	}
}

func TestPublicPortRefusesOldTLS(t *testing.T) {
	s := newSystem(t, allowAll)
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12} {
		cfg := s.tls()
		cfg.MinVersion, cfg.MaxVersion = version, version
		if conn, err := tls.Dial("tcp", s.name, cfg); err == nil {
			conn.Close()
			t.Errorf("TLS %x was accepted", version)
		}
	}
}

func TestPublicPortSpeaksHTTP2ToWhoeverAsksAndHTTP1ToTheRest(t *testing.T) {
	s := newSystem(t, allowAll)
	for want, offered := range map[string][]string{"h2": {"http/1.1", "h2"}, "http/1.1": {"http/1.1"}, "": nil} {
		cfg := s.tls()
		cfg.NextProtos = offered
		conn, err := tls.Dial("tcp", s.name, cfg)
		must(t, err)
		defer conn.Close()
		if got := conn.ConnectionState().NegotiatedProtocol; got != want {
			t.Errorf("offered %q, negotiated %q", offered, got)
		}
	}
}

func TestHT01SmuggledSecondRequestIsNotServed(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	bearer := s.bearer(nil)
	conn, err := tls.Dial("tcp", s.name, s.tls())
	must(t, err)
	defer conn.Close()
	must(t, conn.SetDeadline(time.Now().Add(patience)))
	fmt.Fprintf(conn, "POST /r/phi3/v1/chat/completions HTTP/1.1\r\nHost: %[1]s\r\n%[2]s\r\nContent-Type: application/json\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+
		"GET /r/phi3/v1/models HTTP/1.1\r\nHost: %[1]s\r\n%[2]s\r\n\r\n", s.name, bearer)
	all, _ := io.ReadAll(conn)
	if n := strings.Count(string(all), "HTTP/1.1 "); n != 1 {
		t.Errorf("%d answers to a request with both framings:\n%s", n, all)
	}
	if m.hits.Load() > 1 {
		t.Errorf("%d requests went upstream", m.hits.Load())
	}
}

func TestHealthAndDiscoveryAreOpenAndQuiet(t *testing.T) {
	s := newSystem(t, allowAll)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready"} {
		if r, text := s.ask(path); r.StatusCode != 200 || strings.TrimSpace(text) != want {
			t.Errorf("%s: %s %s", path, r.Status, text)
		}
	}
	r, text := s.ask("/.well-known/iap-relay")
	if r.StatusCode != 200 || !strings.Contains(text, s.provider.Issuer()) || !strings.Contains(text, `"refresh_seconds":300,"max_token_age_seconds":3600`) || strings.Contains(text, s.dir) || r.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s %s", r.Status, text)
	}
	if r, text := s.ask("/.well-known/iap-assertion-keys"); r.StatusCode != 200 || !strings.Contains(text, `"kty":"OKP"`) || strings.Contains(text, `"d":`) {
		t.Errorf("%s %s", r.Status, text)
	}
	s.closeAudit()
	if r, text := s.ask("/readyz"); r.StatusCode != 503 || strings.TrimSpace(text) != "audit_unavailable" {
		t.Errorf("%s %s", r.Status, text)
	}
}

func TestTunnelIsNotOfferedToOtherProtocols(t *testing.T) {
	s := newSystem(t, allowAll)
	for _, request := range []string{
		"GET /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"POST /tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + tunnel.Protocol + "\r\nContent-Length: 0\r\n\r\n",
		"GET /tunnel HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: " + tunnel.Protocol + "\r\n\r\n",
		"GET /Tunnel HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: " + tunnel.Protocol + "\r\n\r\n",
	} {
		r, _, err := s.door(request)
		if err == nil && r.StatusCode < 400 {
			t.Errorf("%.30q: %s", request, r.Status)
		}
	}
}

func TestBearersAnswerEndsWithItsTokenAndSaysWhy(t *testing.T) {
	chat := newSlowChat()
	m := newModelServer(t, chat.serve)
	s := newSystem(t, phi3Only)
	s.startAgent(served{"phi3", "model", m.URL})
	body := chatBody("phi3", true)
	token := s.bearer(map[string]any{"exp": time.Now().Add(2 * time.Second).Unix()})
	_, text, err := s.door(fmt.Sprintf("POST /r/phi3/v1/chat/completions HTTP/1.1\r\nHost: %s\r\n%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		s.name, token, len(body), body))
	if err == nil || !strings.Contains(text, `"code":"token_expired"`) {
		t.Errorf("the answer ended with %v and %q", err, text)
	}
	await(t, chat.ended, "the model is freed")
}
