package relay

import (
	"encoding/json"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/policy"
)

func TestDecisionsNameWhatThePolicyKnew(t *testing.T) {
	dir := t.TempDir()
	log, err := audit.Open(audit.Options{Dir: dir, ReserveBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s := &subjects{log: log, now: func() time.Time { return now }}
	decide := func(id *identity) {
		t.Helper()
		line := audit.Event{Kind: audit.KindDecision, Decision: audit.Allow, Principal: id.policy.ID()}
		if err := s.name(t.Context(), &line, id); err != nil {
			t.Fatal(err)
		}
		if err := log.Record(t.Context(), line); err != nil {
			t.Fatal(err)
		}
	}
	ann := policy.Principal{Issuer: "corp", Subject: "ann", Groups: []string{"a", "b"}, ACR: "gold", AuthTime: now.Add(-time.Hour)}
	decide(&identity{policy: ann})
	decide(&identity{policy: ann}) // the same facts, of another session
	ann.Groups = []string{"a"}
	decide(&identity{policy: ann})
	now = now.Add(25 * time.Hour)
	decide(&identity{policy: ann})
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	facts, kinds := map[string]policy.Principal{}, ""
	for e, err := range audit.Read(dir) {
		switch {
		case err != nil:
			t.Fatal(err)
		case e.Kind == audit.KindSubject:
			var p policy.Principal
			if err := json.Unmarshal([]byte(e.Facts), &p); err != nil {
				t.Fatal(err)
			}
			facts[e.Subject] = p
			kinds += "s"
		case e.Kind == audit.KindDecision:
			if p, known := facts[e.Subject]; !known || p.ACR != "gold" {
				t.Errorf("record %d rests on %+v", e.Seq, p)
			}
			kinds += "d"
		}
	}
	if kinds != "sddsdsd" || len(facts) != 2 {
		t.Errorf("events %s, %d subjects", kinds, len(facts))
	}
}
