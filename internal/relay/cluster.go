package relay

import (
	"context"
	"path/filepath"

	"iap/internal/cluster"
	"iap/internal/state"
	"iap/internal/version"
)

// instanceFile keeps the relay's own id, by which relays of one state tell each
// other apart: all else they have in common.
const instanceFile = "instance"

// openCluster finds out who the relay is among those that share its state.
func (r *Relay) openCluster(ctx context.Context) error {
	instance, err := cluster.Instance(filepath.Join(r.cfg.Data, instanceFile), r.cfg.Instance)
	if err != nil {
		return err
	}
	r.instance = instance
	r.cluster = cluster.New(cluster.Options{
		Store: r.store, Instance: instance, Now: r.now, Logger: r.log,
		Describe: func() cluster.Member {
			return cluster.Member{Address: r.cfg.Address, Version: version.String(), Policy: r.policy.Revision(), Started: r.started}
		},
		Answer: r.answerPeer,
	})
	return nil
}

// follow has the relay do what was decided at others, as long as it runs. Alone
// over its state there is nobody to hear.
func (r *Relay) follow() {
	if !r.cfg.IsShared() {
		return
	}
	r.spawn(func() { r.cluster.Run(r.ctx) })
	for prefix, one := range map[string]struct {
		all  func([]state.Item)
		each func(state.Item, bool)
	}{
		keyPrincipal: {r.heardRevocations, r.heardRevocation},
		keyKilled:    {each(r.heardKill), r.heardKill},
		keyLogout:    {each(r.heardLogout), r.heardLogout},
		keyProgram:   {r.heardKeys, r.heardKey},
		keyOwners:    {each(r.heardOwner), r.heardOwner},
		keyAgent:     {each(r.heardAgent), r.heardAgent},
		keyNextRelay: {each(r.heardRelayKey), r.heardRelayKey},
	} {
		r.spawn(func() { cluster.Follow(r.ctx, r.store, prefix, one.all, one.each) })
	}
}

// each takes a list for the news that it is of each item.
func each(f func(state.Item, bool)) func([]state.Item) {
	return func(items []state.Item) {
		for _, item := range items {
			f(item, false)
		}
	}
}
