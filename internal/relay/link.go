package relay

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"iap/tunnel"
)

const (
	// maxWarm bounds the idle streams kept to one agent session: a burst of
	// requests finds one each, and they stay far below the session's cap, which
	// tcp streams need as well.
	maxWarm = 64
	// warmLife is how long one is kept idle.
	warmLife = 30 * time.Second
)

// link is one session of an agent.
type link struct {
	session *tunnel.Session
	agent   *agentRecord

	replaced atomic.Bool // its key was replaced: it is closed in a while

	mu   sync.Mutex
	warm []warmStream // guarded by mu; the most recently used last
}

// serves returns what the session announced of the resource, nil if nothing: the
// very announcement, so that two calls tell whether it is still the same. A
// session that has ended serves nothing.
func (l *link) serves(name string) *tunnel.Announcement {
	if l.session.Err() != nil {
		return nil
	}
	list := l.session.Announced()
	for i := range list {
		if list[i].Resource == name {
			return &list[i]
		}
	}
	return nil
}

// takeWarm returns an idle stream that is still good, or nil.
func (l *link) takeWarm() *tunnel.Stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.warm) > 0 {
		last := len(l.warm) - 1
		st := l.warm[last].stream
		l.warm[last] = warmStream{}
		l.warm = l.warm[:last]
		select {
		case <-st.Done():
			continue
		default:
		}
		if !st.FinReceived() {
			return st
		}
		st.Abort(tunnel.CodeNone) // the agent has ended it: it would answer nothing
	}
	return nil
}

// keepWarm puts back a stream whose last request is complete in both
// directions.
func (l *link) keepWarm(st *tunnel.Stream) {
	l.mu.Lock()
	if len(l.warm) < maxWarm && !l.session.Draining() {
		l.warm = append(l.warm, warmStream{st, time.Now()})
		l.mu.Unlock()
		l.coolDown(warmLife)
		return
	}
	l.mu.Unlock()
	st.Abort(tunnel.CodeNone)
}

// warmStream is an idle stream and since when it is.
type warmStream struct {
	stream *tunnel.Stream
	since  time.Time
}

// coolDown ends the streams that have been idle for longer than life.
func (l *link) coolDown(life time.Duration) {
	before := time.Now().Add(-life)
	l.mu.Lock()
	n := 0
	for n < len(l.warm) && !l.warm[n].since.After(before) {
		n++
	}
	old := slices.Clone(l.warm[:n])
	l.warm = slices.Delete(l.warm, 0, n)
	l.mu.Unlock()
	for _, w := range old {
		w.stream.Abort(tunnel.CodeNone)
	}
}

// busy counts the streams that carry something.
func (l *link) busy() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session.NumStreams() - len(l.warm)
}
