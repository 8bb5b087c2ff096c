package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What `make demo` runs.
func TestDemoStreamsAnAnswerAndCtrlCLeavesNothing(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	env := append(baseEnv(home), "TMPDIR="+home)
	demo := start(t, env, "iap-relay", "dev", "--demo", "--listen", freeAddress(t), "--issuer-listen", freeAddress(t), "--tokens-per-second", "200")
	ctx, cancel := limited(t)
	defer cancel()
	said, err := demo.out.await(ctx, 0, "Ctrl-C ends everything.", 1)
	if err != nil {
		t.Fatalf("the demo does not get to its end: %v\n%s\n%s", err, said, demo.err.text())
	}
	for _, want := range []string{"approves this by itself", "iapctl login", "iapctl connect", "OPENAI_BASE_URL", "==> Asking the model"} {
		if !strings.Contains(said, want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	_, answer, _ := strings.Cut(said, "==> Asking the model")
	answer, _, _ = strings.Cut(answer, "==>")
	if words := len(strings.Fields(answer)); words < 20 {
		t.Errorf("the answer has %d words: %s", words, answer)
	}
	demo.stop()
	if demo.code != 0 {
		t.Errorf("Ctrl-C ends the demo with %d: %s", demo.code, demo.err.text())
	}
	if left, _ := filepath.Glob(filepath.Join(home, "iap-dev-*")); len(left) > 0 { // a fixed pattern is never bad
		t.Errorf("the demo leaves %v", left)
	}
	if all, err := os.ReadDir(home); err != nil || len(all) > 0 {
		t.Errorf("the demo leaves %v, %v", all, err)
	}
}
