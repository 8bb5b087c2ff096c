// Command iap-agent runs beside a model server and dials out to the relay, so
// that the model server needs no inbound port.
package main

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
	"iap/internal/version"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is the whole program: 0 ok, 1 error, 2 usage.
func run(args []string) int {
	// net/http reports odd answers to the standard logger, with bytes of theirs.
	log.SetOutput(io.Discard)
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "iap-agent: "+plaintext.Lines(err.Error()))
	var refused *admin.Error
	if errors.As(err, &refused) && refused.Hint != "" {
		fmt.Fprintln(os.Stderr, "  "+plaintext.Clean(refused.Hint))
	}
	var usage *usageError
	if errors.As(err, &usage) || strings.HasPrefix(err.Error(), "unknown command") {
		return 2
	}
	return 1
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use: "iap-agent", Short: "The private side of an identity-aware tunnel for language models",
		SilenceUsage: true, SilenceErrors: true, Version: version.String(),
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(runCommand(), joinCommand(), checkCommand(), versionCommand())
	return root
}

// usageError is a command line that cannot be meant.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }
