package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/console"
)

const shownModels = 4 // -o json has them all

func (a *app) resourcesCommand() *cobra.Command {
	all := false
	c := &cobra.Command{
		Use:   "resources",
		Short: "List what you may reach",
		Long: `List the resources that the policy lets you reach, how they are and how busy,
and which models they offer you. A resource is degraded while some of its
agents are away or unfit and others serve it, down while none is fit.`,
		Example: `  iapctl resources
  iapctl resources -o json
  iapctl resources --all`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if all {
				return a.console().AllResources(cmd.Context(), a.out)
			}
			return a.resources(cmd.Context())
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every resource with each of its agents, for administrators")
	return c
}

func (a *app) resources(ctx context.Context) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	var list []admin.Resource
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		list, err = fetchResources(ctx, p, client)
		return err
	})
	if err != nil {
		return err
	}
	if list == nil {
		list = []admin.Resource{}
	}
	if done, err := a.json(resourcesDocument{Schema: schemaName, Resources: list}); done {
		return err
	}
	if len(list) == 0 {
		a.say("You may reach nothing yet. Give the lines of this to the relay's operator:\n\n  %s", a.inProfile("iapctl whoami"))
		return nil
	}
	var rows [][]string
	for _, r := range list {
		if r.StepUp != nil {
			rows = append(rows, []string{clean(r.Name), kindText(r), a.ui.out.dim.Render("locked"), clean(r.Message) + "\n" + a.inProfile(stepUpLogin(r.StepUp).command())})
			continue
		}
		rows = append(rows, []string{clean(r.Name), kindText(r), a.stateText(r), offers(r)})
	}
	a.table([]string{"NAME", "KIND", "STATE", "YOU MAY"}, rows)
	return nil
}

// stateText is how a resource is and how busy.
func (a *app) stateText(r admin.Resource) string {
	health := r.Health
	switch {
	case health != "":
	case r.Online: // a relay that does not say more
		health = "ok"
	default:
		health = "offline"
	}
	text := console.HealthText(a.ui.out.screen(), health)
	if r.Load != nil && (r.Load.Running > 0 || r.Load.Queued > 0) {
		text += "\n" + console.LoadText(*r.Load)
	}
	return text
}

func kindText(r admin.Resource) string {
	if r.Server != "" {
		return clean(r.Kind) + " (" + clean(r.Server) + ")"
	}
	return clean(r.Kind)
}

// offers says what a resource allows: the actions of each grant with its limits, then the models on a line of their own.
func offers(r admin.Resource) string {
	var lines []string
	for _, u := range r.Uses {
		line := strings.Join(cleanEach(u.Actions), ", ")
		for _, l := range u.Limits {
			line += "\n  at most " + clean(l.Text)
		}
		if u.Record {
			line += "\n  recorded: an auditor can read what you ask and what is answered"
		}
		lines = append(lines, line)
	}
	if len(lines) == 0 { // a relay that does not tell them apart
		lines = append(lines, strings.Join(cleanEach(r.Actions), ", "))
	}
	models := cleanEach(r.Models)
	more := ""
	if len(models) > shownModels {
		more = fmt.Sprintf(" and %d more", len(models)-shownModels)
		models = models[:shownModels]
	}
	if len(models) > 0 {
		lines = append(lines, "with "+strings.Join(models, ", ")+more)
	}
	var aliases []string
	for alias, model := range r.Aliases {
		aliases = append(aliases, clean(alias)+" = "+clean(model))
	}
	if slices.Sort(aliases); len(aliases) > 0 {
		lines = append(lines, strings.Join(aliases, ", "))
	}
	return strings.Join(lines, "\n")
}
