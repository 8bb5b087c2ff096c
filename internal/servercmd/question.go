package servercmd

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/mattn/go-isatty"
)

// Asks reports whether a person sits at this program's terminal.
func Asks() bool { return isatty.IsTerminal(os.Stdin.Fd()) && isatty.IsTerminal(os.Stderr.Fd()) }

// Confirm asks the person at the terminal. Only what begins with y is a yes.
func Confirm(ctx context.Context, question string) bool {
	fmt.Fprintf(os.Stderr, "%s [y/N] ", question)
	answered := make(chan bool, 1)
	go func() { // a read of a terminal cannot be cancelled: after Ctrl-C this ends with the process
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answered <- strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "y")
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(os.Stderr)
		return false
	case yes := <-answered:
		return yes
	}
}
