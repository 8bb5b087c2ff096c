package console

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// Host is the program whose command line the console is part of. Every field is
// set.
type Host struct {
	// Program is how its commands begin: iapctl, or iap-relay admin.
	Program string
	// Group makes a command that only holds others.
	Group func(use, short, long string, commands ...*cobra.Command) *cobra.Command
	// Call runs f with a client of the relay, within a time that answers take.
	Call func(ctx context.Context, f func(context.Context, *admin.Client) error) error
	// Follow is Call for what lasts; it too ends with ctx.
	Follow func(ctx context.Context, f func(context.Context, *admin.Client) error) error
	// JSON reports whether -o json was given.
	JSON func() bool
	// Styles are those of stdout.
	Styles func() screen.Styles
	// Blocks reports whether stdout shows block characters.
	Blocks func() bool
	// Usage marks a mistake in the command line.
	Usage func(err error) error
	// Asks reports whether a person sits at a terminal; Confirm asks that person.
	Asks    func() bool
	Confirm func(ctx context.Context, question string) bool
	// Typed is a command of this program with the flags that the person would have
	// to add to mean the same relay.
	Typed func(command string) string
	// Ready prepares the program for a completion, before which no command runs.
	Ready func(c *cobra.Command) error
}

// Console makes the commands of one program.
type Console struct {
	host Host
	wait func(ctx context.Context, d time.Duration) // between two attempts to reach the relay
}

// New returns the console of host.
func New(host Host) *Console { return &Console{host, wait} }

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// completionTime bounds what a person waits for after the tab key.
const completionTime = 3 * time.Second

// typed is one of these commands as the person would type it.
func (c *Console) typed(command string) string {
	return c.host.Typed(c.host.Program + " " + command)
}

// examples are lines of help.
func (c *Console) examples(commands ...string) string {
	lines := make([]string, len(commands))
	for i, command := range commands {
		lines[i] = "  " + c.host.Program + " " + command
	}
	return strings.Join(lines, "\n")
}

// args wants between least and most arguments; most below 0 is any number.
func (c *Console) args(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return c.usage("%s wants an argument: %s", cmd.CommandPath(), cmd.Use)
		case most >= 0 && len(args) > most:
			return c.usage("%s takes no argument %q; see %s --help", cmd.CommandPath(), plaintext.Clean(args[most]), cmd.CommandPath())
		}
		return nil
	}
}

func (c *Console) usage(format string, args ...any) error {
	return c.host.Usage(fmt.Errorf(format, args...))
}

// show prints a document as JSON, or lets text show it.
func (c *Console) show(w io.Writer, document any, text func(io.Writer)) error {
	if !c.host.JSON() {
		text(w)
		return nil
	}
	data, err := json.MarshalIndent(document, "", "  ")
	if err == nil {
		_, err = w.Write(append(plaintext.JSON(data), '\n'))
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func (c *Console) table(w io.Writer, heading []string, rows [][]string) {
	screen.Table(w, c.host.Styles(), heading, rows)
}

// errCanceled is the answer no.
var errCanceled = &admin.Error{Code: "canceled", Message: "nothing was done", Hint: "type it again when you are ready, or with --yes"}

// sure asks before a deed that others will feel. Where nobody can be asked, who
// typed it was sure.
func (c *Console) sure(ctx context.Context, yes bool, question string) error {
	if yes || !c.host.Asks() || c.host.Confirm(ctx, question) {
		return nil
	}
	return errCanceled
}

func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVarP(yes, "yes", "y", false, "do not ask")
}

func reasonFlag(cmd *cobra.Command, reason *string) {
	cmd.Flags().StringVar(reason, "reason", "", "`words` for the audit log, such as a ticket's number")
}

// completing makes the completion of an argument from the relay's answer.
func (c *Console) completing(words func(context.Context, *admin.Client) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if c.host.Ready(cmd) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		var list []string
		err := c.host.Call(ctx, func(ctx context.Context, client *admin.Client) (err error) {
			list, err = words(ctx, client)
			return err
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// complete offers a flag's words to who presses the tab key.
func complete(cmd *cobra.Command, flag string, words ...string) {
	// An error would be one of the caller: the flag is not there.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// timesAgo are spans that people ask about.
func timesAgo() []string { return []string{"1h", "24h", "7d", "30d"} }

// completion is a word with what it means, unless it would not be the word that
// was meant once a terminal has shown it.
func completion(list []string, word, meaning string) []string {
	if plaintext.Clean(word) != word || strings.ContainsAny(word, " \t") {
		return list
	}
	return append(list, word+"\t"+plaintext.Clean(meaning))
}
