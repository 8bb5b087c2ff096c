package plaintext

import (
	"encoding/json"
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

func TestADocumentMeansTheSameWithoutHiddenCharacters(t *testing.T) {
	const word = "a\u009b31m\u202eb\x7f\x1b[2J世界"
	document, err := json.MarshalIndent(map[string]string{"x": word}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	shown := JSON(document)
	if strings.ContainsFunc(string(shown), func(r rune) bool { return r != '\n' && Hidden(r) }) || !strings.Contains(string(shown), "世界") {
		t.Errorf("shown as %q", shown)
	}
	var back map[string]string
	if err := json.Unmarshal(shown, &back); err != nil || back["x"] != word {
		t.Errorf("%q, %v", back, err)
	}
}
