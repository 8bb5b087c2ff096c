// Package plaintext makes words of strangers fit for a terminal. It exists
// because model servers, providers and relays choose what their errors and names
// say, and a terminal obeys control characters.
package plaintext

import (
	"strings"
	"unicode"
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
