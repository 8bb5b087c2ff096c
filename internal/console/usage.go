package console

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
)

// usageFlags are what both forms of the command take.
type usageFlags struct {
	admin.UsageQuestion
	mine bool
}

const usageOwnLong = `Show what you have used: requests, tokens in and out, the time to the first
token of half and of 95 % of the answers, what was denied, what failed or was
cut (ERR) and what you left before it ended (LEFT).

With --by it is about everybody, and with --who about somebody else: that is for
administrators whom the policy gives the verb iap:usage.read, and it is recorded
who asked. --mine keeps it about you.

`

const usageAllLong = `Show what everybody has used, or --who: requests, tokens in and out, the time to
the first token of half and of 95 % of the answers, what was denied, what failed
or was cut (ERR) and what its caller left before it ended (LEFT).

`

const usageLong = `The figures are sums that the relay keeps: by the minute for two hours, by the
hour for 14 days, by the day (UTC) for 400 unless relay.yaml says otherwise. A
request counts when it has ended, and in each group of its caller. Budgets are
counted apart, and to the token: %s.`

// Usage shows what was used; own says that the program is a person's, who may ask
// about that person alone.
func (c *Console) Usage(own bool) *cobra.Command {
	var f usageFlags
	long, examples := usageAllLong, []string{"usage --by principal --since 7d", "usage --by model --resource phi3 --per day --since 30d"}
	if own {
		long, examples = usageOwnLong, append([]string{"usage", "usage --mine --by resource --since 30d"}, examples...)
	}
	cmd := &cobra.Command{
		Use: "usage", Short: "Show how much was used, of what and by whom", Args: c.args(0, 0),
		Long: long + strings.Replace(usageLong, "%s", c.host.Program+" budgets", 1), Example: c.examples(append(examples, "usage --per hour --since 24h -o json")...),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.usageRun(cmd, f, own && (f.mine || f.By == "" && f.Who == ""))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.By, "by", "", "a row for each `what`: principal, group, model, resource, grant or action (default model)")
	flags.StringVar(&f.Per, "per", "", "how it went, a row for each `span`: minute, hour or day")
	flags.StringVar(&f.Since, "since", "", "from `when` on: 7d, 12h, or a day as 2026-11-23 (default 7d)")
	flags.StringVar(&f.Until, "until", "", "up to `when`, written likewise (default now)")
	flags.StringVar(&f.Who, "who", "", "of the principal `ISSUER/SUBJECT` alone")
	flags.StringVar(&f.Resource, "resource", "", "of the resource of this `name` alone")
	flags.StringVar(&f.Model, "model", "", "of the model of this `name` alone")
	flags.IntVar(&f.Top, "top", 0, "at most `n` rows, those that used most (default 20)")
	if own {
		flags.BoolVar(&f.mine, "mine", false, "only what you have used yourself")
	}
	c.usageCompletion(cmd)
	return cmd
}

func usageBy() []string {
	return []string{"principal", "group", "model", "resource", "grant", "action"}
}

func usagePer() []string { return []string{"minute", "hour", "day"} }

func (c *Console) usageCompletion(cmd *cobra.Command) {
	complete(cmd, "by", usageBy()...)
	complete(cmd, "per", usagePer()...)
	complete(cmd, "since", timesAgo()...)
	complete(cmd, "until", timesAgo()...)
}

func (c *Console) usageRun(cmd *cobra.Command, f usageFlags, own bool) error {
	switch {
	case f.mine && f.Who != "":
		return c.usage("--mine is about you, --who about somebody else: leave one out")
	case f.Top < 0:
		return c.usage("--top: how many rows? at least 1")
	case f.By != "" && !slices.Contains(usageBy(), f.By):
		return c.usage("--by knows principal, group, model, resource, grant and action, not %q", f.By)
	case f.Per != "" && !slices.Contains(usagePer(), f.Per):
		return c.usage("--per knows minute, hour and day, not %q", f.Per)
	}
	return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
		ask := client.AdminUsage
		if own {
			ask = client.Usage
		}
		report, err := ask(ctx, f.UsageQuestion)
		if err != nil {
			return c.usageRefused(err, f)
		}
		return c.show(cmd.OutOrStdout(), usageDocument{Schema, report}, func(w io.Writer) {
			printUsage(w, c.host.Styles(), report, c.host.Blocks())
		})
	})
}

// usageRefused tells who may not see what others use how to see the own.
func (c *Console) usageRefused(err error, f usageFlags) error {
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Code != "verb_not_granted" || f.Who != "" {
		return err
	}
	own := *refused
	own.Hint = c.typed("usage --mine --by " + f.By)
	return &own
}
