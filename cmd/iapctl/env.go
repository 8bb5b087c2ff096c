package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/connect"
)

// placeholderKey is what clients that refuse an empty key are given; the relay drops it.
const placeholderKey = "iap-no-key-needed"

func (a *app) envCommand() *cobra.Command {
	var shell string
	cmd := &cobra.Command{
		Use:   "env RESOURCE",
		Short: "Print the variables that point programs at a resource",
		Long: `Print the environment variables that point programs at a connected resource,
in the syntax of your shell: OPENAI_BASE_URL, OPENAI_API_KEY (a placeholder,
since clients refuse an empty one, or the local key), ANTHROPIC_BASE_URL,
OLLAMA_HOST. Nothing is asked of the relay.`,
		Example: `  eval "$(iapctl env phi3)"
  iapctl env phi3 --shell fish | source
  iapctl env phi3 --shell powershell | Invoke-Expression
  iapctl env phi3 -o json`,
		Args:              rangeArgs(1, 1),
		ValidArgsFunction: a.completeResources,
		RunE:              func(_ *cobra.Command, args []string) error { return a.printEnv(args[0], shell) },
	}
	cmd.Flags().StringVar(&shell, "shell", "", "`syntax`: sh, fish or powershell (default: as $SHELL says)")
	return cmd
}

func (a *app) printEnv(resource, shell string) error {
	p, err := a.profile()
	if err != nil {
		return err
	}
	run, connected := a.registry(p).Lookup(resource)
	if !connected {
		state, err := p.State()
		if err != nil {
			return err
		}
		run = connect.Running{Resource: resource, Kind: "model", Port: state.Ports[resource]}
		for _, r := range state.Resources {
			if r.Name == resource {
				run.Kind = r.Kind
			}
		}
		if run.Port == 0 {
			return &failure{code: "not_connected", what: fmt.Sprintf("%s is not connected and has no port yet", clean(resource)), next: "iapctl connect " + clean(resource) + " --detach"}
		}
	}
	variables := variablesOf(connectionOf(run))
	if done, err := a.json(envDocument{Schema: schemaName, Resource: resource, Connected: connected, Variables: variables}); done {
		return err
	}
	lines, err := shellLines(firstOf(shell, a.shell()), variables)
	if err != nil {
		return err
	}
	fmt.Fprint(a.out, lines)
	if !connected {
		a.say("%s is not connected right now. Next: %s", clean(resource), a.inProfile("iapctl connect "+clean(resource)+" --detach"))
	}
	return nil
}

// variablesOf are the variables for one resource.
func variablesOf(c connectionDocument) map[string]string {
	switch c.Kind {
	case "tcp":
		return map[string]string{"IAP_HOST": "127.0.0.1", "IAP_PORT": fmt.Sprint(c.Port), "IAP_ADDR": localAddr(c.Port)}
	case "http":
		v := map[string]string{"IAP_URL": c.URL}
		if c.LocalKey != "" {
			v["IAP_LOCAL_KEY"] = c.LocalKey
		}
		return v
	}
	key := firstOf(c.LocalKey, placeholderKey)
	v := map[string]string{
		"OPENAI_BASE_URL": c.OpenAI, "OPENAI_API_KEY": key,
		"ANTHROPIC_BASE_URL": c.URL, "ANTHROPIC_API_KEY": key,
		"OLLAMA_HOST": c.URL,
	}
	if c.LocalKey != "" {
		v["OLLAMA_API_KEY"] = key
	}
	return v
}

// shell guesses the syntax from the environment.
func (a *app) shell() string {
	switch name := filepath.Base(a.env("SHELL")); {
	case name == "fish":
		return "fish"
	case runtime.GOOS == "windows" && a.env("SHELL") == "":
		return "powershell"
	}
	return "sh"
}

// shellLines writes assignments. Values are quoted so that no shell reads anything in them.
func shellLines(shell string, variables map[string]string) (string, error) {
	var format, quote string
	switch shell {
	case "sh", "bash", "zsh", "dash", "ksh":
		format, quote = "export %s='%s'\n", `'\''`
	case "fish":
		format, quote = "set -gx %s '%s'\n", `\'`
	case "powershell", "pwsh":
		format, quote = "$env:%s = '%s'\n", `''`
	default:
		return "", usage("--shell knows sh, fish and powershell, not %q", clean(shell))
	}
	names := make([]string, 0, len(variables))
	for name := range variables {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, name := range names {
		value := variables[name]
		if shell == "fish" {
			value = strings.ReplaceAll(value, `\`, `\\`) // fish reads a backslash before a quote even between quotes
		}
		fmt.Fprintf(&b, format, name, strings.ReplaceAll(value, "'", quote))
	}
	return b.String(), nil
}
