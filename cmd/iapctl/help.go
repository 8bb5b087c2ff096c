package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func noArgs(cmd *cobra.Command, args []string) error { return maxArgs(0)(cmd, args) }

func maxArgs(n int) cobra.PositionalArgs { return rangeArgs(0, n) }

// rangeArgs checks the number of arguments and names the next step in our own words.
func rangeArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		next := cmd.CommandPath() + " --help"
		if len(args) < least {
			return &failure{code: "usage", what: fmt.Sprintf("%s wants an argument: %s", cmd.CommandPath(), cmd.Use), next: next}
		}
		if most >= 0 && len(args) > most {
			return &failure{code: "usage", what: fmt.Sprintf("%s does not take %q", cmd.CommandPath(), clean(args[most])), next: next}
		}
		return nil
	}
}

// group is a command that only holds others.
func group(use, short, long string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

// helpCommand is the word help in front of a command, for hands that type it.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Show the help of a command", Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(root, args[0])
			}
			cmd.InitDefaultHelpFlag()
			return cmd.Help()
		},
	}
}

// plainUseLines takes cobra's "[flags]" from the end of the usage lines: flags stand below them.
func plainUseLines(cmd *cobra.Command) {
	cmd.DisableFlagsInUseLine = true
	for _, c := range cmd.Commands() {
		plainUseLines(c)
	}
}
