package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/audit"
)

// records reads the audit log as it stands. A last line that is just being written is left out.
func (s *system) records() []audit.Event {
	s.t.Helper()
	var all []audit.Event
	for e, err := range audit.Read(filepath.Join(filepath.Dir(s.config), "data", "audit")) {
		if errors.Is(err, audit.ErrTorn) {
			continue
		}
		if err != nil {
			s.t.Fatalf("read the audit log: %v", err)
		}
		all = append(all, e)
	}
	return all
}

// awaitRecord waits until the log has a record for which match holds, and returns the first.
func (s *system) awaitRecord(what string, match func(audit.Event) bool) audit.Event {
	s.t.Helper()
	var found audit.Event
	eventually(s.t, "the audit log tells: "+what, func() bool {
		for _, e := range s.records() {
			if match(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// history is what the log says of one request: its decision and its outcomes, by their place in the log.
type history struct {
	decision   audit.Event
	decisions  int
	decidedAt  int // -1: no decision
	outcomes   []audit.Event
	outcomesAt []int
}

// histories sorts records by request. Only what was allowed has a history.
func histories(all []audit.Event) map[string]*history {
	found := map[string]*history{}
	of := func(request string) *history {
		if found[request] == nil {
			found[request] = &history{decidedAt: -1}
		}
		return found[request]
	}
	for i, e := range all {
		switch {
		case e.Request == "":
		case e.Kind == audit.KindDecision && e.Decision == audit.Allow:
			h := of(e.Request)
			h.decision, h.decidedAt = e, i
			h.decisions++
		case e.Kind == audit.KindOutcome:
			h := of(e.Request)
			h.outcomes, h.outcomesAt = append(h.outcomes, e), append(h.outcomesAt, i)
		}
	}
	return found
}

// checkAudit holds the log against what the upstream saw.
func checkAudit(t *testing.T, all []audit.Event, seen []seenRequest) {
	t.Helper()
	for _, text := range discrepancies(all, seen) {
		t.Error(text)
	}
}

// discrepancies are what is wrong of: each of the upstream's requests was decided on before, each decision came before its
// outcome, none has two.
func discrepancies(all []audit.Event, seen []seenRequest) []string {
	var wrong []string
	found := histories(all)
	for _, q := range seen {
		if h := found[q.id()]; h == nil || h.decidedAt < 0 {
			wrong = append(wrong, fmt.Sprintf("the upstream saw %s %s (%q), of which the audit log has no decision", q.method, q.path, q.id()))
		}
	}
	for id, h := range found {
		switch {
		case h.decidedAt < 0:
			wrong = append(wrong, fmt.Sprintf("request %s has an outcome and no decision", id))
		case h.decisions > 1:
			wrong = append(wrong, fmt.Sprintf("request %s was decided %d times", id, h.decisions))
		case len(h.outcomes) > 1:
			wrong = append(wrong, fmt.Sprintf("request %s has %d outcomes: %+v", id, len(h.outcomes), h.outcomes))
		}
		for _, at := range h.outcomesAt {
			if at < h.decidedAt {
				wrong = append(wrong, fmt.Sprintf("request %s has its outcome before its decision", id))
			}
		}
	}
	return wrong
}

func TestEveryDiscrepancyIsFound(t *testing.T) {
	decision := audit.Event{Kind: audit.KindDecision, Decision: audit.Allow, Request: "rq-1", Method: "POST"}
	outcome := audit.Event{Kind: audit.KindOutcome, Request: "rq-1"}
	asked := []seenRequest{{method: "POST", header: http.Header{"X-Request-Id": {"rq-1"}}}}
	for name, c := range map[string]struct {
		log  []audit.Event
		want string
	}{
		"nothing":                     {[]audit.Event{decision, outcome}, ""},
		"no record":                   {nil, "no decision"},
		"a record of another":         {[]audit.Event{{Kind: audit.KindDecision, Decision: audit.Allow, Request: "rq-2"}}, "no decision"},
		"a denial":                    {[]audit.Event{{Kind: audit.KindDecision, Decision: audit.Deny, Request: "rq-1"}}, "no decision"},
		"an outcome alone":            {[]audit.Event{outcome}, "no decision"},
		"two outcomes":                {[]audit.Event{decision, outcome, outcome}, "2 outcomes"},
		"two decisions":               {[]audit.Event{decision, outcome, decision}, "decided 2 times"},
		"an outcome before its cause": {[]audit.Event{outcome, decision}, "before its decision"},
	} {
		got := strings.Join(discrepancies(c.log, asked), "; ")
		if !strings.Contains(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// awaitSettled waits until every request has its outcome. A connection that a client keeps for its next request is
// open as long as that client likes.
func (s *system) awaitSettled() []audit.Event {
	s.t.Helper()
	var all []audit.Event
	eventually(s.t, "every request has its outcome", func() bool {
		all = s.records()
		for _, h := range histories(all) {
			if isRequest(h.decision) && len(h.outcomes) == 0 {
				return false
			}
		}
		return true
	})
	return all
}

// isRequest tells the decision on an HTTP request from that on the connection it came by.
func isRequest(e audit.Event) bool { return e.Method != "" }
