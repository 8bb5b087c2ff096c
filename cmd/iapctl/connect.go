package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/profile"
	"iap/tunnel"
)

const maxPort = 65535

type connectOptions struct {
	resources       []string
	command         []string // after --
	port            int
	detach          bool
	background      bool // this is the detached process itself
	allowOrigins    []string
	allowHosts      []string
	allowOtherUsers bool
	localKey        bool
	forContainers   bool
	listen          string
	noNotify        bool
}

const connectLong = `Listen on this machine and carry every connection to a resource behind the
relay. Models listen on port 11434 if it is free; a resource keeps its port.

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
		Use:               "connect [FLAGS] RESOURCE... [-- COMMAND ARG...]",
		Short:             "Make resources answer on this machine",
		Long:              connectLong,
		Example:           connectExample,
		ValidArgsFunction: a.completeResources,
		Args:              cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.resources = args
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				o.resources, o.command = args[:dash], args[dash:]
			}
			err := a.connect(cmd.Context(), o)
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
	case len(o.resources) == 0:
		return &failure{code: "usage", what: "connect to what?", next: "iapctl resources"}
	case o.port < 0 || o.port > maxPort:
		return usage("--port is a number from 1 to %d", maxPort)
	case o.port != 0 && len(o.resources) > 1:
		return usage("--port is for one resource; connect them one by one, or leave it out")
	case o.detach && len(o.command) > 0:
		return usage("--detach and a command do not go together")
	}
	seen := map[string]bool{}
	for _, name := range o.resources {
		if seen[name] {
			return usage("%q is named twice", clean(name))
		}
		seen[name] = true
	}
	if o.listen != "" {
		if _, err := netip.ParseAddr(o.listen); err != nil {
			return usage("--listen wants an IP address, not %q", clean(o.listen))
		}
	}
	return nil
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
	if len(o.resources) == 0 {
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
	var rest []string
	for _, name := range o.resources {
		run, ok := a.registry(p).Lookup(name)
		if !ok {
			rest = append(rest, name)
			continue
		}
		doc := connectionOf(run)
		doc.Already, doc.Online = true, true
		already = append(already, doc)
	}
	o.resources = rest
	return already
}

func (a *app) connectDoc(p *profile.Profile, list ...connectionDocument) connectDocument {
	doc := connectDocument{Schema: schemaName, Profile: p.Name, Relay: p.Settings.Relay, Connections: list}
	if state, err := p.State(); err == nil && state.Login != nil {
		doc.Principal = state.Login.Principal
	}
	return doc
}

// guarded reports whether requests must carry the local key.
func (o connectOptions) guarded() bool {
	return o.localKey || o.forContainers || o.listen != "" || len(o.command) > 0
}

// checkKind refuses what a kind cannot keep: bytes of a tcp resource carry no key, so whoever reaches its port is served.
func (o connectOptions) checkKind(r admin.Resource) error {
	if r.Kind != "tcp" {
		return nil
	}
	if o.localKey {
		return usage("%s is a tcp resource: its connections cannot carry a key", clean(r.Name))
	}
	if (o.listen != "" || o.forContainers) && !o.allowOtherUsers {
		return &failure{
			code: "usage", what: clean(r.Name) + " is a tcp resource: no key guards it, so whoever reaches the address would use it as you",
			next: "if you want that: add --allow-other-users",
		}
	}
	return nil
}

// rules are the listener's rules, which the relay applies to each request.
func (o connectOptions) rules(key string, hosts []string) *tunnel.Local {
	l := &tunnel.Local{AllowOrigins: o.allowOrigins, AllowHosts: append(hosts, o.allowHosts...)}
	if key != "" {
		sum := sha256.Sum256([]byte(key))
		l.KeyHash = sum[:]
	}
	return l
}

func newLocalKey() string { return "iap-local-" + rand.Text() }

func runningDir(p *profile.Profile) string { return filepath.Join(p.Dir(), "running") }

// extraAddrs are the addresses to listen on beside loopback, and the names under which they are called.
func (o connectOptions) extraAddrs() (addrs []netip.Addr, hosts []string, err error) {
	if o.listen != "" {
		addr := netip.MustParseAddr(o.listen) // checked before
		addrs = append(addrs, addr)
		if !addr.IsUnspecified() {
			hosts = append(hosts, addr.String())
		}
	}
	if o.forContainers {
		bridge, err := containerBridge()
		if err != nil {
			return nil, nil, err
		}
		hosts = append(hosts, containerHosts...)
		if bridge.IsValid() {
			addrs, hosts = append(addrs, bridge), append(hosts, bridge.String())
		}
	}
	return addrs, hosts, nil
}

func portHint(o connectOptions) string {
	return fmt.Sprintf("iapctl connect %s (without --port)", clean(o.resources[0]))
}
