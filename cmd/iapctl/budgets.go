package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/screen"
	"iap/policy"
)

func (a *app) budgetsCommand() *cobra.Command {
	var q admin.BudgetQuestion
	show := &cobra.Command{
		Use: "show WHO | --grant NAME", Short: "Show how much others have used", Args: maxArgs(1),
		Long: `Show administrators how the limits of others stand. WHO is ISSUER/SUBJECT as
whoami prints it, group:ISSUER/GROUP for what a group shares, or all, with
--grant, for what everybody of a grant shares. --grant NAME alone shows
everybody who has used something of that grant. It is recorded who asked.`,
		Example: `  iapctl budgets show corp/8a7f3c
  iapctl budgets show --grant engineers -o json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && q.Grant == "" {
				return usage("whose budgets? ISSUER/SUBJECT, group:ISSUER/GROUP or --grant NAME")
			}
			q.Who = strings.Join(args, "")
			return a.budgets(cmd.Context(), q, true)
		},
	}
	show.Flags().StringVar(&q.Grant, "grant", "", "`name` of the grant")
	reset := &cobra.Command{
		Use: "reset WHO GRANT", Short: "Forget what somebody has used", Args: rangeArgs(2, 2),
		Long: `Forget, for administrators, what has been used of a grant's requests and tokens
by ISSUER/SUBJECT, by group:ISSUER/GROUP together, or by all together. What one
of a group shares with the others stays: name the group. It is recorded.`,
		Example: `  iapctl budgets reset corp/8a7f3c engineers
  iapctl budgets reset group:corp/ml-eng engineers`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.budgetsReset(cmd.Context(), admin.BudgetReset{Who: args[0], Grant: args[1]})
		},
	}
	budgets := &cobra.Command{
		Use: "budgets [RESOURCE]", Short: "Show how much of your limits is used", Args: maxArgs(1),
		Long: `Show each limit of the grants that name you: how much of it is used, what is
left, when more comes free, and who shares it with you. With a RESOURCE only of
the grants that name it. What running requests have set aside counts as used.`,
		Example: `  iapctl budgets
  iapctl budgets phi3 -o json`,
		ValidArgsFunction: a.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.budgets(cmd.Context(), admin.BudgetQuestion{Resource: strings.Join(args, "")}, false)
		},
	}
	budgets.AddCommand(show, reset)
	return budgets
}

// budgets prints how limits stand; of others it says whose each is.
func (a *app) budgets(ctx context.Context, q admin.BudgetQuestion, others bool) error {
	list, err := a.askBudgets(ctx, func(ctx context.Context, client *admin.Client) (admin.BudgetList, error) {
		if others {
			return client.AdminBudgets(ctx, q)
		}
		return client.Budgets(ctx, admin.OwnBudgets{Resource: q.Resource})
	})
	if err != nil {
		return err
	}
	if done, err := a.json(budgetsDocument{Schema: schemaName, BudgetList: list}); done {
		return err
	}
	switch {
	case len(list.Budgets) == 0 && others:
		a.say("Nothing is used, or nothing is counted.")
	case len(list.Budgets) == 0 && q.Resource != "":
		a.say("No grant limits what you use of %s. What you may do there: %s", clean(q.Resource), a.inProfile("iapctl resources"))
	case len(list.Budgets) == 0:
		a.say("No grant limits how much you use.")
	default:
		a.printBudgets(list.Budgets, others)
	}
	if list.More {
		a.say("There are more. Ask for one of them: %s", a.inProfile("iapctl budgets show WHO"))
	}
	return nil
}

func (a *app) budgetsReset(ctx context.Context, q admin.BudgetReset) error {
	list, err := a.askBudgets(ctx, func(ctx context.Context, client *admin.Client) (admin.BudgetList, error) {
		return client.ResetBudgets(ctx, q)
	})
	if err != nil {
		return err
	}
	if done, err := a.json(budgetsDocument{Schema: schemaName, BudgetList: list}); done {
		return err
	}
	a.say("What %s has used of grant %s is forgotten.", clean(q.Who), clean(q.Grant))
	a.printBudgets(list.Budgets, true)
	return nil
}

func (a *app) askBudgets(ctx context.Context, ask func(context.Context, *admin.Client) (admin.BudgetList, error)) (admin.BudgetList, error) {
	p, err := a.relayProfile()
	if err != nil {
		return admin.BudgetList{}, err
	}
	var list admin.BudgetList
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		list, err = ask(ctx, client)
		return err
	})
	return list, err
}

func (a *app) printBudgets(all []admin.Budget, others bool) {
	var rows [][]string
	for _, b := range all {
		rows = append(rows, []string{clean(b.Grant), budgetLimit(b), a.budgetUsed(b, terminal(a.out)), budgetLeft(b, others)})
	}
	a.table([]string{"GRANT", "LIMIT", "USED", "LEFT"}, rows)
}

// budgetLimit is the limit as a grant has it: 200,000 tokens/24h.
func budgetLimit(b admin.Budget) string {
	if b.Window == 0 {
		return screen.Grouped(b.Limit) + " at once"
	}
	return screen.Grouped(b.Limit) + " " + clean(b.Kind) + "/" + policy.FormatDuration(time.Duration(b.Window)*time.Second)
}

// budgetUsed is the amount, behind a bar for eyes.
func (a *app) budgetUsed(b admin.Budget, bars bool) string {
	used := b.Used + b.Held
	if !bars {
		return screen.Grouped(used)
	}
	style := a.ui.out.good
	if b.Left == 0 {
		style = a.ui.out.bad
	}
	return style.Render(screen.Bar(used, b.Limit)) + " " + screen.Grouped(used)
}

// budgetLeft says what is left, when there is more, and who else uses it.
func budgetLeft(b admin.Budget, others bool) string {
	lines := []string{screen.Grouped(b.Left)}
	if b.Next != nil {
		lines[0] += fmt.Sprintf("; %s at %s", screen.Grouped(b.NextLeft), clock(*b.Next))
		if b.Resets != nil && b.Resets.After(*b.Next) {
			lines[0] += ", all at " + clock(*b.Resets)
		}
	}
	switch {
	case b.Per == policy.PerGroup:
		lines = append(lines, "shared by the group "+clean(b.Who))
	case b.Per == policy.PerGrant:
		lines = append(lines, "shared by all who use the grant")
	case others:
		lines = append(lines, "of "+clean(b.Who))
	}
	if b.Mode == policy.ModeWarn {
		lines = append(lines, "only warned of")
	}
	if b.Contact != "" {
		lines = append(lines, "more from "+clean(b.Contact))
	}
	return strings.Join(lines, "\n")
}
