package console

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iap/internal/relaykey"
)

func TestRecordsOfAPersonAreExportedAndChecked(t *testing.T) {
	dir, key := writtenLog(t)
	out := filepath.Join(t.TempDir(), "bob.bundle")
	if text, err := typed(t, nil, nil, "audit", "export", "--principal", hostile, "-o", "bundle", "--dir", dir, "--out", out); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	text, err := typed(t, nil, nil, "audit", "check-bundle", out, "--key", relaykey.ID(key), "--dir", dir)
	if err != nil || !strings.Contains(text, "Proven   6 records") || !strings.Contains(text, "Missing  nothing") || strings.Contains(text, "\x1b") {
		t.Errorf("%s\n%v", text, err)
	}
	if text, err = typed(t, nil, nil, "audit", "check-bundle", out, "--key", relaykey.ID(key)); err != nil || !strings.Contains(text, "nobody can tell") {
		t.Errorf("%s\n%v", text, err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	changed := out + ".changed"
	if err := os.WriteFile(changed, []byte(strings.Replace(string(data), "rq_0", "rq_9", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = typed(t, nil, nil, "audit", "check-bundle", changed, "--key", relaykey.ID(key))
	wantCode(t, err, "bundle_fails")
	for _, args := range [][]string{
		{"export"},
		{"export", "--principal", "x", "-o", "xml"},
		{"export", "--principal", "x", "-o", "bundle"},
		{"export", "--principal", "x", "--since", "soon"},
		{"export", "--principal", "x", "--dir", dir, "--out", out},
		{"check-bundle", out},
	} {
		if text, err := typed(t, nil, nil, append([]string{"audit"}, args...)...); err == nil {
			t.Errorf("%v: %s", args, text)
		}
	}
}

// TestTableOfRecordsCannotRunInASpreadsheet, and keeps every text.
func TestTableOfRecordsCannotRunInASpreadsheet(t *testing.T) {
	dir, _ := writtenLog(t)
	text, err := typed(t, nil, nil, "audit", "export", "--principal", hostile, "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 7 {
		t.Fatalf("%d rows, %v\n%s", len(rows), err, text)
	}
	for i, row := range rows[1:] {
		if row[2] != "decision" || row[3] != "rq_"+string(rune('0'+i)) {
			t.Errorf("row %d: %v", i, row)
		}
	}
	for given, want := range map[string]string{
		"": "", "plain": "plain", "=1+1": "'=1+1", "+1": "'+1", "-1": "'-1", "@x": "'@x", "\tx": "'\tx", "\rx": "'\rx", "a=b": "a=b", "{\"a\":\"=b\"}": "{\"a\":\"=b\"}",
	} {
		if got := cell(given); got != want {
			t.Errorf("%q: %q, want %q", given, got, want)
		}
	}
}
