package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/plaintext"
	"iap/internal/relay/settings"
	"iap/internal/servercmd"
	"iap/policy"
	"iap/policy/rego"
)

func policyCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use: "policy", Short: "Check, test, replay and explain the policy without a running relay",
		Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.PersistentFlags().StringVarP(&file, "config", "c", defaultConfig, "configuration file of the relay")
	c.AddCommand(policyCheck(&file), policyTest(&file), policyReplay(&file), policyExplain(&file))
	return c
}

func policyConfig(file string) (rego.Config, error) {
	cfg, err := settings.Load(file)
	if err != nil {
		return rego.Config{}, err
	}
	return cfg.Rego(nil, nil), nil
}

func policyCheck(file *string) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Say whether grants and modules can be loaded", Args: servercmd.NoArgs,
		Long: `Load grants and modules as the relay would, and warn of grants that never
decide, because earlier ones allow all they allow, and of limits that are never
reached. A warning is no failure.`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := settings.Load(*file)
			if err != nil {
				return err
			}
			e, err := rego.New(c.Context(), cfg.Rego(nil, nil))
			if err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "ok: %d grants, revision %s\n", len(e.Grants().List), e.Revision())
			for _, w := range e.Grants().Warnings(cfg.WorkloadIssuers()) {
				fmt.Fprintf(c.OutOrStdout(), "warning: %s:%d: grant %s %s\n", cfg.Policy.Grants, w.Line, w.Grant, w.Message)
			}
			return nil
		},
	}
}

func policyExplain(file *string) *cobra.Command {
	var output, inputFile string
	c := &cobra.Command{
		Use: "explain --input FILE", Short: "Decide one question and show how each grant fared", Args: servercmd.NoArgs,
		Long: `Read a policy input as JSON (- for standard input) and decide it:

  {"principal": {"issuer": "corp", "subject": "8a7f3c", "groups": ["ml-eng"]},
   "resource": {"name": "phi3", "kind": "model"},
   "action": "chat", "model": "phi3:latest"}`,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := policyConfig(*file)
			if err != nil {
				return err
			}
			in, err := readInput(c.InOrStdin(), inputFile)
			if err != nil {
				return err
			}
			e, err := rego.New(c.Context(), cfg)
			if err != nil {
				return err
			}
			x := e.Explain(c.Context(), in)
			return printOr(c.OutOrStdout(), output, x, func(w io.Writer) { printExplanation(w, x) })
		},
	}
	c.Flags().StringVar(&inputFile, "input", "-", "file with the policy input")
	outputFlag(c, &output)
	return c
}

func readInput(stdin io.Reader, file string) (policy.Input, error) {
	var in policy.Input
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return in, err
		}
		defer f.Close()
		stdin = f
	}
	d := json.NewDecoder(io.LimitReader(stdin, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, fmt.Errorf("policy input: %w", err)
	}
	if in.Now.IsZero() {
		in.Now = time.Now()
	}
	return in, nil
}

func printExplanation(w io.Writer, x policy.Explanation) {
	verdict := "denied"
	if x.Decision.Allow {
		verdict = "allowed by " + x.Decision.Grant
	}
	fmt.Fprintf(w, "%s (%s) %s\n\n", verdict, x.Decision.Reason, plaintext.Clean(x.Decision.Message))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "LINE\tGRANT\tRESULT")
	for _, g := range x.Grants {
		fmt.Fprintf(t, "%d\t%s\t%s\n", g.Line, g.Name, g.Verdict())
	}
	t.Flush()
	for _, l := range x.Decision.Limits {
		fmt.Fprintf(w, "\nlimits: %s\n", plaintext.Clean(l.String()))
	}
	if near := x.Closest(); near != nil && !x.Decision.Allow {
		fmt.Fprintf(w, "\n%s\n", plaintext.Clean(near.Shortfall()))
	}
}
