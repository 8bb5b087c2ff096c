package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"iap/internal/connect"
	"iap/internal/profile"
)

func (a *app) profileCommand() *cobra.Command {
	ls := &cobra.Command{
		Use: "ls", Short: "List the profiles", Args: noArgs,
		Example: "  iapctl profile ls",
		RunE:    func(*cobra.Command, []string) error { return a.profileList() },
	}
	use := &cobra.Command{
		Use: "use NAME", Short: "Make a profile the current one", Args: rangeArgs(1, 1),
		Example:           "  iapctl profile use work",
		ValidArgsFunction: a.completeProfiles,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := a.dirs.Use(args[0]); err != nil {
				return err
			}
			return a.done("use", "Now using profile "+args[0]+".", args[0])
		},
	}
	rm := &cobra.Command{
		Use: "rm NAME", Short: "Delete a profile and its credentials from this machine", Args: rangeArgs(1, 1),
		Long: `Delete a profile: its relay, what is remembered of it, and its credentials.
The provider is not asked to revoke anything; "iapctl logout" does that.`,
		Example:           "  iapctl --profile work logout\n  iapctl profile rm work",
		ValidArgsFunction: a.completeProfiles,
		RunE:              func(cmd *cobra.Command, args []string) error { return a.profileRemove(cmd.Context(), args[0]) },
	}
	return group("profile COMMAND", "Keep several relays and logins apart", `A profile holds one relay with its login, remembered ports and keys.

A new one is made by: iapctl --profile NAME login RELAY`, ls, use, rm)
}

func (a *app) profileList() error {
	names, err := a.dirs.List()
	if err != nil {
		return err
	}
	current, err := a.dirs.Current()
	if err != nil {
		return err
	}
	doc := profilesDocument{Schema: schemaName, Profiles: []profileDocument{}}
	for _, name := range names {
		p, err := a.dirs.Open(name)
		if err != nil {
			return err
		}
		state, err := p.State()
		if err != nil {
			return err
		}
		entry := profileDocument{Name: name, Current: name == current, Relay: p.Settings.Relay, Issuer: p.Settings.Issuer, CAFile: p.Settings.CAFile}
		if state.Login != nil {
			entry.LoggedIn, entry.Principal = true, state.Login.Principal
		}
		doc.Profiles = append(doc.Profiles, entry)
	}
	if done, err := a.json(doc); done {
		return err
	}
	if len(names) == 0 {
		a.say("There is no profile yet. Make one: iapctl login RELAY")
		return nil
	}
	a.table([]string{"", "NAME", "RELAY", "PRINCIPAL"}, profileRows(doc.Profiles))
	return nil
}

func profileRows(list []profileDocument) [][]string {
	var rows [][]string
	for _, p := range list {
		mark, who := " ", "not logged in"
		if p.Current {
			mark = "*"
		}
		if p.LoggedIn {
			who = firstOf(clean(p.Principal), "logged in")
		}
		rows = append(rows, []string{mark, p.Name, clean(p.Relay), who})
	}
	return rows
}

func (a *app) profileRemove(ctx context.Context, name string) error {
	p, err := a.dirs.Open(name)
	if err != nil {
		return err
	}
	if !p.Saved() {
		return fmt.Errorf("%w: %q", profile.ErrUnknown, name)
	}
	runs, err := a.registry(p).List()
	if err != nil {
		return err
	}
	if len(runs) > 0 {
		return &failure{code: "profile_in_use", what: fmt.Sprintf("profile %s is connected to %s", name, clean(runs[0].Resource)), next: "iapctl --profile " + name + " disconnect --all"}
	}
	if err := a.store(p).Delete(ctx, name); err != nil {
		return err
	}
	if err := a.dirs.Remove(name); err != nil {
		return err
	}
	return a.done("rm", "Profile "+name+" and its credentials are deleted.", name)
}

// done reports a small change.
func (a *app) done(action, text string, names ...string) error {
	if done, err := a.json(doneDocument{Schema: schemaName, Action: action, Names: names}); done {
		return err
	}
	a.say("%s %s", a.ui.err.good.Render("✓"), text)
	return nil
}

func (a *app) registry(p *profile.Profile) connect.Registry {
	return connect.Registry{Dir: runningDir(p)}
}
