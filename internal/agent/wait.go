package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// waitPace is when and how often a client that waits for a stream is told so.
type waitPace struct {
	first  time.Duration // the answer begins with a comment after so long
	look   time.Duration // how often the position is looked at
	repeat time.Duration // a comment at the latest, moved or not
}

// The gaps are well below what clients and proxies wait for a byte.
const (
	firstComment  = 2 * time.Second
	lookEvery     = time.Second
	repeatComment = 5 * time.Second
)

// retryUnknown is when to try again where nothing is known of the generations.
const retryUnknown = 5 * time.Second

// takeSlot waits for a slot of the upstream, where generations are bounded. A
// nil hold is a request that needs none.
func (x *exchange) takeSlot(ctx context.Context) (*hold, error) {
	q := x.upstream.queue
	if q == nil || !x.class.Action.Computes() {
		return nil, nil
	}
	t, err := q.enter(x.header.Principal, x.header.Priority, x.size)
	var full *fullError
	if errors.As(err, &full) {
		return nil, x.queueFull(full)
	}
	if err := x.await(ctx, t); err != nil {
		t.leave()
		return nil, err
	}
	return &hold{turn: t}, nil
}

// await returns once the turn has a slot. A client that streams events learns
// meanwhile that it waits, so that it does not give up.
func (x *exchange) await(ctx context.Context, t *turn) error {
	select {
	case <-t.ready:
		return nil
	default:
	}
	oldest := time.NewTimer(t.queue.limits.maxWait)
	defer oldest.Stop()
	var look <-chan time.Time
	pace := x.agent.pace
	timer := time.NewTimer(pace.first)
	defer timer.Stop()
	if x.class.Stream && x.class.Framing == modelapi.SSE {
		look = timer.C
	}
	told, quiet := 0, pace.repeat
	for {
		select {
		case <-t.ready:
			return nil
		case <-ctx.Done():
			return upstreamRefusal(ctx, x.upstream, context.Cause(ctx))
		case <-oldest.C:
			return x.tooOld(t)
		case <-look:
			position, wait := t.place()
			if quiet += pace.look; position > 0 && (position != told || quiet >= pace.repeat) {
				if err := x.comment(position, wait); err != nil {
					return err
				}
				told, quiet = position, 0
			}
			timer.Reset(pace.look)
		}
	}
}

// queueFull says where the request would have stood.
func (x *exchange) queueFull(full *fullError) error {
	name := x.upstream.cfg.Name
	no := &refusal{code: tunnel.CodeQueueFull, retryAfter: full.wait}
	if no.retryAfter == 0 {
		no.retryAfter = retryUnknown
	}
	if full.own > 0 {
		waits := "one of your requests waits"
		if full.own > 1 {
			waits = fmt.Sprintf("%d of your requests wait", full.own)
		}
		no.message = fmt.Sprintf("%s for %s already, as many as may: the next would be number %d%s", waits, name, full.position, tryAgain(full.wait))
		return no
	}
	no.message = fmt.Sprintf("queue of %s is full: you would be number %d%s", name, full.position, tryAgain(full.wait))
	return no
}

// tooOld says that the wait was long enough.
func (x *exchange) tooOld(t *turn) error {
	position, wait := t.place()
	no := &refusal{code: tunnel.CodeQueueFull, retryAfter: wait}
	if no.retryAfter == 0 {
		no.retryAfter = retryUnknown
	}
	no.message = fmt.Sprintf("waited %s in the queue of %s, the longest one may: still number %d%s", t.queue.limits.maxWait, x.upstream.cfg.Name, position, tryAgain(wait))
	return no
}

func tryAgain(wait time.Duration) string {
	if wait == 0 {
		return "; try again later"
	}
	return fmt.Sprintf(", about %d s; try again then", int(wait.Seconds()))
}
