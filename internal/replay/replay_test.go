package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"iap/internal/audit"
	"iap/policy"
	"iap/policy/rego"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// logOf writes events to a log of small segments.
func logOf(t *testing.T, events ...audit.Event) string {
	t.Helper()
	dir := t.TempDir()
	log, err := audit.Open(audit.Options{Dir: dir, ReserveBytes: -1, SegmentBytes: 2000, Now: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if err := log.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func engine(t *testing.T, grants string) *rego.Engine {
	t.Helper()
	file := filepath.Join(t.TempDir(), "new.yaml")
	if err := os.WriteFile(file, []byte(grants), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := rego.New(t.Context(), rego.Config{GrantsFile: file, Issuers: []string{"corp"}, Deadline: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func subject(p policy.Principal, id string) audit.Event {
	facts, _ := json.Marshal(p) // texts and a time
	return audit.Event{Kind: audit.KindSubject, Time: noon.Add(-time.Hour), Subject: id, Principal: p.ID(), Facts: string(facts)}
}

// asked is a decision on chat with phi3; change makes it another one.
func asked(who, id, decision, grantOrReason string, change func(*audit.Event)) audit.Event {
	e := audit.Event{
		Kind: audit.KindDecision, Time: noon, Principal: who, Subject: id, Resource: "phi3", Action: "chat", Model: "phi3:latest",
		Via: "tunnel", Decision: decision, Reason: "allowed", Grant: grantOrReason, Revision: "r",
	}
	if decision == audit.Deny {
		e.Reason, e.Grant = grantOrReason, ""
	}
	if change != nil {
		change(&e)
	}
	return e
}

const newGrants = `grants:
  - {name: eng, to: ["group:corp/eng"], resources: [phi3], models: ["phi3:*"], media: [], actions: [chat], require: {mfa: true, max_auth_age: 2h}}
  - {name: prod, to: ["group:corp/eng"], resources: ["label:env=prod"], actions: [connect, embed, tool]}
`

func TestReplayFindsWhatWouldDiffer(t *testing.T) {
	ann := policy.Principal{Issuer: "corp", Subject: "ann", Groups: []string{"eng"}, MFA: true, MFASource: "amr", AuthTime: noon.Add(-time.Hour)}
	weak := policy.Principal{Issuer: "corp", Subject: "weak", Groups: []string{"eng"}, AuthTime: noon}
	detail := func(pairs ...string) func(*audit.Event) {
		return func(e *audit.Event) {
			e.Detail = map[string]string{}
			for i := 0; i < len(pairs); i += 2 {
				e.Detail[pairs[i]] = pairs[i+1]
			}
		}
	}
	dir := logOf(
		t, subject(ann, "a"), subject(weak, "w"),
		asked("corp/ann", "a", "allow", "eng", func(e *audit.Event) { e.Time = noon.Add(-48 * time.Hour); e.Grant = "old" }), // too old to count
		asked("corp/ann", "a", "allow", "eng", nil),
		asked("corp/ann", "a", "allow", "old", nil),
		asked("corp/ann", "a", "deny", "no_grant", nil),
		asked("corp/ann", "a", "allow", "eng", detail("media", "image")),
		asked("corp/ann", "a", "allow", "eng", detail("models", "phi3:latest other:x")),
		asked("corp/ann", "a", "allow", "eng", func(e *audit.Event) { e.Time = noon.Add(90 * time.Minute) }), // the login is too old by then
		asked("corp/weak", "w", "allow", "old", nil),
		asked("corp/weak", "w", "allow", "old", nil),
		asked("corp/weak", "w", "deny", "no_grant", nil),
		asked("corp/weak", "w", "allow", "prod", func(e *audit.Event) {
			detail("asked", "reach", "kind", "tcp", "labels", "env=prod")(e)
			e.Action, e.Model = "connect", ""
		}),
		asked("corp/ann", "a", "allow", "eng", func(e *audit.Event) { detail("asked", "reach")(e); e.Action, e.Model = "connect", "" }),
		asked("corp/ann", "a", "allow", "prod", func(e *audit.Event) { detail("labels", "env=prod", "also", "tool")(e); e.Action = "embed" }),
		asked("corp/ann", "a", "deny", "budget_exceeded", nil),
		asked("corp/ann", "a", "deny", "content_type", func(e *audit.Event) { e.Status = 415 }),
		asked("corp/ann", "a", "deny", "key_scope", func(e *audit.Event) { e.Revision = "" }),
		asked("corp/bob", "b", "allow", "eng", nil),
		asked("corp/bob", "a", "allow", "eng", nil), // somebody else's facts
		asked("corp/ann", "a", "allow", "eng", detail("models", "phi3:latest x…")),
		audit.Event{Kind: audit.KindDeniedCount, Time: noon, Count: 40},
		audit.Event{Kind: audit.KindOutcome, Time: noon, Principal: "corp/ann"},
	)
	report, err := Run(t.Context(), Options{Dir: dir, Since: noon.Add(-2 * time.Hour), Decide: engine(t, newGrants).Decide})
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, c := range report.Changes {
		got += fmt.Sprintf("%s %d× %s %s %s→%s\n", c.Kind, c.Count, c.Principal, c.Action, c.Old, c.New)
	}
	for _, line := range []string{
		"now_denied 2× corp/weak chat old→mfa_required\n", "now_denied 1× corp/ann chat eng→media_not_granted\n",
		"now_denied 1× corp/ann chat eng→model_not_granted\n", "now_denied 1× corp/ann chat eng→auth_too_old\n",
		"now_allowed 1× corp/ann chat no_grant→eng\n", "other_grant 1× corp/ann chat old→eng\n", "other_reason 1× corp/weak chat no_grant→mfa_required\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%q is missing", line)
		}
	}
	if len(report.Changes) != 7 || report.Decided != 12 || report.Same != 4 || report.Verdicts != 6 {
		t.Errorf("%d changes, %d decided, %d the same, %d verdicts\n%s", len(report.Changes), report.Decided, report.Same, report.Verdicts, got)
	}
	if fmt.Sprint(report.NotReplayed) != "map[counted:40 no_facts:3 not_policy:3]" {
		t.Errorf("not replayed: %v", report.NotReplayed)
	}
}

func TestReplayEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{Dir: logOf(t, asked("corp/a", "", "allow", "g", nil))}); err == nil {
		t.Error("it went on")
	}
}

func TestReplayOfNoLogIsAnError(t *testing.T) {
	if _, err := Run(t.Context(), Options{Dir: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("nothing was replayed without a word")
	}
}
