package main

import (
	"archive/zip"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"iap/auth"
)

// TestLL09TheAgentsReportHoldsNoSecrets plants a marker wherever a secret can be, also where none should.
func TestLL09TheAgentsReportHoldsNoSecrets(t *testing.T) {
	dir := t.TempDir()
	key, err := auth.NewKey()
	must(t, err)
	must(t, auth.SaveKey(filepath.Join(dir, "agent.key"), key))
	seed := base64.StdEncoding.EncodeToString(key.Seed())
	for name, text := range map[string]string{
		"upstream.key": "MARKERupstream0\n",
		"agent.yaml": `# the old one was MARKERcomment0
relay: 127.0.0.1:1
agent_id: agent-0123456789abcdef01234567
relay_key: A95rG12RWcy4wIu/+e1DSmy0sjcaFOTU6rnisiocxWM=
resources:
  - {name: phi3, kind: model, upstream: "http://127.0.0.1:1", api_key_file: upstream.key} # MARKERcomment1
`,
		"log.txt": "x MARKERupstream0 y\nAuthorization: Bearer MARKERbearer0\n" + seed + "\nlast line\n",
	} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	t.Setenv("HTTPS_PROXY", "http://me:MARKERproxy0@127.0.0.1:1")
	file := filepath.Join(dir, "report.zip")
	args := []string{"diag", "--config", filepath.Join(dir, "agent.yaml"), "--log", filepath.Join(dir, "log.txt"), "--file", file}
	printed, err := command(t, "", append(args, "-o", "json")...)
	var doc struct {
		Schema, File string
		Files        []struct{ Name string }
	}
	if err != nil || json.Unmarshal([]byte(printed), &doc) != nil || doc.Schema != "iap-agent/v1" || doc.File != file {
		t.Fatalf("%v\n%s", err, printed)
	}
	z, err := zip.OpenReader(file)
	must(t, err)
	defer z.Close()
	names, text := "", ""
	for _, f := range z.File {
		r, err := f.Open()
		must(t, err)
		data, err := io.ReadAll(r)
		must(t, err)
		names, text = names+f.Name+" ", text+string(data)
	}
	if want := "agent.yaml files.txt check.json version.json environment.txt logs/1-log.txt "; !strings.HasPrefix(strings.Replace(names, "witness.json ", "", 1), want) || len(doc.Files) != len(z.File) {
		t.Errorf("%s", names)
	}
	if strings.Contains(text, "MARKER") || strings.Contains(text, seed) {
		t.Errorf("LL-09:\n%s", text)
	}
	for _, fact := range []string{"agent_id: agent-0123456789abcdef01234567", " upstream.key\n", `"stage": "tcp"`, "last line"} {
		if !strings.Contains(text, fact) {
			t.Errorf("the report tells nothing of %q", fact)
		}
	}
	if _, err := command(t, "", args...); err == nil || !strings.Contains(err.Error(), "never overwritten") {
		t.Errorf("a report was overwritten: %v", err)
	}
	if _, err := command(t, "", "diag", "--log", filepath.Join(dir, "none"), "--file", filepath.Join(dir, "b.zip"), "--config", filepath.Join(dir, "agent.yaml")); err == nil {
		t.Error("a log that is not there was passed over")
	}
}
