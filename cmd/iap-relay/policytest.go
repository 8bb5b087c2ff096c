package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/plaintext"
	"iap/internal/servercmd"
	"iap/policy/rego"
)

// policyTests is what `policy test -o json` prints.
type policyTests struct {
	Tests []rego.TestResult `json:"tests"`
	Cases []rego.CaseResult `json:"cases"`
}

func policyTest(file *string) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "test [FILE_test.rego|TABLE.yaml…]", Short: "Run the policy's own tests",
		Long: `Compare the policy's decisions with expected ones, and run its unit tests.

Tables of expected decisions are YAML:

  people:
    ann: {user: corp/8a7f3c, groups: [ml-eng], mfa: true, auth_age: 1h}
  cases:
    - {name: engineers chat, who: ann, resource: phi3, action: chat,
       model: "phi3:latest", want: allow}

Unit tests are the test_ rules of _test.rego files. Besides the files named, a
policy_test.yaml beside the grants file and the _test.rego files among the
modules of the configuration are taken. Exit status 1 if anything fails.`,
		Example: "  iap-relay policy test\n  iap-relay policy test expected.yaml policy_test.rego",
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := policyConfig(*file)
			if err != nil {
				return err
			}
			results, err := runPolicyTests(c.Context(), cfg, args)
			if err != nil {
				return err
			}
			if err := printOr(c.OutOrStdout(), output, results, results.print); err != nil {
				return err
			}
			return results.failure()
		},
	}
	outputFlag(c, &output)
	return c
}

func runPolicyTests(ctx context.Context, cfg rego.Config, args []string) (policyTests, error) {
	all := policyTests{Tests: []rego.TestResult{}, Cases: []rego.CaseResult{}}
	var tables []string
	for _, arg := range args {
		switch {
		case strings.HasSuffix(arg, ".yaml"), strings.HasSuffix(arg, ".yml"):
			tables = append(tables, arg)
		case strings.HasSuffix(arg, ".rego"):
			cfg.Modules = append(cfg.Modules, arg)
		default:
			return all, servercmd.Usage(fmt.Errorf("%s is neither a .rego file nor a .yaml table", arg))
		}
	}
	if beside := cfg.CaseTable(); beside != "" && len(args) == 0 {
		tables = append(tables, beside)
	}
	tests, err := rego.Test(ctx, cfg)
	if err != nil {
		return all, err
	}
	cases, err := rego.TestCases(ctx, cfg, tables...)
	if err != nil {
		return all, err
	}
	all.Tests, all.Cases = append(all.Tests, tests...), append(all.Cases, cases...)
	return all, nil
}

func (t policyTests) print(w io.Writer) {
	for _, r := range t.Tests {
		verdict := "FAILED"
		switch {
		case r.Skipped:
			verdict = "skip"
		case r.Passed:
			verdict = "ok"
		}
		fmt.Fprintf(w, "%-7s %s (%s) %s\n", verdict, r.Name, r.Location, r.Error)
	}
	for _, r := range t.Cases {
		if r.Passed {
			fmt.Fprintf(w, "%-7s %s (%s)\n", "ok", plaintext.Clean(r.Name), r.Location)
			continue
		}
		fmt.Fprintf(w, "%-7s %s (%s)\n        want %s\n        got  %s\n", "FAILED", plaintext.Clean(r.Name), r.Location, r.Want, r.Got)
		if r.Decision.Message != "" {
			fmt.Fprintf(w, "        %s\n", plaintext.Clean(r.Decision.Message))
		}
	}
}

func (t policyTests) failure() error {
	if len(t.Tests)+len(t.Cases) == 0 {
		return errors.New("no tests found: name _test.rego files or tables, or put policy_test.yaml beside the grants file")
	}
	failed := 0
	for _, r := range t.Tests {
		if !r.Passed && !r.Skipped {
			failed++
		}
	}
	for _, r := range t.Cases {
		if !r.Passed {
			failed++
		}
	}
	if failed > 0 {
		return fmt.Errorf("the policy's tests fail: %d of %d", failed, len(t.Tests)+len(t.Cases))
	}
	return nil
}
