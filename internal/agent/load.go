package agent

import (
	"context"
	"time"

	"iap/tunnel"
)

// reportGap is the least time between two reports of load. A relay knows what it
// has sent itself; reports tell it of other relays.
const reportGap = 250 * time.Millisecond

// works counts a request that needs no place in the queue; the function it
// returns takes that back.
func (a *Agent) works(u *upstream) func() {
	u.active.Add(1)
	a.busier()
	return func() {
		u.active.Add(-1)
		a.busier()
	}
}

// busier asks for a report soon. It never blocks.
func (a *Agent) busier() {
	select {
	case a.loaded <- struct{}{}:
	default:
	}
}

// keepReporting tells the relays how busy the agent is, whenever that changed.
func (a *Agent) keepReporting(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.loaded:
		}
		loads := a.loads()
		sessions, _ := a.live()
		for _, s := range sessions {
			if s.Class() != tunnel.Interactive {
				continue // one of each relay's is enough
			}
			if err := s.ReportLoad(loads); err != nil {
				a.log.Debug("report load", "session", s.ID(), "error", err)
			}
		}
		if !pause(ctx, reportGap) {
			return
		}
	}
}

func (a *Agent) loads() []tunnel.Load {
	all := make([]tunnel.Load, len(a.upstreams))
	for i, u := range a.upstreams {
		all[i] = tunnel.Load{Resource: u.cfg.Name, Running: int(u.active.Load())}
		if u.queue != nil {
			running, waiting := u.queue.counts()
			all[i].Running, all[i].Queued = all[i].Running+running, waiting
		}
	}
	return all
}
