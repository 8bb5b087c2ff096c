package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/profile"
	"iap/internal/service"
)

const serviceLong = `Serve the resources that config.yaml lists in the background, from your login
on, without root. On Linux your user's systemd runs it, on macOS launchd.

The list stands in ~/.config/iap/config.yaml (IAP_CONFIG_DIR overrides), with
the flags of "iapctl connect" under their own names:

  connect:
    - resource: phi3
      port: 11434
      allow_origin: [http://localhost:3000]
    - resource: embed
      profile: work

Each profile has a service of its own. It waits for a login and for the relay
instead of failing; a desktop shows when a login is needed.`

func (a *app) serviceCommand() *cobra.Command {
	var printOnly, force, noNotify bool
	install := &cobra.Command{
		Use: "install", Short: "Write the service's file, start it now and at each login", Args: noArgs,
		Long: `Write the service's file, start it now and at each login. Variables that matter
to iapctl, such as IAP_CONFIG_DIR or HTTPS_PROXY, are taken over as they are
now; one that holds a password is not. A file that somebody changed is kept.`,
		Example: `  iapctl service install
  iapctl service install --print
  iapctl --profile work service install`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if printOnly {
				return a.printService(noNotify)
			}
			return a.installService(cmd.Context(), force, noNotify)
		},
	}
	install.Flags().BoolVar(&printOnly, "print", false, "print the file and change nothing")
	install.Flags().BoolVar(&force, "force", false, "replace the file even if somebody changed it")
	install.Flags().BoolVar(&noNotify, "no-notify", false, "no notice on the desktop when a login is needed")
	uninstall := &cobra.Command{
		Use: "uninstall", Example: "  iapctl service uninstall", Short: "Stop the service and remove its file", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.uninstallService(cmd.Context(), force) },
	}
	uninstall.Flags().BoolVar(&force, "force", false, "remove the file even if somebody changed it")
	return group(
		"service", "Serve what config.yaml lists in the background", serviceLong,
		install, uninstall,
		&cobra.Command{
			Use: "status", Example: "  iapctl service status", Short: "Show whether the service is installed and runs", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return a.serviceStatus(cmd.Context()) },
		},
		&cobra.Command{
			Use: "start", Example: "  iapctl service start", Short: "Start the service now", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.switchService(cmd.Context(), "start", (*service.Service).Start)
			},
		},
		&cobra.Command{
			Use: "stop", Example: "  iapctl service stop", Short: "Stop the service until the next login", Args: noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.switchService(cmd.Context(), "stop", (*service.Service).Stop)
			},
		},
	)
}

// serviceOf is the service of the chosen profile.
func (a *app) serviceOf(noNotify bool, env []string) (*service.Service, service.Spec, error) {
	p, err := a.profile()
	if err != nil {
		return nil, service.Spec{}, err
	}
	program, err := stableProgram()
	if err != nil {
		return nil, service.Spec{}, err
	}
	spec := service.Spec{
		Name: "iapctl", About: "iapctl connect (profile " + p.Name + ")",
		Program: program, Args: []string{"--profile", p.Name, "connect", "--wait"}, Env: env,
	}
	if p.Name != profile.Default {
		spec.Name += "-" + p.Name
	}
	if noNotify {
		spec.Args = append(spec.Args, "--no-notify")
	}
	s, err := service.New(spec, a.env)
	if errors.Is(err, service.ErrUnsupported) {
		return nil, spec, &failure{
			code: "service_unsupported", what: "iapctl knows no service manager for users on this system", cause: err,
			next: "iapctl connect --wait, run at your login (on Windows by the Task Scheduler: trigger At log on)",
		}
	}
	if err != nil {
		return nil, spec, &failure{code: "service_unwritable", what: clean(err.Error()), next: "correct the variable or the path", cause: err}
	}
	return s, spec, nil
}

