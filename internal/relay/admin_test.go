package relay

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"iap/auth"
	"iap/internal/admin"
	"iap/internal/audit"
	"iap/tunnel"
)

const desks = `version: 1
grants:
  - {name: engineers, to: ["group:corp/ml-eng"], resources: ["*"], actions: [chat]}
  - {name: never, to: ["group:corp/ml-eng"], resources: ["*"], actions: [chat]}
admins:
  - "user:corp/root"
  - to: ["group:corp/desk"]
    verbs: ["iap:sessions.ls", "iap:agents.revoke", "iap:audit.read", "iap:principals.ls"]
  - {to: ["group:corp/desk"], verbs: ["iap:sessions.kill"], require: {acr: [gold]}}
`

// as is somebody's client of the relay's API, with the session it uses.
func (s *system) as(subject string, groups ...string) (*admin.Client, *tunnel.Session) {
	s.t.Helper()
	session := s.user(map[string]any{"sub": subject, "groups": append([]string{}, groups...)}).open(tunnel.Interactive)
	return api(s.t, session), session
}

func TestAVerbIsOnlyForWhomItIsGivenAndByTheLoginItWants(t *testing.T) {
	s := newSystem(t, desks)
	alice, target := s.as("alice", "ml-eng")
	desk, _ := s.as("dora", "desk")
	_, err := desk.Sessions(within(t), admin.SessionQuestion{})
	must(t, err)
	_, err = desk.KillSession(within(t), target.ID(), "")
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Code != "acr_required" || refused.StepUp == nil || refused.StepUp.ACR != "gold" {
		t.Errorf("a weak login: %+v", err)
	}
	_, err = desk.RevokePrincipal(within(t), "corp/alice", "")
	if !errors.As(err, &refused) || refused.Code != "verb_not_granted" || !strings.Contains(refused.Message, `{to: ["user:corp/dora"], verbs: ["iap:principals.revoke"]}`) {
		t.Errorf("a verb that was not given: %+v", err)
	}
	// What is refused in memory has one book: an agent's id must not be a principal's place in it.
	for _, id := range []string{"principal/corp/alice", "corp/alice", target.ID(), "agent-x"} {
		if _, err := desk.RevokeAgent(within(t), id); refusalOf(err) != "unknown_agent" {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := alice.Whoami(within(t)); err != nil || target.Err() != nil {
		t.Errorf("alice was cut off: %v", err)
	}
	s.user(nil).open(tunnel.Interactive)
	who, err := desk.Whoami(within(t))
	must(t, err)
	if !who.Admin || !slices.Equal(who.VerbsStepUp, []string{"iap:sessions.kill"}) || len(who.Verbs) != 4 {
		t.Errorf("%v, %v", who.Verbs, who.VerbsStepUp)
	}
	for action, reason := range map[string]string{"iap:sessions.kill": "acr_required", "iap:principals.revoke": "verb_not_granted"} {
		e := s.awaitEvent(action, func(e audit.Event) bool { return e.Kind == audit.KindAdmin && e.Action == action })
		if e.Decision != audit.Deny || e.Reason != reason || e.Principal != "corp/dora" || e.Session == "" || e.Detail["target"] == "" {
			t.Errorf("%+v", e)
		}
	}
}

func TestARightThatIsTakenAwayEndsAtOnce(t *testing.T) {
	s := newSystem(t, desks)
	desk, _ := s.as("dora", "desk")
	must(t, os.WriteFile(s.grants, []byte("grants: []\nadmins: [\"user:corp/root\"]\n"), 0o600))
	_, err := s.admin.ReloadPolicy(within(t))
	must(t, err)
	if _, err := desk.Sessions(within(t), admin.SessionQuestion{}); refusalOf(err) != "verb_not_granted" {
		t.Errorf("by the old policy: %v", err)
	}
}

func TestPrincipalsAreListedWithWhyTheyAreRevoked(t *testing.T) {
	s := newSystem(t, desks)
	s.as("alice", "ml-eng")
	root, _ := s.as("root")
	_, err := root.RevokePrincipal(within(t), "corp/gone", "left the company")
	must(t, err)
	_, err = s.admin.RevokePrincipal(within(t), "corp/gone", "twice") // the first stays
	must(t, err)
	list, err := root.Principals(within(t), admin.PrincipalQuestion{})
	must(t, err)
	var names []string
	for _, p := range list.Principals {
		names = append(names, p.Principal)
	}
	if !slices.Equal(names, []string{"corp/alice", "corp/gone", "corp/root"}) {
		t.Fatalf("%v", names)
	}
	if p := list.Principals[0]; p.Sessions != 1 || p.Revoked != nil || p.LastSeen == nil {
		t.Errorf("%+v", p)
	}
	if p := list.Principals[1]; p.Sessions != 0 || p.Revoked == nil || p.Revoked.By != "corp/root" || p.Revoked.Reason != "left the company" || p.Revoked.At.IsZero() {
		t.Errorf("%+v %+v", p, p.Revoked)
	}
	var paged []string
	for q := (admin.PrincipalQuestion{Limit: 1}); ; {
		page, err := root.Principals(within(t), q)
		must(t, err)
		for _, p := range page.Principals {
			paged = append(paged, p.Principal)
		}
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	if !slices.Equal(paged, names) {
		t.Errorf("by pages %v", paged)
	}
	if live, err := root.Principals(within(t), admin.PrincipalQuestion{State: "live"}); err != nil || len(live.Principals) != 2 {
		t.Errorf("%+v, %v", live, err)
	}
	sessions, err := root.Sessions(within(t), admin.SessionQuestion{Principal: "corp/alice", Role: "user", Limit: 1})
	must(t, err)
	if len(sessions.Sessions) != 1 || sessions.Sessions[0].Principal != "corp/alice" {
		t.Errorf("%+v", sessions)
	}
	for _, reason := range []string{"two\nlines", strings.Repeat("x", 300), "\x1b[2J"} {
		if _, err := root.RevokePrincipal(within(t), "corp/alice", reason); refusalOf(err) != "bad_request" {
			t.Errorf("%q: %v", reason, err)
		}
	}
	for _, q := range []admin.PrincipalQuestion{{State: "odd"}, {Limit: maxPage + 1}} {
		if _, err := root.Principals(within(t), q); refusalOf(err) != "bad_request" {
			t.Errorf("%+v: %v", q, err)
		}
	}
	e := s.awaitEvent("the revocation", func(e audit.Event) bool { return e.Action == "iap:principals.revoke" && e.Principal == "corp/root" })
	if e.Detail["reason"] != "left the company" || e.Detail["target"] != "corp/gone" || e.Decision != audit.Allow {
		t.Errorf("%+v", e)
	}
}

func TestJoinTokensAreListedWithoutTheirSecretsAndRevoked(t *testing.T) {
	s := newSystem(t, desks)
	made, err := s.admin.CreateJoinToken(within(t), admin.NewJoinToken{Name: "gpu-1", Resources: []admin.JoinResource{{Name: "phi3", Kind: "model"}}})
	must(t, err)
	list, err := s.admin.JoinTokens(within(t))
	must(t, err)
	if len(list) != 1 || list[0].ID != made.ID || list[0].Name != "gpu-1" || !list[0].Expires.Equal(made.Expires) || list[0].UsedBy != "" {
		t.Errorf("%+v", list)
	}
	text, err := json.Marshal(list)
	must(t, err)
	if strings.Contains(string(text), "secret") {
		t.Errorf("%s", text)
	}
	must(t, s.admin.RevokeJoinToken(within(t), made.ID))
	token, err := auth.ParseJoinToken(made.Token)
	must(t, err)
	if _, _, err := s.postJoin(token); err == nil {
		t.Error("an agent enrolled with a revoked token")
	}
	for _, id := range []string{made.ID, "x", strings.Repeat("x", 100), "../agent/x"} {
		if err := s.admin.RevokeJoinToken(within(t), id); refusalOf(err) != "unknown_token" {
			t.Errorf("%.20s: %v", id, err)
		}
	}
}

func TestThePolicyIsShownAsItIsInForce(t *testing.T) {
	s := newSystem(t, desks)
	root, _ := s.as("root")
	p, err := root.ShowPolicy(within(t))
	must(t, err)
	if p.Revision != s.relay.policy.Revision() || p.By != "start" || len(p.Files) != 1 || p.Files[0].Text != desks || len(p.Grants) != 2 || len(p.Admins) != 3 ||
		len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0], "never decides") || p.Failed != "" || p.Loaded.IsZero() {
		t.Errorf("%+v", p)
	}
	must(t, os.WriteFile(s.grants, []byte("grants: [}"), 0o600))
	if _, err := root.ReloadPolicy(within(t)); refusalOf(err) != "policy_broken" {
		t.Errorf("%v", err)
	}
	if p, err = root.ShowPolicy(within(t)); err != nil || p.Files[0].Text != desks || p.Failed == "" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestTheAuditLogIsReadByThoseWhoMay(t *testing.T) {
	s := newSystem(t, desks)
	desk, _ := s.as("dora", "desk")
	alice, _ := s.as("alice", "ml-eng")
	if _, err := alice.AuditEvents(within(t), admin.AuditQuestion{}); refusalOf(err) != "verb_not_granted" {
		t.Errorf("alice reads the log: %v", err)
	}
	var actions []string
	q := admin.AuditQuestion{Kind: "admin", Since: "1h", Order: "oldest", Limit: 1}
	for {
		page, err := desk.AuditEvents(within(t), q)
		must(t, err)
		for _, text := range page.Events {
			var e audit.Event
			must(t, json.Unmarshal(text, &e))
			actions = append(actions, e.Principal+" "+e.Action+" "+e.Decision)
		}
		if q.Cursor = page.Next; page.Next == "" {
			break
		}
	}
	if want := []string{"corp/alice iap:audit.read deny", "corp/dora iap:audit.read allow"}; !slices.Equal(actions, want) {
		t.Errorf("%q, want %q", actions, want)
	}
	for _, bad := range []admin.AuditQuestion{{Since: "soon"}, {Cursor: "x"}, {Order: "odd"}, {Kind: "admins"}, {Decision: "denied"}, {Limit: maxEvents + 1}, {Text: strings.Repeat("x", 1000)}} {
		if _, err := desk.AuditEvents(within(t), bad); refusalOf(err) != "bad_request" {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestATailOfTheAuditLogEndsWithTheRightToIt(t *testing.T) {
	s := newSystem(t, desks)
	desk, _ := s.as("dora", "desk")
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		ended <- desk.TailAudit(context.Background(), admin.AuditQuestion{Kind: "admin", Limit: 10}, func(line admin.TailLine) error {
			if first && line.Event != nil {
				first = false
				close(started)
			}
			return nil
		})
	}()
	await(t, started, "the first event arrives")
	must(t, os.WriteFile(s.grants, []byte("grants: []\nadmins: [\"user:corp/root\"]\n"), 0o600))
	_, err := s.admin.ReloadPolicy(within(t))
	must(t, err)
	select {
	case err := <-ended:
		if refusalOf(err) != "verb_not_granted" {
			t.Errorf("the tail ended with %v", err)
		}
	case <-within(t).Done():
		t.Error("the tail goes on without a right")
	}
	root, session := s.as("root")
	began := make(chan struct{})
	go func() {
		once := true
		ended <- root.TailAudit(context.Background(), admin.AuditQuestion{Limit: 1}, func(admin.TailLine) error {
			if once {
				once = false
				close(began)
			}
			return nil
		})
	}()
	await(t, began, "the second tail runs")
	_, err = s.admin.KillSession(within(t), session.ID(), "")
	must(t, err)
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a tail ended as if it were whole")
		}
	case <-within(t).Done():
		t.Error("the tail outlives its session")
	}
}

func TestAReadThatIsPolledIsOneRecord(t *testing.T) {
	s := newSystem(t, desks)
	root, _ := s.as("root")
	for range 20 {
		_, err := root.Sessions(within(t), admin.SessionQuestion{})
		must(t, err)
	}
	if n := len(s.events(func(e audit.Event) bool { return e.Action == "iap:sessions.ls" })); n != 1 {
		t.Errorf("%d records", n)
	}
}
