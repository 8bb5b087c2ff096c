package notify

import (
	"context"
	"fmt"
	"os/exec"
)

// script takes the text as arguments, so that none of it is ever read as AppleScript.
var script = []string{
	"-e", "on run argv",
	"-e", "display notification (item 2 of argv) with title (item 1 of argv)",
	"-e", "end run",
}

func (d Desktop) show(ctx context.Context, title, body string) error {
	// "--" does not end osascript's options: a word before the text keeps it from being one.
	args := append(append([]string(nil), script...), "iapctl: "+title, " "+body)
	if err := exec.CommandContext(ctx, "/usr/bin/osascript", args...).Run(); err != nil {
		return fmt.Errorf("show notification: %w", err)
	}
	return nil
}
