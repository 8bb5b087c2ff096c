package console

import (
	"cmp"
	"context"
	"errors"
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

// explainFlags describe somebody and what they ask.
type explainFlags struct {
	action, model, mfaAge, acr, via string
	groups, claims, media           []string
	mfa, egress                     bool
}

// Explain asks the relay what its policy says. self is whether the caller is a
// principal too, and may ask about itself.
func (c *Console) Explain(self bool) *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use: "explain WHO RESOURCE [ACTION [MODEL]]", Short: "Ask the relay what its policy says, and why", Args: c.args(0, 4),
		Long: `Ask the relay whether somebody may do something, which grant decides within
which limits, and of a denial which grant came closest and what it lacked.
Nothing is sent to the resource.

` + aboutWho(self) + `
Of a user with a live session the relay takes groups, claims and second factor
from there, unless flags describe them. An ACTION that is an administrator's
verb, such as iap:sessions.kill, needs no RESOURCE.

To be told no is an answer, not an error: the exit status is 0 either way.`,
		Example: c.examples("policy explain user:corp/8a7f3c phi3", "policy explain group:corp/ml-eng phi3 chat phi3:mini --mfa", "policy explain user:corp/8a7f3c --action iap:sessions.kill"),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := f.question(args, self)
			if err != nil {
				return c.host.Usage(err)
			}
			return c.explain(cmd, q)
		},
	}
	if self {
		cmd.Use = "explain [WHO] RESOURCE [ACTION [MODEL]]"
		cmd.Example = c.examples("policy explain phi3", "policy explain me phi3 chat phi3:mini", "policy explain group:corp/ml-eng phi3 chat phi3:mini --mfa")
	}
	f.flags(cmd)
	return cmd
}

func aboutWho(self bool) string {
	if self {
		return `WHO is me (the default where only a resource is named), user:ISSUER/SUBJECT as
whoami prints it, or group:ISSUER/GROUP for somebody in that group. Only
administrators may ask about others.`
	}
	return `WHO is user:ISSUER/SUBJECT as sessions ls prints it, or group:ISSUER/GROUP for
somebody in that group.`
}

func (f *explainFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
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
}

func (c *Console) explain(cmd *cobra.Command, q admin.Question) error {
	return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
		ask := client.Explain
		if q.Who != nil {
			ask = client.AdminExplain
		}
		answer, err := ask(ctx, q)
		if err != nil {
			return err
		}
		doc := explainDocument{Schema: Schema, Resource: q.Resource, Action: q.Action, Model: q.Model, Answer: answer}
		return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) { c.printAnswer(w, q, answer) })
	})
}

// question reads WHO RESOURCE ACTION MODEL; one argument alone is the resource,
// unless it can only be somebody. self allows the caller itself.
func (f explainFlags) question(args []string, self bool) (admin.Question, error) {
	who := "me"
	if len(args) > 1 || len(args) == 1 && strings.Contains(args[0], ":") {
		who, args = args[0], args[1:]
	}
	args = append(args, "", "", "")
	q := admin.Question{
		Resource: args[0], Action: cmp.Or(args[1], f.action), Model: cmp.Or(args[2], f.model), Egress: f.egress, Media: f.media, Via: f.via,
	}
	if q.Resource == "" && !policy.IsVerb(q.Action) {
		return q, errors.New("which RESOURCE? Only an administrator's verb needs none, such as --action " + policy.VerbSessionsKill)
	}
	subject, err := f.subject()
	if err != nil {
		return q, err
	}
	kind, name, _ := strings.Cut(who, ":")
	switch {
	case who == "me" && (!self || subject.Described()):
		return q, errors.New("say about whom: user:ISSUER/SUBJECT or group:ISSUER/GROUP")
	case who == "me":
		return q, nil
	case kind == "user" && name != "":
		subject.Principal = name
	case kind == "group" && name != "":
		subject.Groups = append(subject.Groups, name)
	default:
		return q, fmt.Errorf("%q is neither me, user:ISSUER/SUBJECT nor group:ISSUER/GROUP", plaintext.Clean(who))
	}
	q.Who = &subject
	return q, nil
}

// subject is what the flags say of WHO.
func (f explainFlags) subject() (admin.Subject, error) {
	subject := admin.Subject{Groups: f.groups, MFA: f.mfa, ACR: f.acr, AuthAge: f.mfaAge}
	for _, claim := range f.claims {
		name, value, ok := strings.Cut(claim, "=")
		if !ok {
			return subject, fmt.Errorf("--claim: %q is not name=value", plaintext.Clean(claim))
		}
		if subject.Claims == nil {
			subject.Claims = map[string][]string{}
		}
		subject.Claims[name] = append(subject.Claims[name], value)
	}
	return subject, nil
}

func (c *Console) printAnswer(w io.Writer, q admin.Question, answer admin.Answer) {
	s := c.host.Styles()
	verdict := s.Bad.Render("denied")
	if answer.Allow {
		verdict = s.Good.Render("allowed")
	}
	until := ""
	if answer.Until != nil {
		until = screen.Clock(*answer.Until, time.Now())
	}
	var steps []string
	for _, s := range answer.Considered {
		step := plaintext.Clean(s.Grant) + ": " + plaintext.Clean(s.Result)
		if len(s.Lacks) > 0 {
			step += " (" + plaintext.Clean(strings.Join(s.Lacks, "; ")) + ")"
		}
		steps = append(steps, step)
	}
	screen.Pairs(
		w, s, 0,
		[2]string{"Who", plaintext.Clean(answer.Principal)}, [2]string{"Resource", plaintext.Clean(q.Resource)}, [2]string{"Action", cmp.Or(plaintext.Clean(q.Action), "any")}, [2]string{"Model", meant(q.Model, answer.MeantModel)},
		[2]string{"Decision", verdict}, [2]string{"Reason", plaintext.Clean(answer.Reason)}, [2]string{"Because", plaintext.Clean(answer.Message)},
		[2]string{"Closest", plaintext.Clean(answer.Shortfall)},
		[2]string{"Grant", plaintext.Clean(answer.Grant)}, [2]string{"Limits", limitsText(answer)}, [2]string{"Recorded", recordedText(answer)}, [2]string{"Until", until},
		[2]string{"Revision", plaintext.Clean(answer.Revision)}, [2]string{"Considered", strings.Join(steps, "\n")},
	)
}

// meant is the model as it was written, with the one that it means.
func meant(written, model string) string {
	if model == "" {
		return plaintext.Clean(written)
	}
	return plaintext.Clean(written) + ", which is " + plaintext.Clean(model)
}

func recordedText(answer admin.Answer) string {
	if !answer.Record {
		return ""
	}
	return "the request and its answer, for an auditor"
}

func limitsText(answer admin.Answer) string {
	var lines []string
	for _, l := range answer.Limits {
		lines = append(lines, plaintext.Clean(l.Text))
	}
	return strings.Join(lines, "\n")
}
