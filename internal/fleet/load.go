package fleet

import "sync"

// Load is how busy one agent is with one resource. The zero value is idle.
type Load struct {
	mu       sync.Mutex
	running  int    // as reported; guarded by mu
	queued   int    // as reported; guarded by mu
	reports  uint64 // how many there were; guarded by mu
	mine     int    // that this relay has there; guarded by mu
	since    int    // of mine, those begun after the last report; guarded by mu
	finished int    // of those in the last report, how many ended here; guarded by mu
}

// Ticket is one request that Begin counted.
type Ticket struct{ reports uint64 }

// Begin counts a request that goes to the agent now.
func (l *Load) Begin() Ticket {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mine++
	l.since++
	return Ticket{l.reports}
}

// End takes back what Begin counted. It is called once for each ticket.
func (l *Load) End(t Ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mine--
	if t.reports == l.reports {
		l.since--
	} else {
		l.finished++
	}
}

// Report is what the agent says. What was sent before is in it.
func (l *Load) Report(running, queued int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running, l.queued = clamp(running), clamp(queued)
	l.since, l.finished = 0, 0
	l.reports++
}

// maxReported is more than any agent runs: what it says is no reason to overflow.
const maxReported = 1 << 20

func clamp(n int) int { return min(max(n, 0), maxReported) }

// Now is about how many generations the agent works on or has waiting.
func (l *Load) Now() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.running+l.queued+l.since-l.finished, l.mine)
}

// Reported is what the agent said last.
func (l *Load) Reported() (running, queued int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running, l.queued
}
