package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Name  string `yaml:"name"`
	Count int    `yaml:"count"`
	TLS   struct {
		CertFile string   `yaml:"cert_file"`
		Wait     Duration `yaml:"wait"`
	} `yaml:"tls"`
	Items []struct {
		Audience string `yaml:"audience"`
	} `yaml:"items"`
}

func TestDecodeNamesLineAndNearestKey(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown top", "name: a\nnmae: b\n", `f.yaml:2: unknown key "nmae" (did you mean "name"?)`},
		{"unknown nested", "tls:\n  cert_fil: x\n", `f.yaml:2: unknown key "cert_fil" (did you mean "cert_file"?)`},
		{"unknown far", "zzzzzzzzzz: 1\n", `f.yaml:1: unknown key "zzzzzzzzzz"`},
		{"unknown in list", "items:\n  - audience: a\n  - audiance: b\n", `f.yaml:3: unknown key "audiance" (did you mean "audience"?)`},
		{"a list for a text", "name: [a]\n", "f.yaml:1: a list stands where a text belongs"},
		{"a list for a text within", "items:\n  - audience: [a]\n", "f.yaml:2: a list stands where a text belongs"},
		{"a text for a number", "count: many\n", "f.yaml:1: a text stands where a number belongs"},
		{"empty", "  \n", "f.yaml: the file is empty"},
	} {
		err := Decode("f.yaml", []byte(c.text), new(sample))
		if err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestDecodeRefusesWrongTypesAndDuplicates(t *testing.T) {
	for _, text := range []string{"name: [a]\n", "name: a\nname: b\n", "tls: {wait: soon}\n", "tls: {wait: -1s}\n", "name: a\n  b: c\n"} {
		err := Decode("f.yaml", []byte(text), new(sample))
		var e *Error
		if !errors.As(err, &e) || e.Line == 0 {
			t.Errorf("%q: want an error with a line, got %v", text, err)
		}
	}
}

func TestDecodeReadsValues(t *testing.T) {
	var s sample
	if err := Decode("f.yaml", []byte("name: a\ntls: {wait: 90s}\n"), &s); err != nil {
		t.Fatal(err)
	}
	if s.Name != "a" || time.Duration(s.TLS.Wait) != 90*time.Second {
		t.Errorf("got %+v", s)
	}
}

func TestLoadBoundsTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(file, []byte("name: "+strings.Repeat("a", maxFileBytes)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Load(file, new(sample)); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("got %v", err)
	}
	if err := Load(filepath.Join(t.TempDir(), "none.yaml"), new(sample)); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func TestWriteNewNeverOverwrites(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sub", "a.yaml")
	if err := WriteNew(file, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(file, []byte("two"), 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("name: a\ntls: {wait: 90s}\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := Decode("f.yaml", data, new(sample)); err != nil && !strings.HasPrefix(err.Error(), "f.yaml") {
			t.Errorf("error without its file: %v", err)
		}
	})
}
