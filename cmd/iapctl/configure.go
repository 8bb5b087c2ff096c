package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/configure"
	"iap/internal/connect"
	"iap/internal/profile"
)

const (
	maxSettings  = 1 << 20 // of a tool's settings file
	backupSuffix = ".before-iap"
)

type configureOptions struct {
	model string
	yes   bool
	print bool
}

func (a *app) configureCommand() *cobra.Command {
	var o configureOptions
	var names []string
	for _, t := range configure.Tools() {
		names = append(names, t.Name)
	}
	cmd := &cobra.Command{
		Use:   "configure TOOL RESOURCE",
		Short: "Point a tool's settings at a resource",
		Long: `Write a tool's settings so that it uses a resource on this machine: claude,
codex, continue or opencode. What will change is shown first and you are asked.
All else in the file stays as it is, and the file as it was is kept beside it.

The resource must have a port, which it has once it was connected; it keeps it.`,
		Example: `  iapctl configure claude phi3
  iapctl configure codex phi3 --model qwen3:4b
  iapctl configure opencode phi3 --print`,
		Args: rangeArgs(2, 2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return names, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeResources(cmd, args[1:], word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			i := slices.Index(names, args[0])
			if i < 0 {
				return usage("configure knows %s, not %q", strings.Join(names, ", "), clean(args[0]))
			}
			return a.configure(cmd.Context(), configure.Tools()[i], args[1], o)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&o.model, "model", "m", "", "`model` to use (default: the first the resource offers)")
	flags.BoolVarP(&o.yes, "yes", "y", false, "write without asking")
	flags.BoolVar(&o.print, "print", false, "only show what would change")
	return cmd
}

func (a *app) configure(ctx context.Context, tool configure.Tool, resource string, o configureOptions) error {
	target, err := a.configureTarget(ctx, resource, o.model)
	if err != nil {
		return err
	}
	home, err := os.UserHomeDir()
	if own := a.env("HOME"); own != "" {
		home, err = own, nil
	}
	if err != nil {
		return &failure{code: "no_home", what: "no home directory is known", next: "HOME=… iapctl …", cause: err}
	}
	file := tool.File(a.env, home)
	before, mode, err := readSettings(file)
	if err != nil {
		return err
	}
	after, err := tool.Edit(before, target)
	if err != nil {
		return &failure{code: "settings_unreadable", what: clean(fmt.Sprintf("%s: %v", file, err)), next: "correct the file, or enter it by hand: iapctl env " + clean(resource), cause: err}
	}
	changed := after != before
	if changed && a.output == "text" {
		a.showDiff(file, before, after)
	}
	doc := configureDocument{Schema: schemaName, Tool: tool.Name, Resource: resource, File: file, Changed: changed}
	if changed && !o.print {
		if !o.yes && !a.asksPeople() {
			return &failure{code: "usage", what: "nobody is here to be asked", next: fmt.Sprintf("iapctl configure %s %s --yes", tool.Name, clean(resource))}
		}
		if !o.yes && !a.confirm(ctx, "Write this?", false) {
			return errCanceled
		}
		if doc.Backup, err = writeSettings(file, before, after, settingsMode(mode, target.Secret)); err != nil {
			return err
		}
		doc.Written = true
	}
	return a.reportConfigured(doc, tool, target)
}

func (a *app) reportConfigured(doc configureDocument, tool configure.Tool, target configure.Target) error {
	if done, err := a.json(doc); done {
		return err
	}
	switch {
	case !doc.Changed:
		a.say("%s is set up already: %s.", capital(doc.Tool), clean(doc.File))
	case doc.Written:
		a.say("%s Written to %s\n  Next: %s.", a.ui.err.good.Render("✓"), clean(doc.File), tool.Then)
		if doc.Backup != "" {
			a.say("  As it was: %s", clean(doc.Backup))
		}
	}
	if target.Secret {
		a.say("  The key in it is good until the connection ends; without --local-key it needs none.")
	}
	return nil
}

// configureTarget is the resource as it is, or will be, on this machine.
func (a *app) configureTarget(ctx context.Context, resource, model string) (configure.Target, error) {
	p, err := a.relayProfile()
	if err != nil {
		return configure.Target{}, err
	}
	run, connected := a.registry(p).Lookup(resource)
	if !connected {
		state, err := p.State()
		if err != nil {
			return configure.Target{}, err
		}
		run = connect.Running{Resource: resource, Kind: "model", Port: state.Ports[resource]}
	}
	if run.Port == 0 {
		return configure.Target{}, &failure{code: "not_connected", what: fmt.Sprintf("%s is not connected and has no port yet", clean(resource)), next: "iapctl connect " + clean(resource) + " --detach"}
	}
	models := []string{model}
	if model == "" {
		if models, err = a.modelsOf(ctx, p, resource); err != nil {
			return configure.Target{}, err
		}
	}
	c := connectionOf(run)
	return configure.Target{
		Resource: resource, Base: c.URL, Key: firstOf(c.LocalKey, placeholderKey), Secret: c.LocalKey != "", Model: models[0], Models: models,
	}, nil
}

// modelsOf are the models that the relay lets the caller use.
func (a *app) modelsOf(ctx context.Context, p *profile.Profile, resource string) (models []string, err error) {
	err = a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) error {
		list, err := fetchResources(ctx, p, client)
		if err != nil {
			return err
		}
		r, err := a.findResource(list, resource)
		if err == nil && r.Kind != "model" {
			err = usage("%s is a resource of kind %s; configure wants a model", clean(resource), clean(r.Kind))
		}
		models = slices.DeleteFunc(slices.Clone(r.Models), func(model string) bool { return !configure.Plain(model) })
		return err
	})
	if err == nil && len(models) == 0 {
		err = &failure{code: "model_not_granted", what: "no model is known here that you may use", next: "name one: --model MODEL"}
	}
	return models, err
}

