// Package servercmd is what the command lines of the two servers share. It
// exists so that relay and agent fail in the same words, with the same exit
// statuses: 0 ok, 1 error, 2 usage.
package servercmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
	"iap/internal/version"
)

// Root makes the command that name's subcommands belong to.
func Root(name, short string, commands ...*cobra.Command) *cobra.Command {
	root := &cobra.Command{
		Use: name + " COMMAND", Short: short, SilenceUsage: true, SilenceErrors: true, Version: version.String(),
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return Usage(fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
	})
	root.SetUsageTemplate(screen.UsageTemplate)
	root.AddCommand(commands...)
	plainUseLines(root)
	return root
}

// plainUseLines takes cobra's "[flags]" from the usage lines: flags stand below them.
func plainUseLines(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	for _, sub := range c.Commands() {
		plainUseLines(sub)
	}
}

// Execute runs root with args, tells what went wrong and returns the exit
// status.
func Execute(root *cobra.Command, args []string) int {
	// net/http reports odd answers to the standard logger, with bytes of theirs.
	log.SetOutput(io.Discard)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, root.Name()+": "+plaintext.Lines(err.Error()))
	var refused *admin.Error
	if errors.As(err, &refused) && refused.Hint != "" {
		fmt.Fprintln(os.Stderr, "  "+plaintext.Clean(refused.Hint))
	}
	var usage *usageError
	unknown := strings.HasPrefix(err.Error(), "unknown command")
	if unknown {
		fmt.Fprintf(os.Stderr, "  %s --help\n", cmd.CommandPath())
	}
	if unknown || errors.As(err, &usage) {
		return 2
	}
	return 1
}

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usage marks err as a mistake in the command line.
func Usage(err error) error { return &usageError{err} }

// NoArgs refuses arguments.
func NoArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usage(fmt.Errorf("%s takes no argument %q; see %s --help", c.CommandPath(), args[0], c.CommandPath()))
	}
	return nil
}

// OneArg wants exactly one.
func OneArg(c *cobra.Command, args []string) error {
	if len(args) != 1 {
		return Usage(fmt.Errorf("%s takes one argument; see %s --help", c.CommandPath(), c.CommandPath()))
	}
	return nil
}
