package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/relay/settings"
	"iap/tunnel"
)

const twoTeams = `version: 1
grants:
  - name: engineers-phi3
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    models: ["phi3*"]
    actions: [chat, list-models]
    limits: {requests: 60/1m, max_output_tokens: 512}
    priority: 7
  - name: board-secret
    to: ["group:corp/board"]
    resources: [secret]
    actions: [chat]
  - name: strict-phi3
    to: ["group:corp/ml-eng"]
    resources: [secret]
    actions: [chat]
    require: {binding: nonce}
admins: ["user:corp/root"]
`

func TestExplainShowsTheCallersGrantsAndNobodyElses(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s := newSystem(t, twoTeams)
	s.startAgent(served{"phi3", "model", m.URL}, served{"secret", "model", m.URL})
	c := api(t, s.user(nil).open(tunnel.Interactive))
	a, err := c.Explain(within(t), admin.Question{Resource: "phi3", Action: "chat", Model: "phi3:latest"})
	must(t, err)
	if !a.Allow || a.Grant != "engineers-phi3" || a.Priority != 7 || a.MaxOutputTokens != 512 || len(a.Limits) != 1 || a.Limits[0].Requests[0] != "60/1m" {
		t.Errorf("%+v", a)
	}
	a, err = c.Explain(within(t), admin.Question{Resource: "secret", Action: "chat"})
	must(t, err)
	if a.Allow {
		t.Errorf("%+v", a)
	}
	for _, step := range a.Considered {
		if step.Grant == "board-secret" {
			t.Errorf("a grant of others is shown: %+v", a.Considered)
		}
	}
	stranger := api(t, s.user(map[string]any{"sub": "mallory", "groups": []string{"guests"}}).open(tunnel.Interactive))
	known, err := stranger.Explain(within(t), admin.Question{Resource: "secret", Action: "chat"})
	must(t, err)
	unknown, err := stranger.Explain(within(t), admin.Question{Resource: "absent", Action: "chat"})
	must(t, err)
	if len(known.Considered) != 0 || known.Allow || known.Reason != unknown.Reason || strings.ReplaceAll(known.Message, "secret", "absent") != unknown.Message {
		t.Errorf("a stranger can tell a resource that exists from one that does not:\n%+v\n%+v", known, unknown)
	}
	if _, err := c.Explain(within(t), admin.Question{Resource: "phi3", Action: "steal"}); refusalOf(err) != "bad_request" {
		t.Errorf("an unknown action: %v", err)
	}
}

func refusalOf(err error) string {
	var refused *admin.Error
	if errors.As(err, &refused) {
		return refused.Code
	}
	return ""
}

func TestResourcesShowWhatThePrincipalMayUse(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s := newSystem(t, twoTeams)
	s.startAgent(served{"phi3", "model", m.URL}, served{"secret", "model", m.URL})
	list, err := api(t, s.user(nil).open(tunnel.Interactive)).Resources(within(t))
	must(t, err)
	if len(list.Resources) != 2 {
		t.Fatalf("%+v", list)
	}
	if r := list.Resources[1]; r.Name != "secret" || r.Online || len(r.Actions)+len(r.Models) != 0 || r.Reason != "binding_required" || r.StepUp == nil || r.StepUp.Binding != "nonce" {
		t.Errorf("what another login would open: %+v", r)
	}
	r := list.Resources[0]
	if r.Name != "phi3" || !r.Online || r.Agents != 1 || strings.Join(r.Actions, " ") != "chat list-models" || len(r.Models) != 1 || !strings.HasPrefix(r.Models[0], "phi3") {
		t.Errorf("%+v", r)
	}
	if len(r.Uses) != 1 || r.Uses[0].Grant != "engineers-phi3" || len(r.Uses[0].Actions) != 2 || len(r.Uses[0].Limits) != 1 || r.Uses[0].Limits[0].MaxOutputTokens != 512 {
		t.Errorf("%+v", r.Uses)
	}
	list, err = api(t, s.user(map[string]any{"sub": "mallory", "groups": []string{"guests"}}).open(tunnel.Interactive)).Resources(within(t))
	must(t, err)
	if list.Resources == nil || len(list.Resources) != 0 {
		t.Errorf("somebody without grants sees %+v", list)
	}
}

func TestStatusShowsThePrincipalItsOwnSessionsOnly(t *testing.T) {
	s := newSystem(t, twoTeams)
	s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive)
	s.enrolFake(false, served{"web", "http", ""}).serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) {}, tunnel.Announcement{Resource: "web", Kind: "http"})
	mine := s.user(nil).open(tunnel.Interactive)
	st, err := api(t, mine).Status(within(t))
	must(t, err)
	if len(st.Sessions) != 1 || st.Sessions[0].ID != mine.ID() || st.Agents != 0 || st.Audit != "" {
		t.Errorf("%+v", st)
	}
	all, err := s.admin.AdminStatus(within(t))
	must(t, err)
	if len(all.Sessions) != 3 || all.Agents != 1 || all.Audit != "ok" {
		t.Errorf("%+v", all)
	}
}

