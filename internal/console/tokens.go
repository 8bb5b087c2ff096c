package console

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// agentsToken makes a join token; its subcommands list and revoke them.
func (c *Console) agentsToken() *cobra.Command {
	var q admin.NewJoinToken
	var resources, labels []string
	cmd := &cobra.Command{
		Use: "token --name AGENT --resource NAME=KIND...", Short: "Make a single-use join token for a new agent",
		Long: `Make a token with which one agent can enrol once. It names the resources that
the agent may serve: model (a model server), http (any web server) or tcp. It is
shown this once.`,
		Example: c.examples("agents token --name gpu-1 --resource phi3=model", "agents token --name db-1 --resource pg=tcp --label env=prod"),
		Args:    c.args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if q.Resources, err = parseResources(resources, labels); err != nil {
				return c.host.Usage(err)
			}
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				created, err := client.CreateJoinToken(ctx, q)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), tokenDocument{Schema, created}, func(w io.Writer) {
					fmt.Fprintf(cmd.ErrOrStderr(), "Good once, until %s. On the new agent's machine:\n  iap-agent join TOKEN\n", screen.Clock(created.Expires, time.Now()))
					fmt.Fprintln(w, plaintext.Clean(created.Token))
				})
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&q.Name, "name", "", "the agent's `name`, for people")
	flags.StringArrayVar(&resources, "resource", nil, "`NAME=KIND` it may serve: model, http or tcp; may be repeated")
	flags.StringArrayVar(&labels, "label", nil, "`NAME=VALUE`, a label of these resources; may be repeated")
	flags.StringVar(&q.TTL, "ttl", "", "`time` the token is good (default 10m)")
	flags.BoolVar(&q.Share, "share", false, "other agents may serve the same resources")
	cmd.AddCommand(c.tokenLs(), c.tokenRevoke())
	return cmd
}

func (c *Console) tokenLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the join tokens that were made", Args: c.args(0, 0),
		Example: c.examples("agents token ls"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				all, err := client.JoinTokens(ctx)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), tokensDocument{Schema, all}, func(w io.Writer) { c.printTokens(w, all) })
			})
		},
	}
}

func (c *Console) printTokens(w io.Writer, all []admin.JoinToken) {
	if len(all) == 0 {
		fmt.Fprintln(w, "No join token is waiting to be used.")
		return
	}
	now := time.Now()
	rows := make([][]string, len(all))
	for i, t := range all {
		state := "good until " + screen.Clock(t.Expires, now)
		switch {
		case t.UsedBy != "":
			state = "used by " + short(t.UsedBy)
		case t.Expires.Before(now):
			state = "expired"
		}
		rows[i] = []string{short(t.ID), state, plaintext.Clean(t.Name) + "\n" + resourceNames(t.Resources)}
	}
	c.table(w, []string{"ID", "STATE", "FOR AGENT, RESOURCES"}, rows)
}

func (c *Console) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID", Short: "Make an unused join token worthless", Args: c.args(1, 1),
		Long: `Make a join token worthless that nobody has used yet. An agent that has enrolled
with it stays: see agents revoke. Of an ID the beginning is enough.`,
		Example:           c.examples("agents token revoke join-81d0c2f4"),
		ValidArgsFunction: c.completing(tokenWords),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				all, err := client.JoinTokens(ctx)
				if err != nil {
					return err
				}
				var known []named
				for _, t := range all {
					known = append(known, named{id: t.ID})
				}
				id, err := pick("token", args[0], c.typed("agents token ls"), known)
				if err != nil {
					return err
				}
				if err := client.RevokeJoinToken(ctx, id); err != nil {
					return err
				}
				doc := endedDocument{Schema: Schema, Action: "revoke", Names: []string{id}}
				return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) { fmt.Fprintf(w, "%s is worthless now.\n", plaintext.Clean(id)) })
			})
		},
	}
}

func tokenWords(ctx context.Context, client *admin.Client) ([]string, error) {
	all, err := client.JoinTokens(ctx)
	var words []string
	for _, t := range all {
		if t.UsedBy == "" {
			words = completion(words, short(t.ID), t.Name+" "+resourceNames(t.Resources))
		}
	}
	return words, err
}
