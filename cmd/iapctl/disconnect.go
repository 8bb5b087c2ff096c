package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/connect"
)

const stopTimeout = 10 * time.Second // a connect notices within half a second; the rest is for a loaded machine

func (a *app) disconnectCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "disconnect [RESOURCE...]",
		Short: "End connects of this profile, also those in the background",
		Long: `End the connects of this profile that serve the named resources. Without a name
it ends the only one there is.`,
		Example: `  iapctl disconnect phi3
  iapctl disconnect --all`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: a.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.disconnect(cmd.Context(), args, all)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end every connect of this profile")
	return cmd
}

func (a *app) disconnect(ctx context.Context, names []string, all bool) error {
	p, err := a.profile()
	if err != nil {
		return err
	}
	if all && len(names) > 0 {
		return usage("--all and a name do not go together")
	}
	registry := a.registry(p)
	runs, err := registry.List()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		if len(runs) > 1 && !all {
			return &failure{code: "usage", what: "several are connected: " + runNames(runs), next: "iapctl disconnect RESOURCE, or --all"}
		}
		for _, run := range runs {
			names = append(names, run.Resource)
		}
	}
	ended, err := a.stop(ctx, registry, names)
	if err != nil {
		return err
	}
	if len(ended) == 0 {
		if len(names) == 0 {
			a.say("Nothing is connected.")
		}
		if done, err := a.json(doneDocument{Schema: schemaName, Action: "disconnect", Names: []string{}}); done {
			return err
		}
		return nil
	}
	return a.done("disconnect", "Disconnected: "+strings.Join(cleanEach(ended), ", ")+".", ended...)
}

// stop ends the connects of the named resources and returns those there were.
func (a *app) stop(ctx context.Context, registry connect.Registry, names []string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var ended []string
	for _, name := range names {
		found, err := registry.Stop(ctx, name)
		if err != nil {
			return nil, &failure{code: "disconnect_failed", what: fmt.Sprintf("the process that serves %s does not end", clean(name)), next: "iapctl status", cause: err}
		}
		if found {
			ended = append(ended, name)
		} else {
			a.say("%s is not connected.", clean(name))
		}
	}
	return ended, nil
}

func runNames(runs []connect.Running) string {
	var names []string
	for _, r := range runs {
		names = append(names, clean(r.Resource))
	}
	return strings.Join(names, ", ")
}
