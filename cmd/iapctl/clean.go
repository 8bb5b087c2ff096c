package main

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// clean makes text that somebody else wrote safe for a terminal on one line: control characters (with them every escape
// sequence), line breaks and characters that reorder or hide text become U+FFFD.
func clean(s string) string { return cleanRunes(s, false) }

// cleanLines is clean, but keeps line breaks and tabs: for a model's answer.
func cleanLines(s string) string { return cleanRunes(s, true) }

func cleanRunes(s string, lines bool) string {
	return strings.Map(func(r rune) rune {
		if lines && (r == '\n' || r == '\t') {
			return r
		}
		if r == '\r' && lines {
			return -1
		}
		if hidden(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// hidden reports whether a character acts on the terminal or on how text reads instead of showing itself.
func hidden(r rune) bool {
	switch {
	case unicode.IsControl(r): // C0, DEL and C1
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c: // direction
		return true
	case r == 0x2028, r == 0x2029, r == 0xfeff, r >= 0xe0000 && r <= 0xe007f: // breaks, byte order mark, tags
		return true
	}
	return false
}

// cleanEach cleans every element.
func cleanEach(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = clean(s)
	}
	return out
}

// cleanWriter cleans whole writes that end in a line break, such as a log's lines.
type cleanWriter struct{ w io.Writer }

func (c cleanWriter) Write(p []byte) (int, error) {
	if _, err := io.WriteString(c.w, cleanLines(string(p))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// streamCleaner cleans text that arrives in pieces: a character may be cut by the end of a piece.
type streamCleaner struct {
	w    io.Writer
	rest []byte // the beginning of a character
}

func (c *streamCleaner) Write(p []byte) (int, error) {
	data := append(c.rest, p...)
	cut := len(data)
	for i := 1; i < utf8.UTFMax && i <= len(data); i++ {
		if b := data[len(data)-i]; utf8.RuneStart(b) {
			if !utf8.FullRune(data[len(data)-i:]) {
				cut = len(data) - i
			}
			break
		}
	}
	c.rest = append([]byte(nil), data[cut:]...)
	if _, err := io.WriteString(c.w, cleanLines(string(data[:cut]))); err != nil {
		return 0, err
	}
	return len(p), nil
}