// stableProgram is the path of this program that outlasts an update: the one that PATH leads to, if it is the same.
func stableProgram() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	named, err := exec.LookPath("iapctl")
	if err != nil {
		return own, nil
	}
	a, errA := os.Stat(own)
	b, errB := os.Stat(named)
	if errA == nil && errB == nil && os.SameFile(a, b) {
		return named, nil
	}
	return own, nil
}

// serviceEnv are the variables of this terminal that a service would miss. A password in a proxy's address is not written to a file:
// withheld names its variable.
func (a *app) serviceEnv() (env, withheld []string) {
	for _, name := range []string{
		"IAP_CONFIG_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "IAP_RELAY", "IAP_KEYRING", "IAP_TOKEN_FILE", "IAP_TOKEN_COMMAND", "IAP_NO_NOTIFY",
		"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy",
	} {
		value := a.env(name)
		if value == "" {
			continue
		}
		if strings.EqualFold(name, "HTTPS_PROXY") {
			if u, err := url.Parse(value); err != nil || u.User != nil {
				withheld = append(withheld, name)
				continue
			}
		}
		env = append(env, name+"="+value)
	}
	return env, withheld
}

// newService is the service that an install writes now.
func (a *app) newService(noNotify bool) (*service.Service, service.Spec, error) {
	env, withheld := a.serviceEnv()
	for _, name := range withheld {
		a.remark(name + " holds a password and is not written to the service's file. Set it where your system keeps such variables.")
	}
	return a.serviceOf(noNotify, env)
}

// knownService is the service as it may stand there already.
func (a *app) knownService() (*service.Service, service.Spec, error) {
	env, _ := a.serviceEnv()
	s, spec, err := a.serviceOf(false, env)
	if err != nil {
		return nil, spec, err
	}
	quiet, quietSpec, err := a.serviceOf(true, env)
	if err == nil && quiet.IsCurrent() {
		return quiet, quietSpec, nil
	}
	return s, spec, err
}

func (a *app) printService(noNotify bool) error {
	s, spec, err := a.newService(noNotify)
	if err != nil {
		return err
	}
	file, err := s.File()
	if err != nil {
		return err
	}
	if done, err := a.json(serviceDocument{Schema: schemaName, Name: spec.Name, File: file, Text: s.Text()}); done {
		return err
	}
	fmt.Fprint(a.out, s.Text())
	return nil
}

func (a *app) installService(ctx context.Context, force, noNotify bool) error {
	var o connectOptions
	if err := a.readTargets(&o); err != nil {
		return err
	}
	s, spec, err := a.newService(noNotify)
	if err != nil {
		return err
	}
	if err := s.Install(ctx, force); err != nil {
		return serviceFailure("the service's file is written, but the system's manager did not start it", err)
	}
	doc, err := a.serviceState(ctx, s, spec)
	if err != nil {
		return err
	}
	if done, err := a.json(doc); done {
		return err
	}
	a.say("%s %s serves %s from your login on.", a.ui.err.good.Render("✓"), doc.Name, strings.Join(cleanEach(doc.Resources), ", "))
	a.say("  Its file is %s.", clean(doc.File))
	if a.loginNow() == "" && !a.external() {
		a.say("  It waits for a login: %s", a.inProfile("iapctl login"))
	}
	if strings.HasSuffix(doc.File, ".service") && !doc.Lingers {
		a.say("  To let it run while you are logged out too: loginctl enable-linger")
	}
	a.say("\nNext: %s", a.ui.err.bold.Render(a.inProfile("iapctl service status")))
	return nil
}

func (a *app) uninstallService(ctx context.Context, force bool) error {
	s, spec, err := a.knownService()
	if err != nil {
		return err
	}
	existed, err := s.Uninstall(ctx, force)
	if err != nil {
		return serviceFailure("the service's file is removed, but the system's manager did not stop it", err)
	}
	if !existed {
		a.say("%s is not installed.", spec.Name)
		return a.jsonDone("service uninstall")
	}
	return a.done("service uninstall", spec.Name+" is stopped and its file removed.", spec.Name)
}

