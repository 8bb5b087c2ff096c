package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/servercmd"
	"iap/policy"
)

func budgetsShow(o *adminOptions) *cobra.Command {
	var q admin.BudgetQuestion
	c := &cobra.Command{
		Use: "show WHO | --grant NAME", Short: "Tell how much somebody has used", Args: atMost(1),
		Long: `Tell how limits stand: of ISSUER/SUBJECT, of group:ISSUER/GROUP together, of all
together with --grant, or, with --grant alone, of everybody who has used the grant.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 && q.Grant == "" {
				return servercmd.Usage(errors.New("whose budgets? ISSUER/SUBJECT, group:ISSUER/GROUP or --grant NAME"))
			}
			q.Who = strings.Join(args, "")
			return o.call(c, func(ctx context.Context, client *admin.Client) error {
				list, err := client.AdminBudgets(ctx, q)
				if err != nil {
					return err
				}
				return printOr(c.OutOrStdout(), o.output, list, func(w io.Writer) { printBudgets(w, list) })
			})
		},
	}
	c.Flags().StringVar(&q.Grant, "grant", "", "name of the grant")
	return c
}

func budgetsReset(o *adminOptions) *cobra.Command {
	return &cobra.Command{
		Use: "reset WHO GRANT", Short: "Forget what was used of a grant by ISSUER/SUBJECT, group:ISSUER/GROUP or all", Args: atMost(2),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return servercmd.Usage(errors.New("say whose count to reset, and of which grant: WHO GRANT"))
			}
			return o.call(c, func(ctx context.Context, client *admin.Client) error {
				list, err := client.ResetBudgets(ctx, admin.BudgetReset{Who: args[0], Grant: args[1]})
				if err != nil {
					return err
				}
				return printOr(c.OutOrStdout(), o.output, list, func(w io.Writer) {
					fmt.Fprintf(w, "What %s has used of grant %s is forgotten.\n", plaintext.Clean(args[0]), plaintext.Clean(args[1]))
				})
			})
		},
	}
}

// atMost refuses more arguments than n.
func atMost(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > n {
			return servercmd.Usage(fmt.Errorf("%s takes no argument %q; see %s --help", c.CommandPath(), args[n], c.CommandPath()))
		}
		return nil
	}
}

func printBudgets(w io.Writer, list admin.BudgetList) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GRANT\tWHO\tLIMIT\tUSED\tHELD\tLEFT\tMODE\tALL FREE AT")
	for _, b := range list.Budgets {
		who, window, resets := b.Who, "", ""
		if b.Per != policy.PerPrincipal {
			who = strings.TrimSpace(b.Per + " " + b.Who)
		}
		if b.Window > 0 {
			window = "/" + policy.FormatDuration(time.Duration(b.Window)*time.Second)
		}
		if b.Resets != nil {
			resets = b.Resets.Local().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%d %s%s\t%d\t%d\t%d\t%s\t%s\n", plaintext.Clean(b.Grant), plaintext.Clean(who), b.Limit, b.Kind, window, b.Used, b.Held, b.Left, b.Mode, resets)
	}
	t.Flush()
	if list.More {
		fmt.Fprintln(w, "There are more: ask for one of them.")
	}
}
