package agent

import (
	"context"
	"errors"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

const (
	probeEvery   = 10 * time.Second
	confirmEvery = 2 * time.Second        // until a second probe says the same as a surprising one
	doubtGap     = 500 * time.Millisecond // between probes that failed requests ask for
	probeTimeout = 3 * time.Second
	maxProbe     = 4 << 20  // an answer to a probe; a list of thousands of models fits
	maxModels    = 256      // models announced for one resource
	maxAnnounced = 40 << 10 // bytes of names in one announcement, which must fit a control message
)

// probed is what the last probe found.
type probed struct {
	server  string // the kind of model server; "" if it answers as none
	models  []string
	remote  []string // those whose prompts the server sends to another host, whatever they are called
	healthy bool
	foreign bool // an http or tcp resource that is a model server and must not be one
}

// server is the kind of model server, configured or found.
func (u *upstream) server() string {
	if u.cfg.Server != "" {
		return u.cfg.Server
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state.server
}

// keepProbing probes again and again, and at once where a request met what no
// probe had found, and tells the relays what changed.
func (a *Agent) keepProbing(ctx context.Context) {
	wait := probeEvery
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-a.doubt:
			timer.Stop()
		}
		a.probeAll(ctx)
		a.tell(ctx)
		if wait = probeEvery; slices.ContainsFunc(a.upstreams, (*upstream).unsure) {
			wait = confirmEvery
		}
		if !pause(ctx, doubtGap) { // a storm of failed requests makes no storm of probes
			return
		}
	}
}

func (u *upstream) unsure() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.health.unsure()
}

// tell announces what changed since the last time.
func (a *Agent) tell(ctx context.Context) {
	list := a.announcements()
	if ctx.Err() != nil || reflect.DeepEqual(list, a.told) {
		return
	}
	a.told = list
	sessions, _ := a.live()
	for _, s := range sessions {
		if err := s.Announce(ctx, list); err != nil && ctx.Err() == nil {
			a.log.Warn("announce to the relay", "session", s.ID(), "error", err)
			var refused *tunnel.Refusal
			if !errors.As(err, &refused) || refused.Code == tunnel.CodeOverloaded {
				a.told = nil // once more with the next probe
			}
		}
	}
}

// probeAll probes every upstream, all at once: one that hangs delays nobody.
func (a *Agent) probeAll(ctx context.Context) {
	var group sync.WaitGroup
	for _, u := range a.upstreams {
		group.Go(func() {
			if found, err := u.probe(ctx); ctx.Err() == nil {
				a.found(u, found, err)
			}
		})
	}
	group.Wait()
}

// found takes what a probe found of an upstream.
func (a *Agent) found(u *upstream, found probed, err error) {
	now := time.Now()
	u.mu.Lock()
	before, fit, wasJudged := u.state, u.health.verdict(now), u.health.judged
	if !found.healthy && !found.foreign { // a server that is away is still the one it was
		found.server, found.models, found.remote = before.server, before.models, before.remote
	}
	u.health.finds(u.finding(found, err))
	u.state, u.cleared = found, !found.foreign && (u.cleared || found.healthy)
	why := u.health.verdict(now)
	u.mu.Unlock()
	if wasJudged && fit == why && before.server == found.server && before.foreign == found.foreign && slices.Equal(before.models, found.models) {
		return
	}
	log := a.log.With("resource", u.cfg.Name, "upstream", u.cfg.Upstream)
	switch {
	case found.foreign:
		log.Error("this resource answers as a model server: it is not served, since nobody would check its requests; give it kind model, or opaque: true in agent.yaml")
	case why == "":
		log.Info("upstream is up", u.facts(found)...)
	default:
		log.Warn("upstream is not ready", "reason", why, "error", err)
	}
}

// facts are what the log tells of an upstream that is up.
func (u *upstream) facts(found probed) []any {
	if u.cfg.Kind != modelapi.KindModel {
		return nil
	}
	facts := []any{"server", found.server, "models", strings.Join(found.models, " ")}
	if len(u.cfg.Aliases) > 0 {
		facts = append(facts, "aliases", len(u.cfg.Aliases))
	}
	if u.queue == nil {
		return append(facts, "capacity", "no bound: requests wait in the server's own queue, if anywhere")
	}
	return append(facts, "capacity", u.cfg.Capacity)
}

// announcements is what the relays are told.
func (a *Agent) announcements() []tunnel.Announcement {
	var all []tunnel.Announcement
	left := maxAnnounced
	for _, u := range a.upstreams {
		u.mu.Lock()
		found, why := u.state, u.health.verdict(time.Now())
		u.mu.Unlock()
		if found.foreign {
			continue
		}
		one := tunnel.Announcement{Resource: u.cfg.Name, Kind: u.cfg.Kind, Healthy: why == "", Reason: why, Capacity: u.cfg.Capacity}
		if u.cfg.Kind == modelapi.KindModel {
			one.Server, one.Aliases = u.server(), u.cfg.Aliases
			for alias, model := range one.Aliases {
				left -= len(alias) + len(model)
			}
			for _, model := range u.announced() {
				if left -= len(model); left < 0 {
					break
				}
				one.Models = append(one.Models, model)
			}
		}
		all = append(all, one)
	}
	return all
}

// announced lists the models found that are in the agent's own list.
func (u *upstream) announced() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.servable(u.state.models)
}

// servable are those of the models that are in the agent's own list.
func (u *upstream) servable(found []string) []string {
	var models []string
	for _, m := range found {
		if u.cfg.servesModel(m) {
			models = append(models, m)
		}
	}
	return models
}

// probe asks the upstream who it is and what it has. Of an http or tcp resource
// it asks the same, since that must not be a model server.
func (u *upstream) probe(ctx context.Context) (probed, error) {
	if u.cfg.Kind == modelapi.KindModel {
		return u.probeModel(ctx, u.cfg.url)
	}
	base := u.cfg.url
	if u.cfg.Kind == modelapi.KindTCP {
		base = &url.URL{Scheme: "http", Host: u.cfg.Upstream}
	}
	u.mu.Lock()
	asked, calm := u.cleared && u.health.judged && u.health.reason == "", u.health.against == 0
	u.mu.Unlock()
	switch {
	case asked && calm && u.cfg.Kind == modelapi.KindTCP:
		return probed{healthy: true}, nil // a database that counts broken handshakes locks us out: real streams tell
	case asked || u.cfg.Opaque: // who it is was asked when it came up
		return reach(ctx, base)
	}
	found, err := u.probeModel(ctx, base)
	if found.server != "" {
		return probed{foreign: true}, nil
	}
	var answered *strangeAnswer
	if errors.As(err, &answered) {
		if answered.unready() {
			return probed{}, err // who knows what it will be
		}
		return probed{healthy: true}, nil
	}
	return reach(ctx, base)
}

// reach connects to the upstream and leaves.
func reach(ctx context.Context, base *url.URL) (probed, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := dialUpstream(ctx, "tcp", hostPort(base))
	if err != nil {
		return probed{}, err
	}
	return probed{healthy: true}, conn.Close()
}

// hostPort is where a base URL leads.
func hostPort(base *url.URL) string {
	port := base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[base.Scheme]
	}
	return net.JoinHostPort(base.Hostname(), port)
}
