package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"iap/internal/profile"
	"iap/internal/screen"
)

// app is one run of iapctl: its streams, its environment and its global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	dirs     profile.Dirs
	ui       ui

	profileName string // --profile
	output      string // -o: text or json
	noColor     bool
	verbose     bool
	caFile      string // --ca-file
}

// run is iapctl with everything it touches passed in; it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{in: stdin, out: stdout, err: stderr, environ: environ, output: outputFlag(args)}
	a.ui = a.newUI()
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var status commandStatus
	if errors.As(err, &status) {
		return int(status)
	}
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = errCanceled
	}
	f := *failureOf(err)
	if f.next == anyHelp {
		f.next = cmd.CommandPath() + " --help"
	}
	f.next = a.inProfile(f.next)
	a.printFailure(&f)
	return f.exit()
}

// outputFlag finds -o before the flags are parsed, so that an error in the flags is printed in the form asked for.
func outputFlag(args []string) string {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "-ojson" || arg == "-o=json" || arg == "--output=json" || (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == "json" {
			return "json"
		}
	}
	return "text"
}

const rootLong = `iapctl reaches models and other services behind an identity-aware relay.

Log in once, connect a resource, and it answers on a port of this machine:

  iapctl login iap.example.com
  iapctl connect phi3
  curl http://127.0.0.1:11434/v1/models`

const rootAfter = `
Environment:
  IAP_PROFILE        profile to use, as --profile
  IAP_RELAY          relay to use without a saved profile, for CI
  IAP_TOKEN_FILE     file with a token to present, read at each use
  IAP_TOKEN_COMMAND  command that prints a token, run at each use
  IAP_KEYRING        off: keep credentials in a 0600 file
  IAP_CONFIG_DIR     where profiles and credentials are kept
  IAP_NO_NOTIFY      set: nothing is shown on the desktop
  NO_COLOR           no colour

Exit status: 0 ok, 1 error, 2 usage, 3 cancelled, 4 login needed, 5 denied by
policy, 6 resource offline, 7 relay unreachable, 8 limit reached.
`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "iapctl COMMAND",
		Short:         "Reach models behind an identity-aware relay",
		Long:          rootLong,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          a.runRoot,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return a.prepare(cmd)
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetHelpCommand(helpCommand(root))
	root.SetUsageTemplate(screen.UsageTemplate)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagFailure(cmd, err) })
	flags := root.PersistentFlags()
	flags.StringVar(&a.profileName, "profile", "", "profile `name` to use (default: the current one)")
	flags.StringVarP(&a.output, "output", "o", "text", "`format`: text or json")
	flags.BoolVar(&a.noColor, "no-color", false, "no colour, no spinner")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "say more: causes of errors, what happens on the wire")
	flags.StringVar(&a.caFile, "ca-file", "", "PEM `file` with the authority of the relay's certificate")
	root.AddCommand(
		a.loginCommand(), a.logoutCommand(), a.whoamiCommand(), a.authCommand(), a.profileCommand(),
		a.resourcesCommand(), a.connectCommand(), a.disconnectCommand(), a.envCommand(), a.configureCommand(), a.chatCommand(),
		a.statusCommand(), a.serviceCommand(), a.doctorCommand(), a.diagCommand(), a.budgetsCommand(), a.console().Usage(true), a.keysCommand(), a.policyCommand(),
		a.console().Sessions(), a.console().Principals(), a.console().Agents(), a.console().Audit(), a.console().Relay(), a.completionCommand(root), a.versionCommand(),
	)
	root.SetHelpFunc(helpFunc(root.HelpFunc()))
	plainUseLines(root)
	return root
}

// helpFunc adds the environment and the exit statuses to the root's help only.
func helpFunc(usual func(*cobra.Command, []string)) func(*cobra.Command, []string) {
	return func(cmd *cobra.Command, args []string) {
		usual(cmd, args)
		if !cmd.HasParent() {
			fmt.Fprint(cmd.OutOrStdout(), rootAfter)
		}
	}
}

func (a *app) runRoot(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

// prepare checks the global flags and finds the directories.
func (a *app) prepare(*cobra.Command) error {
	if a.output != "text" && a.output != "json" {
		return usage("-o knows text and json, not %q", a.output)
	}
	a.ui = a.newUI()
	dirs, err := profile.FindDirs(a.env)
	if err != nil {
		return &failure{code: "no_home", what: "no place for settings is known", next: "IAP_CONFIG_DIR=… iapctl …", cause: err}
	}
	a.dirs = dirs
	return nil
}

// env looks a variable up; the last of several counts, as in a process's own environment.
func (a *app) env(name string) string {
	value := ""
	for _, kv := range a.environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// logger is silent without -v.
func (a *app) logger() *slog.Logger {
	if !a.verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(cleanWriter{a.err}, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// profile opens the profile that counts: --profile, IAP_PROFILE, the one IAP_RELAY implies, the current one.
func (a *app) profile() (*profile.Profile, error) {
	relay := a.env("IAP_RELAY")
	name := firstOf(a.profileName, a.env("IAP_PROFILE"))
	if name == "" && relay != "" {
		name = profileNameOf(relay)
	}
	if name == "" {
		current, err := a.dirs.Current()
		if err != nil {
			return nil, err
		}
		name = current
	}
	p, err := a.dirs.Open(name)
	if err != nil {
		return nil, err
	}
	if relay != "" && p.Settings.Relay != relay {
		if p.Settings.Relay != "" {
			return nil, &failure{
				code: "profile_conflict", exitCode: exitUsage,
				what: fmt.Sprintf("IAP_RELAY is %s, but profile %s belongs to %s", clean(relay), name, clean(p.Settings.Relay)),
				next: "unset IAP_PROFILE, or name another --profile",
			}
		}
		p.Settings.Relay = relay
	}
	if a.caFile != "" {
		if p.Settings.CAFile, err = filepath.Abs(a.caFile); err != nil { // it is remembered, and used from other directories
			return nil, caFailure("cannot be found", a.caFile, err)
		}
	}
	return p, nil
}

// relayProfile is profile for commands that need a relay to talk to.
func (a *app) relayProfile() (*profile.Profile, error) {
	p, err := a.profile()
	if err != nil {
		return nil, err
	}
	if p.Settings.Relay == "" {
		return nil, &failure{code: "login_required", what: fmt.Sprintf("profile %s has no relay yet", p.Name), next: "iapctl login RELAY"}
	}
	return p, nil
}

// profileNameOf makes a profile's name of a relay's: what is not allowed becomes a dash.
func profileNameOf(relay string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}, strings.ToLower(relay))
	name = strings.Trim(name, "-.")
	return "env-" + name[:min(len(name), 60)]
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// inProfile makes a command to type mean the profile that was chosen by flag, and not the current one.
func (a *app) inProfile(command string) string {
	rest, ok := strings.CutPrefix(command, "iapctl ")
	if !ok || a.profileName == "" || strings.HasPrefix(rest, "--profile") || strings.HasPrefix(rest, "profile ") {
		return command
	}
	return "iapctl --profile " + clean(a.profileName) + " " + rest
}
