package console

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// hostile is a name that a stranger chose.
const hostile = "corp/x\x1b]0;owned\x07\u202e\u009b2J"

// fakeRelay answers what the tests ask for; what it does not know it must not be asked.
type fakeRelay struct {
	admin.AdminBackend
	sessions []admin.SessionInfo
	killed   []string
	tails    []admin.AuditQuestion
	events   [][]string // of one connection after another
	search   func(admin.AuditQuestion) (admin.AuditPage, error)
}

func (f *fakeRelay) Sessions(context.Context, admin.SessionQuestion) (admin.SessionList, error) {
	return admin.SessionList{Sessions: f.sessions}, nil
}

func (f *fakeRelay) KillSession(_ context.Context, q admin.SessionAct) (admin.Ended, error) {
	f.killed = append(f.killed, q.ID+" "+q.Reason)
	return admin.Ended{Sessions: 2, Streams: 5}, nil
}

func (f *fakeRelay) RevokePrincipal(_ context.Context, q admin.PrincipalAct) (admin.Ended, error) {
	f.killed = append(f.killed, q.ID)
	return admin.Ended{}, nil
}

func (f *fakeRelay) Agents(context.Context) ([]admin.Agent, error) {
	return []admin.Agent{{ID: "agent-0123456789abcdef01234567", Name: hostile, Resources: []admin.JoinResource{{Name: hostile, Kind: "model"}}}}, nil
}

func (f *fakeRelay) Principals(context.Context, admin.PrincipalQuestion) (admin.PrincipalList, error) {
	return admin.PrincipalList{Principals: []admin.PrincipalInfo{
		{Principal: hostile, Name: hostile, Revoked: &admin.RevocationInfo{At: time.Unix(1, 0), By: hostile, Reason: hostile}},
	}}, nil
}

func (f *fakeRelay) AdminKeys(context.Context) ([]admin.Key, error) {
	return []admin.Key{{ID: "abcd2345", Name: hostile, Owner: hostile, Actions: []string{"chat"}, Resources: []string{hostile}, Models: []string{hostile}, State: "good"}}, nil
}

func (f *fakeRelay) ShowPolicy(context.Context) (admin.PolicyInForce, error) {
	return admin.PolicyInForce{Revision: "r", By: hostile, Failed: hostile, Warnings: []string{hostile}, Files: []admin.PolicyFile{{Name: "grants.yaml", SHA256: "00", Text: "a: b\n\tc " + hostile}}}, nil
}

func (f *fakeRelay) AuditEvents(_ context.Context, q admin.AuditQuestion) (admin.AuditPage, error) {
	if f.search != nil {
		return f.search(q)
	}
	event, err := json.Marshal(map[string]any{
		"seq": 7, "time": "2026-11-23T10:00:00Z", "kind": "decision", "decision": "deny", "principal": hostile, "resource": hostile, "model": hostile, "action": hostile,
		"reason": hostile, "detail": map[string]string{"target": hostile, "reason": hostile},
	})
	return admin.AuditPage{Events: []admin.AuditEvent{event}}, err
}

func (f *fakeRelay) TailAudit(_ context.Context, q admin.AuditQuestion, each func(admin.TailLine) error) error {
	f.tails = append(f.tails, q)
	if len(f.events) == 0 {
		return &admin.Error{Status: 403, Code: "verb_not_granted", Message: "no more"}
	}
	now := f.events[0]
	f.events = f.events[1:]
	for _, e := range now {
		if err := each(admin.TailLine{Event: admin.AuditEvent(e)}); err != nil {
			return err
		}
	}
	return &admin.Error{Status: 503, Code: "relay_shutdown", Message: "the relay goes"}
}

// openGate lets everybody do everything.
type openGate struct{}

func (openGate) May(context.Context, string) error       { return nil }
func (openGate) Record(context.Context, admin.Act) error { return nil }
func (openGate) Unrecorded(admin.Act, error)             {}

// typed runs a command line against a relay and returns what it printed.
func typed(t *testing.T, relay *fakeRelay, change func(*Host), line ...string) (string, error) {
	t.Helper()
	s := httptest.NewServer(admin.AdminHandler(relay, openGate{}))
	defer s.Close()
	client := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", s.Listener.Addr().String())
	})
	defer client.Close()
	c := testConsole(client)
	c.wait = func(context.Context, time.Duration) {}
	if change != nil {
		change(&c.host)
	}
	root := &cobra.Command{Use: "iapctl", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(c.Sessions(), c.Principals(), c.Agents(), c.Keys(), c.Audit(), c.host.Group("policy", "", "", c.PolicyShow()))
	var out strings.Builder
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(line)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := root.ExecuteContext(ctx)
	return out.String(), err
}

func TestNothingThatStrangersNameActsOnATerminal(t *testing.T) {
	relay := &fakeRelay{sessions: []admin.SessionInfo{{ID: hostile, Principal: hostile, Source: hostile, Class: hostile}, {ID: "t", Agent: hostile}}}
	for _, line := range []string{"sessions ls", "principals ls", "agents ls", "keys ls", "policy show --text", "audit query", "audit tail"} {
		for name, change := range map[string]func(*Host){"text": nil, "json": func(h *Host) { h.JSON = func() bool { return true } }} {
			text, err := typed(t, relay, change, strings.Fields(line)...)
			if err != nil || text == "" {
				t.Errorf("%s: %v", line, err)
			}
			if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && plaintext.Hidden(r) }) {
				t.Errorf("%s as %s printed %q", line, name, text)
			}
		}
	}
	var words []string
	if words = completion(words, hostile, "x"); len(words) > 0 {
		t.Errorf("completed %q", words)
	}
}

