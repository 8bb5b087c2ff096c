package plaintext

import (
	"strings"
	"testing"
)

func TestNothingCleanedActsOnATerminal(t *testing.T) {
	for _, text := range []string{"\x1b]52;c;AAAA\a", "\x1b[2J", "a\r\nb", "\u202eabc", "\u009b31m", "x\x7f"} {
		if got := Clean(text); strings.ContainsFunc(got, Hidden) {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := Clean("Grüße, 世界"); got != "Grüße, 世界" {
		t.Errorf("got %q", got)
	}
}
