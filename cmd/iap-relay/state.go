package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/cluster"
	"iap/internal/servercmd"
	"iap/internal/state"
)

func stateCommand() *cobra.Command {
	c := &cobra.Command{Use: "state COMMAND", Short: "Bring the state to another place", Args: servercmd.NoArgs}
	c.AddCommand(stateCopy())
	return c
}

func stateCopy() *cobra.Command {
	return &cobra.Command{
		Use: "copy FROM TO", Short: "Copy the whole state, from a file to PostgreSQL or back", Args: cobra.ExactArgs(2),
		Long: `Copy agents, logins, revocations, budgets and usage to an empty state of
another kind. FROM and TO are URLs as in relay.yaml. Stop every relay that uses
FROM before, and give TO to all of them after. FROM is left as it is.

A copy that breaks off is no state that a relay would start with.`,
		Example: "  iap-relay state copy sqlite:/var/lib/iap-relay/state.db \\\n    postgres://iap@db.example/iap",
		RunE: func(c *cobra.Command, args []string) error {
			n, err := copyState(c.Context(), args[0], args[1], slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil)))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "Copied %d items. Set state in relay.yaml to the new URL and start the relay.\n", n)
			return err
		},
	}
}

func copyState(ctx context.Context, from, to string, log *slog.Logger) (n int, err error) {
	if path, isFile := strings.CutPrefix(from, "sqlite:"); isFile {
		if _, err := os.Stat(strings.TrimPrefix(path, "//")); err != nil { // opening it would make one
			return 0, fmt.Errorf("copy state: %w", err)
		}
	}
	source, err := state.OpenWith(ctx, from, state.Options{Logger: log})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	if running, err := cluster.New(cluster.Options{Store: source}).Members(ctx); err != nil {
		return 0, err
	} else if len(running) > 0 {
		return 0, fmt.Errorf("copy state: relay %s uses %s; stop it first (one that has died is forgotten after half a minute)", running[0].Instance, withoutPassword(from))
	}
	target, err := state.OpenWith(ctx, to, state.Options{Logger: log})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	return state.Copy(ctx, source, target)
}

// withoutPassword is the kind of a URL: the rest may hold a password.
func withoutPassword(url string) string {
	kind, _, _ := strings.Cut(url, ":")
	return "that " + kind + " state"
}