func TestTheBeginningOfAnIdMeansOneSessionOrNone(t *testing.T) {
	const one, two = "aaaabbbbccccddddeeeeffff00001111", "aaaacccccccccccccccccccccccccccc"
	relay := func() *fakeRelay { return &fakeRelay{sessions: []admin.SessionInfo{{ID: one}, {ID: two}}} }
	for line, want := range map[string]string{"aaaab": one, one: one, "aaaacc": two, "99999999999999999999999999999999": "99999999999999999999999999999999"} {
		f := relay()
		if text, err := typed(t, f, nil, "sessions", "kill", line, "--reason", "drill"); err != nil || len(f.killed) != 1 || f.killed[0] != want+" drill" || !strings.Contains(text, "2 sessions, 5 streams ended") {
			t.Errorf("%s: killed %q, %v\n%s", line, f.killed, err, text)
		}
	}
	for line, code := range map[string]string{"aaaa": "usage", "aaa": "unknown_session", "": "unknown_session", "bbbb": "unknown_session"} {
		f := relay()
		_, err := typed(t, f, nil, "sessions", "kill", line)
		var refused *admin.Error
		if !errors.As(err, &refused) || refused.Code != code || refused.Hint == "" || len(f.killed) > 0 {
			t.Errorf("%q: killed %q, %v", line, f.killed, err)
		}
	}
	for _, line := range [][]string{{}, {"aaaab", "--agent", "x"}, {"--agent", "x", "--principal", "y"}} {
		if _, err := typed(t, relay(), nil, append([]string{"sessions", "kill"}, line...)...); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", line, err)
		}
	}
}

func TestDangerousCommandsAskWhereSomebodyCanAnswer(t *testing.T) {
	for _, c := range []struct {
		asks, answer, done bool
		yes                string
	}{{asks: true, answer: false, done: false}, {asks: true, answer: true, done: true}, {asks: false, done: true}, {asks: true, done: true, yes: "--yes"}} {
		relay := &fakeRelay{}
		args := append([]string{"principals", "revoke", "corp/bob"}, strings.Fields(c.yes)...)
		_, err := typed(t, relay, func(h *Host) {
			h.Asks, h.Confirm = func() bool { return c.asks }, func(context.Context, string) bool { return c.answer }
		}, args...)
		if (len(relay.killed) == 1) != c.done || (err == nil) != c.done {
			t.Errorf("%+v: %q, %v", c, relay.killed, err)
		}
	}
}

func TestATailGoesOnBehindTheLastRecordAfterALostConnection(t *testing.T) {
	relay := &fakeRelay{events: [][]string{
		{`{"seq":1,"kind":"decision","decision":"allow","principal":"corp/a","action":"chat"}`, `{"seq":2,"kind":"outcome","principal":"corp/a"}`},
		{`{"seq":3,"kind":"decision","decision":"deny","principal":"corp/b","reason":"no_grant"}`},
	}}
	text, err := typed(t, relay, nil, "audit", "tail", "-f", "-n", "5")
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Code != "verb_not_granted" {
		t.Errorf("the tail ended with %v", err)
	}
	if len(relay.tails) != 3 || relay.tails[0].Limit != 5 || relay.tails[1].Cursor != "2" || relay.tails[1].Limit != 0 || relay.tails[2].Cursor != "3" {
		t.Errorf("asked for %+v", relay.tails)
	}
	if !strings.Contains(text, "corp/a") || !strings.Contains(text, "no_grant") || strings.Contains(text, "done") || strings.Count(text, "connection") != 2 {
		t.Errorf("printed\n%s", text)
	}
}

func TestLinesOfRecordsFitTheScreen(t *testing.T) {
	c := testConsole(nil)
	line := c.lineOf(record{Time: time.Now(), Kind: "decision", Decision: "deny", Principal: "corp/8a7f3c", Action: "inspect-model", Resource: "phi3", Model: "phi3:mini", Reason: "model_not_granted"})
	if screen.Columns(line) > screen.Width || !strings.Contains(line, "phi3/phi3:mini") {
		t.Errorf("%d columns: %s", screen.Columns(line), line)
	}
	line = c.lineOf(record{Time: time.Now(), Kind: "admin", Decision: "allow", Principal: "dev/alice", Action: "iap:agents.rotate", Detail: map[string]string{"target": "agent-0123456789abcdef01234567"}})
	if screen.Columns(line) > screen.Width || !strings.HasSuffix(line, " agent-0123456789") {
		t.Errorf("%d columns: %s", screen.Columns(line), line)
	}
}

func TestARevocationThatEndedNothingAsksWhetherTheNameIsRight(t *testing.T) {
	text, err := typed(t, &fakeRelay{}, nil, "principals", "revoke", "corp/typo", "--yes")
	if err != nil || !strings.Contains(text, "Is the name right?") || !strings.Contains(text, "iapctl principals ls") {
		t.Errorf("%v\n%s", err, text)
	}
}
