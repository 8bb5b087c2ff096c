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
	"iap/policy"
)

// Budgets are the commands about what others have used of their limits.
func (c *Console) Budgets() *cobra.Command {
	return c.host.Group("budgets COMMAND", "Show and reset what is used of limits", "See how limits stand, and begin them anew.", c.BudgetsShow(), c.BudgetsReset())
}

// BudgetsShow shows how the limits of others stand.
func (c *Console) BudgetsShow() *cobra.Command {
	var q admin.BudgetQuestion
	cmd := &cobra.Command{
		Use: "show WHO | --grant NAME", Short: "Show how much others have used", Args: c.args(0, 1),
		Long: `Show administrators how the limits of others stand. WHO is ISSUER/SUBJECT as
whoami prints it, group:ISSUER/GROUP for what a group shares, or all, with
--grant, for what everybody of a grant shares. --grant NAME alone shows
everybody who has used something of that grant. It is recorded who asked.`,
		Example: c.examples("budgets show corp/8a7f3c", "budgets show --grant engineers -o json"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && q.Grant == "" {
				return c.usage("whose budgets? ISSUER/SUBJECT, group:ISSUER/GROUP or --grant NAME")
			}
			q.Who = strings.Join(args, "")
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				list, err := client.AdminBudgets(ctx, q)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), budgetsDocument{Schema, list}, func(w io.Writer) {
					if len(list.Budgets) == 0 {
						fmt.Fprintln(w, "Nothing is used, or nothing is counted.")
						return
					}
					c.PrintBudgets(w, list, true)
				})
			})
		},
	}
	cmd.Flags().StringVar(&q.Grant, "grant", "", "`name` of the grant")
	return cmd
}

// BudgetsReset forgets what was used.
func (c *Console) BudgetsReset() *cobra.Command {
	return &cobra.Command{
		Use: "reset WHO GRANT", Short: "Forget what somebody has used", Args: c.args(2, 2),
		Long: `Forget, for administrators, what has been used of a grant's requests and tokens
by ISSUER/SUBJECT, by group:ISSUER/GROUP together, or by all together. What one
of a group shares with the others stays: name the group. It is recorded.`,
		Example: c.examples("budgets reset corp/8a7f3c engineers", "budgets reset group:corp/ml-eng engineers"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				list, err := client.ResetBudgets(ctx, admin.BudgetReset{Who: args[0], Grant: args[1]})
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), budgetsDocument{Schema, list}, func(w io.Writer) {
					fmt.Fprintf(w, "What %s has used of grant %s is forgotten.\n", plaintext.Clean(args[0]), plaintext.Clean(args[1]))
					if len(list.Budgets) > 0 {
						c.PrintBudgets(w, list, true)
					}
				})
			})
		},
	}
}

// PrintBudgets shows how limits stand; of others it says whose each is.
func (c *Console) PrintBudgets(w io.Writer, list admin.BudgetList, others bool) {
	rows := make([][]string, len(list.Budgets))
	for i, b := range list.Budgets {
		rows[i] = []string{plaintext.Clean(b.Grant), budgetLimit(b), c.budgetUsed(b), budgetLeft(b, others)}
	}
	c.table(w, []string{"GRANT", "LIMIT", "USED", "LEFT"}, rows)
	if list.More {
		fmt.Fprintf(w, "There are more. Ask for one of them: %s\n", c.typed("budgets show WHO"))
	}
}

// budgetLimit is the limit as a grant has it: 200,000 tokens/24h.
func budgetLimit(b admin.Budget) string {
	if b.Window == 0 {
		return screen.Grouped(b.Limit) + " at once"
	}
	return screen.Grouped(b.Limit) + " " + plaintext.Clean(b.Kind) + "/" + policy.FormatDuration(time.Duration(b.Window)*time.Second)
}

// budgetUsed is the amount, on a terminal behind a bar for eyes.
func (c *Console) budgetUsed(b admin.Budget) string {
	used, s := b.Used+b.Held, c.host.Styles()
	if s.Good == nil {
		return screen.Grouped(used)
	}
	style := s.Good
	if b.Left == 0 {
		style = s.Bad
	}
	return style.Render(screen.Bar(used, b.Limit)) + " " + screen.Grouped(used)
}

// budgetLeft says what is left, when there is more, and who else uses it.
func budgetLeft(b admin.Budget, others bool) string {
	lines := []string{screen.Grouped(b.Left)}
	now := time.Now()
	if b.Next != nil {
		lines[0] += fmt.Sprintf("; %s at %s", screen.Grouped(b.NextLeft), screen.Clock(*b.Next, now))
		if b.Resets != nil && b.Resets.After(*b.Next) {
			lines[0] += ", all at " + screen.Clock(*b.Resets, now)
		}
	}
	switch {
	case b.Per == policy.PerGroup:
		lines = append(lines, "shared by the group "+plaintext.Clean(b.Who))
	case b.Per == policy.PerGrant:
		lines = append(lines, "shared by all who use the grant")
	case others:
		lines = append(lines, "of "+plaintext.Clean(b.Who))
	}
	if b.Mode == policy.ModeWarn {
		lines = append(lines, "only warned of")
	}
	if b.Contact != "" {
		lines = append(lines, "more from "+plaintext.Clean(b.Contact))
	}
	return strings.Join(lines, "\n")
}
