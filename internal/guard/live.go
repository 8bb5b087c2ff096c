package guard

import (
	"context"
	"sync"
	"time"
)

// live holds the exchanges whose request is upstream. Each is in it from before Forward until its handler ends.
type live struct {
	mu    sync.Mutex
	known map[*exchange]struct{} // guarded by mu
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

// armUntil asks again when the decision says it must be, and ends the exchange if the answer has changed.
func (x *exchange) armUntil(ctx context.Context) (disarm func()) {
	if x.decision.Until.IsZero() {
		return func() {}
	}
	watch, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.watchUntil(watch, x.decision.Until)
	}()
	return func() {
		stop()
		<-done
	}
}

// minWatch keeps a decision that has already expired from being asked for in a tight loop.
const minWatch = 100 * time.Millisecond

func (x *exchange) watchUntil(ctx context.Context, until time.Time) {
	for !until.IsZero() {
		timer := time.NewTimer(max(until.Sub(x.guard.now()), minWatch))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		d := x.ask(ctx)
		if !d.Allow {
			x.cancel(&Ended{Code: denied(d).code, Message: denied(d).message})
			return
		}
		until = d.Until
	}
}