func (a *app) showDiff(file, before, after string) {
	fmt.Fprintf(a.out, "%s\n", a.ui.out.bold.Render(clean(file)))
	for _, l := range configure.Diff(before, after) {
		style := a.ui.out.plain
		switch l.Sign {
		case '+':
			style = a.ui.out.good
		case '-':
			style = a.ui.out.bad
		case '…':
			style = a.ui.out.dim
		}
		fmt.Fprintln(a.out, style.Render(string(l.Sign)+" "+clean(l.Text)))
	}
}

// readSettings reads a file that may not be there yet.
func readSettings(file string) (text string, mode fs.FileMode, err error) {
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0o600, nil
	}
	var data []byte
	if err == nil && info.Size() > maxSettings {
		err = fmt.Errorf("%d bytes", info.Size())
	}
	if err == nil {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return "", 0, &failure{code: "settings_unreadable", what: clean(file) + " cannot be read", next: "check its permissions", cause: err}
	}
	return string(data), info.Mode().Perm(), nil
}

// settingsMode keeps a file as readable as it was, unless it holds a key now.
func settingsMode(mode fs.FileMode, secret bool) fs.FileMode {
	if secret {
		return mode &^ 0o077
	}
	return mode
}

// writeSettings replaces a file as a whole and keeps what was there. A link stays a link. What somebody wrote while the question was
// on the screen is not lost.
func writeSettings(file, before, after string, mode fs.FileMode) (backup string, err error) {
	defer func() {
		if err != nil {
			err = &failure{code: "settings_unwritable", what: clean(file) + " cannot be written", next: "check its permissions", cause: err}
		}
	}()
	if now, _, err := readSettings(file); err != nil || now != before {
		return "", errors.Join(errors.New("it has changed meanwhile"), err)
	}
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", err
	}
	if before != "" {
		backup = file + backupSuffix
		if err := replaceFile(backup, before, mode); err != nil {
			return "", err
		}
	}
	return backup, replaceFile(file, after, mode)
}

func replaceFile(file, text string, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(file), ".iap-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // it is gone once it has its name
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