// jsonDone says in JSON that there was nothing to do.
func (a *app) jsonDone(action string) error {
	_, err := a.json(doneDocument{Schema: schemaName, Action: action, Names: []string{}})
	return err
}

func (a *app) switchService(ctx context.Context, verb string, do func(*service.Service, context.Context) error) error {
	s, spec, err := a.knownService()
	if err != nil {
		return err
	}
	state, err := s.State(ctx)
	if err != nil {
		return err
	}
	if !state.Exists {
		return &failure{code: "service_missing", what: spec.Name + " is not installed", next: "iapctl service install"}
	}
	if err := do(s, ctx); err != nil {
		return serviceFailure("the system's manager did not do it", err)
	}
	return a.done("service "+verb, spec.Name+": "+verb+" done.", spec.Name)
}

func (a *app) serviceStatus(ctx context.Context) error {
	s, spec, err := a.knownService()
	if err != nil {
		return err
	}
	doc, err := a.serviceState(ctx, s, spec)
	if err != nil {
		return err
	}
	if done, err := a.json(doc); done {
		return err
	}
	a.printServiceState(doc)
	return nil
}

// serviceState gathers what the system and the configuration say.
func (a *app) serviceState(ctx context.Context, s *service.Service, spec service.Spec) (serviceDocument, error) {
	state, err := s.State(ctx)
	if err != nil {
		return serviceDocument{}, err
	}
	doc := serviceDocument{
		Schema: schemaName, Name: spec.Name, File: state.File, Installed: state.Exists, Edited: state.Edited,
		Outdated: state.Exists && !state.Edited && !state.Current, Enabled: state.Enabled, Running: state.Running,
		PID: state.PID, State: state.Detail, Lingers: state.Lingers, Resources: []string{},
	}
	if !state.Reached {
		doc.State = "unknown: the service manager does not answer"
	}
	var o connectOptions
	if err := a.readTargets(&o); err == nil {
		for _, t := range o.targets {
			doc.Resources = append(doc.Resources, t.name)
		}
	}
	return doc, nil
}

func (a *app) printServiceState(doc serviceDocument) {
	st := a.ui.out
	yes := func(b bool) string {
		if b {
			return st.good.Render("yes")
		}
		return "no"
	}
	file, running := clean(doc.File), yes(doc.Running)
	switch {
	case !doc.Installed:
		file += " (not installed)"
	case doc.Edited:
		file += " (changed by somebody)"
	case doc.Outdated:
		file += " (not as an install would write it now)"
	}
	if doc.State != "" && !doc.Running {
		running += " (" + clean(doc.State) + ")"
	}
	if doc.Running && doc.PID != 0 {
		running += fmt.Sprintf(", pid %d", doc.PID)
	}
	a.pairs(
		a.out, st, 0,
		[2]string{"Service", doc.Name}, [2]string{"File", file}, [2]string{"Running", running},
		[2]string{"At login", yes(doc.Enabled)},
		[2]string{"Lists", firstOf(strings.Join(cleanEach(doc.Resources), ", "), "nothing: see iapctl service --help")},
	)
	if !doc.Installed {
		a.say("\nNext: %s", a.inProfile("iapctl service install"))
		return
	}
	a.say("\nWhat it serves, and whether it waits for a login: %s", a.inProfile("iapctl status"))
}

// serviceFailure finds the words for what went wrong; what says how far it went if the manager is to blame.
func serviceFailure(what string, err error) error {
	var edited *service.EditedError
	var manager *service.ManagerError
	switch {
	case errors.As(err, &edited):
		return &failure{
			code: "service_edited", what: clean(edited.Error()) + " and is left as it is", cause: err,
			next: "look at it, then repeat the command with --force",
		}
	case errors.As(err, &manager):
		return &failure{
			code: "service_manager", what: what + ": " + clean(firstOf(manager.Output, manager.Err.Error())), cause: err,
			next: clean(manager.Command) + "\n       or, without a manager: iapctl connect --detach",
		}
	}
	return err
}
