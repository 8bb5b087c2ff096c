package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"iap/internal/admin"
	"iap/internal/connect"
	"iap/internal/notify"
	"iap/internal/profile"
	"iap/tunnel"
)

// served is one resource this process listens for.
type served struct {
	resource admin.Resource
	bound    *connect.Bound
	claim    *connect.Claim // nil with a command: nobody else has to find it
	key      string         // what requests must carry; empty: nothing
	doc      connectionDocument
}

// serve listens for the resources until the end: Ctrl-C, disconnect, or the command's.
func (a *app) serve(ctx context.Context, p *profile.Profile, o connectOptions, already []connectionDocument) error {
	var list []admin.Resource
	err := a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) (err error) {
		list, err = fetchResources(ctx, p, client)
		return err
	})
	if err != nil {
		return err
	}
	key := ""
	if o.guarded() {
		key = newLocalKey()
	}
	extra, hosts, err := o.extraAddrs()
	if err != nil {
		return err
	}
	if o.listen != "" {
		a.say("%s Other machines that reach %s may connect, with the local key.", a.ui.err.bad.Render("!"), clean(o.listen))
	}
	all, err := a.listen(ctx, p, o, list, connect.PortRequest{Explicit: o.port, Any: len(o.command) > 0, Extra: extra}, key)
	defer closeAll(all)
	if err != nil {
		return err
	}
	return a.runServed(ctx, p, o, all, already, o.rules(key, hosts))
}

// listen claims and binds each resource. What it returns beside an error is still to be closed.
func (a *app) listen(ctx context.Context, p *profile.Profile, o connectOptions, list []admin.Resource, want connect.PortRequest, key string) ([]*served, error) {
	var all []*served
	for _, name := range o.resources {
		r, err := a.findResource(list, name)
		if err != nil {
			return all, err
		}
		if err := o.checkKind(r); err != nil {
			return all, err
		}
		s := &served{resource: r}
		if !want.Any {
			s.claim, err = a.registry(p).Claim(name, rand.Text())
			if err != nil {
				return all, err
			}
		}
		all = append(all, s)
		if s.bound, err = a.bind(ctx, p, r, want, o); err != nil {
			return all, err
		}
		if r.Kind != "tcp" {
			s.key = key
		}
		s.doc = connectionOf(connect.Running{
			PID: os.Getpid(), Resource: r.Name, Kind: r.Kind, Port: s.bound.Port, Addrs: s.bound.Addrs(), LocalKey: s.key,
		})
		s.doc.Online = r.Online
		if o.forContainers {
			s.doc.Docker = containerLine(s.doc)
		}
		if s.bound.Moved != nil {
			s.doc.Moved = clean(fmt.Sprintf("%d is taken (%s)", s.bound.Moved.Port, s.bound.Moved.Owner))
		}
	}
	return all, nil
}

// bind finds the resource's port and remembers it.
func (a *app) bind(ctx context.Context, p *profile.Profile, r admin.Resource, want connect.PortRequest, o connectOptions) (*connect.Bound, error) {
	state, err := p.State()
	if err != nil {
		return nil, err
	}
	want.Kind, want.Remembered, want.Reserved = r.Kind, state.Ports[r.Name], map[int]bool{}
	for other, port := range state.Ports {
		if other != r.Name {
			want.Reserved[port] = true
		}
	}
	b, err := connect.Bind(ctx, want)
	var taken *connect.PortTakenError
	if errors.As(err, &taken) && want.Explicit != 0 {
		f := failureOf(err)
		f.next = portHint(o)
		return nil, f
	}
	if err != nil || want.Any {
		return b, err
	}
	return b, p.RememberPort(ctx, r.Name, b.Port)
}

func closeAll(all []*served) {
	for _, s := range all {
		if s.bound != nil {
			_ = s.bound.Close()
		}
		if s.claim != nil {
			_ = s.claim.Release()
		}
	}
}

