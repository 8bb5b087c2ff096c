package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"iap/internal/audit"
	"iap/internal/replay"
	"iap/policy"
)

func TestPolicyReplayTellsWhomAChangeHits(t *testing.T) {
	dir, file, _ := initialised(t, "--group", "ml-eng", "--resource", "llama")
	logs := filepath.Join(dir, "log")
	log, err := audit.Open(audit.Options{Dir: logs, ReserveBytes: -1})
	must(t, err)
	ann := policy.Principal{Issuer: "corp", Subject: "ann", Groups: []string{"ml-eng"}}
	facts, err := json.Marshal(ann)
	must(t, err)
	must(t, log.Record(t.Context(), audit.Event{Kind: audit.KindSubject, Subject: "a", Principal: ann.ID(), Facts: string(facts)}))
	must(t, log.Record(t.Context(), audit.Event{
		Kind: audit.KindDecision, Decision: audit.Allow, Reason: "allowed", Grant: "first-users", Revision: "r", Principal: ann.ID(), Subject: "a",
		Resource: "llama", Action: "chat", Model: "llama3:latest", Via: "tunnel",
	}))
	must(t, log.Close())
	grants := filepath.Join(dir, "grants.yaml")
	text, err := command(t, "", "policy", "replay", grants, "--config", file, "--audit", logs, "--since", "1h")
	if err != nil || !strings.Contains(text, "1 as they were, 0 allowed or denied instead") {
		t.Errorf("%v\n%s", err, text)
	}
	closed := filepath.Join(dir, "closed.yaml")
	must(t, os.WriteFile(closed, []byte("grants: []\n"), 0o600))
	text, err = command(t, "", "policy", "replay", closed, "--config", file, "--audit", logs)
	if err == nil || !strings.Contains(err.Error(), "1 of 1") || !strings.Contains(text, "denied now  1      corp/ann   llama     chat    llama3:latest  tunnel  first-users  no_grant") {
		t.Errorf("%v\n%s", err, text)
	}
	text, _ = command(t, "", "policy", "replay", closed, "--config", file, "--audit", logs, "-o", "json")
	var report replay.Report
	if json.Unmarshal([]byte(text), &report) != nil || report.Verdicts != 1 || report.Changes[0].Kind != replay.NowDenied {
		t.Errorf("%s", text)
	}
	if _, err = command(t, "", "policy", "replay", closed, "--config", file, "--since", "yesterday"); err == nil || !strings.Contains(err.Error(), "--since") {
		t.Errorf("since yesterday: %v", err)
	}
}

func TestSinceIsAnAgeOrATime(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"7d": now.Add(-7 * 24 * time.Hour), "90m": now.Add(-90 * time.Minute), "2026-11-20T00:00:00Z": time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)} {
		if got, err := sinceTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}
