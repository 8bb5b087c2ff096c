package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
)

const shownModels = 4 // -o json has them all

func (a *app) resourcesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "resources",
		Short: "List what you may reach",
		Long: `List the resources that the policy lets you reach, whether an agent serves
them right now, and which models they offer you.`,
		Example: `  iapctl resources
  iapctl resources -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.resources(cmd.Context()) },
	}
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
		state := a.ui.out.bad.Render("offline")
		if r.Online {
			state = a.ui.out.good.Render("online")
		}
		rows = append(rows, []string{clean(r.Name), kindText(r), state, offers(r)})
	}
	a.table([]string{"NAME", "KIND", "STATE", "YOU MAY"}, rows)
	return nil
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
