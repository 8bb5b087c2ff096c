package diag

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLL09AKeyFileIsKnownInEverySpelling(t *testing.T) {
	dir := t.TempDir()
	key := ed25519.NewKeyFromSeed([]byte("0123456789abcdefghijklmnopqrstuv"))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	file, plain := filepath.Join(dir, "a.key"), filepath.Join(dir, "upstream.key")
	write(t, file, text)
	write(t, plain, "MARKER0upstream\n")
	r := NewRedactor()
	r.KnowFile(file)
	r.KnowFile(plain)
	r.KnowFile(filepath.Join(dir, "none"))
	r.KnowFile(dir)
	for what, secret := range map[string]string{
		"line of the file": strings.Split(text, "\n")[1], "DER": hex.EncodeToString(der), "seed": base64.StdEncoding.EncodeToString(key.Seed()),
		"seed, hex": hex.EncodeToString(key.Seed()), "key": base64.StdEncoding.EncodeToString(key), "a text": "MARKER0upstream",
	} {
		if got := r.Text("x " + secret + " y"); strings.Contains(got, strings.TrimRight(secret, "=")) {
			t.Errorf("LL-09 %s: %s", what, got)
		}
	}
	if got := r.Text("-----BEGIN CERTIFICATE-----"); got != "-----BEGIN CERTIFICATE-----" {
		t.Errorf("a line that every file has counts as secret: %s", got)
	}
}

func TestLL09AConfigurationGoesInWithoutItsComments(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "agent.yaml")
	write(t, file, "# MARKER0 one\nrelay: iap.example.com\r\nurl: http://u:MARKER0@h#x # MARKER0 two\n  public_client_secret: MARKER0three\n\t#MARKER0\n")
	b := &Bundle{Redact: NewRedactor()}
	b.AddConfig("agent.yaml", "", file)
	b.AddConfig("none", "", filepath.Join(dir, "none"))
	got := string(b.Files()[0].Data)
	if strings.Contains(got, "MARKER0") || strings.Count(got, "\n") != 5 || !strings.HasPrefix(got, "# …\nrelay: iap.example.com\nurl: http://[redacted]@h#x # …\n") {
		t.Errorf("LL-09: %q", got)
	}
	if got := string(b.Files()[1].Data); !strings.Contains(got, "no such file") {
		t.Errorf("%q", got)
	}
}

func TestAFolderIsListedAndNotRead(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "state.db"), "MARKER0")
	for i := range maxListed {
		write(t, filepath.Join(dir, "z"+strings.Repeat("y", i%9)+time.Duration(i).String()), "")
	}
	b := &Bundle{Redact: NewRedactor()}
	b.AddFolder("files.txt", "", dir)
	b.AddFolder("none.txt", "", filepath.Join(dir, "none"))
	got := string(b.Files()[0].Data)
	if !strings.Contains(got, "-rw-------            7 ") && os.PathSeparator == '/' || !strings.Contains(got, " state.db\n") || strings.Contains(got, "MARKER0") || !strings.Contains(got, "… and 1 more\n") {
		t.Errorf("%s", got)
	}
	if got := string(b.Files()[1].Data); !strings.Contains(got, "no such file") {
		t.Errorf("%q", got)
	}
}

func TestLL09OfVariablesTheSecretOnesAreSetAndNoMore(t *testing.T) {
	environ := []string{
		"IAP_TOKEN=MARKER0token", "IAP_TOKEN_COMMAND=echo MARKER0", "IAP_TOKEN_FILE=/run/token", "HTTPS_PROXY=http://me:MARKER0%2Fpw@proxy:3128",
		"http_proxy=me:MARKER0@proxy:1", "NO_PROXY=localhost", "UPSTREAM_API_KEY=MARKER0key", "HOME=/home/me", "NO_COLOR=1",
	}
	b := &Bundle{Redact: NewRedactor()}
	b.Redact.KnowEnvironment(environ)
	b.AddEnvironment(environ)
	b.Add("log", "", []byte("said MARKER0/pw and MARKER0token, then MARKER0key\n"))
	want := "HTTPS_PROXY=http://[redacted]@proxy:3128\nIAP_TOKEN=[redacted]\nIAP_TOKEN_COMMAND=(set)\nIAP_TOKEN_FILE=/run/token\nNO_COLOR=1\nNO_PROXY=localhost\nhttp_proxy=(user)@proxy:1\n"
	if got := string(b.Files()[0].Data); got != want {
		t.Errorf("%s", got)
	}
	if got := string(b.Files()[1].Data); strings.Contains(got, "MARKER0") {
		t.Errorf("LL-09: %s", got)
	}
}
