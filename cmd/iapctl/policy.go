package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
)

func (a *app) policyCommand() *cobra.Command {
	var action, model string
	explain := &cobra.Command{
		Use:   "explain RESOURCE",
		Short: "Ask the relay what its policy says of you, and why",
		Long: `Ask the relay whether you may do something, which grant decides, and how each
grant that names you fared. Nothing is sent to the resource.

To be told no is an answer, not an error: the exit status is 0 either way.`,
		Example: `  iapctl policy explain phi3
  iapctl policy explain phi3 --action chat --model phi3:mini`,
		Args:              rangeArgs(1, 1),
		ValidArgsFunction: a.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.policyExplain(cmd.Context(), admin.Question{Resource: args[0], Action: action, Model: model})
		},
	}
	explain.Flags().StringVar(&action, "action", "", "`action`, such as chat or list-models (default: any)")
	explain.Flags().StringVar(&model, "model", "", "`model` the request would name")
	return group("policy COMMAND", "Ask what the policy says of you", `Ask the relay what its policy says of you.

To check or test policy files use iap-relay, which holds the policy engine:
  iap-relay check
  iap-relay policy test`, explain)
}

func (a *app) policyExplain(ctx context.Context, q admin.Question) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var answer admin.Answer
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		answer, err = client.Explain(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	if done, err := a.json(explainDocument{Schema: schemaName, Resource: q.Resource, Action: q.Action, Model: q.Model, Answer: answer}); done {
		return err
	}
	a.printAnswer(q, answer)
	return nil
}

func (a *app) printAnswer(q admin.Question, answer admin.Answer) {
	verdict := a.ui.out.bad.Render("denied")
	if answer.Allow {
		verdict = a.ui.out.good.Render("allowed")
	}
	until := ""
	if answer.Until != nil {
		until = clock(*answer.Until)
	}
	var steps []string
	for _, s := range answer.Considered {
		steps = append(steps, clean(s.Grant)+": "+clean(s.Result))
	}
	a.pairs(
		a.out, a.ui.out, 0,
		[2]string{"Resource", clean(q.Resource)}, [2]string{"Action", firstOf(clean(q.Action), "any")}, [2]string{"Model", clean(q.Model)},
		[2]string{"Decision", verdict}, [2]string{"Reason", clean(answer.Reason)}, [2]string{"Because", clean(answer.Message)},
		[2]string{"Grant", clean(answer.Grant)}, [2]string{"Limits", limitsText(answer)}, [2]string{"Until", until},
		[2]string{"Revision", clean(answer.Revision)}, [2]string{"Considered", strings.Join(steps, "\n")},
	)
}

func limitsText(answer admin.Answer) string {
	var lines []string
	for _, l := range answer.Limits {
		lines = append(lines, clean(l.Text))
	}
	return strings.Join(lines, "\n")
}
