package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/servercmd"
)

func keysLs(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "ls", Short: "List the keys of all principals", Args: servercmd.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			all, err := client.AdminKeys(ctx)
			if err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, all, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
				fmt.Fprintln(t, "ID\tOWNER\tNAME\tSTATE\tUNTIL\tRESOURCES\tACTIONS")
				for _, k := range all {
					fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, plaintext.Clean(k.Owner), k.Name, k.State, k.Expires.Local().Format(time.DateOnly),
						strings.Join(k.Resources, " "), strings.Join(k.Actions, " "))
				}
				t.Flush()
			})
		})
	}}
}

func keysRevoke(o *adminOptions) *cobra.Command {
	return &cobra.Command{Use: "revoke ID", Short: "End a key and what runs with it", Args: servercmd.OneArg, RunE: func(c *cobra.Command, args []string) error {
		return o.call(c, func(ctx context.Context, client *admin.Client) error {
			if err := client.AdminRevokeKey(ctx, args[0]); err != nil {
				return err
			}
			return printOr(c.OutOrStdout(), o.output, map[string]string{"revoked": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s is revoked.\n", args[0]) })
		})
	}}
}
