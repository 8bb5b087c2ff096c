package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
)

// explainFlags describe somebody and what they ask.
type explainFlags struct {
	action, model, mfaAge, acr, via string
	groups, claims, media           []string
	mfa, egress                     bool
}

func (a *app) policyCommand() *cobra.Command {
	var f explainFlags
	explain := &cobra.Command{
		Use:   "explain [WHO] RESOURCE [ACTION [MODEL]]",
		Short: "Ask the relay what its policy says, and why",
		Long: `Ask the relay whether somebody may do something, which grant decides within
which limits, and of a denial which grant came closest and what it lacked.
Nothing is sent to the resource.

WHO is me (the default where only a resource is named), user:ISSUER/SUBJECT as
whoami prints it, or group:ISSUER/GROUP for somebody in that group. Only
administrators may ask about others. Of a user with a live session the relay
takes groups, claims and second factor from there, unless flags describe them.

To be told no is an answer, not an error: the exit status is 0 either way.`,
		Example: `  iapctl policy explain phi3
  iapctl policy explain me phi3 chat phi3:mini
  iapctl policy explain group:corp/ml-eng phi3 chat phi3:mini --mfa`,
		Args:              rangeArgs(1, 4),
		ValidArgsFunction: a.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.question(args)
			if err != nil {
				return err
			}
			return a.policyExplain(cmd.Context(), q)
		},
	}
	flags := explain.Flags()
	flags.StringVar(&f.action, "action", "", "`action`, such as chat or list-models (default: any)")
	flags.StringVar(&f.model, "model", "", "`model` the request would name")
	flags.StringArrayVar(&f.groups, "group", nil, "`issuer/group` of WHO")
	flags.StringArrayVar(&f.claims, "claim", nil, "`name=value` of WHO's token")
	flags.BoolVar(&f.mfa, "mfa", false, "WHO logged in with a second factor")
	flags.StringVar(&f.acr, "acr", "", "`class` of WHO's login")
	flags.StringVar(&f.mfaAge, "auth-age", "", "`age` of WHO's login, such as 1h")
	flags.StringArrayVar(&f.media, "media", nil, "`kind` of input besides text: image, audio, video, file")
	flags.BoolVar(&f.egress, "egress", false, "the model sends prompts to another host")
	flags.StringVar(&f.via, "via", "", "tunnel (default), bearer or key")
	return group("policy COMMAND", "Ask what the policy says", `Ask the relay what its policy says.

To check, test or replay policy files use iap-relay, which holds the engine:
  iap-relay policy check
  iap-relay policy test
  iap-relay policy replay`, explain)
}

// question reads WHO RESOURCE ACTION MODEL; one argument alone is the resource.
func (f explainFlags) question(args []string) (admin.Question, error) {
	who := "me"
	if len(args) > 1 {
		who, args = args[0], args[1:]
	}
	q := admin.Question{Resource: args[0], Action: f.action, Model: f.model, Egress: f.egress, Media: f.media, Via: f.via}
	if len(args) > 1 {
		q.Action = args[1]
	}
	if len(args) > 2 {
		q.Model = args[2]
	}
	subject := admin.Subject{Groups: f.groups, MFA: f.mfa, ACR: f.acr, AuthAge: f.mfaAge}
	for _, claim := range f.claims {
		name, value, ok := strings.Cut(claim, "=")
		if !ok {
			return q, usage("--claim: %q is not name=value", claim)
		}
		if subject.Claims == nil {
			subject.Claims = map[string][]string{}
		}
		subject.Claims[name] = append(subject.Claims[name], value)
	}
	kind, name, _ := strings.Cut(who, ":")
	switch {
	case who == "me" && subject.Described():
		return q, usage("flags that describe WHO need one: user:ISSUER/SUBJECT or group:ISSUER/GROUP")
	case who == "me":
		return q, nil
	case kind == "user" && name != "":
		subject.Principal = name
	case kind == "group" && name != "":
		subject.Groups = append(subject.Groups, name)
	default:
		return q, usage("%q is neither me, user:ISSUER/SUBJECT nor group:ISSUER/GROUP", who)
	}
	q.Who = &subject
	return q, nil
}

func (a *app) policyExplain(ctx context.Context, q admin.Question) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var answer admin.Answer
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		if q.Who != nil {
			answer, err = client.AdminExplain(ctx, q)
		} else {
			answer, err = client.Explain(ctx, q)
		}
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
		step := clean(s.Grant) + ": " + clean(s.Result)
		if len(s.Lacks) > 0 {
			step += " (" + clean(strings.Join(s.Lacks, "; ")) + ")"
		}
		steps = append(steps, step)
	}
	a.pairs(
		a.out, a.ui.out, 0,
		[2]string{"Who", clean(answer.Principal)}, [2]string{"Resource", clean(q.Resource)}, [2]string{"Action", firstOf(clean(q.Action), "any")}, [2]string{"Model", meant(q.Model, answer.MeantModel)},
		[2]string{"Decision", verdict}, [2]string{"Reason", clean(answer.Reason)}, [2]string{"Because", clean(answer.Message)},
		[2]string{"Closest", clean(answer.Shortfall)},
		[2]string{"Grant", clean(answer.Grant)}, [2]string{"Limits", limitsText(answer)}, [2]string{"Until", until},
		[2]string{"Revision", clean(answer.Revision)}, [2]string{"Considered", strings.Join(steps, "\n")},
	)
}

// meant is the model as it was written, with the one that it means.
func meant(written, model string) string {
	if model == "" {
		return clean(written)
	}
	return clean(written) + ", which is " + clean(model)
}

func limitsText(answer admin.Answer) string {
	var lines []string
	for _, l := range answer.Limits {
		lines = append(lines, clean(l.Text))
	}
	return strings.Join(lines, "\n")
}
