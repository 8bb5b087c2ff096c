package relay

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/relay/settings"
	"iap/policy"
	"iap/tunnel"
)

// strictGrants want more of a login than some logins are.
const strictGrants = `version: 1
grants:
  - name: careful
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    actions: [chat, list-models]
    require: {mfa: asserted, acr: [gold, silver], max_auth_age: 12h}
    keys: {max_ttl: 90d}
  - name: no-class
    to: ["group:corp/ml-eng"]
    resources: [secret]
    actions: [chat]
    require: {mfa: asserted}
  - name: everybody
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    actions: [list-models]
`

// weak is a login by password alone.
var weak = map[string]any{"amr": []string{"pwd"}}

func strictSystem(t *testing.T) *system {
	t.Helper()
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s := newSystem(t, strictGrants, func(c *settings.Config) { c.Issuers[0].MFAACR = "phr" })
	s.startAgent(served{"phi3", "model", m.URL}, served{"secret", "model", m.URL})
	return s
}

func TestBearerIsToldWhichTokenWouldDo(t *testing.T) {
	s := strictSystem(t)
	body := chatBody("phi3", false)
	r, text := s.postKey(s.bearer(weak), "/r/phi3/v1/chat/completions", body)
	challenge := r.Header.Get("WWW-Authenticate")
	if r.StatusCode != http.StatusUnauthorized || !strings.Contains(text, `"mfa_required"`) || !strings.HasPrefix(challenge, `Bearer error="insufficient_user_authentication"`) ||
		!strings.Contains(challenge, `acr_values="gold silver"`) || !strings.Contains(challenge, `max_age=43200`) {
		t.Errorf("%s %q %s", r.Status, challenge, text)
	}
	good := s.bearer(map[string]any{"amr": []string{"pwd", "mfa"}, "acr": "silver", "auth_time": time.Now().Unix()})
	if r, text := s.postKey(good, "/r/phi3/v1/chat/completions", body); r.StatusCode != 200 {
		t.Errorf("%s %s", r.Status, text)
	}
}

func TestUserIsToldWhichLoginWouldDo(t *testing.T) {
	s := strictSystem(t)
	u := s.user(weak)
	notices := make(chan tunnel.Notice, 8)
	session, err := s.dial(tunnel.ClientConfig{
		Role: tunnel.RoleUser, Class: tunnel.Interactive, Key: u.key, Token: func(context.Context) (string, error) { return u.token(), nil },
		OnNotice: func(n tunnel.Notice) { notices <- n },
	})
	must(t, err)
	defer func() { _ = session.Close(tunnel.CodeNone, "") }()
	c := api(t, session)
	list, err := c.Resources(within(t))
	must(t, err)
	var hidden, open *admin.Resource
	for i, r := range list.Resources {
		switch r.Name {
		case "secret":
			hidden = &list.Resources[i]
		case "phi3":
			open = &list.Resources[i]
		}
	}
	if hidden == nil || hidden.Reason != "mfa_required" || hidden.StepUp == nil || !hidden.StepUp.MFA || hidden.StepUp.ACR != "phr" || len(hidden.Actions) != 0 {
		t.Errorf("%+v", hidden)
	}
	if open == nil || open.StepUp != nil || len(open.Actions) == 0 {
		t.Errorf("%+v", open)
	}
	a, err := c.Explain(within(t), admin.Question{Resource: "phi3", Action: "chat"})
	if err != nil || a.Allow || a.StepUp == nil || a.StepUp.ACR != "gold silver" || a.StepUp.MaxAge != 43200 {
		t.Errorf("%+v %v", a, err)
	}
	h := client(t, session, tunnel.Header{Resource: "phi3"})
	r, err := h.Get("http://phi3/v1/models") // of whose models some are left out: no reason for a question
	must(t, err)
	r.Body.Close()
	for range 3 { // a program that tries again asks its user once
		r, err = postChat(h, chatBody("phi3", false))
		must(t, err)
		r.Body.Close()
		if r.StatusCode != http.StatusForbidden || !strings.Contains(r.Header.Get("X-Iap-Step-Up"), "mfa_required") {
			t.Errorf("%s %v", r.Status, r.Header)
		}
	}
	var n tunnel.Notice
	select {
	case n = <-notices:
	case <-within(t).Done():
		t.Fatal("no notice came")
	}
	var told admin.StepUpNotice
	if err := json.Unmarshal([]byte(n.Text), &told); err != nil || n.Kind != admin.NoticeStepUp || told.Resource != "phi3" || told.Reason != "mfa_required" || told.StepUp.ACR != "gold silver" {
		t.Errorf("%+v %v", n, err)
	}
	must(t, err)
	_, err = c.Whoami(within(t)) // whatever else was sent has come by now
	must(t, err)
	if len(notices) != 0 {
		t.Errorf("%d more notices", len(notices))
	}
}

func TestProgramsAreAskedForNoLogin(t *testing.T) {
	r := &Relay{cfg: &settings.Config{}}
	need := &policy.StepUp{MFA: true}
	if up := r.guardStepUp(&identity{principal: auth.Principal{Workload: true}}, need); up != nil {
		t.Errorf("%+v", up)
	}
	if up := r.guardStepUp(&identity{}, need); up == nil || !up.MFA {
		t.Errorf("a person: %+v", up)
	}
}
