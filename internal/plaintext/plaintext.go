// Package plaintext makes words of strangers fit for a terminal. It exists
// because model servers, providers and relays choose what their errors and names
// say, and a terminal obeys control characters.
package plaintext

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean replaces what acts on a terminal, or on how text reads, instead of
// showing itself.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if Hidden(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// Lines is Clean for text of several lines.
func Lines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// JSON writes what Clean would replace as escapes, which mean the same in a
// document and nothing to a terminal. Line breaks between tokens stay.
func JSON(document []byte) []byte {
	if !bytes.ContainsFunc(document, func(r rune) bool { return r != '\n' && Hidden(r) }) {
		return document
	}
	out := make([]byte, 0, len(document)+64)
	for _, r := range string(document) {
		if r == '\n' || !Hidden(r) {
			out = utf8.AppendRune(out, r)
			continue
		}
		out = fmt.Appendf(out, `\u%04x`, r) // every hidden character is in the first plane
	}
	return out
}

// Hidden reports whether r is a control character or changes the direction of
// text.
func Hidden(r rune) bool {
	switch {
	case unicode.IsControl(r): // C0, DEL and C1
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
		return true
	}
	return false
}
