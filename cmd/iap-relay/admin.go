package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/console"
	"iap/internal/relay/settings"
	"iap/internal/screen"
	"iap/internal/servercmd"
)

const adminTimeout = 20 * time.Second

// adminOptions are what every admin command takes.
type adminOptions struct{ config, socket, output string }

func adminCommand() *cobra.Command {
	o := &adminOptions{}
	c := &cobra.Command{
		Use: "admin COMMAND", Short: "Manage a running relay as root, without the identity provider",
		Long: `Manage the relay on this machine over its unix socket. Only root and the
relay's own user may; every call is in the audit log as local:root. Whom the
policy names under admins: has the same commands in iapctl.`,
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { return checkOutput(o.output) }, // before the deed
	}
	c.PersistentFlags().StringVarP(&o.config, "config", "c", defaultConfig, "configuration `file` of the relay")
	c.PersistentFlags().StringVar(&o.socket, "socket", "", "admin `socket` (default from the configuration)")
	c.PersistentFlags().StringVarP(&o.output, "output", "o", "text", "`format`: text or json")
	con := o.console("iap-relay admin")
	c.AddCommand(
		con.Sessions(), con.Principals(), con.Agents(), con.Resources(), con.Keys(), con.Budgets(), con.Usage(false), con.Audit(), con.Relay(), con.Status(),
		group("policy COMMAND", "Show, explain and reload the policy", "See by which policy the relay decides, and have it read its files again.", con.PolicyShow(), con.Explain(false), con.PolicyReload()),
	)
	return c
}

// auditCommand reads the files of an audit log, whether a relay runs or not.
func auditCommand() *cobra.Command {
	o := &adminOptions{}
	c := group("audit COMMAND", "Verify an audit log, and prove records", "Read the files of an audit log. No relay is asked: it may be any copy.",
		o.console("iap-relay").Proofs()...)
	c.PersistentPreRunE = func(*cobra.Command, []string) error { return checkOutput(o.output) }
	c.PersistentFlags().StringVarP(&o.output, "output", "o", "text", "`format`: text or json")
	return c
}

// console makes the commands that iapctl has as well.
func (o *adminOptions) console(program string) *console.Console {
	return console.New(console.Host{
		Program: program,
		Group:   group,
		Call: func(ctx context.Context, f func(context.Context, *admin.Client) error) error {
			ctx, cancel := context.WithTimeout(ctx, adminTimeout)
			defer cancel()
			return o.call(ctx, f)
		},
		Follow: func(ctx context.Context, f func(context.Context, *admin.Client) error) error {
			return o.call(ctx, f)
		},
		JSON:    func() bool { return o.output == "json" },
		Styles:  func() screen.Styles { return screen.Styles{} },
		Blocks:  func() bool { return isatty.IsTerminal(os.Stdout.Fd()) && screen.Blocks(os.Getenv) },
		Usage:   servercmd.Usage,
		Asks:    func() bool { return o.output == "text" && servercmd.Asks() },
		Confirm: servercmd.Confirm,
		Typed:   func(command string) string { return command },
		Ready:   func(*cobra.Command) error { return nil },
	})
}

// call runs f with a client of the relay's admin socket, until Ctrl-C.
func (o *adminOptions) call(ctx context.Context, f func(context.Context, *admin.Client) error) error {
	path := o.socket
	if path == "" {
		cfg, err := settings.Load(o.config)
		if err != nil {
			return fmt.Errorf("%w (or name the socket with --socket)", err)
		}
		path = cfg.AdminSocket
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	client := admin.NewClient(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	})
	defer client.Close()
	err := f(ctx, client)
	var unreachable *net.OpError
	if errors.As(err, &unreachable) && unreachable.Op == "dial" {
		return fmt.Errorf("cannot reach the relay at %s: is it running, and are you root or its user? (%w)", path, err)
	}
	return err
}

// group is a command that only holds others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: servercmd.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(commands...)
	return c
}
