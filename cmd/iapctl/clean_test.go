package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

var hostile = []string{
	"\x1b[2J", "\x1b]52;c;cHduZWQ=\x07", "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "a\x07b", "\x9b31m", "\u009b31m",
	"user\u202egpj.exe", "\u2066x\u2069", "a\rb", "a\x00b", "a\u2028b", "\x7f", "\U000e0041", "\u200f",
}

func TestNothingThatActsOnATerminalIsPrinted(t *testing.T) {
	for _, s := range hostile {
		for name, got := range map[string]string{"clean": clean(s), "cleanLines": cleanLines(s)} {
			for _, r := range got {
				if hidden(r) {
					t.Errorf("%s(%q) = %q", name, s, got)
				}
			}
		}
	}
	if got := clean("a\nb\tc"); strings.ContainsAny(got, "\n\t") {
		t.Errorf("a line break passes in one-line text: %q", got)
	}
	for _, s := range []string{"plain", "Zoë, 東京", "👩‍💻", "a – b"} {
		if clean(s) != s {
			t.Errorf("clean(%q) = %q", s, clean(s))
		}
	}
}

func TestAnswerInPiecesIsCleanedLikeAWhole(t *testing.T) {
	whole := "Zoë 東京 \u202e\x1b[2J end\n"
	for size := 1; size < 6; size++ {
		var out bytes.Buffer
		w := &streamCleaner{w: &out}
		for rest := []byte(whole); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if _, err := w.Write(rest[:min(size, len(rest))]); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != cleanLines(whole) {
			t.Errorf("pieces of %d: %q", size, out.String())
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s)
		if !utf8.ValidString(got) {
			t.Errorf("clean(%q) is no text", s)
		}
		for _, r := range got {
			if hidden(r) {
				t.Errorf("clean(%q) = %q", s, got)
			}
		}
	})
}
