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

	asking sync.Mutex  // held while the policy is asked
	again  *time.Timer // guarded by asking; asks when a decision ends; nil before the first and after the stream
	over   bool        // guarded by asking
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
	var both sync.WaitGroup
	both.Go(func() { r.guard.Recheck(ctx, tunnel.CodePolicyChanged.String(), nil) })
	r.recheckStreams(ctx, func(*liveStream) bool { return true })
	both.Wait()
}

// recheck does the same for one session, whose principal's claims changed.
func (r *Relay) recheck(s *session) {
	ctx := context.WithValue(r.ctx, recheckKey{}, true)
	r.guard.Recheck(ctx, tunnel.CodePolicyChanged.String(), func(c *guard.Caller) bool { return c.Value == s })
	r.recheckStreams(ctx, func(one *liveStream) bool { return one.session == s })
}

// recheckWorkers ask side by side, so that one stream whose policy takes its time
// does not hold up the end of another.
const recheckWorkers = 16

func (r *Relay) recheckStreams(ctx context.Context, keep func(*liveStream) bool) {
	var workers sync.WaitGroup
	next := make(chan *liveStream)
	for range recheckWorkers {
		workers.Go(func() {
			for s := range next {
				r.recheckTCP(ctx, s, tunnel.CodePolicyChanged)
			}
		})
	}
	for _, s := range r.live.list() {
		if keep(s) {
			next <- s
		}
	}
	close(next)
	workers.Wait()
}

// recheckTCP asks about one stream and ends it if it is no longer allowed, with
// code unless the denial has one of its own. A decision that ends is asked for
// again at its end.
func (r *Relay) recheckTCP(ctx context.Context, s *liveStream, code tunnel.Code) {
	s.asking.Lock()
	defer s.asking.Unlock()
	if s.over {
		return
	}
	d := r.askFirmly(ctx, s)
	switch {
	case ctx.Err() != nil:
	case d.Allow && !d.Until.IsZero():
		r.askAt(s, d.Until)
	case d.Allow:
	case isLost(d.Reason):
		s.stop(tunnel.ParseCode(d.Reason))
	case d.StepUp != nil: // a max_auth_age has passed
		s.stop(tunnel.CodeLoginRequired)
	default:
		s.stop(code)
	}
}

const (
	askTries = 4                      // of a policy that could not answer, before a stream is cut for it
	askPause = 250 * time.Millisecond // between them: the whole stays within a second
	minAsk   = 100 * time.Millisecond // between two questions about one stream
)

// askFirmly asks again while the policy could not answer: a stream that runs is
// not cut because the machine is busy.
func (r *Relay) askFirmly(ctx context.Context, s *liveStream) policy.Decision {
	for try := 1; ; try++ {
		d := r.ask(ctx, s.session.identity(), policy.Input{Resource: s.resource, Action: policy.ActionConnect, Via: policy.ViaTunnel})
		if d.Allow || try == askTries || d.Reason != policy.ReasonPolicyTimeout && d.Reason != policy.ReasonPolicyError {
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

// askAt has the policy asked again about the stream at a time. Until then the clock
// is looked at again and again: a timer stands still while the machine sleeps.
// s.asking is held.
func (r *Relay) askAt(s *liveStream, at time.Time) {
	if s.again != nil {
		s.again.Stop()
	}
	wait := at.Round(0).Sub(r.now().Round(0))
	if wait > clockCheck {
		s.again = time.AfterFunc(clockCheck, func() {
			s.asking.Lock()
			defer s.asking.Unlock()
			if !s.over {
				r.askAt(s, at)
			}
		})
		return
	}
	s.again = time.AfterFunc(max(wait, minAsk), func() {
		r.recheckTCP(context.WithValue(r.ctx, recheckKey{}, true), s, tunnel.CodePolicyDenied)
	})
}

// leave ends the questions, and waits for one that is just being asked.
func (s *liveStream) leave() {
	s.asking.Lock()
	defer s.asking.Unlock()
	s.over = true
	if s.again != nil {
		s.again.Stop()
	}
}

const (
	stateProbe = 10 * time.Second // between two looks at the store
	stateLimit = 5 * time.Minute  // without it revocations may have been missed
)

// watchState ends what users run when the store has been away for too long: what
// it would have told of revocations is not known.
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
		seen = r.lookAtState(seen)
	}
}

// lookAtState returns when the store last answered, which it had at seen. One that
// says nothing is away as well. Sleep counts: revocations go on meanwhile.
func (r *Relay) lookAtState(seen time.Time) time.Time {
	ctx, cancel := context.WithTimeout(r.ctx, stateProbe)
	defer cancel()
	_, err := r.store.List(ctx, keyPrincipal, "", 1)
	switch {
	case err == nil:
		r.stateLost.Store(false)
		return r.now()
	case r.ctx.Err() != nil:
		return seen
	}
	away := r.now().Round(0).Sub(seen.Round(0))
	r.log.Error("state is away", "for", away.String(), "error", err)
	if away < stateLimit {
		return seen
	}
	r.stateLost.Store(true) // from here on nothing begins at the front door
	for _, s := range r.sessions.all(func(s *session) bool { return s.identity().agent == nil }) {
		s.stop(tunnel.CodeStateUnavailable, blindMessage)
	}
	r.doors.end(func(*doorCaller) *guard.Ended {
		return &guard.Ended{Code: tunnel.CodeStateUnavailable.String(), Message: blindMessage}
	})
	return seen
}
