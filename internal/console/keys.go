package console

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// Keys are the commands about everybody's keys for programs. A program that also
// manages a person's own mounts KeysLs alone.
func (c *Console) Keys() *cobra.Command {
	ls := &cobra.Command{
		Use: "ls", Short: "List everybody's keys for programs", Args: c.args(0, 0),
		Example: c.examples("keys ls", "keys ls -o json"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.KeysLs(cmd.Context(), cmd.OutOrStdout()) },
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "End a key and what runs with it", Args: c.args(1, 1),
		Example:           c.examples("keys revoke abcd2345"),
		ValidArgsFunction: c.completing(keyWords),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				if err := client.AdminRevokeKey(ctx, args[0]); err != nil {
					return err
				}
				doc := endedDocument{Schema: Schema, Action: "revoke", Names: args, Ended: admin.Ended{Keys: 1}}
				return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) { fmt.Fprintf(w, "The key %s is revoked.\n", plaintext.Clean(args[0])) })
			})
		},
	}
	return c.host.Group("keys COMMAND", "List and revoke people's keys for programs", "See everybody's keys for programs, and end them.", ls, revoke)
}

// KeysLs lists everybody's keys.
func (c *Console) KeysLs(ctx context.Context, w io.Writer) error {
	return c.host.Call(ctx, func(ctx context.Context, client *admin.Client) error {
		all, err := client.AdminKeys(ctx)
		if err != nil {
			return err
		}
		return c.show(w, keysDocument{Schema, all}, func(w io.Writer) { c.printKeys(w, all) })
	})
}

func (c *Console) printKeys(w io.Writer, all []admin.Key) {
	if len(all) == 0 {
		fmt.Fprintln(w, "There are no keys for programs.")
		return
	}
	s, now := c.host.Styles(), time.Now()
	rows := make([][]string, len(all))
	for i, k := range all {
		state := s.Bad.Render(plaintext.Clean(k.State))
		if k.State == "good" {
			state = s.Good.Render("until " + screen.Clock(k.Expires, now))
		}
		used := "never"
		if k.LastUsed != nil {
			used = screen.Ago(*k.LastUsed, now)
		}
		rows[i] = []string{plaintext.Clean(k.ID), state, used, keyText(k)}
	}
	c.table(w, []string{"ID", "STATE", "USED", "OWNER, NAME, WHAT IT MAY"}, rows)
}

func keyText(k admin.Key) string {
	text := fmt.Sprintf("%s: %s\n%s on %s", k.Owner, k.Name, strings.Join(k.Actions, ", "), strings.Join(k.Resources, ", "))
	if len(k.Models) > 0 {
		text += "\nwith " + strings.Join(k.Models, ", ")
	}
	return plaintext.Lines(text)
}

func keyWords(ctx context.Context, client *admin.Client) ([]string, error) {
	all, err := client.AdminKeys(ctx)
	var words []string
	for _, k := range all {
		words = completion(words, k.ID, k.Owner+" "+k.Name)
	}
	return words, err
}
