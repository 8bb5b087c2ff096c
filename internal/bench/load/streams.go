package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"iap/internal/bench/clock"
)

const (
	streamsRamp         = 1000 // streams started per second
	idleTokensPerSecond = 0.2
)

// streams opens n token streams, all started within n/streamsRamp seconds.
func (l *Load) streams(ctx context.Context, res *Result, n int, perSecond float64) {
	ramp := time.Duration(float64(n) / streamsRamp * float64(time.Second))
	tokens := max(2, int((l.StreamsFor+ramp).Seconds()*perSecond))
	if perSecond < 1 { // idle streams: the first ones wait for the last to open
		tokens = int((l.StreamsFor+ramp).Seconds()*perSecond) + 1
	}
	if err := l.setPace(ctx, perSecond); err != nil {
		res.Failed, res.Error = int64(n), err.Error()
		return
	}
	body := fmt.Appendf(nil, `{"model":"fake-slm","stream":true,"messages":[{"role":"user","content":"hi"}],"max_tokens":%d}`, tokens)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(float64(tokens)/perSecond*float64(time.Second))+ramp+grace)
	defer cancel()
	s := &streamTest{target: l.Target, tokens: tokens, request: l.Target.request("POST", "/v1/chat/completions", body)}
	start := time.Now()
	var all, sampler sync.WaitGroup
	for i := range n {
		all.Go(func() {
			pause(ctx, time.Until(start.Add(ramp*time.Duration(i)/time.Duration(n))))
			if err := s.one(ctx); err != nil {
				s.delays.fail(err)
				return
			}
			s.done.Add(1)
		})
	}
	finished, finish := context.WithCancel(ctx)
	sampler.Go(func() {
		pause(finished, ramp+l.StreamsFor/2)
		if finished.Err() == nil {
			res.middle = usageOf(l.Hops)
		}
	})
	all.Wait()
	finish()
	sampler.Wait()
	delay, late, first := s.delays.all.spread(), s.lates.all.spread(), s.firsts.all.spread()
	res.TokenDelay, res.TokenLate, res.FirstToken = &delay, &late, &first
	res.OpenPeak = s.peak.Load()
	res.finish(s.done.Load(), &s.delays)
}

// streamTest is what the streams of one test share.
type streamTest struct {
	target                Target
	tokens                int
	request               []byte
	delays, lates, firsts collector
	open, peak, done      atomic.Int64
}

// one runs one stream to its end.
func (s *streamTest) one(ctx context.Context) error {
	began := time.Now()
	c, err := s.target.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	release := context.AfterFunc(ctx, func() { c.Close() })
	defer release()
	delay, late := make(samples, 0, s.tokens), make(samples, 0, s.tokens)
	var first samples
	err = c.stream(s.request, func(due, sent int64) {
		now := clock.Now()
		if len(first) == 0 {
			first.add(time.Since(began))
			s.opened()
		}
		delay.add(time.Duration(now - sent))
		late.add(time.Duration(now - due))
	})
	if len(first) > 0 {
		s.open.Add(-1)
	}
	s.delays.merge(delay)
	s.lates.merge(late)
	s.firsts.merge(first)
	if err == nil && len(delay) != s.tokens {
		err = fmt.Errorf("the answer ended early: %d of %d tokens", len(delay), s.tokens)
	}
	return err
}

// opened counts a stream in and remembers the most there were at once.
func (s *streamTest) opened() {
	open := s.open.Add(1)
	for peak := s.peak.Load(); open > peak && !s.peak.CompareAndSwap(peak, open); peak = s.peak.Load() {
	}
}