func TestAdminVerbsAreNotServedOnStreams(t *testing.T) {
	s := newSystem(t, twoTeams)
	root := s.user(map[string]any{"sub": "root"})
	session := root.open(tunnel.Interactive)
	who, err := api(t, session).Whoami(within(t))
	must(t, err)
	if !who.Admin {
		t.Errorf("%+v", who)
	}
	alice := s.user(nil).open(tunnel.Interactive)
	if who, err := api(t, alice).Whoami(within(t)); err != nil || who.Admin {
		t.Errorf("%+v, %v", who, err)
	}
	if _, err := api(t, alice).AdminStatus(within(t)); refusalOf(err) != "verb_not_granted" {
		t.Errorf("alice has the admin API: %v", err)
	}
	if err := errorOf(api(t, alice).KillSession(within(t), session.ID(), "")); refusalOf(err) != "verb_not_granted" {
		t.Errorf("alice kills sessions: %v", err)
	}
	if session.Err() != nil {
		t.Error("the session was killed")
	}
}

func TestUnverifiedEmailIsNobodys(t *testing.T) {
	s := newSystem(t, twoTeams)
	who, err := api(t, s.user(map[string]any{"email_verified": false}).open(tunnel.Interactive)).Whoami(within(t))
	must(t, err)
	if who.Email != "" || len(who.Lines) == 0 {
		t.Errorf("%+v", who)
	}
}

func TestAdminSocketIsNotTakenFromALivingRelay(t *testing.T) {
	s := newSystem(t, twoTeams)
	cfg := *s.cfg
	cfg.Listen, cfg.State, cfg.Audit.Dir = "127.0.0.1:0", "sqlite::memory:", filepath.Join(s.dir, "audit2")
	if r, err := New(context.Background(), &cfg, Options{}); err == nil {
		r.Close()
		t.Error("a second relay took the socket")
	}
	if _, err := s.admin.AdminStatus(within(t)); err != nil {
		t.Errorf("the first relay lost its socket: %v", err)
	}
	must(t, s.end())
	// A file that is no socket is not removed.
	file := filepath.Join(s.dir, "precious")
	must(t, os.WriteFile(file, []byte("x"), 0o600))
	cfg.AdminSocket = file
	if r, err := New(context.Background(), &cfg, Options{}); err == nil {
		r.Close()
		t.Error("a file was replaced by a socket")
	}
	if data, _ := os.ReadFile(file); string(data) != "x" {
		t.Error("the file is gone")
	}
	// One left behind by a killed relay is.
	left := filepath.Join(s.dir, "left.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: left, Net: "unix"})
	must(t, err)
	l.SetUnlinkOnClose(false)
	must(t, l.Close())
	cfg.AdminSocket = left
	r, err := New(context.Background(), &cfg, Options{})
	must(t, err)
	must(t, r.Close())
	cfg.AdminSocket = filepath.Join(s.dir, strings.Repeat("x", 100))
	if r, err := New(context.Background(), &cfg, Options{}); err == nil {
		r.Close()
		t.Error("a relay started with a socket's path that is too long")
	}
}

func TestAdminErrorsHaveOneShape(t *testing.T) {
	s := newSystem(t, twoTeams)
	for what, got := range map[string]struct {
		err  error
		code string
	}{
		"no such agent":   {errorOf(s.admin.RevokeAgent(within(t), "agent-1")), "unknown_agent"},
		"odd agent":       {errorOf(s.admin.RevokeAgent(within(t), "../x y")), "unknown_agent"},
		"no such session": {errorOf(s.admin.KillSession(within(t), "x", "")), "unknown_session"},
	} {
		var refused *admin.Error
		if !errors.As(got.err, &refused) || refused.Code != got.code || refused.Message == "" || refused.Hint == "" || refused.Status != http.StatusNotFound {
			t.Errorf("%s: %v", what, got.err)
		}
	}
	fake := s.enrolFake(false, served{"web", "http", ""})
	agent := fake.serve(tunnel.Bulk, func(context.Context, *tunnel.Stream, tunnel.Header) {}, tunnel.Announcement{Resource: "web", Kind: "http"})
	if err := errorOf(s.admin.KillSession(within(t), agent.ID(), "")); refusalOf(err) != "unknown_session" {
		t.Errorf("an agent's session was killed as a user's: %v", err)
	}
	acts := s.events(func(e audit.Event) bool { return e.Kind == audit.KindAdmin })
	for _, e := range acts {
		if e.Principal != "local:root" || e.Action == "" {
			t.Errorf("%+v", e)
		}
	}
	if len(acts) != 5 {
		t.Errorf("%d admin acts are recorded", len(acts))
	}
}

func TestSessionsOnTheSocketAreThoseThatLive(t *testing.T) {
	s := newSystem(t, twoTeams)
	session := s.user(nil).open(tunnel.Bulk)
	mustAPI := api(t, session)
	_, err := mustAPI.Whoami(within(t))
	must(t, err)
	st, err := s.admin.AdminStatus(within(t))
	must(t, err)
	if len(st.Sessions) != 1 {
		t.Fatalf("%+v", st.Sessions)
	}
	one := st.Sessions[0]
	if one.ID != session.ID() || one.Principal != "corp/alice" || one.Role != "user" || one.Class != "bulk" || one.Source != "127.0.0.1" || one.Expires == nil || one.Software != "test" ||
		!strings.HasPrefix(one.Key, "SHA256:") || one.ChannelBinding != "exporter" || one.Streams != 1 {
		t.Errorf("%+v", one)
	}
	mustAPI.Close()
	_ = session.Close(tunnel.CodeNone, "")
	eventually(t, "the session is gone from the list", func() bool {
		st, err := s.admin.AdminStatus(within(t))
		return err == nil && len(st.Sessions) == 0
	})
}

func TestAssertionIsGoodForItsUpstreamOnly(t *testing.T) {
	s := newSystem(t, allowAll)
	id := &identity{}
	id.principal.Issuer, id.principal.Subject = "corp", "alice"
	first, err := s.relay.assertions.sign(id, "web", s.relay.now())
	must(t, err)
	second, err := s.relay.assertions.sign(id, "db", s.relay.now())
	must(t, err)
	if first == second || strings.Count(first, ".") != 2 {
		t.Error("one assertion for two upstreams")
	}
	// The relay is no issuer of its own.
	session, err := s.user(nil).present(tunnel.Interactive, first)
	if got := refusedWith(t, session, err); got != tunnel.CodeTokenInvalid {
		t.Errorf("the relay took its own assertion: %v", err)
	}
	if r, _ := s.ask("/r/web/v1/models", "Authorization: Bearer "+first); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("front door: %s", r.Status)
	}
}

