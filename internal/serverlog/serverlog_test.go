package serverlog

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func written(t *testing.T, format string, verbose bool) string {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	log, err := New(f, format, verbose)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("detail")
	log.Info("up\nfake line", "who", "a\x1b[2J")
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMachinesReadJSONAndPeopleText(t *testing.T) {
	for _, format := range []string{"json", "auto"} { // a file is no terminal
		text := written(t, format, false)
		var line map[string]any
		if err := json.Unmarshal([]byte(text), &line); err != nil || line["msg"] != "up\nfake line" {
			t.Errorf("%s: %q, %v", format, text, err)
		}
	}
	if text := written(t, "text", false); !strings.Contains(text, "level=INFO") || strings.Contains(text, "level=DEBUG") {
		t.Errorf("%q", text)
	}
}

func TestOneRecordIsOneLineWithoutControlCharacters(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		if text := written(t, format, false); strings.Count(text, "\n") != 1 || strings.Contains(text, "\x1b") {
			t.Errorf("%s: %q", format, text)
		}
	}
}

func TestVerboseLogsMore(t *testing.T) {
	if text := written(t, "text", true); !strings.Contains(text, "level=DEBUG") {
		t.Errorf("%q", text)
	}
}

func TestUnknownFormatIsAnErrorThatNamesTheFlag(t *testing.T) {
	for _, format := range []string{"", "xml", "JSON"} {
		if _, err := New(os.Stderr, format, false); err == nil || !strings.Contains(err.Error(), "--log") {
			t.Errorf("%q: %v", format, err)
		}
	}
}
