package main

import (
	"context"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/console"
	"iap/internal/screen"
	"iap/tunnel"
)

// console makes the operator's commands, which `iap-relay admin` has as well.
// Whether the person may use one is for the relay to say.
func (a *app) console() *console.Console {
	return console.New(console.Host{
		Program: "iapctl",
		Group:   group,
		Call: func(ctx context.Context, f func(context.Context, *admin.Client) error) error {
			p, err := a.relayProfile()
			if err != nil {
				return err
			}
			return a.withStepUp(ctx, func() error { return a.withRelay(ctx, p, f) })
		},
		Follow: a.follow,
		JSON:   func() bool { return a.output == "json" },
		Styles: func() screen.Styles {
			if !terminal(a.out) {
				return screen.Styles{}
			}
			return a.ui.out.screen()
		},
		Blocks:  func() bool { return terminal(a.out) && screen.Blocks(a.env) },
		Usage:   func(err error) error { return usage("%v", err) },
		Asks:    a.asksPeople,
		Confirm: func(ctx context.Context, question string) bool { return a.confirm(ctx, question, false) },
		Typed:   a.inProfile,
		Ready:   func(cmd *cobra.Command) error { return a.prepare(cmd) },
	})
}

// follow is withRelay without an end of its own.
func (a *app) follow(ctx context.Context, f func(context.Context, *admin.Client) error) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	return a.withSession(ctx, p, func(ctx context.Context, session *tunnel.Session) error {
		client := apiClient(session)
		defer client.Close()
		return f(ctx, client)
	})
}
