package diag

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestLL09NothingSecretInWhateverSpelling(t *testing.T) {
	const secret = `pl"anted/marker+7Q`
	r := NewRedactor()
	r.Know(secret, "abc", "")
	for name, text := range map[string]string{
		"as it is":        "x " + secret + " y",
		"JSON":            `{"x":"pl\"anted/marker+7Q"}`,
		"URL":             "https://h/?q=pl%22anted%2Fmarker%2B7Q",
		"base64":          base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64url":       base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"hexadecimal":     "706c22616e7465642f6d61726b65722b3751",
		"twice, adjacent": secret + secret,
	} {
		got := r.Text(text)
		if !strings.Contains(got, redacted) || strings.Contains(got, "marker") || strings.Contains(got, base64.RawStdEncoding.EncodeToString([]byte(secret))) {
			t.Errorf("LL-09 %s: %s", name, got)
		}
	}
	if got := r.Text("abc stays"); got != "abc stays" {
		t.Errorf("too short to be a secret: %s", got)
	}
}

func TestLL09NothingThatLooksLikeASecret(t *testing.T) {
	r := NewRedactor()
	for text, want := range map[string]string{
		"Authorization: Bearer abcdefMARKER0":                                   "",
		"authorization=Basic dXNlcjpNQVJLRVIw":                                  "",
		"token eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJNQVJLRVIwIn0.c2lnTUFSS":          "",
		"HTTPS_PROXY=http://user:MARKER0@proxy:3128":                            "@proxy:3128",
		`"refresh_token": "MARKER0value"`:                                       `"refresh_token": "`,
		"client_secret=MARKER0value&x=1":                                        "&x=1",
		"password: MARKER0":                                                     "password: ",
		"key iapk_0123456789MARKER0":                                            "key ",
		"-----BEGIN PRIVATE KEY-----\nMARKER0\n-----END PRIVATE KEY-----\nmore": "more",
		"-----BEGIN PRIVATE KEY-----\nMARKER0 cut off":                          "",
	} {
		got := r.Text(text)
		if strings.Contains(got, "MARKER0") || strings.Contains(got, "TUFSS") || strings.Contains(got, "NQVJLRVI") || !strings.Contains(got, redacted) || !strings.Contains(got, want) {
			t.Errorf("LL-09 %q: %q", text, got)
		}
	}
	for _, plain := range []string{"relay iap.example.com, 3 tokens used", "https://iap.example.com/r/phi3", `{"schema":"iapctl/v1","ok":true}`} {
		if got := r.Text(plain); got != plain {
			t.Errorf("%q became %q", plain, got)
		}
	}
}

func TestBundleIsNewPrivateAndBounded(t *testing.T) {
	dir := t.TempDir()
	r := NewRedactor()
	r.Know("MARKER0MARKER0")
	b := &Bundle{Redact: r, Now: time.Unix(1, 0)}
	log := filepath.Join(dir, "connect.log")
	line := "secret MARKER0MARKER0 and words\n"
	if err := os.WriteFile(log, []byte(strings.Repeat(line, 3*maxFile/len(line))+"last line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.AddLog("log", "a log", log)
	b.AddLog("none", "a log", filepath.Join(dir, "none"))
	for range maxBundle/maxFile + 2 {
		b.Add("big", "much", bytes.Repeat([]byte("yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\n"), maxFile/32+8))
	}
	path := filepath.Join(dir, "out.zip")
	if err := b.Write(path); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 || info.Size() > maxBundle {
		t.Errorf("%v, %v", info, err)
	}
	if err := b.Write(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("the first bundle is gone")
	}
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	total := 0
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil || bytes.Contains(data, []byte("MARKER0")) || len(data) > maxFile+64 {
			t.Errorf("%s: %d bytes, %v", f.Name, len(data), err)
		}
		if f.Name == "log" && !bytes.HasSuffix(data, []byte("last line\n")) {
			t.Error("the end of the log is not in it")
		}
		total += len(data)
	}
	if total > maxBundle+len(z.File)*64 || z.File[0].Name != "log" {
		t.Errorf("%d bytes in %d files", total, len(z.File))
	}
	(&Bundle{}).Add("x", "", []byte("x"))
}
