package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// Agents are the commands about enrolled agents and their join tokens.
func (c *Console) Agents() *cobra.Command {
	return c.host.Group("agents COMMAND", "List, enrol, renew and refuse agents", `See the agents that serve the resources, enrol new ones with single-use join
tokens, give them new keys, refuse them.`,
		c.agentsLs(), c.agentsToken(), c.agentsRotate(), c.agentsRevoke())
}

func (c *Console) agentsLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the enrolled agents", Args: c.args(0, 0),
		Example: c.examples("agents ls", "agents ls -o json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				all, err := client.Agents(ctx)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), agentsDocument{Schema, all}, func(w io.Writer) { c.printAgents(w, all) })
			})
		},
	}
}

func (c *Console) printAgents(w io.Writer, all []admin.Agent) {
	if len(all) == 0 {
		fmt.Fprintf(w, "No agent is enrolled. Make a token for one:\n  %s\n", c.typed("agents token --name gpu-1 --resource phi3=model"))
		return
	}
	rows := make([][]string, len(all))
	for i, a := range all {
		rows[i] = []string{short(a.ID), c.agentState(a), plaintext.Clean(a.Name) + "\n" + resourceNames(a.Resources)}
	}
	c.table(w, []string{"ID", "STATE", "NAME, RESOURCES"}, rows)
}

func (c *Console) agentState(a admin.Agent) string {
	s := c.host.Styles()
	switch {
	case a.Revoked != nil:
		return s.Bad.Render("revoked " + screen.Clock(*a.Revoked, time.Now()))
	case a.Online:
		return s.Good.Render("online, " + screen.Count(a.Sessions, "session"))
	case len(a.Silent) > 0:
		return s.Bad.Render("unknown: no answer from " + strings.Join(cleaned(a.Silent), ", "))
	default:
		return s.Bad.Render("offline")
	}
}

func resourceNames(list []admin.JoinResource) string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = plaintext.Clean(r.Name + "=" + r.Kind)
	}
	return strings.Join(names, " ")
}

func (c *Console) agentsRevoke() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke ID|NAME", Short: "Refuse an agent for good, and cut what runs through it",
		Long: `Refuse an agent's key from now on and end its sessions: its resources are gone
unless another agent serves them. This cannot be taken back; the machine would
enrol anew, with a new join token. Of an ID the beginning is enough.`,
		Example:           c.examples("agents revoke gpu-1", "agents revoke agent-5e0c7a91 --yes"),
		Args:              c.args(1, 1),
		ValidArgsFunction: c.completing(agentWords),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.sure(cmd.Context(), yes, "Refuse agent "+plaintext.Clean(args[0])+" for good?"); err != nil {
				return err
			}
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				ids, err := c.agentIDs(ctx, client, args)
				if err != nil {
					return err
				}
				ended, err := client.RevokeAgent(ctx, ids[0])
				if err != nil {
					return err
				}
				doc := endedDocument{Schema: Schema, Action: "revoke", Names: ids, Ended: ended}
				return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) {
					fmt.Fprintf(w, "%s revoked: %s.\nIt can only come back with a new join token.\n", ids[0], endedText(ended))
				})
			})
		},
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (c *Console) agentsRotate() *cobra.Command {
	return &cobra.Command{
		Use: "rotate ID|NAME", Short: "Have an agent take a new key, without downtime",
		Long: `Have a connected agent make a new key. What runs goes on; the old key opens
sessions for a little longer, so that none is refused meanwhile.`,
		Example:           c.examples("agents rotate gpu-1"),
		Args:              c.args(1, 1),
		ValidArgsFunction: c.completing(agentWords),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				ids, err := c.agentIDs(ctx, client, args)
				if err != nil {
					return err
				}
				rotation, err := client.RotateAgent(ctx, ids[0])
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), rotationDocument{Schema, rotation}, func(w io.Writer) {
					fmt.Fprintf(w, "%s has a new key,\n  %s\nThe old one opens sessions until %s.\n",
						ids[0], plaintext.Clean(rotation.Key), screen.Clock(rotation.OldUntil, time.Now()))
				})
			})
		},
	}
}

// agentIDs are the full ids of what was typed. A full one is taken as it is: it
// needs no right to list, and no database to list from.
func (c *Console) agentIDs(ctx context.Context, client *admin.Client, typed []string) ([]string, error) {
	const fullID = len("agent-") + 24
	if !slices.ContainsFunc(typed, func(id string) bool { return len(id) < fullID }) {
		return typed, nil
	}
	all, err := client.Agents(ctx)
	if err != nil {
		return nil, err
	}
	var known []named
	for _, a := range all {
		known = append(known, named{a.ID, a.Name})
	}
	ids := make([]string, len(typed))
	for i, id := range typed {
		if ids[i], err = pick("agent", id, c.typed("agents ls"), known); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func agentWords(ctx context.Context, client *admin.Client) ([]string, error) {
	all, err := client.Agents(ctx)
	var words []string
	for _, a := range all {
		if a.Revoked == nil {
			words = completion(words, short(a.ID), a.Name+" "+resourceNames(a.Resources))
		}
	}
	return words, err
}

// parseResources reads NAME=KIND and the labels of all of them.
func parseResources(resources, labels []string) ([]admin.JoinResource, error) {
	var set map[string]string
	for _, text := range labels {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--label %q: write NAME=VALUE", text)
		}
		if set == nil {
			set = map[string]string{}
		}
		set[name] = value
	}
	var all []admin.JoinResource
	for _, text := range resources {
		name, kind, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--resource %q: write NAME=model, NAME=http or NAME=tcp", text)
		}
		all = append(all, admin.JoinResource{Name: name, Kind: kind, Labels: set})
	}
	if len(all) == 0 {
		return nil, errors.New("--resource: name at least one, such as --resource phi3=model")
	}
	return all, nil
}
