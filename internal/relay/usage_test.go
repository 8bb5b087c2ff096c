package relay

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/tunnel"
)

// usageGrants lets root read what others use, and nobody chat on secret.
const usageGrants = `version: 1
admins:
  - {to: ["user:corp/root"], verbs: ["iap:usage.read"]}
grants:
  - name: engineers
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    models: ["phi3*"]
    actions: [chat, list-models]
  - name: board
    to: ["group:corp/board"]
    resources: [secret]
    actions: [chat]
`

// usageLines are the rows of a report as text.
func usageLines(r admin.UsageReport) string {
	var lines []string
	for _, row := range r.Rows {
		lines = append(lines, fmt.Sprintf("%s %d+%d %d/%d", row.Name, row.Requests, row.Denied, row.TokensIn, row.TokensOut))
	}
	return strings.Join(lines, "\n")
}

// tried sends a request that is refused.
func (s *system) tried(session *tunnel.Session, resource, model string) {
	s.t.Helper()
	r, err := postChat(client(s.t, session, tunnel.Header{Resource: resource}), chatBody(model, false))
	if err != nil {
		return // the stream itself was refused
	}
	_, _ = io.Copy(io.Discard, r.Body)
	r.Body.Close()
	if r.StatusCode < 400 {
		s.t.Fatalf("%s on %s got %s", model, resource, r.Status)
	}
}

func TestUsageIsWhatTheAuditLogSaysAddedUp(t *testing.T) {
	s := newOllama(t, usageGrants, counted(100))
	alice := s.user(nil).open(tunnel.Interactive)
	bob := s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive)
	s.useSome(alice)
	s.useSome(alice)
	s.useSome(bob)
	for i := range 15 { // more than are written in full
		s.tried(alice, "phi3", fmt.Sprint("other-", i))
	}
	s.tried(alice, "secret", "phi3")
	s.tried(bob, "no-such", "phi3")
	read := s.usageReaders()
	for name, ask := range read {
		for by, want := range map[string]string{
			"principal": "corp/alice 2+16 20/200\ncorp/bob 1+1 10/100",
			"group":     "corp/llm-users 3+17 30/300\ncorp/ml-eng 3+17 30/300",
			"model":     "phi3:latest 3+0 30/300\n(refused) 0+17 0/0",
			"action":    "chat 3+15 30/300\nconnect 0+2 0/0",
			"grant":     "engineers 3+0 30/300\n(none) 0+17 0/0",
			"resource":  "phi3 3+15 30/300\n(unknown) 0+2 0/0",
		} {
			report, err := ask(admin.UsageQuestion{By: by})
			must(t, err)
			if got := usageLines(report); got != want || report.Total.Requests != 3 || report.Total.Denied != 17 {
				t.Errorf("%s by %s:\n%s\nwant\n%s\ntotal %+v", name, by, got, want, report.Total)
			}
		}
		one, err := ask(admin.UsageQuestion{Who: "corp/bob", Since: "1h", Per: "minute"})
		must(t, err)
		if one.Total.Requests != 1 || len(one.Points) == 0 || one.Total.TTFTP50MS < 1 || one.Total.TTFTP95MS < one.Total.TTFTP50MS {
			t.Errorf("%s about bob: %+v", name, one)
		}
	}
	s.sameDenials(read["root"], "corp/alice", 16)
}

// usageReaders are the two ways of administrators.
func (s *system) usageReaders() map[string]func(admin.UsageQuestion) (admin.UsageReport, error) {
	root := api(s.t, s.user(map[string]any{"sub": "root", "groups": []string{}}).open(tunnel.Interactive))
	return map[string]func(admin.UsageQuestion) (admin.UsageReport, error){
		"a session": func(q admin.UsageQuestion) (admin.UsageReport, error) { return root.AdminUsage(within(s.t), q) },
		"root":      func(q admin.UsageQuestion) (admin.UsageReport, error) { return s.admin.AdminUsage(within(s.t), q) },
	}
}

// sameDenials compares with the log, the counted records of which are written when
// the relay ends.
func (s *system) sameDenials(ask func(admin.UsageQuestion) (admin.UsageReport, error), who string, want int64) {
	s.t.Helper()
	report, err := ask(admin.UsageQuestion{Who: who})
	must(s.t, err)
	must(s.t, s.end())
	var denied int64
	for _, e := range s.events(func(e audit.Event) bool { return e.Principal == who && e.Decision == audit.Deny }) {
		switch e.Kind {
		case audit.KindDecision:
			denied++
		case audit.KindDeniedCount:
			denied += e.Count
		}
	}
	if report.Total.Denied != denied || denied != want {
		s.t.Errorf("the book has %d denials, the log %d, there were %d", report.Total.Denied, denied, want)
	}
}

