package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"iap/internal/admin"
	"iap/internal/audit"
)

// servedLog is a relay that searches the log in dir as the real one does, three records a page.
func servedLog(dir string, before func(page int) error) *fakeRelay {
	page := 0
	return &fakeRelay{search: func(q admin.AuditQuestion) (admin.AuditPage, error) {
		if page++; before != nil {
			if err := before(page); err != nil {
				return admin.AuditPage{}, err
			}
		}
		after, _ := strconv.ParseUint(q.Cursor, 10, 64)
		found, err := audit.Search(context.Background(), dir, audit.Query{Kind: q.Kind, Request: q.Request, Principal: q.Principal, Decision: q.Decision, Text: q.Text},
			audit.Bounds{Newest: q.Order != "oldest", After: after, Limit: min(q.Limit, 3), Bytes: 1 << 20, Within: time.Minute})
		answer := admin.AuditPage{Events: []admin.AuditEvent{}}
		for _, line := range found.Lines {
			answer.Events = append(answer.Events, line)
		}
		if found.Next > 0 {
			answer.Next = strconv.FormatUint(found.Next, 10)
		}
		return answer, err
	}}
}

func numbersOf(t *testing.T, raw string) (seqs []int) {
	t.Helper()
	for line := range strings.Lines(raw) {
		var r struct{ Seq int }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		seqs = append(seqs, r.Seq)
	}
	return seqs
}

func TestAFolderAndARelayAnswerAlike(t *testing.T) {
	dir, _ := writtenLog(t)
	asJSON := func(h *Host) { h.JSON = func() bool { return true } }
	for _, flags := range [][]string{
		{"-n", "0"},
		{"-n", "0", "--oldest"},
		{"-n", "4"},
		{"-n", "0", "--kind", "decision"},
		{"-n", "0", "--request", "rq_3"},
		{"-n", "0", "--filter", `request matches "[135]$"`},
		{"-n", "2", "--filter", `kind == "decision"`, "--oldest"},
		{"--text", "no such text"},
		{"-n", "0", "--principal", hostile},
		{"--cursor", "4", "--oldest"},
	} {
		for name, change := range map[string]func(*Host){"text": nil, "json": asJSON} {
			for _, raw := range []string{"--raw=true", "--raw=false"} {
				line := append([]string{"audit", "query", raw}, flags...)
				online, err := typed(t, servedLog(dir, nil), change, line...)
				if err != nil {
					t.Errorf("%q: %v", line, err)
				}
				offline, err := typed(t, nil, change, append(line, "--dir", dir)...)
				if err != nil || online != offline {
					t.Errorf("%q as %s: %v\nof the relay:\n%s\nof the folder:\n%s", line, name, err, online, offline)
				}
				var doc struct {
					Schema string
					Events []struct{ Seq uint64 }
				}
				if name == "json" && raw == "--raw=false" && (json.Unmarshal([]byte(online), &doc) != nil || doc.Schema != Schema || doc.Events == nil) {
					t.Errorf("%q is no document:\n%s", line, online)
				}
			}
		}
	}
	text, err := typed(t, nil, nil, "audit", "query", "--dir", dir, "--raw", "-n", "0", "--filter", `request in ["rq_1", "rq_4"] and kind == "decision"`)
	if seqs := numbersOf(t, text); err != nil || len(seqs) != 2 || seqs[0] < seqs[1] {
		t.Errorf("%v %v\n%s", seqs, err, text)
	}
}

// Pages that fail in between are asked for again, from where the records had come to.
func TestASearchGoesOnOverLostConnections(t *testing.T) {
	dir, _ := writtenLog(t)
	whole, err := typed(t, nil, nil, "audit", "query", "--dir", dir, "--raw", "-n", "0")
	if err != nil {
		t.Fatal(err)
	}
	busy := &admin.Error{Status: 429, Code: "overloaded", Message: "others read"}
	gone := &admin.Error{Status: 503, Code: "relay_shutdown", Message: "the relay goes"}
	text, err := typed(t, servedLog(dir, func(page int) error {
		switch {
		case page == 1:
			return busy
		case page%2 == 1:
			return gone
		}
		return nil
	}), nil, "audit", "query", "--raw", "-n", "0")
	if err != nil || text != whole {
		t.Errorf("%v\n%s\nwant\n%s", err, text, whole)
	}
	for name, first := range map[string]*admin.Error{"never begun": gone, "refused": {Status: 403, Code: "verb_not_granted", Message: "no"}} {
		asked := 0
		_, err := typed(t, servedLog(dir, func(page int) error { asked = page; return first }), nil, "audit", "query")
		var refused *admin.Error
		if !errors.As(err, &refused) || refused.Code != first.Code || asked != 1 {
			t.Errorf("%s: asked %d times, %v", name, asked, err)
		}
	}
	asked := 0
	_, err = typed(t, servedLog(dir, func(page int) error {
		if asked = page; page > 1 {
			return gone
		}
		return nil
	}), nil, "audit", "query", "-n", "0")
	if err == nil || asked > mostLost+2 {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

func TestAWrongFilterIsAMistakeInTheCommandWithItsPlace(t *testing.T) {
	dir, _ := writtenLog(t)
	for _, flags := range [][]string{{"--filter", "status > 3 and sttus == 1"}, {"--kind", "decisions"}, {"--since", "yesterday"}, {"--cursor", "x"}, {"-n", "-1"}} {
		if _, err := typed(t, nil, nil, append([]string{"audit", "query", "--dir", dir}, flags...)...); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v", flags, err)
		}
	}
	if _, err := typed(t, nil, nil, "audit", "query", "--dir", dir, "--filter", "status > 3 and sttus == 1"); !strings.Contains(fmt.Sprint(err), "column 16") {
		t.Errorf("%v", err)
	}
	if _, err := typed(t, nil, nil, "audit", "query", "--thorough"); !errors.Is(err, errUsage) {
		t.Errorf("%v", err)
	}
	_, err := typed(t, nil, nil, "audit", "query", "--dir", dir, "--filter", "seq % tokens_in == 1")
	wantCode(t, err, "filter_failed")
	_, err = typed(t, nil, nil, "audit", "query", "--dir", t.TempDir())
	wantCode(t, err, "audit_log_unreadable")
}
