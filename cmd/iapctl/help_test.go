package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/charmbracelet/lipgloss"
	"github.com/spf13/cobra"
)

// testApp is an app whose streams are buffers.
func testApp(t *testing.T, args ...string) (a *app, stdout, stderr *bytes.Buffer) {
	t.Helper()
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	a = &app{in: strings.NewReader(""), out: stdout, err: stderr, output: outputFlag(args), environ: []string{"IAP_CONFIG_DIR=" + t.TempDir()}}
	a.ui = a.newUI()
	if err := a.prepare(nil); err != nil {
		t.Fatal(err)
	}
	return a, stdout, stderr
}

func eachCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			eachCommand(c, f)
		}
	}
}

func TestEveryHelpTextHasExamplesAndFitsTheScreen(t *testing.T) {
	a, _, _ := testApp(t)
	root := a.root()
	eachCommand(root, func(cmd *cobra.Command) {
		var screen bytes.Buffer
		cmd.SetOut(&screen)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(screen.String(), "\n") {
			if lipgloss.Width(line) > screenWidth {
				t.Errorf("%s: line of %d columns: %q", cmd.CommandPath(), lipgloss.Width(line), line)
			}
		}
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short text %q", cmd.CommandPath(), cmd.Short)
		}
		if !cmd.HasSubCommands() && cmd.Example == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
	})
}
