package sealed

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
)

// keys makes a pair, and writes both halves to files.
func keys(t *testing.T) (public, publicFile, privateFile string) {
	t.Helper()
	pair, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	public, publicFile, privateFile = pair.Recipient().String(), filepath.Join(dir, "public"), filepath.Join(dir, "private")
	if err := errors.Join(
		os.WriteFile(publicFile, []byte("# of the auditor\n"+public+"\n"), 0o600),
		os.WriteFile(privateFile, []byte("# created: 2026-11-24\n# public key: "+public+"\n"+pair.String()+"\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	return public, publicFile, privateFile
}

func seal(t *testing.T, text string, to ...string) []byte {
	t.Helper()
	r, err := ParseRecipients(to)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := r.Writer(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func open(t *testing.T, data []byte, file string) (string, error) {
	t.Helper()
	keys, err := ReadIdentities(file)
	if err != nil {
		t.Fatal(err)
	}
	r, err := keys.Reader(bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(text), err
}

func TestEachRecipientOpensItAndNobodyElse(t *testing.T) {
	text := strings.Repeat("a secret ", 20_000)
	one, _, oneFile := keys(t)
	_, twoPublic, twoFile := keys(t)
	_, _, otherFile := keys(t)
	data := seal(t, text, one, twoPublic)
	if !Is(data) || Is([]byte("plain")) || bytes.Contains(data, []byte("a secret")) {
		t.Error("it is not sealed")
	}
	for _, file := range []string{oneFile, twoFile} {
		if got, err := open(t, data, file); err != nil || got != text {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	}
	if _, err := open(t, data, otherFile); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	for _, n := range []int{len(data) - 1, len(data) / 2, 70_000, 200} {
		if got, err := open(t, data[:n], oneFile); err == nil {
			t.Errorf("cut off after %d bytes, and read as %d whole ones", n, len(got))
		}
	}
	changed := bytes.Clone(data)
	changed[len(changed)-5] ^= 1
	if _, err := open(t, changed, oneFile); err == nil {
		t.Error("what was changed was opened")
	}
}

func TestMistakesWithKeysAreNamed(t *testing.T) {
	public, publicFile, privateFile := keys(t)
	dir := t.TempDir()
	long, protected := filepath.Join(dir, "long"), filepath.Join(dir, "protected")
	if err := errors.Join(
		os.WriteFile(long, bytes.Repeat([]byte("#\n"), maxKeys), 0o600), os.WriteFile(protected, []byte(header+"v1\n-> scrypt x 18\n"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		privateFile: "private key", public[:20]: "no key of age", filepath.Join(dir, "none"): "neither a key", long: "too long",
	} {
		if _, err := ParseRecipients([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := ParseRecipients(nil); err == nil {
		t.Error("sealed to nobody")
	}
	for file, want := range map[string]string{publicFile: "no private key", protected: "passphrase", filepath.Join(dir, "none"): "private key"} {
		if _, err := ReadIdentities(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}
