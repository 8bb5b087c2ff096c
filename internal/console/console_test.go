package console

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/screen"
)

// errUsage marks mistakes in the command line.
var errUsage = errors.New("usage")

// testConsole is the console of a program whose relay is client.
func testConsole(client *admin.Client) *Console {
	call := func(ctx context.Context, f func(context.Context, *admin.Client) error) error { return f(ctx, client) }
	return New(Host{
		Program: "iapctl",
		Group: func(use, short, long string, commands ...*cobra.Command) *cobra.Command {
			c := &cobra.Command{Use: use, Short: short, Long: long, SilenceErrors: true, SilenceUsage: true}
			c.AddCommand(commands...)
			return c
		},
		Call: call, Follow: call,
		JSON:    func() bool { return false },
		Styles:  func() screen.Styles { return screen.Styles{} },
		Usage:   func(err error) error { return errors.Join(errUsage, err) },
		Asks:    func() bool { return false },
		Confirm: func(context.Context, string) bool { return false },
		Typed:   func(command string) string { return command },
		Ready:   func(*cobra.Command) error { return nil },
	})
}
