package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"

	"iap/internal/profile"
)

const maxPort = 65535

type connectOptions struct {
	listening          // of each resource that is named on the command line
	targets   []target // what to serve
	listed    bool     // the targets come from config.yaml
	command   []string // after --

	detach     bool
	background bool // this is the detached process itself
	wait       bool // for a login and for the relay
	noNotify   bool
}

const connectLong = `Listen on this machine and carry every connection to a resource behind the
relay. Models listen on port 11434 if it is free; a resource keeps its port.
Without a name it serves what the list connect: in config.yaml says, which
"iapctl service install" does in the background from your login on.

It goes on while the relay or an agent restarts: requests wait up to 10 seconds
and then get an error in the protocol they speak. The session renews itself;
when only a login can, iapctl says so here and on the desktop, requests get a
401 meanwhile, and everything goes on after "iapctl login" in any terminal.

Only this machine is served, and on Linux only your own processes (elsewhere
--local-key keeps other users out). Requests that a web page could have caused
are refused; editors and the like are known. With
"-- command" the command runs with OPENAI_BASE_URL and the like set, a fresh
local key guards the port, and its exit status is returned (125 if iapctl
itself fails).`

const connectExample = `  iapctl connect phi3
  iapctl connect phi3 embed --detach
  iapctl connect phi3 -- python ask.py
  iapctl connect postgres --port 15432
  iapctl connect phi3 --for-containers
  iapctl connect phi3 --allow-origin http://localhost:3000`

func (a *app) connectCommand() *cobra.Command {
	var o connectOptions
	cmd := &cobra.Command{
		Use:               "connect [FLAGS] [RESOURCE...] [-- COMMAND ARG...]",
		Short:             "Make resources answer on this machine",
		Long:              connectLong,
		Example:           connectExample,
		ValidArgsFunction: a.completeResources,
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				names, o.command = args[:dash], args[dash:]
			}
			err := a.connectTo(cmd.Context(), names, o)
			if len(o.command) > 0 {
				return ownFailure(err)
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(true)
	flags.IntVar(&o.port, "port", 0, "local `port`; taken is an error")
	flags.BoolVarP(&o.detach, "detach", "d", false, "go on in the background; see disconnect")
	flags.BoolVar(&o.background, "background", false, "")
	_ = flags.MarkHidden("background")
	flags.StringSliceVar(&o.allowOrigins, "allow-origin", nil, "web `origin` that may send requests")
	flags.StringSliceVar(&o.allowHosts, "allow-host", nil, "`name` that requests may carry as Host")
	flags.BoolVar(&o.allowOtherUsers, "allow-other-users", false, "serve other users of this machine too")
	flags.BoolVar(&o.localKey, "local-key", false, "demand a key, which is printed, from every request")
	flags.BoolVar(&o.forContainers, "for-containers", false, "listen for containers too; demands the local key")
	flags.StringVar(&o.listen, "listen", "", "listen on this `address` too; demands the local key")
	flags.BoolVar(&o.wait, "wait", false, "wait for a login, and for the relay, instead of failing")
	flags.BoolVar(&o.noNotify, "no-notify", false, "no notice on the desktop when a login is needed")
	return cmd
}

// ownFailure marks a failure of iapctl itself apart from the command's own statuses.
func ownFailure(err error) error {
	var status commandStatus
	if err == nil || errors.As(err, &status) {
		return err
	}
	f := *failureOf(err)
	f.exitCode = exitOwnFailure
	return &f
}

func (o connectOptions) check() error {
	switch {
	case o.port < 0 || o.port > maxPort:
		return usage("--port is a number from 1 to %d", maxPort)
	case o.port != 0 && len(o.targets) > 1:
		return usage("--port is for one resource; connect them one by one, or leave it out")
	case o.detach && len(o.command) > 0:
		return usage("--detach and a command do not go together")
	case o.wait && (o.detach || len(o.command) > 0):
		return usage("--wait does not go together with --detach or a command")
	}
	seen := map[string]bool{}
	for _, t := range o.targets {
		if seen[t.name] {
			return usage("%q is named twice", clean(t.name))
		}
		seen[t.name] = true
	}
	if o.listen != "" {
		if _, err := netip.ParseAddr(o.listen); err != nil {
			return usage("--listen wants an IP address, not %q", clean(o.listen))
		}
	}
	return nil
}

// connectTo serves the named resources, or those that the configuration lists.
func (a *app) connectTo(ctx context.Context, names []string, o connectOptions) error {
	for _, name := range names {
		o.targets = append(o.targets, target{name, o.listening})
	}
	if len(names) > 0 {
		return a.connectWaiting(ctx, o)
	}
	if len(o.command) > 0 || !o.isZero() {
		return &failure{code: "usage", what: "connect to what? Flags for listeners and commands want a resource", next: "iapctl resources"}
	}
	o.listed = true
	if err := a.readTargets(&o); err != nil {
		return err
	}
	return a.connectWaiting(ctx, o)
}

// connect serves what is not served yet, here or in the background.
func (a *app) connect(ctx context.Context, o connectOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	already := a.alreadyServed(p, &o)
	if len(o.targets) == 0 {
		return a.reportConnected(a.connectDoc(p, already...))
	}
	if o.detach {
		return a.withStepUp(ctx, func() error { return a.connectDetached(ctx, p, o, already) })
	}
	if o.background {
		return a.serve(ctx, p, o, already)
	}
	return a.withStepUp(ctx, func() error { return a.serve(ctx, p, o, already) })
}

// alreadyServed takes the resources that another process serves out of the options. A command gets a port of its own instead.
func (a *app) alreadyServed(p *profile.Profile, o *connectOptions) []connectionDocument {
	if len(o.command) > 0 {
		return nil
	}
	var already []connectionDocument
	var rest []target
	for _, t := range o.targets {
		run, ok := a.registry(p).Lookup(t.name)
		if !ok {
			rest = append(rest, t)
			continue
		}
		doc := connectionOf(run)
		doc.Already, doc.Online = true, true
		already = append(already, doc)
	}
	o.targets = rest
	return already
}

func (a *app) connectDoc(p *profile.Profile, list ...connectionDocument) connectDocument {
	doc := connectDocument{Schema: schemaName, Profile: p.Name, Relay: p.Settings.Relay, Connections: list}
	if state, err := p.State(); err == nil && state.Login != nil {
		doc.Principal = state.Login.Principal
	}
	return doc
}

func newLocalKey() string { return "iap-local-" + rand.Text() }

func runningDir(p *profile.Profile) string { return filepath.Join(p.Dir(), "running") }

func portHint(t target) string {
	return fmt.Sprintf("iapctl connect %s (without --port)", clean(t.name))
}