func TestUsageOfOthersNeedsTheVerbAndOwnDoesNot(t *testing.T) {
	s := newOllama(t, usageGrants, counted(100))
	alice := s.user(nil).open(tunnel.Interactive)
	s.useSome(alice)
	s.useSome(s.user(map[string]any{"sub": "bob"}).open(tunnel.Interactive))
	mine := api(t, alice)
	for by, want := range map[string]string{"": "phi3:latest 1+0 10/100", "principal": "corp/alice 1+0 10/100", "group": "corp/llm-users 1+0 10/100\ncorp/ml-eng 1+0 10/100"} {
		report, err := mine.Usage(within(t), admin.UsageQuestion{By: by})
		must(t, err)
		if got := usageLines(report); got != want || report.Who != "corp/alice" {
			t.Errorf("own by %q: %s", by, got)
		}
	}
	if _, err := mine.Usage(within(t), admin.UsageQuestion{Who: "corp/bob"}); refusalOf(err) != "bad_request" {
		t.Errorf("about bob: %v", err)
	}
	for _, q := range []admin.UsageQuestion{{}, {Who: "corp/alice"}, {Who: "corp/bob"}, {By: "principal"}} {
		if _, err := mine.AdminUsage(within(t), q); refusalOf(err) != "verb_not_granted" {
			t.Errorf("%+v: %v", q, err)
		}
	}
	e := s.awaitEvent("the refusal", func(e audit.Event) bool { return e.Kind == audit.KindAdmin && e.Action == "iap:usage.read" })
	if e.Decision != audit.Deny || e.Principal != "corp/alice" {
		t.Errorf("%+v", e)
	}
	for _, q := range []admin.UsageQuestion{
		{By: "colour"}, {Per: "year"}, {Since: "yesterday"}, {Since: "2d", Until: "3d"}, {Top: 100000}, {Who: "bob"}, {Since: strings.Repeat("9", 600)}, {Model: strings.Repeat("m", 600)},
	} {
		if _, err := s.admin.AdminUsage(within(t), q); refusalOf(err) != "bad_request" {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestNobodyHasTwoQuestionsAboutUsageInTheLine(t *testing.T) {
	var a asking
	done, free := a.enter("corp/alice")
	if _, again := a.enter("corp/alice"); !free || again {
		t.Errorf("first %v, second %v", free, again)
	}
	if _, other := a.enter("corp/bob"); !other {
		t.Error("bob waits for alice")
	}
	done()
	if _, free := a.enter("corp/alice"); !free {
		t.Error("alice is never free again")
	}
}

func TestOwnUsageDoesNotTellAResourceFromNone(t *testing.T) {
	s := newOllama(t, usageGrants, counted(100))
	s.startAgent(served{name: "secret", kind: "model", upstream: "http://127.0.0.1:9"})
	alice := s.user(nil).open(tunnel.Interactive)
	mine := api(t, alice)
	s.useSome(alice)
	s.tried(alice, "secret", "phi3")
	s.tried(alice, "no-such", "phi3")
	report, err := mine.Usage(within(t), admin.UsageQuestion{By: "resource", Top: 1})
	must(t, err)
	if got, want := usageLines(report), "phi3 1+0 10/100\n(refused) 0+2 0/0"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	of := func(resource string) string {
		report, err := mine.Usage(within(t), admin.UsageQuestion{Resource: resource, Per: "minute"})
		must(t, err)
		return fmt.Sprintf("%+v %+v %+v %v", report.Total, report.Rows, report.Points, report.Others)
	}
	if is, isNot := of("secret"), of("no-such"); is != isNot {
		t.Errorf("secret: %s\nno-such: %s", is, isNot)
	}
	all, err := s.admin.AdminUsage(within(t), admin.UsageQuestion{By: "resource"})
	must(t, err)
	if got, want := usageLines(all), "phi3 1+0 10/100\n(unknown) 0+1 0/0\nsecret 0+1 0/0"; got != want {
		t.Errorf("administrators see\n%s\nwant\n%s", got, want)
	}
}

func TestUsageOutlivesTheRelayAndModelsNobodyHasMakeNoName(t *testing.T) {
	s := newOllama(t, strings.Replace(usageGrants, `models: ["phi3*"]`, `models: ["*"]`, 1), func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, `{"error":"model not found"}`, http.StatusNotFound)
	})
	alice := s.user(nil).open(tunnel.Interactive)
	for i := range 3 {
		s.tried(alice, "phi3", fmt.Sprint("invented-", i))
	}
	eventually(t, "three outcomes", func() bool {
		report, err := api(t, alice).Usage(within(t), admin.UsageQuestion{})
		return err == nil && report.Total.Errors == 3
	})
	must(t, s.end())
	s.start()
	report, err := s.admin.AdminUsage(within(t), admin.UsageQuestion{By: "model"})
	must(t, err)
	if got := usageLines(report); got != "(unknown) 3+0 0/0" {
		t.Errorf("after a restart: %s", got)
	}
}

func TestTCPStreamsCountAsRequests(t *testing.T) {
	s := newSystem(t, allowAll)

	s.startAgent(served{name: "pg", kind: "tcp", upstream: echo(t)})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	alice := s.user(nil).open(tunnel.Bulk)
	st, err := alice.Open(ctx, tunnel.Header{Resource: "pg"}, nil)
	must(t, err)
	_, err = st.ReadReply(ctx)
	must(t, err)
	must(t, st.CloseWrite())
	_, _ = io.Copy(io.Discard, st)
	var report admin.UsageReport
	eventually(t, "the stream's end", func() bool {
		report, err = s.admin.AdminUsage(within(t), admin.UsageQuestion{By: "resource", Since: time.Hour.String()})
		return err == nil && report.Total.Requests == 1
	})
	if got := usageLines(report); got != "pg 1+0 0/0" || report.Total.Errors+report.Total.Cancelled > 0 {
		t.Errorf("%s, %+v", got, report.Total)
	}
}

func TestOfVeryManyGroupsThoseCountThatGrantsName(t *testing.T) {
	s := newSystem(t, usageGrants)
	id := &identity{}
	id.policy.Issuer = "corp"
	for i := range 100 {
		id.policy.Groups = append(id.policy.Groups, fmt.Sprint("other-", i))
	}
	id.policy.Groups = append(id.policy.Groups, "ml-eng")
	if got := s.relay.countedGroups(id); len(got) != 101 || got[0] != "ml-eng" || got[1] != "other-0" {
		t.Errorf("%v", got)
	}
}
