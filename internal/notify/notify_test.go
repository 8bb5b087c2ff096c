package notify

import (
	"strings"
	"testing"
)

func TestOnlyPlainTextReachesTheDesktop(t *testing.T) {
	for text, want := range map[string]string{
		"run iapctl login":                         "run iapctl login",
		"<a href=\"x\">now</a> & \x1b[31mred\n":    "a href=\"x\"now/a  [31mred",
		strings.Repeat("x", maxText) + " and more": strings.Repeat("x", maxText),
	} {
		if got := plain(text); got != want {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}
