package relay

import (
	"context"
	"time"

	"iap/tunnel"
)

const (
	drainPoll   = 100 * time.Millisecond
	closePoll   = 10 * time.Millisecond // of what is over within sessionCloses
	drainOthers = 30 * time.Second      // what is no answer being generated
)

// drain lets what runs come to its end. Answers being generated have until the
// configured limit, everything else drainOthers; a closed force ends
// both.
func (r *Relay) drain(force <-chan struct{}) {
	everything := r.sessions.all(func(*session) bool { return true })
	r.log.Info("draining", "sessions", len(everything))
	for _, s := range everything {
		if err := s.tunnel.GoAway("the relay is going away"); err != nil {
			r.log.Debug("goaway", "session", s.tunnel.ID(), "error", err)
		}
	}
	_ = r.listener.Close() // no new connections; those there go on
	r.wait(force)
	for _, s := range r.live.list() {
		s.stop(tunnel.CodeRelayShutdown)
	}
	for _, s := range r.sessions.all(func(s *session) bool { return s.identity().agent == nil }) {
		s.stop(tunnel.CodeRelayShutdown, "the relay is going away")
	}
	done, cancel := context.WithTimeout(context.Background(), 2*sessionCloses)
	defer cancel()
	until(done.Done(), closePoll, func() bool {
		return len(r.sessions.all(func(s *session) bool { return s.identity().agent == nil })) == 0
	})
	for _, s := range r.sessions.all(func(*session) bool { return true }) {
		_ = s.tunnel.Close(tunnel.CodeRelayShutdown, "the relay is going away")
	}
	_ = r.public.Close()
	_ = r.streams.http.Close()
	_ = r.admin.close()
}

// wait returns when nothing runs any more, a limit is reached or force closes.
func (r *Relay) wait(force <-chan struct{}) {
	limit, cancel := context.WithTimeout(context.Background(), time.Duration(r.cfg.Drain))
	defer cancel()
	others, cancelOthers := context.WithTimeout(limit, min(drainOthers, time.Duration(r.cfg.Drain)))
	defer cancelOthers()
	until(force, drainPoll, func() bool {
		if limit.Err() != nil {
			return true
		}
		models, rest := r.inflight.models.Load(), int(r.inflight.others.Load())+len(r.live.list())
		return models == 0 && (rest == 0 || others.Err() != nil)
	})
}

// until polls done, which nothing announces, until it holds or stop closes.
func until(stop <-chan struct{}, every time.Duration, done func() bool) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}
