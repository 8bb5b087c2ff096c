package relay

import (
	"net/http"
	"strings"
	"testing"

	"iap/auth"
	"iap/internal/audit"
	"iap/internal/relay/settings"
)

func TestNoPageOfAnotherSiteCanUseTheFrontDoor(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	preflight := "OPTIONS /r/phi3/v1/chat/completions HTTP/1.1\r\nHost: " + s.name + "\r\nConnection: close\r\nOrigin: https://evil.example\r\n" +
		"Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"
	for name, request := range map[string]string{
		"preflight": preflight, "with a token": preflight + s.bearer(nil) + "\r\n",
		"plain options": "OPTIONS /r/phi3/v1/models HTTP/1.1\r\nHost: " + s.name + "\r\nConnection: close\r\n" + s.bearer(nil) + "\r\n",
	} {
		r, text, err := s.door(request + "\r\n")
		must(t, err)
		if r.StatusCode != http.StatusForbidden || !strings.Contains(text, `"preflight_refused"`) || r.Header["Access-Control-Allow-Origin"] != nil {
			t.Errorf("%s: %s %v %s", name, r.Status, r.Header, text)
		}
	}
	if m.hits.Load() != 0 {
		t.Errorf("%d requests went upstream", m.hits.Load())
	}
	for _, origin := range []string{"https://evil.example", "null", "https://" + s.name} {
		r, _ := s.ask("/r/phi3/v1/models", s.bearer(nil), "Origin: "+origin)
		if r.Header["Access-Control-Allow-Origin"] != nil || r.Header["Access-Control-Allow-Credentials"] != nil {
			t.Errorf("%s: %v", origin, r.Header)
		}
	}
}

func TestPagesOfListedOriginsMayAsk(t *testing.T) {
	s := newSystem(t, phi3Only, func(c *settings.Config) { c.FrontDoor.CORSOrigins = []string{"https://chat.example"} })
	for origin, allowed := range map[string]bool{
		"https://chat.example": true, "https://chat.example:443": false, "https://chat.example.evil": false, "http://chat.example": false, "https://CHAT.example": false,
	} {
		r, _, err := s.door("OPTIONS /r/phi3/v1/chat/completions HTTP/1.1\r\nHost: " + s.name + "\r\nConnection: close\r\nOrigin: " + origin + "\r\nAccess-Control-Request-Method: POST\r\n\r\n")
		must(t, err)
		if (r.StatusCode == http.StatusNoContent) != allowed || (r.Header.Get("Access-Control-Allow-Origin") == origin) != allowed || r.Header.Get("Vary") != "Origin" {
			t.Errorf("%s: %s %v", origin, r.Status, r.Header)
		}
		// A page must be able to read why it was refused, too.
		r, _ = s.ask("/r/phi3/v1/models", "Origin: "+origin)
		if r.StatusCode != http.StatusUnauthorized || (r.Header.Get("Access-Control-Allow-Origin") == origin) != allowed {
			t.Errorf("%s: %s %v", origin, r.Status, r.Header)
		}
		r, _ = s.ask("/r/phi3/v1/models", "Origin: "+origin, s.bearer(nil)) // the guard's answer: no agent is there
		if r.StatusCode == http.StatusUnauthorized || len(r.Header["Access-Control-Allow-Origin"]) > 1 || (r.Header.Get("Access-Control-Allow-Origin") == origin) != allowed {
			t.Errorf("%s: %s %v", origin, r.Status, r.Header)
		}
	}
}

func TestCredentialsInTheAddressAreRefused(t *testing.T) {
	s, m := newDoor(t, phi3Only)
	for _, query := range []string{"access_token=x", "api_key=x", "apikey=", "key=x", "KEY=x", "token", "a=b&token=x", "a=b;token=x", "%6b%65y=x", "api-key=x", "x-api-key=x", "Authorization=Bearer%20x"} {
		for _, headers := range [][]string{nil, {s.bearer(nil)}} {
			r, text := s.ask("/r/phi3/v1/models?"+query, headers...)
			if r.StatusCode != http.StatusBadRequest || !strings.Contains(text, `"credential_in_query"`) || !strings.Contains(text, "Authorization: Bearer") {
				t.Errorf("%s: %s %s", query, r.Status, text)
			}
		}
	}
	key := auth.NewProgramKey().Text()
	for _, target := range []string{"/r/phi3/v1/models?k=" + key, "/r/phi3/" + key + "/v1/models", "/r/phi3/v1/models?k=%69apk%5F" + key[5:], "/r/phi3/%" + key} {
		if r, text := s.ask(target, s.bearer(nil)); r.StatusCode != http.StatusBadRequest || !strings.Contains(text, `"credential_in_query"`) && !strings.Contains(text, "400") {
			t.Errorf("%s: %s %s", target, r.Status, text)
		}
	}
	if e := s.events(func(e audit.Event) bool { return strings.Contains(e.Path, key) }); len(e) > 0 {
		t.Errorf("the log holds a key: %+v", e)
	}
	if m.hits.Load() != 0 {
		t.Errorf("%d requests went upstream", m.hits.Load())
	}
	if r, text := s.ask("/r/phi3/v1/models?limit=3&monkey=1", s.bearer(nil)); r.StatusCode != 200 {
		t.Errorf("a query without credentials: %s %s", r.Status, text)
	}
}
