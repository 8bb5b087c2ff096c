package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	waitPoll  = 2 * time.Second // how often it is looked whether somebody has logged in; one small file each time
	waitRelay = 5 * time.Second // before the next try, doubling …
	waitMost  = time.Minute     // … up to this
)

// readTargets takes what to serve from config.yaml.
func (a *app) readTargets(o *connectOptions) error {
	wanted, err := a.dirs.Wanted()
	if err != nil {
		return err
	}
	p, err := a.profile()
	if err != nil {
		return err
	}
	for _, e := range wanted.Of(p.Name) {
		o.targets = append(o.targets, target{e.Resource, listening{
			port: e.Port, allowOrigins: e.AllowOrigins, allowHosts: e.AllowHosts, allowOtherUsers: e.AllowOtherUsers,
			localKey: e.LocalKey, forContainers: e.ForContainers, listen: e.Listen,
		}})
	}
	if len(o.targets) > 0 {
		return nil
	}
	file := clean(a.dirs.ConfigFile())
	f := &failure{
		code: "nothing_listed", exitCode: exitUsage,
		what: fmt.Sprintf("connect to what? No resource is named, and %s lists none for profile %s", file, p.Name),
		next: "iapctl resources, then: iapctl connect RESOURCE",
	}
	if others := wanted.Profiles(); len(others) > 0 {
		f.what += "; it lists some for " + strings.Join(others, ", ")
		f.next = "iapctl --profile " + others[0] + " connect, or add profile: " + p.Name + " to an entry"
	}
	return f
}

// connectWaiting connects; with --wait it outlasts that nobody is logged in yet, or that the relay or a grant is not there.
func (a *app) connectWaiting(ctx context.Context, o connectOptions) error {
	told, pause := "", waitRelay
	for {
		before := a.loginNow()
		err := a.connect(ctx, o)
		if err == nil || !o.wait {
			return err
		}
		if ctx.Err() != nil {
			return nil // told to stop, which is no failure
		}
		f := failureOf(err)
		switch f.exit() {
		case exitLogin, exitDenied, exitOffline, exitUnreachable:
		default:
			return err
		}
		if f.code != told {
			told, pause = f.code, waitRelay
			a.tellWaiting(ctx, o, f)
		}
		a.awaitLogin(ctx, before, pause, f.exit() == exitLogin && !a.external())
		if ctx.Err() != nil {
			return nil
		}
		pause = min(2*pause, waitMost)
	}
}

// loginNow is the ID of the login of this moment, empty if there is none.
func (a *app) loginNow() string {
	p, err := a.profile()
	if err != nil {
		return ""
	}
	return loginID(p)
}

func (a *app) tellWaiting(ctx context.Context, o connectOptions, f *failure) {
	e := event{Event: eventRelayLost, Code: f.code, Message: capital(strings.TrimSuffix(f.what, ".")) + ". Trying again.", Next: a.inProfile(f.next)}
	if f.exit() == exitLogin {
		e.Event, e.Message = eventLoginNeeded, capital(strings.TrimSuffix(f.what, "."))+". It goes on by itself after a login."
	}
	a.tell(e)
	if desktop := a.desktop(o); desktop != nil && e.Event == eventLoginNeeded {
		err := desktop.Show(ctx, "iapctl: A login is needed", "Nothing is served before it. Type: "+a.inProfile("iapctl login"))
		a.logger().Debug("notify", "err", err) // a desktop that is not there is no failure
	}
}

// awaitLogin returns when somebody else is logged in than before, or after the pause unless only a login can help.
func (a *app) awaitLogin(ctx context.Context, before string, pause time.Duration, only bool) {
	tick := time.NewTicker(waitPoll)
	defer tick.Stop()
	for waited := time.Duration(0); only || waited < pause; waited += waitPoll {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if a.loginNow() != before {
				return
			}
		}
	}
}
