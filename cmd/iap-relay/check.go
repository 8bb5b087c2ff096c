package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/relay/settings"
	"iap/internal/screen"
	"iap/internal/servercmd"
)

const checkTimeout = 10 * time.Second

func checkCommand() *cobra.Command {
	var file, output string
	c := &cobra.Command{
		Use: "check", Short: "Check configuration, certificate, policy and providers", Args: servercmd.NoArgs,
		Long: `Read everything that "run" reads, change nothing, and say what is wrong and
where. Exit status 1 if the relay could not start or nobody could log in.`,
		Example: "  iap-relay check --config /etc/iap/relay.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(c.Context(), checkTimeout)
			defer cancel()
			results := settings.Check(ctx, file)
			if err := printOr(c.OutOrStdout(), output, results, func(w io.Writer) { printChecks(w, results) }); err != nil {
				return err
			}
			for _, r := range results {
				if r.Problem != "" {
					return errors.New("not ready; see above")
				}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&file, "config", "c", defaultConfig, "configuration file")
	outputFlag(c, &output)
	return c
}

func printChecks(w io.Writer, results []settings.Result) {
	for _, r := range results {
		if r.Problem == "" {
			printCheckLine(w, "ok", r.Name, r.Detail)
		} else {
			printCheckLine(w, "FAILED", r.Name, r.Problem)
		}
		for _, warning := range r.Warnings {
			printCheckLine(w, "warning", r.Name, warning)
		}
	}
}

// printCheckLine keeps a long text in its column.
func printCheckLine(w io.Writer, verdict, name, text string) {
	begin := fmt.Sprintf("%-7s %-12s ", verdict, name)
	lines := screen.Wrap(text, screen.Width-len(begin))
	fmt.Fprintln(w, begin+strings.Join(lines, "\n"+strings.Repeat(" ", len(begin))))
}
