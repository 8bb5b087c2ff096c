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
)

// Resources is the command that lists every resource with its agents.
func (c *Console) Resources() *cobra.Command {
	return &cobra.Command{
		Use: "resources", Short: "List every resource, with the health and load of its agents", Args: c.args(0, 0),
		Long: `List every resource and who serves it: which agents are there, which of them
are fit and why not, how many generations run and wait, and what the agents of
one resource contradict each other about.`,
		Example: c.examples("resources", "resources -o json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.AllResources(cmd.Context(), cmd.OutOrStdout())
		},
	}
}

// AllResources prints every resource.
func (c *Console) AllResources(ctx context.Context, w io.Writer) error {
	return c.host.Call(ctx, func(ctx context.Context, client *admin.Client) error {
		all, err := client.AdminResources(ctx)
		if err != nil {
			return err
		}
		return c.show(w, resourcesDocument{Schema, all}, func(w io.Writer) {
			c.printResources(w, all.Resources, time.Now())
			printSilent(w, all.Silent, "Agents that are connected there alone seem offline.")
		})
	})
}

func (c *Console) printResources(w io.Writer, all []admin.ResourceState, now time.Time) {
	if len(all) == 0 {
		fmt.Fprintf(w, "There is no resource yet. Make a token for an agent:\n  %s\n", c.typed("agents token --name gpu-1 --resource phi3=model"))
		return
	}
	var rows [][]string
	for _, r := range all {
		kind := plaintext.Clean(r.Kind)
		if r.Server != "" {
			kind += " (" + plaintext.Clean(r.Server) + ")"
		}
		rows = append(rows, []string{plaintext.Clean(r.Name), HealthText(c.host.Styles(), r.Health), LoadText(r.Load), kind})
		for _, one := range r.ServedBy {
			rows = append(rows, []string{"  " + plaintext.Clean(one.Name), c.servingState(one, now), LoadText(one.Load), strings.Join(cleaned(one.Models), " ")})
		}
	}
	c.table(w, []string{"RESOURCE, AGENT", "STATE", "LOAD", "KIND, MODELS"}, rows)
	for _, r := range all {
		for _, problem := range r.Problems {
			fmt.Fprintf(w, "\n%s: %s\n", plaintext.Clean(r.Name), plaintext.Clean(problem))
		}
	}
}

func (c *Console) servingState(one admin.ServingAgent, now time.Time) string {
	s := c.host.Styles()
	switch {
	case !one.Online && one.LastSeen != nil:
		return s.Bad.Render("offline") + "\nseen " + screen.Ago(*one.LastSeen, now) + " ago"
	case !one.Online:
		return s.Bad.Render("offline")
	case one.Healthy:
		return s.Good.Render("ok")
	}
	text := "down"
	if one.Reason != "" {
		text = plaintext.Clean(one.Reason)
	}
	if one.Since != nil {
		return s.Bad.Render(text) + "\nsince " + screen.Clock(*one.Since, now)
	}
	return s.Bad.Render(text)
}

// HealthText is the health of a resource.
func HealthText(s screen.Styles, health string) string {
	switch health {
	case "ok":
		return s.Good.Render("online")
	case "degraded":
		return s.Good.Render("degraded")
	}
	return s.Bad.Render(plaintext.Clean(health))
}

// LoadText says what runs and what waits: 3 of 8, 2 wait.
func LoadText(l admin.Load) string {
	text := fmt.Sprint(l.Running)
	if l.Capacity > 0 {
		text += fmt.Sprintf(" of %d", l.Capacity)
	}
	if l.Queued > 0 {
		text += fmt.Sprintf(", %d wait", l.Queued)
	}
	return text
}

func cleaned(words []string) []string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = plaintext.Clean(word)
	}
	return out
}
