package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/plaintext"
	"iap/internal/relay/settings"
	"iap/internal/replay"
	"iap/internal/servercmd"
	"iap/policy"
	"iap/policy/rego"
)

const (
	defaultSince = "7d"
	// replayDeadline of one evaluation is longer than a relay's: a machine that is
	// busy with something else must not make differences.
	replayDeadline = 2 * time.Second
)

func policyReplay(file *string) *cobra.Command {
	var output, since, dir string
	var all bool
	c := &cobra.Command{
		Use: "replay NEW.yaml", Short: "Tell which recorded decisions another grants file would change", Args: cobra.ExactArgs(1),
		Long: `Put the decisions of the audit log to another grants file, with the modules of
the configuration, and list those that would come out differently: who would be
denied, who would be allowed, and with --all also who would come by another
grant or be denied for another reason.

What is decided on is what was known then: groups, claims, second factor, time
of the login and of the request, labels. Decisions whose record lacks something
are counted and left out, and so are refusals that were not the policy's.

Exit status 0 if every decision stays as it was, 1 if one would not.`,
		Example: "  iap-relay policy replay grants-new.yaml --since 7d\n  iap-relay policy replay grants-new.yaml --since 2026-11-20T00:00:00Z -o json",
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := settings.Load(*file)
			if err != nil {
				return err
			}
			opts := replay.Options{Dir: cfg.Audit.Dir}
			if dir != "" {
				opts.Dir = dir
			}
			if opts.Since, err = sinceTime(since, time.Now()); err != nil {
				return servercmd.Usage(err)
			}
			engine := cfg.Rego(nil, nil)
			engine.GrantsFile, engine.Deadline = args[0], replayDeadline
			e, err := rego.New(c.Context(), engine)
			if err != nil {
				return err
			}
			opts.Decide = e.Decide
			report, err := replay.Run(c.Context(), opts)
			if err != nil {
				return err
			}
			if err := printOr(c.OutOrStdout(), output, report, func(w io.Writer) { printReplay(w, report, all) }); err != nil {
				return err
			}
			if report.Verdicts > 0 {
				return fmt.Errorf("%d of %d recorded decisions would come out differently", report.Verdicts, report.Decided)
			}
			return nil
		},
	}
	c.Flags().StringVar(&since, "since", defaultSince, "how far back, such as 12h or 7d, or a time as in RFC 3339")
	c.Flags().StringVar(&dir, "audit", "", "folder of the audit log (default from the configuration)")
	c.Flags().BoolVar(&all, "all", false, "also list other grants and other reasons")
	outputFlag(c, &output)
	return c
}

func sinceTime(text string, now time.Time) (time.Time, error) {
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := policy.ParseDuration(text)
	if err != nil {
		return time.Time{}, fmt.Errorf("--since: %w, nor a time such as 2026-11-23T12:00:00Z", err)
	}
	return now.Add(-ago), nil
}

func printReplay(w io.Writer, report replay.Report, all bool) {
	fmt.Fprintf(w, "%d decisions since %s, %d as they were, %d allowed or denied instead\n",
		report.Decided, report.Since.Local().Format(time.DateTime), report.Same, report.Verdicts)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := false
	for _, c := range report.Changes {
		if !all && c.Kind != replay.NowDenied && c.Kind != replay.NowAllowed {
			continue
		}
		if !head {
			fmt.Fprintln(t, "\nCHANGE\tTIMES\tPRINCIPAL\tRESOURCE\tACTION\tMODEL\tVIA\tWAS\tWOULD BE")
			head = true
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", changeWords(c.Kind), c.Count, plaintext.Clean(c.Principal), plaintext.Clean(c.Resource),
			c.Action, plaintext.Clean(c.Model), plaintext.Clean(c.Via), plaintext.Clean(c.Old), plaintext.Clean(c.New))
	}
	t.Flush()
	for _, why := range []struct{ code, words string }{
		{replay.NoFacts, "whose record does not say all that was known"},
		{replay.NotPolicy, "refused by something else than the policy (limits, a key's own list, how the request was written)"},
		{replay.Counted, "refusals that were counted instead of written"},
		{replay.Unreadable, "lines that cannot be read"},
	} {
		if n := report.NotReplayed[why.code]; n > 0 {
			fmt.Fprintf(w, "not replayed: %d %s\n", n, why.words)
		}
	}
	if report.Omitted > 0 {
		fmt.Fprintf(w, "and %d more that differ in too many ways to list\n", report.Omitted)
	}
}

func changeWords(kind string) string {
	switch kind {
	case replay.NowDenied:
		return "denied now"
	case replay.NowAllowed:
		return "allowed now"
	case replay.OtherGrant:
		return "other grant"
	}
	return "other reason"
}
