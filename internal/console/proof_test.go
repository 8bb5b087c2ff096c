package console

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/audit/verify"
	"iap/internal/relaykey"
)

// writtenLog is a log that was written and closed, and the relay's key.
func writtenLog(t *testing.T) (dir string, key ed25519.PublicKey) {
	t.Helper()
	public, private, _ := ed25519.GenerateKey(rand.Reader) // never fails
	dir = filepath.Join(t.TempDir(), "audit")
	l, err := audit.Open(audit.Options{
		Dir: dir, ReserveBytes: -1, SegmentBytes: 1 << 10, Origin: "relay.example.com/audit/main",
		Keys: func() (ed25519.PrivateKey, [][]byte, error) { return private, nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		e := audit.Event{Kind: audit.KindDecision, Decision: audit.Allow, Request: fmt.Sprint("rq_", i), Principal: hostile}
		if err := l.Record(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, public
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var failed *admin.Error
	if !errors.As(err, &failed) || failed.Code != code || failed.Hint == "" {
		t.Errorf("error %v, want code %s", err, code)
	}
}

func TestAuditLogIsVerifiedWithoutARelay(t *testing.T) {
	dir, key := writtenLog(t)
	text, err := typed(t, nil, nil, "audit", "verify", dir, "--key", relaykey.ID(key))
	if err != nil || !strings.Contains(text, "Proven up to record") || strings.Contains(text, "Rest ") || strings.Contains(text, "Key ") {
		t.Errorf("%s\n%v", text, err)
	}
	if text, err = typed(t, nil, nil, "audit", "verify", dir); err != nil || !strings.Contains(text, "taken from the folder itself") {
		t.Errorf("without a key: %s\n%v", text, err)
	}
	first, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(first[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(first[0], []byte(strings.Replace(string(data), "rq_0", "rq_9", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	text, err = typed(t, nil, nil, "audit", "verify", dir, "--key", base64.StdEncoding.EncodeToString(key))
	wantCode(t, err, "audit_log_damaged")
	if !strings.Contains(text, "WRONG  "+filepath.Base(first[0])+":2 (record 2)") {
		t.Errorf("%s", text)
	}
	_, err = typed(t, nil, nil, "audit", "verify", t.TempDir())
	wantCode(t, err, "audit_log_unreadable")
}

// The commands of docs/audit.md that need none of our programs, as they stand there.
func TestProofIsCheckedByTheDocumentedCommands(t *testing.T) {
	for _, tool := range []string{"python3", "openssl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	dir, key := writtenLog(t)
	work := t.TempDir()
	proof := filepath.Join(work, "proof.json")
	text, err := typed(t, nil, nil, "audit", "prove", "rq_3", "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(work, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("proof.json", text)
	if out, err := typed(t, nil, nil, "audit", "check-proof", proof, "--key", relaykey.ID(key)); err != nil || !strings.Contains(out, "rq_3") {
		t.Errorf("%s\n%v", out, err)
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "audit.md"))
	if err != nil {
		t.Fatal(err)
	}
	scripts := regexp.MustCompile("(?s)```python\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(scripts) != 3 {
		t.Fatalf("%d scripts in the page", len(scripts))
	}
	run := func(script int, args ...string) (string, error) {
		cmd := exec.Command("python3", append([]string{write("script.py", scripts[script][1])}, args...)...)
		cmd.Dir = work
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run(0, proof); err != nil || !strings.Contains(out, "proven:") || !strings.Contains(out, "rq_3") {
		t.Errorf("the line: %s %v", out, err)
	}
	if out, err := run(1, proof, base64.StdEncoding.EncodeToString(key)); err != nil {
		t.Errorf("the signature: %s %v", out, err)
	}
	report, err := verify.Run(t.Context(), verify.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	root, err := base64.StdEncoding.DecodeString(report.Root)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := run(2, dir); err != nil || strings.TrimSpace(out) != fmt.Sprint(report.Lines, " ", hex.EncodeToString(root)) {
		t.Errorf("the whole log: %s %v", out, err)
	}

	var forged verify.Proof
	if err := json.Unmarshal([]byte(text), &forged); err != nil {
		t.Fatal(err)
	}
	forged.Records[0].Line = strings.Replace(forged.Records[0].Line, "rq_3", "rq_4", 1)
	data, err := json.Marshal(forged)
	if err != nil {
		t.Fatal(err)
	}
	write("proof.json", string(data))
	if out, err := run(0, proof); err == nil {
		t.Errorf("a forged line is proven: %s", out)
	}
	_, err = typed(t, nil, nil, "audit", "check-proof", proof, "--key", relaykey.ID(key))
	wantCode(t, err, "proof_fails")
	write("proof.json", strings.Replace(text, `\ntime 2`, `\ntime 1`, 1))
	if out, err := run(1, proof, base64.StdEncoding.EncodeToString(key)); err == nil {
		t.Errorf("a forged checkpoint is signed: %s", out)
	}
}
