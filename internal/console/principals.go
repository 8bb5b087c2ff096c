package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// Principals are the commands about people and programs.
func (c *Console) Principals() *cobra.Command {
	return c.host.Group("principals COMMAND", "See, refuse and restore people and programs", `See who has sessions or keys, and refuse somebody everywhere.

A principal is written ISSUER/SUBJECT, as whoami and sessions ls show it.`,
		c.principalsLs(), c.principalsRevoke(), c.principalsRestore())
}

func (c *Console) principalsLs() *cobra.Command {
	var q admin.PrincipalQuestion
	cmd := &cobra.Command{
		Use: "ls", Short: "List whom the relay knows", Args: c.args(0, 0),
		Long: `List everybody who has a live session or a key for programs, or is revoked.
Whoever never came, or left nothing behind, is not in the list.`,
		Example: c.examples("principals ls", "principals ls --state revoked -o json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				all, silent, err := principalsOf(ctx, client, q)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), principalsDocument{Schema, all, silent}, func(w io.Writer) {
					c.printPrincipals(w, all)
					printSilent(w, silent, "Sessions that they have are not counted.")
				})
			})
		},
	}
	cmd.Flags().StringVar(&q.Principal, "principal", "", "this `ISSUER/SUBJECT` alone")
	cmd.Flags().StringVar(&q.State, "state", "", "those in a `state`: live or revoked")
	complete(cmd, "state", "live", "revoked")
	return cmd
}

// principalsOf asks for all pages.
func principalsOf(ctx context.Context, client *admin.Client, q admin.PrincipalQuestion) (all []admin.PrincipalInfo, silent []string, err error) {
	all = []admin.PrincipalInfo{}
	for {
		page, err := client.Principals(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		all, silent = append(all, page.Principals...), page.Silent
		if q.Cursor = page.Next; page.Next == "" || len(all) >= maxListed {
			return all, silent, nil
		}
	}
}

func (c *Console) printPrincipals(w io.Writer, all []admin.PrincipalInfo) {
	if len(all) == 0 {
		fmt.Fprintln(w, "There is nobody to list.")
		return
	}
	now := time.Now()
	rows := make([][]string, len(all))
	for i, p := range all {
		seen := "-"
		if p.LastSeen != nil {
			seen = screen.Ago(*p.LastSeen, now)
		}
		rows[i] = []string{fmt.Sprint(p.Sessions), fmt.Sprint(p.Keys), seen, c.principalText(p)}
	}
	c.table(w, []string{"SESSIONS", "KEYS", "SEEN", "WHO"}, rows)
}

// principalText is who it is, and on lines of their own what else is to be said.
func (c *Console) principalText(p admin.PrincipalInfo) string {
	lines := []string{plaintext.Clean(p.Principal)}
	about := plaintext.Clean(p.Name)
	if p.Workload {
		about = strings.TrimPrefix(about+", a program", ", ")
	}
	if about != "" {
		lines = append(lines, about)
	}
	if r := p.Revoked; r != nil {
		text := "revoked " + screen.Clock(r.At, time.Now())
		if r.By != "" {
			text += " by " + plaintext.Clean(r.By)
		}
		if r.Reason != "" {
			text += ": " + plaintext.Clean(r.Reason)
		}
		lines = append(lines, c.host.Styles().Bad.Render(text))
	}
	return strings.Join(lines, "\n")
}

func (c *Console) principalsRevoke() *cobra.Command {
	var reason string
	var yes bool
	cmd := &cobra.Command{
		Use: "revoke ISSUER/SUBJECT...", Short: "Refuse somebody everywhere, until restored",
		Long: `Refuse every login, token and key of somebody until principals restore, and end
what runs: sessions, requests at the front door, keys for programs. It need not
be somebody whom the relay has seen. It works with a full disk, and while the
relay's database is away for as long as the relay runs.`,
		Example: c.examples("principals revoke corp/8a7f3c --reason INC-412"),
		Args:    c.args(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.sure(cmd.Context(), yes, "Refuse "+plaintext.Clean(strings.Join(args, ", "))+" everywhere, and end what runs?"); err != nil {
				return err
			}
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				return c.revokePrincipals(ctx, client, cmd.OutOrStdout(), args, reason)
			})
		},
		ValidArgsFunction: c.completing(func(ctx context.Context, client *admin.Client) ([]string, error) {
			return principalWords(ctx, client, admin.PrincipalQuestion{State: "live"})
		}),
	}
	reasonFlag(cmd, &reason)
	yesFlag(cmd, &yes)
	return cmd
}

// revokePrincipals goes on behind a failure: of several the others must not stay.
func (c *Console) revokePrincipals(ctx context.Context, client *admin.Client, w io.Writer, ids []string, reason string) error {
	doc := endedDocument{Schema: Schema, Action: "revoke", Names: []string{}}
	var failures []error
	for _, id := range ids {
		ended, err := client.RevokePrincipal(ctx, id, reason)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		doc.Names = append(doc.Names, id)
		doc.Sessions, doc.Streams, doc.Keys = doc.Sessions+ended.Sessions, doc.Streams+ended.Streams, doc.Keys+ended.Keys
	}
	if len(doc.Names) == 0 {
		return errors.Join(failures...)
	}
	err := c.show(w, doc, func(w io.Writer) {
		names := plaintext.Clean(strings.Join(doc.Names, " "))
		fmt.Fprintf(w, "%s revoked: %s.\nNo login, token or key is accepted until\n  %s\n", names, endedText(doc.Ended), c.typed("principals restore "+names))
		if doc.Sessions+doc.Streams+doc.Keys == 0 {
			fmt.Fprintf(w, "Is the name right? Whom the relay knows: %s\n", c.typed("principals ls"))
		}
	})
	return errors.Join(append(failures, err)...)
}

func (c *Console) principalsRestore() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "restore ISSUER/SUBJECT", Short: "Take a revocation back",
		Long: `Let somebody log in again. Sessions that were ended stay ended, and the logins
they belonged to stay refused: a new login is needed.`,
		Example: c.examples("principals restore corp/8a7f3c --reason 'new laptop'"),
		Args:    c.args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				if err := client.RestorePrincipal(ctx, args[0], reason); err != nil {
					return err
				}
				doc := endedDocument{Schema: Schema, Action: "restore", Names: args}
				return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) {
					fmt.Fprintf(w, "%s may log in again.\n", plaintext.Clean(args[0]))
				})
			})
		},
		ValidArgsFunction: c.completing(func(ctx context.Context, client *admin.Client) ([]string, error) {
			return principalWords(ctx, client, admin.PrincipalQuestion{State: "revoked"})
		}),
	}
	reasonFlag(cmd, &reason)
	return cmd
}

func principalWords(ctx context.Context, client *admin.Client, q admin.PrincipalQuestion) ([]string, error) {
	all, _, err := principalsOf(ctx, client, q)
	var words []string
	for _, p := range all {
		words = completion(words, p.Principal, p.Name+", "+screen.Count(p.Sessions, "session"))
	}
	return words, err
}

// gone reports whether what a call was about is not there.
func gone(err error) bool {
	var refused *admin.Error
	return errors.As(err, &refused) && refused.Status == http.StatusNotFound
}
