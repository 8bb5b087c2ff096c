package cluster

import (
	"context"
	"time"

	"iap/internal/state"
)

const followRetry = 250 * time.Millisecond // to a store that is away

// Follow tells of everything below prefix until ctx ends or the store closes: first of all that is there, then of each
// change, in order. all is called again after changes were lost, and is given everything that is there then: what it does
// not name has gone. The calls never overlap.
func Follow(ctx context.Context, s state.Store, prefix string, all func([]state.Item), each func(item state.Item, deleted bool)) {
	changes, err := s.Watch(ctx, prefix)
	if err != nil {
		return // it is closed
	}
	if !listAll(ctx, s, prefix, all) {
		return
	}
	for c := range changes {
		switch {
		case !c.Resync:
			each(c.Item, c.Deleted)
		case !listAll(ctx, s, prefix, all):
			return
		}
	}
}

// listAll tries until it can.
func listAll(ctx context.Context, s state.Store, prefix string, all func([]state.Item)) bool {
	for {
		items, err := collect(ctx, s, prefix)
		if err == nil {
			all(items)
			return true
		}
		if !sleep(ctx, followRetry) {
			return false
		}
	}
}

func collect(ctx context.Context, s state.Store, prefix string) ([]state.Item, error) {
	var items []state.Item
	for item, err := range state.All(ctx, s, prefix) {
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}
