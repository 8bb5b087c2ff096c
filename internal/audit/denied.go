package audit

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// What a minute of refusals may cost: at most maxDeniedFull full records and maxDeniedSources counted ones, some
// 600 KiB, however many refusals there were.
const (
	deniedEvery      = time.Minute // counts are written, and sources get new full records
	deniedPerSource  = 10          // full records of one source
	maxDeniedFull    = 1000        // full records of all sources
	maxDeniedSources = 1024        // sources counted apart; the rest is counted together
	maxDeniedReasons = 8           // reasons counted apart in one record
)

// denials counts what is not written in full.
type denials struct {
	mu      sync.Mutex
	sources map[deniedSource]*deniedCount // guarded by mu
	full    int                           // guarded by mu: full records in this minute
}

// deniedSource is where refusals come from: an address, and the principal if one was verified. The pooled one stands
// for all that found no place; a text that is no address stands for itself.
type deniedSource struct {
	source, principal string
	pooled            bool
}

// sourceOf leaves the port out, and of an IPv6 address all but the /64 prefix: neither costs a peer anything to change.
func sourceOf(e *Event) deniedSource {
	s := deniedSource{source: e.Source, principal: e.Principal}
	at, err := netip.ParseAddrPort(e.Source)
	addr := at.Addr()
	if err != nil {
		if addr, err = netip.ParseAddr(e.Source); err != nil {
			return s
		}
	}
	addr = addr.Unmap().WithZone("")
	s.source = addr.String()
	if addr.Is6() {
		s.source = netip.PrefixFrom(addr, 64).Masked().String()
	}
	return s
}

type deniedCount struct {
	full    int
	counted int64
	reasons map[string]int64
	first   time.Time // of the counted
}

// Denied writes a denial or a failed login: the first ones of each source in a minute in full, the others as a count,
// so that nobody fills the disk by being refused. What cannot be written now is counted and written later: a refusal
// needs no permission of the log. Neither is it lost when the refused one goes away, which ends its context. Only a
// closed log is an error.
func (l *Log) Denied(_ context.Context, e Event) error {
	if l.denials.admit(&e) {
		err := l.record(&e, false)
		if err == nil || errors.Is(err, errClosed) || errors.Is(err, errNoKind) {
			return err
		}
	}
	l.denials.count(&e, l.now())
	return nil
}

// admit says whether the refusal is to be written in full.
func (d *denials) admit(e *Event) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.of(sourceOf(e))
	if c.full >= deniedPerSource || d.full >= maxDeniedFull {
		return false
	}
	c.full++
	d.full++
	return true
}

func (d *denials) count(e *Event, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.of(sourceOf(e))
	c.add(map[string]int64{e.Kind + "/" + e.Reason: 1}, now)
}

// of returns the count of a source, or the pooled one if there are too many; d.mu is held.
func (d *denials) of(s deniedSource) *deniedCount {
	if c := d.sources[s]; c != nil {
		return c
	}
	if d.sources == nil {
		d.sources = make(map[deniedSource]*deniedCount)
	}
	if len(d.sources) >= maxDeniedSources {
		s = deniedSource{pooled: true}
		if c := d.sources[s]; c != nil {
			return c
		}
	}
	c := new(deniedCount)
	d.sources[s] = c
	return c
}

func (c *deniedCount) add(reasons map[string]int64, at time.Time) {
	if c.reasons == nil {
		c.reasons = make(map[string]int64)
	}
	if c.first.IsZero() || at.Before(c.first) {
		c.first = at
	}
	for reason, n := range reasons {
		if _, ok := c.reasons[reason]; !ok && len(c.reasons) >= maxDeniedReasons {
			reason = "other"
		}
		c.reasons[reason] += n
		c.counted += n
	}
}

// flushDenials writes the counts each minute until the log is closed.
func (l *Log) flushDenials() {
	tick := time.NewTicker(deniedEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.countDenials(false)
		}
	}
}

// countDenials writes the counts and begins a new minute. Counts that cannot be written are kept for the next.
func (l *Log) countDenials(last bool) {
	l.denials.mu.Lock()
	minute := l.denials.sources
	l.denials.sources, l.denials.full = nil, 0
	l.denials.mu.Unlock()
	for s, c := range minute {
		if c.counted == 0 {
			continue
		}
		e := c.event(s)
		err := l.record(&e, last)
		if err == nil {
			continue
		}
		if last {
			l.log.Error("counted denials are lost", "source", s.source, "count", c.counted, "error", err)
			continue
		}
		l.denials.mu.Lock()
		l.denials.of(s).add(c.reasons, c.first)
		l.denials.mu.Unlock()
	}
}

func (c *deniedCount) event(s deniedSource) Event {
	e := Event{Kind: KindDeniedCount, Decision: Deny, Source: s.source, Principal: s.principal, Count: c.counted}
	e.Detail = map[string]string{"first": c.first.UTC().Format(time.RFC3339Nano)}
	if s.pooled {
		e.Detail["sources"] = "many"
	}
	for reason, n := range c.reasons {
		e.Detail[reason] = strconv.FormatInt(n, 10)
	}
	return e
}
