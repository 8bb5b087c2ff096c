package main

import (
	"github.com/spf13/cobra"
)

func (a *app) completionCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a script that completes commands and resources",
		Long: `Print a completion script for a shell. Names of resources come from the last
list that was seen; the relay is not asked.`,
		Example: `  source <(iapctl completion bash)
  iapctl completion zsh > "${fpath[1]}/_iapctl"
  iapctl completion fish > ~/.config/fish/completions/iapctl.fish
  iapctl completion powershell | Out-String | Invoke-Expression`,
		Args:      rangeArgs(1, 1),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.out, true)
			case "zsh":
				return root.GenZshCompletion(a.out)
			case "fish":
				return root.GenFishCompletion(a.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.out)
			}
			return usage("completion knows bash, zsh, fish and powershell, not %q", clean(args[0]))
		},
	}
}

// completeResources offers the names of the last list, without those already on the line.
func (a *app) completeResources(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if a.prepare(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	p, err := a.profile()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	state, err := p.State()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	used := map[string]bool{}
	for _, arg := range args {
		used[arg] = true
	}
	var names []string
	for _, r := range state.Resources {
		if !used[r.Name] && clean(r.Name) == r.Name {
			names = append(names, r.Name+"\t"+clean(r.Kind))
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) completeProfiles(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || a.prepare(cmd) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	names, err := a.dirs.List()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