func TestHT11GroupsCannotForgeHeaders(t *testing.T) {
	_, c := newWebAs(t, map[string]any{"groups": []string{"ml-eng", "x\r\nX-Admin: 1", "a,b", " admins", "root\x00"}, "email": "a@b\r\nX-Admin: 1", "email_verified": true})
	r, err := c.Get("http://web/")
	must(t, err)
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	if r.StatusCode == 200 && strings.Contains(string(text), "X-Admin") {
		t.Errorf("the upstream saw %s", text)
	}
	if strings.Contains(string(text), "a,b") {
		t.Errorf("a group with a comma became two: %s", text)
	}
	if strings.Contains(string(text), "admins") {
		t.Errorf("a group with a space was told as the one without: %s", text)
	}
}

func TestGroupsOfSeveralProvidersAreToldApart(t *testing.T) {
	partner := func(c *settings.Config) {
		c.Issuers = append(c.Issuers, settings.IssuerConfig{Name: "partner", URL: "http://127.0.0.1:1/partner", ClientID: "x", Audiences: []string{"x"}, Token: "id_token"})
	}
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		payload := strings.Split(r.Header.Get("X-Iap-Assertion"), ".")[1]
		claims, _ := base64.RawURLEncoding.DecodeString(payload)
		_, _ = io.WriteString(w, r.Header.Get("X-Iap-Groups")+" "+string(claims))
	}))
	t.Cleanup(up.Close)
	s := newSystem(t, allowAll, partner)
	s.startAgent(served{"web", "http", up.URL})
	r, err := client(t, s.user(nil).open(tunnel.Bulk), tunnel.Header{Resource: "web"}).Get("http://web/")
	must(t, err)
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	must(t, err)
	if !strings.HasPrefix(string(text), "corp/ml-eng,corp/llm-users ") || !strings.Contains(string(text), `["corp/ml-eng","corp/llm-users"]`) {
		t.Errorf("%s", text)
	}
}

func newWebAs(t *testing.T, claims map[string]any) (*system, *http.Client) {
	t.Helper()
	s, _ := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		for name := range r.Header {
			_, _ = io.WriteString(w, name+": "+strconv.Quote(strings.Join(r.Header[name], "|"))+"\n")
		}
	})
	return s, client(t, s.user(claims).open(tunnel.Bulk), tunnel.Header{Resource: "web"})
}
