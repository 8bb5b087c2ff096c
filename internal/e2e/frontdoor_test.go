package e2e

import (
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"iap/internal/audit"
)

func TestFrontDoorStreamsToWhoeverBearsATokenMadeForIt(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{config: withFrontDoor})
	up, model := startDemo(t, 200)
	app := startUpstream(t, newWebApp().handler())
	s.startAgent(map[string]string{"phi3=model": up.url, "app=http": app.url})
	base := "https://" + s.name + "/r/phi3/v1"
	client := openai.NewClient(option.WithBaseURL(base), option.WithAPIKey(s.accessToken(nil)), option.WithMaxRetries(0), option.WithHTTPClient(s.https))
	streamStock(t, client)

	web := &caller{t: t, http: s.https, base: "https://" + s.name}
	bearer := "Authorization: Bearer " + s.accessToken(nil)
	if got := web.ask("GET", "/r/phi3/v1/models", "", bearer); got.status != 200 || !strings.Contains(got.header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("models: %+v", got)
	}
	for name, header := range map[string]string{
		"no token":               "X-Nothing: at all",
		"the tunnel's token":     "Authorization: Bearer " + s.provider.Mint(map[string]any{"jti": "tunnel"}),
		"a token in a cookie":    "Cookie: token=" + s.accessToken(nil),
		"basic authentication":   "Authorization: Basic YWxpY2U6eA==",
		"somebody else's":        "Authorization: Bearer " + s.accessToken(map[string]any{"aud": "another-api"}),
		"a token for both doors": "Authorization: Bearer " + s.accessToken(map[string]any{"aud": []string{"iap-dev-api", "iapctl"}}),
	} {
		got := web.ask("POST", "/r/phi3/v1/chat/completions", chatBody("demo", "refused", false, 2), header)
		if got.status != 401 || got.code() == "" || got.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := web.ask("GET", "/r/app/large", "", bearer); got.status == 200 {
		t.Errorf("a web application at the front door: %d", got.status)
	}
	if got := web.ask("GET", "/r/nothing/v1/models", "", bearer); got.status != 403 || !strings.Contains(got.code(), "resource") {
		t.Errorf("an unknown resource: %+v", got)
	}
	if up.count("refused") != 0 || len(app.requests()) != 0 {
		t.Error("a refused request reached an upstream")
	}
	s.bearing(s.accessToken(nil)).fails(4, "token_invalid", "whoami", "--ca-file", s.ca)
	eventually(t, "the model has stopped", func() bool { return model.Active() == 0 })
	all := s.awaitSettled()
	checkAudit(t, all, up.requests())
	s.awaitRecord("a bearer's decision", func(e audit.Event) bool {
		return e.Kind == audit.KindDecision && e.Decision == audit.Allow && e.Via == "bearer" && e.Principal == "dev/alice"
	})
}
