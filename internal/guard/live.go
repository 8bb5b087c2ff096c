package guard

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// live holds the exchanges whose request is upstream. Each is in it from before Forward until its handler ends.
type live struct {
	mu    sync.Mutex
	known map[*exchange]struct{} // guarded by mu

	asking atomic.Uint64 // counts rechecks and ends, so that an exchange between its decision and enter notices one
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

func (l *live) recheck(ctx context.Context, code string, whose func(*Caller) bool) {
	l.asking.Add(1)
	l.mu.Lock()
	running := make([]*exchange, 0, len(l.known))
	for x := range l.known {
		if whose == nil || whose(x.caller) {
			running = append(running, x)
		}
	}
	l.mu.Unlock()
	var workers sync.WaitGroup
	next := make(chan *exchange)
	for range min(recheckWorkers, len(running)) {
		workers.Go(func() {
			for x := range next {
				x.recheck(ctx, code)
			}
		})
	}
	for _, x := range running {
		next <- x
	}
	close(next)
	workers.Wait()
}

// end ends every running exchange of the callers named by whose.
func (l *live) end(whose func(*Caller) bool, why *Ended) {
	l.asking.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	for x := range l.known {
		if whose(x.caller) {
			x.cancel(why)
		}
	}
}

// recheckWorkers ask side by side, so that one answer whose policy takes its time does not hold up the end of another.
const recheckWorkers = 16

func (x *exchange) recheck(ctx context.Context, code string) {
	if ctx.Err() != nil {
		return
	}
	if d := x.askFirmly(ctx); !d.Allow && ctx.Err() == nil {
		if d.Lost {
			code = denied(d).code
		}
		x.cancel(&Ended{Code: code, Message: denied(d).message})
	}
}

const (
	askTries = 4                      // of a policy that could not answer, before a running answer is cut for it
	askPause = 250 * time.Millisecond // between them: the whole stays within a second
)

// askFirmly asks again while the policy could not answer for want of time: an answer that is running is not cut because
// the machine is busy.
func (x *exchange) askFirmly(ctx context.Context) Decision {
	for try := 1; ; try++ {
		d, _, _ := x.answerOf(ctx)
		if d.Allow || denied(d).status != http.StatusServiceUnavailable || try == askTries {
			return d
		}
		timer := time.NewTimer(askPause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return d
		case <-timer.C:
		}
	}
}

// minWatch keeps a decision that has already expired from being asked for in a tight loop.
const minWatch = 100 * time.Millisecond

// maxWatch is the longest that the end of a decision rests on a timer alone.
const maxWatch = time.Second

// watch asks again when a decision says it must be. It needs no goroutine while it waits: streams wait in thousands.
type watch struct {
	x     *exchange
	mu    sync.Mutex  // guards what follows, and is held while Decide runs
	timer *time.Timer // nil once disarmed
	until time.Time   // when the decision ends
	tries int         // in a row that the policy could not answer
}

// armUntil ends the exchange if, at the end of its decision, the answer has changed. The function it returns waits for
// a question that is just being asked.
func (x *exchange) armUntil(ctx context.Context) (disarm func()) {
	if x.decision.Until.IsZero() {
		return func() {}
	}
	w := &watch{x: x, until: x.decision.Until}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(w.wait(w.until), func() { w.expire(ctx) })
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.timer.Stop()
		w.timer = nil
	}
}

// wait is until the clock is looked at again: a timer stands still while the machine sleeps, and a clock can be set.
func (w *watch) wait(until time.Time) time.Duration {
	return min(max(until.Round(0).Sub(w.x.guard.now().Round(0)), minWatch), maxWatch)
}

func (w *watch) expire(ctx context.Context) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return
	}
	if w.x.guard.now().Round(0).Before(w.until.Round(0)) {
		w.timer.Reset(w.wait(w.until))
		return
	}
	d, _, _ := w.x.answerOf(ctx)
	switch {
	case ctx.Err() != nil:
	case !d.Allow && denied(d).status == http.StatusServiceUnavailable && w.tries < askTries:
		w.tries++ // until stays: it is over
		w.timer.Reset(askPause)
	case !d.Allow:
		w.x.cancel(&Ended{Code: denied(d).code, Message: denied(d).message})
	case !d.Until.IsZero():
		w.tries, w.until = 0, d.Until
		w.timer.Reset(w.wait(d.Until))
	}
}