// runServed brings the sessions up, reports, and carries connections until the end. Everything it starts has ended when it returns.
func (a *app) runServed(ctx context.Context, p *profile.Profile, o connectOptions, all []*served, already []connectionDocument, rules *tunnel.Local) error {
	cfg, err := a.connectConfig(p)
	if err != nil {
		return err
	}
	watch := a.newWatch(ctx, p)
	defer watch.end()
	for _, s := range all {
		if s.claim != nil {
			watch.claims = append(watch.claims, s.claim)
		}
	}
	if !o.noNotify && a.env("IAP_NO_NOTIFY") == "" {
		watch.desktop = &notify.Desktop{Env: a.env}
	}
	if a.asksPeople() && !o.background && len(o.command) == 0 { // a command's terminal is its own
		watch.steps = make(chan admin.StepUpNotice, 1)
	}
	cfg.OnUp, cfg.OnDown, cfg.OnNotice = watch.up, watch.down, watch.notice
	sessions := connect.NewSessions(cfg, tunnel.Interactive, tunnel.Bulk)
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = sessions.Run(ctx) })
	wg.Go(func() { a.followInterval(ctx, p, sessions) })
	doc, err := a.ready(ctx, p, sessions, all, already, o)
	if err != nil {
		return err
	}
	watch.begin()
	if watch.steps != nil {
		wg.Go(func() { watch.askForLogins(ctx) })
	}
	var serving sync.WaitGroup
	for _, s := range all {
		serving.Go(func() { a.serveOne(ctx, s, sessions, rules, o, watch) })
	}
	wg.Go(func() { // the last resource to be disconnected ends the process
		serving.Wait()
		cancel()
	})
	if len(o.command) > 0 {
		return a.runCommand(ctx, o.command, doc)
	}
	<-ctx.Done()
	return nil
}

const (
	intervalAgain = time.Minute // after a failure to read what the relay publishes
	intervalCheck = time.Hour   // an operator may change it
)

// followInterval renews the sessions as often as the relay publishes.
func (a *app) followInterval(ctx context.Context, p *profile.Profile, sessions *connect.Sessions) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pause.C:
		}
		wait := intervalAgain
		if d, err := discover(ctx, p); err != nil {
			a.logger().Debug("read the relay's interval", "err", err)
		} else {
			wait = intervalCheck
			sessions.SetInterval(time.Duration(min(max(0, d.RefreshSeconds), int64(intervalCheck/time.Second))) * time.Second)
		}
		pause.Reset(wait)
	}
}

// serveOne carries one resource until somebody disconnects it.
func (a *app) serveOne(all context.Context, s *served, sessions *connect.Sessions, rules *tunnel.Local, o connectOptions, w *watch) {
	ctx, cancel := context.WithCancel(all)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	if s.claim != nil {
		wg.Go(func() {
			s.claim.Wait(ctx)
			cancel()
		})
	}
	local := *rules
	local.Listen = s.bound.Addrs()[0]
	f := &connect.Forward{
		Resource: s.resource.Name, Kind: s.resource.Kind, Sessions: sessions, Local: &local,
		AllowOtherUsers: o.allowOtherUsers, Logger: a.logger(), OnOtherUser: w.otherUser,
	}
	if err := f.Serve(ctx, s.bound); err != nil {
		a.logger().Error("listener ended", "resource", s.resource.Name, "err", err)
	}
	if all.Err() == nil {
		a.say("%s is disconnected.", clean(s.resource.Name))
	}
	if s.claim != nil {
		_ = s.claim.Release() // whoever disconnected it waits for this
	}
}

// ready waits for the first session, makes the run findable and reports it.
func (a *app) ready(ctx context.Context, p *profile.Profile, sessions *connect.Sessions, all []*served, already []connectionDocument, o connectOptions) (connectDocument, error) {
	doc := a.connectDoc(p, already...)
	waitCtx, cancel := context.WithTimeoutCause(ctx, callTimeout, connect.ErrNoSession)
	defer cancel()
	for _, class := range classesOf(all) {
		if _, err := sessions.Session(waitCtx, class); err != nil {
			return doc, err
		}
	}
	doc.Detached, doc.PID, doc.Expires = o.background, os.Getpid(), timePtr(sessions.Expires())
	for _, s := range all {
		if s.claim != nil {
			err := s.claim.Publish(connect.Running{
				PID: os.Getpid(), Kind: s.resource.Kind, Port: s.bound.Port, Addrs: s.bound.Addrs(),
				Detached: o.background, LocalKey: s.key, Started: time.Now().UTC(),
			})
			if err != nil {
				return doc, err
			}
		}
		doc.Connections = append(doc.Connections, s.doc)
	}
	if len(o.command) > 0 {
		return doc, nil // its streams are the command's alone
	}
	return doc, a.reportConnected(doc)
}

// classesOf are the sessions that the resources use.
func classesOf(all []*served) []tunnel.Class {
	var classes []tunnel.Class
	seen := map[tunnel.Class]bool{}
	for _, s := range all {
		if c := connect.ClassOf(s.resource.Kind); !seen[c] {
			seen[c] = true
			classes = append(classes, c)
		}
	}
	return classes
}
