package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const goodLine = `{"v":1,"seq":2,"time":"2026-11-23T17:05:00Z","mono":1,"kind":"login","new_field":[{"a":1}]}` + "\n"

func readText(t *testing.T, text string) (events []Event, lines []*LineError) {
	t.Helper()
	path := filepath.Join(t.TempDir(), nameSegment(1))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for e, err := range readSegment(path) {
		var bad *LineError
		switch {
		case errors.As(err, &bad):
			lines = append(lines, bad)
		case err != nil:
			t.Fatal(err)
		default:
			events = append(events, e)
		}
	}
	return events, lines
}

func TestBadLineIsReportedAndReadingGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		line string
		want error
	}{
		"no JSON":         {"what?\n", nil},
		"empty":           {"\n", nil},
		"zeros":           {strings.Repeat("\x00", 5000) + "\n", nil},
		"too long":        {strings.Repeat("x", 3*MaxLine) + "\n", ErrTooLong},
		"other version":   {`{"v":2,"seq":1,"kind":"login"}` + "\n", ErrVersion},
		"no version":      {`{"seq":1,"kind":"login"}` + "\n", ErrVersion},
		"duplicate name":  {`{"v":1,"seq":1,"kind":"login","kind":"admin"}` + "\n", nil},
		"invalid UTF-8":   {"{\"v\":1,\"kind\":\"\xff\"}\n", nil},
		"two values":      {`{"v":1,"kind":"a"}{"v":1,"kind":"b"}` + "\n", nil},
		"number as text":  {`{"v":1,"seq":"1","kind":"a"}` + "\n", nil},
		"deeply nested":   {`{"v":1,"x":` + strings.Repeat("[", 20_000) + "\n", nil},
		"negative number": {`{"v":1,"seq":-1}` + "\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			events, bad := readText(t, goodLine+c.line+goodLine)
			if len(events) != 2 || len(bad) != 1 {
				t.Fatalf("%d events, errors %v", len(events), bad)
			}
			if bad[0].Line != 2 || c.want != nil && !errors.Is(bad[0], c.want) {
				t.Errorf("error %v, want %v in line 2", bad[0], c.want)
			}
		})
	}
}

func TestUnfinishedLastLineIsTorn(t *testing.T) {
	for _, tail := range []string{"{", goodLine[:40], strings.TrimSuffix(goodLine, "\n")} {
		events, bad := readText(t, goodLine+tail)
		if len(events) != 1 || len(bad) != 1 || !errors.Is(bad[0], ErrTorn) {
			t.Errorf("%q: %d events, %v", tail, len(events), bad)
		}
	}
}

func TestMissingDirectoryIsAnError(t *testing.T) {
	for _, err := range Read(filepath.Join(t.TempDir(), "none")) {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
		return
	}
	t.Error("nothing was reported")
}

func FuzzReaderSurvivesAnyFile(f *testing.F) {
	f.Add([]byte(goodLine))
	f.Add([]byte(goodLine + goodLine[:30]))
	f.Add(bytes.Repeat([]byte{0}, 2*MaxLine))
	f.Add([]byte(`{"v":1,"kind":"relay","reason":"segment_start","count":9000000000000000000}` + "\n"))
	f.Add([]byte(`{"v":1,"kind":"relay","reason":"segment_start","count":1}` + "\n" +
		`{"v":1,"kind":"relay","reason":"open_decision","request":"r","detail":{"decision_seq":"x"}}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, nameSegment(1)), text, 0o600); err != nil {
			t.Fatal(err)
		}
		given := 0
		for range Read(dir) {
			given++
		}
		if lines := bytes.Count(text, []byte("\n")) + 1; given > lines {
			t.Errorf("%d results from %d lines", given, lines)
		}
		l, err := Open(Options{Dir: dir, ReserveBytes: -1})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Record(t.Context(), allow("r")); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
