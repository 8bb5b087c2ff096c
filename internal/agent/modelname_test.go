package agent

import (
	"slices"
	"strings"
	"testing"

	"iap/internal/modelapi"
)

func TestModelNamesThatActOnATerminalAreNotAnnounced(t *testing.T) {
	var p probed
	for _, name := range []string{"phi3:latest", "x\x1b]52;c;AAAA\a", "a\nb", "", strings.Repeat("x", modelapi.MaxName+1)} {
		p.add(name)
	}
	if !slices.Equal(p.models, []string{"phi3:latest"}) {
		t.Errorf("announced %q", p.models)
	}
}
