package state

import (
	"context"
	"strings"
	"sync"
)

// watches hands committed changes to watchers. publish never blocks: a watcher that does not keep up loses changes and
// is told so.
type watches struct {
	mu     sync.Mutex
	open   map[*watch]struct{} // guarded by mu; nil once closed
	closed bool                // guarded by mu
	era    int                 // guarded by mu; counts the watches that were added
}

type watch struct {
	prefix  string
	since   int64       // changes up to this version are no news
	changes chan Change // sent to and closed under watches.mu only
	lagging bool        // guarded by watches.mu: the last change in the channel is a Resync
	stop    func() bool // detaches from the watcher's context
}

// add starts a watch of what comes after the version since, which ends with ctx.
func (w *watches) add(ctx context.Context, prefix string, since int64) (<-chan Change, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errClosed
	}
	if w.open == nil {
		w.open = make(map[*watch]struct{})
	}
	w.era++
	one := &watch{prefix: prefix, since: since, changes: make(chan Change, watchBuffer)}
	w.open[one] = struct{}{}
	one.stop = context.AfterFunc(ctx, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.remove(one)
	})
	return one.changes, nil
}

// remove ends one watch; w.mu is held.
func (w *watches) remove(one *watch) {
	if _, ok := w.open[one]; !ok {
		return
	}
	delete(w.open, one)
	close(one.changes)
}

// publish must be called in the order of the commits.
func (w *watches) publish(changes []Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.open {
		for _, c := range changes {
			if c.Item.Version > one.since && strings.HasPrefix(c.Item.Key, one.prefix) {
				one.send(c)
			}
		}
	}
}

// send queues c or, in the last free place, a Resync. While that Resync has not been received, further changes may be
// dropped: they are committed already, so the list that the watcher makes after it shows them.
func (one *watch) send(c Change) {
	waiting := len(one.changes) // only publish sends, so this can only shrink meanwhile
	if one.lagging {
		if waiting > 0 {
			return
		}
		one.lagging = false
	}
	if waiting == cap(one.changes)-1 {
		one.lagging = true
		c = Change{Resync: true}
	}
	one.changes <- c
}

// resync tells every watcher to list again.
func (w *watches) resync() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.open {
		if !one.lagging || len(one.changes) == 0 {
			one.changes <- Change{Resync: true} // send has left a place
			one.lagging = true
		}
	}
}

// prefixes lists what is watched, and when that was so.
func (w *watches) prefixes() (list []string, era int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list = []string{} // not nil, which SQL knows as NULL
	for one := range w.open {
		list = append(list, one.prefix)
	}
	return list, w.era
}

// isEra reports that no watch was added since.
func (w *watches) isEra(era int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.era == era
}

func (w *watches) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for one := range w.open {
		one.stop()
		w.remove(one)
	}
}
