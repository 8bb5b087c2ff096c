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
	"iap/internal/profile"
	"iap/tunnel"
)

// served is one resource this process listens for.
type served struct {
	resource admin.Resource
	bound    *connect.Bound
	claim    *connect.Claim // nil with a command: nobody else has to find it
	how      listening
	key      string        // what requests must carry; empty: nothing
	rules    *tunnel.Local // of its listener, which the relay applies to each request
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
	all, err := a.listen(ctx, p, o, list)
	defer closeAll(all)
	if err != nil {
		return err
	}
	return a.runServed(ctx, p, o, all, already)
}

// listen claims and binds each resource. What it returns beside an error is still to be closed. Of a list what can be served is: one
// resource that is not there must not keep the others from being used.
func (a *app) listen(ctx context.Context, p *profile.Profile, o connectOptions, list []admin.Resource) ([]*served, error) {
	var all []*served
	var last error
	key := newLocalKey() // one for all: a command finds it in one variable
	for _, t := range o.targets {
		s, err := a.listenFor(ctx, p, t, list, key, len(o.command) > 0)
		if err == nil {
			all = append(all, s)
			continue
		}
		closeAll([]*served{s})
		if last = err; !o.listed {
			return all, err
		}
		f := failureOf(err)
		a.tell(event{Event: eventNotServed, Code: f.code, Message: fmt.Sprintf("%s is not served: %s.", clean(t.name), f.what), Next: f.next})
	}
	if len(all) == 0 {
		return nil, last
	}
	return all, nil
}

// listenFor claims and binds one resource. What it returns beside an error is still to be closed.
func (a *app) listenFor(ctx context.Context, p *profile.Profile, t target, list []admin.Resource, key string, command bool) (*served, error) {
	s := &served{how: t.listening}
	r, err := a.findResource(list, t.name)
	if err != nil {
		return s, err
	}
	s.resource = r
	if err := t.checkKind(r); err != nil {
		return s, err
	}
	extra, hosts, err := t.extraAddrs()
	if err != nil {
		return s, err
	}
	if !command {
		if s.claim, err = a.registry(p).Claim(t.name, rand.Text()); err != nil {
			return s, err
		}
	}
	if s.bound, err = a.bind(ctx, p, t, connect.PortRequest{Kind: r.Kind, Explicit: t.port, Any: command, Extra: extra}); err != nil {
		return s, err
	}
	if !t.guarded(command) {
		key = ""
	}
	if s.rules = t.rules(key, hosts); r.Kind != "tcp" {
		s.key = key
	}
	if t.listen != "" {
		a.say("%s Other machines that reach %s may connect, with the local key.", a.ui.err.bad.Render("!"), clean(t.listen))
	}
	s.describe()
	return s, nil
}

// describe says where it listens.
func (s *served) describe() {
	s.doc = connectionOf(connect.Running{
		PID: os.Getpid(), Resource: s.resource.Name, Kind: s.resource.Kind, Port: s.bound.Port, Addrs: s.bound.Addrs(), LocalKey: s.key,
	})
	s.doc.Online = s.resource.Online
	if s.how.forContainers {
		s.doc.Docker = containerLine(s.doc)
	}
	if s.bound.Moved != nil {
		s.doc.Moved = clean(fmt.Sprintf("%d is taken (%s)", s.bound.Moved.Port, s.bound.Moved.Owner))
	}
}

// bind finds the resource's port and remembers it.
func (a *app) bind(ctx context.Context, p *profile.Profile, t target, want connect.PortRequest) (*connect.Bound, error) {
	state, err := p.State()
	if err != nil {
		return nil, err
	}
	want.Remembered, want.Reserved = state.Ports[t.name], map[int]bool{}
	for other, port := range state.Ports {
		if other != t.name {
			want.Reserved[port] = true
		}
	}
	b, err := connect.Bind(ctx, want)
	var taken *connect.PortTakenError
	if errors.As(err, &taken) && want.Explicit != 0 {
		f := failureOf(err)
		f.next = portHint(t)
		return nil, f
	}
	if err != nil || want.Any {
		return b, err
	}
	return b, p.RememberPort(ctx, t.name, b.Port)
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
func (a *app) runServed(ctx context.Context, p *profile.Profile, o connectOptions, all []*served, already []connectionDocument) error {
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
	watch.desktop = a.desktop(o)
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
		serving.Go(func() { a.serveOne(ctx, s, sessions, watch) })
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
func (a *app) serveOne(all context.Context, s *served, sessions *connect.Sessions, w *watch) {
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
	local := *s.rules
	local.Listen = s.bound.Addrs()[0]
	f := &connect.Forward{
		Resource: s.resource.Name, Kind: s.resource.Kind, Sessions: sessions, Local: &local,
		AllowOtherUsers: s.how.allowOtherUsers, Logger: a.logger(), OnOtherUser: w.otherUser,
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
	if o.wait { // nobody reads this but a log: `iapctl env` tells the keys
		for i := range doc.Connections {
			doc.Connections[i].LocalKey, doc.Connections[i].Docker = "", ""
		}
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
