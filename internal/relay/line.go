package relay

import (
	"context"
	"sync"
)

// laneWidth is how many questions of one principal are before the policy at
// once. Most are answered from its cache and never wait.
const laneWidth = 4

// line lets principals ask the policy side by side: one that asks a thousand
// questions at once waits for itself.
type line struct {
	mu    sync.Mutex
	lanes map[string]*lane // guarded by mu; only of who is asking
}

type lane struct {
	places chan struct{}
	users  int // guarded by line.mu
}

// enter waits for a place in the principal's lane. If ctx ends first there is
// none.
func (l *line) enter(ctx context.Context, principal string) (leave func(), ok bool) {
	l.mu.Lock()
	if l.lanes == nil {
		l.lanes = map[string]*lane{}
	}
	mine := l.lanes[principal]
	if mine == nil {
		mine = &lane{places: make(chan struct{}, laneWidth)}
		l.lanes[principal] = mine
	}
	mine.users++
	l.mu.Unlock()
	select {
	case mine.places <- struct{}{}:
		return func() {
			<-mine.places
			l.forget(principal, mine)
		}, true
	case <-ctx.Done():
		l.forget(principal, mine)
		return nil, false
	}
}

func (l *line) forget(principal string, mine *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(l.lanes, principal)
	}
}
