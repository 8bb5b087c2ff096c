package agent

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

const (
	probeEvery   = 15 * time.Second
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

// keepProbing probes again and again and tells the relays what changed.
func (a *Agent) keepProbing(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !a.probeAll(ctx) {
			continue
		}
		sessions, _ := a.live()
		for _, s := range sessions {
			if err := s.Announce(ctx, a.announcements()); err != nil && ctx.Err() == nil {
				a.log.Warn("announce to the relay", "session", s.ID(), "error", err)
			}
		}
	}
}

// probeAll probes every upstream and reports whether anything changed.
func (a *Agent) probeAll(ctx context.Context) bool {
	changed := false
	for _, u := range a.upstreams {
		found, err := u.probe(ctx)
		if ctx.Err() != nil {
			return false
		}
		u.mu.Lock()
		before := u.state
		if !found.healthy && !found.foreign { // a server that is away is still the one it was
			found.server, found.models, found.remote = before.server, before.models, before.remote
		}
		u.state = found
		u.mu.Unlock()
		if before.healthy == found.healthy && before.server == found.server && before.foreign == found.foreign && slices.Equal(before.models, found.models) {
			continue
		}
		changed = true
		log := a.log.With("resource", u.cfg.Name, "upstream", u.cfg.Upstream)
		switch {
		case found.foreign:
			log.Error("this resource answers as a model server: it is not served, since nobody would check its requests; give it kind model, or opaque: true in agent.yaml")
		case found.healthy:
			log.Info("upstream is up", u.facts(found)...)
		default:
			log.Warn("upstream is not ready", "error", err)
		}
	}
	return changed
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
		found := u.state
		u.mu.Unlock()
		if found.foreign {
			continue
		}
		one := tunnel.Announcement{Resource: u.cfg.Name, Kind: u.cfg.Kind, Healthy: found.healthy, Capacity: u.cfg.Capacity}
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
	var models []string
	for _, m := range u.state.models {
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
	seen := u.state
	u.mu.Unlock()
	if seen.healthy || u.cfg.Opaque { // asked once: a database does not like to be spoken HTTP to every few seconds
		return probed{healthy: true}, nil
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
	conn, dialErr := dialUpstream(ctx, "tcp", base.Host)
	if dialErr != nil {
		return probed{}, dialErr
	}
	return probed{healthy: true}, conn.Close()
}
