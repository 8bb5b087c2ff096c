package guard

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// live holds the exchanges whose request is upstream. Each is in it from before Forward until its handler ends.
type live struct {
	mu    sync.Mutex
	known map[*exchange]struct{} // guarded by mu

	asking atomic.Uint64 // counts rechecks, so that an exchange between its decision and enter notices one
}

// enter adds an exchange and arms the end of its decision. The function it returns takes both back, and waits for a
// recheck that is just under way.
func (l *live) enter(ctx context.Context, x *exchange) (leave func()) {
	l.mu.Lock()
	if l.known == nil {
		l.known = map[*exchange]struct{}{}
	}
	l.known[x] = struct{}{}
	l.mu.Unlock()
	disarm := x.armUntil(ctx)
	return func() {
		l.mu.Lock()
		delete(l.known, x)
		l.mu.Unlock()
		disarm()
	}
}

func (l *live) recheck(ctx context.Context, g *Guard, code string) {
	l.asking.Add(1)
	l.mu.Lock()
	running := make([]*exchange, 0, len(l.known))
	for x := range l.known {
		running = append(running, x)
	}
	l.mu.Unlock()
	for _, x := range running {
		if ctx.Err() != nil {
			return
		}
		if d := x.ask(ctx); !d.Allow {
			x.cancel(&Ended{Code: code, Message: denied(d).message})
		}
	}
}

// ask puts the questions of a running exchange again. It reads only what no longer changes.
func (x *exchange) ask(ctx context.Context) Decision {
	var first Decision
	for i, q := range x.questions {
		d := x.guard.Decide(ctx, q)
		if !d.Allow {
			return d
		}
		if i == 0 {
			first = d
		}
	}
	return first
}

// minWatch keeps a decision that has already expired from being asked for in a tight loop.
const minWatch = 100 * time.Millisecond

// watch asks again when a decision says it must be. It needs no goroutine while it waits: streams wait in thousands.
type watch struct {
	x     *exchange
	mu    sync.Mutex  // guards what follows, and is held while Decide runs
	timer *time.Timer // nil once disarmed
}

// armUntil ends the exchange if, at the end of its decision, the answer has changed. The function it returns waits for
// a question that is just being asked.
func (x *exchange) armUntil(ctx context.Context) (disarm func()) {
	if x.decision.Until.IsZero() {
		return func() {}
	}
	w := &watch{x: x}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.wait(x.decision.Until), func() { w.expire(ctx) })
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.timer.Stop()
		w.timer = nil
	}
}

func (w *watch) wait(until time.Time) time.Duration {
	return max(until.Sub(w.x.guard.now()), minWatch)
}

func (w *watch) expire(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return
	}
	d := w.x.ask(ctx)
	switch {
	case !d.Allow:
		w.x.cancel(&Ended{Code: denied(d).code, Message: denied(d).message})
	case !d.Until.IsZero():
		w.timer.Reset(w.wait(d.Until))
	}
}
