package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
)

func (a *app) budgetsCommand() *cobra.Command {
	budgets := &cobra.Command{
		Use: "budgets [RESOURCE]", Short: "Show how much of your limits is used", Args: maxArgs(1),
		Long: `Show each limit of the grants that name you: how much of it is used, what is
left, when more comes free, and who shares it with you. With a RESOURCE only of
the grants that name it. What running requests have set aside counts as used.`,
		Example: `  iapctl budgets
  iapctl budgets phi3 -o json`,
		ValidArgsFunction: a.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.budgets(cmd.Context(), strings.Join(args, ""))
		},
	}
	budgets.AddCommand(a.console().BudgetsShow(), a.console().BudgetsReset())
	return budgets
}

// budgets prints how the person's own limits stand.
func (a *app) budgets(ctx context.Context, resource string) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var list admin.BudgetList
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		list, err = client.Budgets(ctx, admin.OwnBudgets{Resource: resource})
		return err
	})
	if err != nil {
		return err
	}
	if done, err := a.json(budgetsDocument{Schema: schemaName, BudgetList: list}); done {
		return err
	}
	switch {
	case len(list.Budgets) == 0 && resource != "":
		a.say("No grant limits what you use of %s. What you may do there: %s", clean(resource), a.inProfile("iapctl resources"))
	case len(list.Budgets) == 0:
		a.say("No grant limits how much you use.")
	default:
		a.console().PrintBudgets(a.out, list, false)
	}
	return nil
}
