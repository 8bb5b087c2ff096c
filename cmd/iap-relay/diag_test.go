package main

import (
	"archive/zip"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLL09TheRelaysReportHoldsNoSecrets plants a marker wherever a secret can be.
func TestLL09TheRelaysReportHoldsNoSecrets(t *testing.T) {
	dir, file, _ := initialised(t, "--group", "ml-eng")
	data, err := os.ReadFile(file)
	must(t, err)
	text := strings.Replace(string(data), "    client_id:", "    public_client_secret: MARKERclient0 # MARKERcomment0\n    client_id:", 1) +
		"state: postgres://iap:MARKERstate0@127.0.0.1:1/iap?sslpassword=MARKERquery0\n"
	if !strings.Contains(text, "MARKERclient0") {
		t.Fatalf("no secret was planted:\n%s", text)
	}
	must(t, os.WriteFile(file, []byte(text), 0o600))
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("MARKERassertion0")})
	must(t, os.MkdirAll(filepath.Join(dir, "data"), 0o700))
	must(t, os.WriteFile(filepath.Join(dir, "data", "assertion.key"), key, 0o600))
	log := filepath.Join(dir, "log.txt")
	must(t, os.WriteFile(log, []byte("MARKERclient0 MARKERstate0 MARKERquery0 MARKERassertion0\n"+strings.Split(string(key), "\n")[1]+"\nlast line\n"), 0o600))
	zipped := filepath.Join(dir, "report.zip")
	printed, err := command(t, "", "diag", "--config", file, "--log", log, "--file", zipped)
	if err != nil || !strings.Contains(printed, "Written to "+zipped) {
		t.Fatalf("%v\n%s", err, printed)
	}
	_, got := unpacked(t, zipped)
	if strings.Contains(got, "MARKER") || strings.Contains(got, strings.TrimRight(strings.Split(string(key), "\n")[1], "=")) {
		t.Errorf("LL-09:\n%s", got)
	}
	for _, fact := range []string{"client_id:", " assertion.key\n", `"name": "certificate"`, "last line"} {
		if !strings.Contains(got, fact) {
			t.Errorf("the report tells nothing of %q", fact)
		}
	}
	must(t, os.WriteFile(file, []byte("name: [\npublic_client_secret: MARKERclient0\n"), 0o600))
	zipped = filepath.Join(dir, "broken.zip")
	if _, err := command(t, "", "diag", "--config", file, "--file", zipped); err != nil {
		t.Errorf("a broken relay.yaml: %v", err)
	} else if names, got := unpacked(t, zipped); strings.Contains(got, "MARKER") || !strings.Contains(names, "check.json") {
		t.Errorf("LL-09, a broken relay.yaml: %s\n%s", names, got)
	}
}

// unpacked reads a zip.
func unpacked(t *testing.T, file string) (names, text string) {
	t.Helper()
	z, err := zip.OpenReader(file)
	must(t, err)
	defer z.Close()
	for _, f := range z.File {
		r, err := f.Open()
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		names, text = names+f.Name+" ", text+string(data)
	}
	return names, text
}
