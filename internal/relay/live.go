package relay

import (
	"context"
	"sync"
	"time"

	"iap/internal/guard"
	"iap/policy"
	"iap/tunnel"
)

// liveStream is a tcp stream that runs. Requests of models and web resources
// are the guard's to recheck; a splice has nobody else.
type liveStream struct {
	session  *session
	resource policy.Resource
	user     *tunnel.Stream

	mu      sync.Mutex
	agent   *tunnel.Stream // guarded by mu; nil until the agent has answered
	stopped tunnel.Code    // guarded by mu
}

// join adds the agent's side, which may find that the stream was stopped.
func (s *liveStream) join(agent *tunnel.Stream) {
	s.mu.Lock()
	s.agent = agent
	stopped := s.stopped
	s.mu.Unlock()
	if stopped != tunnel.CodeNone {
		agent.Abort(stopped)
	}
}

// stop ends both sides.
func (s *liveStream) stop(code tunnel.Code) {
	s.mu.Lock()
	s.stopped = code
	agent := s.agent
	s.mu.Unlock()
	s.user.Abort(code)
	if agent != nil {
		agent.Abort(code)
	}
}

// liveStreams are the tcp streams that run now.
type liveStreams struct {
	mu  sync.Mutex
	all map[*liveStream]struct{} // guarded by mu
}

// add enters a stream; the func it returns takes it out.
func (l *liveStreams) add(entry *liveStream) func() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[*liveStream]struct{}{}
	}
	l.all[entry] = struct{}{}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.all, entry)
	}
}

func (l *liveStreams) list() []*liveStream {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]*liveStream, 0, len(l.all))
	for s := range l.all {
		all = append(all, s)
	}
	return all
}

// recheckAll asks the policy again about everything that runs, after a reload.
func (r *Relay) recheckAll(ctx context.Context) {
	ctx = context.WithValue(ctx, recheckKey{}, true)
	for _, s := range r.live.list() {
		r.recheckTCP(ctx, s)
	}
	r.guard.Recheck(ctx, tunnel.CodePolicyChanged.String(), nil)
}

const (
	stateProbe = 10 * time.Second // between two looks at the store
	stateLimit = 5 * time.Minute  // without it revocations may have been missed
)

// watchState ends the users' sessions when the store has been away for too long:
// what it would have told of revocations is not known.
func (r *Relay) watchState() {
	tick := time.NewTicker(stateProbe)
	defer tick.Stop()
	seen := r.now()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-tick.C:
		}
		if _, err := r.store.List(r.ctx, keyPrincipal, "", 1); err == nil {
			seen = r.now()
			continue
		}
		away := r.now().Sub(seen)
		r.log.Error("state is away", "for", away.String())
		if away < stateLimit {
			continue
		}
		for _, s := range r.sessions.all(func(s *session) bool { return s.identity().agent == nil }) {
			s.stop(tunnel.CodeStateUnavailable, "the relay has lost its database")
		}
	}
}

// recheck does the same for one session, whose principal's claims changed.
func (r *Relay) recheck(s *session) {
	ctx := context.WithValue(r.ctx, recheckKey{}, true)
	r.guard.Recheck(ctx, tunnel.CodePolicyChanged.String(), func(c *guard.Caller) bool { return c.Value == s })
	for _, one := range r.live.list() {
		if one.session == s {
			r.recheckTCP(ctx, one)
		}
	}
}

func (r *Relay) recheckTCP(ctx context.Context, s *liveStream) {
	if d := r.ask(ctx, s.session.identity(), policy.Input{Resource: s.resource, Action: policy.ActionConnect, Via: "tunnel"}); !d.Allow && ctx.Err() == nil {
		s.stop(tunnel.CodePolicyChanged)
	}
}
