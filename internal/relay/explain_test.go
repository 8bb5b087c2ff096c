package relay

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/tunnel"
)

func TestExplainSaysWhatTheClosestGrantLacked(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s := newSystem(t, twoTeams)
	s.startAgent(served{"phi3", "model", m.URL}, served{"secret", "model", m.URL})
	me := api(t, s.user(nil).open(tunnel.Interactive))
	a, err := me.Explain(within(t), admin.Question{Resource: "phi3", Action: "embed", Model: "phi3:latest"})
	must(t, err)
	if a.Allow || a.Closest != "engineers-phi3" || !strings.HasPrefix(a.Shortfall, "grant engineers-phi3 would allow it but for: action embed is not among chat") {
		t.Errorf("%+v", a)
	}
	stranger := api(t, s.user(map[string]any{"sub": "mallory", "groups": []string{"guests"}}).open(tunnel.Interactive))
	a, err = stranger.Explain(within(t), admin.Question{Resource: "phi3", Action: "chat"})
	must(t, err)
	if a.Closest != "" || a.Shortfall != "" {
		t.Errorf("a stranger reads of a grant: %+v", a)
	}
	if _, err = me.AdminExplain(within(t), admin.Question{Resource: "phi3", Who: &admin.Subject{Principal: "corp/mallory"}}); refusalOf(err) != "verb_not_granted" {
		t.Errorf("anybody may ask about others: %v", err)
	}
}

func TestAQuestionMayNameAModelAsARequestDoes(t *testing.T) {
	s := newSystem(t, strings.Replace(twoTeams, `["phi3*"]`, `["phi3:*"]`, 1))
	announce := tunnel.Announcement{
		Resource: "phi3", Kind: "model", Server: "ollama", Models: []string{"phi3:latest", "qwen:latest"},
		Aliases: map[string]string{"default": "phi3", "other": "qwen:latest"}, Healthy: true,
	}
	s.enrolFake(false, served{"phi3", "model", ""}).serve(tunnel.Interactive, func(context.Context, *tunnel.Stream, tunnel.Header) {}, announce)
	me := api(t, s.user(nil).open(tunnel.Interactive))
	for _, name := range []string{"phi3", "Default", "library/phi3:latest"} {
		a, err := me.Explain(within(t), admin.Question{Resource: "phi3", Action: "chat", Model: name})
		must(t, err)
		if !a.Allow || a.MeantModel != "phi3:latest" {
			t.Errorf("%s: %+v", name, a)
		}
	}
	for _, name := range []string{"qwen", "other"} {
		a, err := me.Explain(within(t), admin.Question{Resource: "phi3", Action: "chat", Model: name})
		must(t, err)
		if a.Allow || a.MeantModel != "qwen:latest" {
			t.Errorf("%s: %+v", name, a)
		}
	}
	list, err := me.Resources(within(t))
	must(t, err)
	if got := list.Resources[0].Aliases; len(got) != 1 || got["default"] != "phi3:latest" {
		t.Errorf("aliases of models that alice may use: %v", got)
	}
}

func TestAdministratorsAskAboutOthersAndItIsRecorded(t *testing.T) {
	m := newModelServer(t, func(w http.ResponseWriter, _ *http.Request) { completion(w, "x") })
	s := newSystem(t, twoTeams)
	s.startAgent(served{"phi3", "model", m.URL})
	root := api(t, s.user(map[string]any{"sub": "root", "groups": []string{}}).open(tunnel.Interactive))
	eve := s.user(map[string]any{"sub": "eve", "groups": []string{"ml-eng"}}).open(tunnel.Interactive)
	s.relay.sessions.await(within(t), eve.ID())
	for name, test := range map[string]struct {
		who     admin.Subject
		allow   bool
		closest string
	}{
		"by a live session":      {admin.Subject{Principal: "corp/eve"}, true, ""},
		"nothing is known":       {admin.Subject{Principal: "corp/ann"}, false, "engineers-phi3"},
		"described":              {admin.Subject{Principal: "corp/ann", Groups: []string{"corp/ml-eng"}}, true, ""},
		"somebody in a group":    {admin.Subject{Groups: []string{"corp/ml-eng"}, MFA: true, AuthAge: "1h"}, true, ""},
		"description over facts": {admin.Subject{Principal: "corp/eve", Groups: []string{"corp/guests"}}, false, "engineers-phi3"},
	} {
		a, err := root.AdminExplain(within(t), admin.Question{Resource: "phi3", Action: "chat", Model: "phi3:latest", Who: &test.who})
		if err != nil || a.Allow != test.allow || a.Closest != test.closest {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for _, bad := range []admin.Subject{{}, {Principal: "nix/ann"}, {Principal: "corp/"}, {Principal: "corp/a", AuthAge: "soon"}} {
		if _, err := root.AdminExplain(within(t), admin.Question{Resource: "phi3", Who: &bad}); refusalOf(err) != "bad_request" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for _, target := range []string{"corp/eve", "corp/ann", "corp/ml-eng"} {
		if n := len(s.events(func(e audit.Event) bool { return e.Action == "iap:policy.explain" && e.Detail["target"] == target })); n != 1 {
			t.Errorf("%d records of the questions about %s within a minute", n, target)
		}
	}
}

func TestAVerbIsExplainedToWhoAsks(t *testing.T) {
	s := newSystem(t, strings.Replace(twoTeams, "admins: [", "admins: [{to: [\"group:corp/ml-eng\"], verbs: [\"iap:sessions.kill\"], require: {acr: [gold]}}, ", 1))
	me := api(t, s.user(nil).open(tunnel.Interactive))
	a, err := me.Explain(within(t), admin.Question{Action: "iap:sessions.kill"})
	must(t, err)
	if a.Allow || a.Reason != "acr_required" || a.StepUp == nil || len(a.Considered) != 1 || a.Closest == "" {
		t.Errorf("%+v", a)
	}
	a, err = me.Explain(within(t), admin.Question{Action: "iap:agents.token"})
	must(t, err)
	if a.Allow || a.Reason != "verb_not_granted" || !strings.Contains(a.Message, `verbs: ["iap:agents.token"]`) || strings.Contains(a.Message+a.Shortfall, "root") {
		t.Errorf("%+v", a)
	}
}
