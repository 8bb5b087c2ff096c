package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/relay"
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
			results := relay.Check(ctx, file)
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

func printChecks(w io.Writer, results []relay.CheckResult) {
	for _, r := range results {
		if r.Problem == "" {
			fmt.Fprintf(w, "ok      %-12s %s\n", r.Name, r.Detail)
		} else {
			fmt.Fprintf(w, "FAILED  %-12s %s\n", r.Name, r.Problem)
		}
		for _, warning := range r.Warnings {
			fmt.Fprintf(w, "warning %-12s %s\n", r.Name, warning)
		}
	}
}
