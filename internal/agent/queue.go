package agent

import (
	"slices"
	"sync"
	"time"
)

const (
	weightUnit  = 1 << 20 // the cost of one generation at weight 1
	averageOver = 8       // generations that weigh most in the estimate

	// What waits is in memory: bytes of requests in all, and of one principal.
	// One that waits alone may have any size.
	maxQueuedBytes = 256 << 20
	maxLineBytes   = 64 << 20
)

// queue shares the slots of one upstream among principals. Each has a line of
// its own; the slot that frees goes to the line that has had the least for its
// weight, however many requests stand in the others (start-time fair queueing:
// each generation costs one over its weight, a line that was empty begins at
// the present).
type queue struct {
	capacity int
	limits   queueLimits
	now      func() time.Time
	changed  func() // is told when somebody came or left; may be nil, must not block

	mu       sync.Mutex
	running  int              // slots taken; guarded by mu
	waiting  int              // guarded by mu
	bytes    int64            // of what waits; guarded by mu
	lines    map[string]*line // of principals that wait or run; guarded by mu
	clock    uint64           // the virtual time at which the last generation began; guarded by mu
	arrivals uint64           // guarded by mu
	typical  time.Duration    // moving average of a generation; 0 before the first; guarded by mu
}

// queueLimits bound who waits and for how long.
type queueLimits struct {
	max, perPrincipal int
	maxWait           time.Duration
}

// line is one principal's place in the queue. Guarded by the queue's lock.
type line struct {
	turns   []*turn // who waits, in order of arrival
	running int
	bytes   int64  // of turns
	next    uint64 // the virtual time at which the first of turns is due
}

// turn is one generation: it waits, holds a slot, is over.
type turn struct {
	queue     *queue
	principal string
	cost      uint64
	size      int64 // of the request
	arrived   uint64
	ready     chan struct{} // closed when it has a slot

	// Guarded by the queue's lock.
	began  time.Time // when it got the slot
	worked bool      // the upstream generated: the time it took is worth remembering
	over   bool
}

// fullError is why nobody more may wait. Position and wait are what the
// request would have met.
type fullError struct {
	own      int // requests that this principal has waiting, if that is the reason
	position int
	wait     time.Duration
}

func (e *fullError) Error() string { return "the queue is full" }

func newQueue(capacity int, limits queueLimits, now func() time.Time) *queue {
	return &queue{capacity: capacity, limits: limits, now: now, lines: map[string]*line{}}
}

// enter takes a place in the principal's line, and the slot at once if one is
// free. The error is a *fullError.
func (q *queue) enter(principal string, weight int, size int64) (*turn, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[principal]
	if l == nil {
		l = &line{}
	}
	q.arrivals++
	t := &turn{queue: q, principal: principal, cost: costOf(weight), size: size, arrived: q.arrivals, ready: make(chan struct{})}
	if len(l.turns) == 0 {
		l.next = max(l.next, q.clock)
	}
	inAll := q.waiting >= q.limits.max || q.waiting > 0 && q.bytes+size > maxQueuedBytes
	own := len(l.turns) >= q.limits.perPrincipal || len(l.turns) > 0 && l.bytes+size > maxLineBytes
	if q.running >= q.capacity && (inAll || own) {
		full := &fullError{position: q.aheadLocked(principal, l.dueLocked(len(l.turns)), t.arrived) + 1}
		full.wait = q.estimateLocked(full.position)
		if !inAll {
			full.own = len(l.turns)
		}
		return nil, full
	}
	q.lines[principal] = l
	l.turns = append(l.turns, t)
	q.countLocked(l, t, 1)
	q.dispatchLocked()
	q.tell()
	return t, nil
}

func (q *queue) tell() {
	if q.changed != nil {
		q.changed()
	}
}

// counts tells how many have a slot and how many wait.
func (q *queue) counts() (running, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running, q.waiting
}

// countLocked counts a turn that begins or ends to wait.
func (q *queue) countLocked(l *line, t *turn, n int) {
	q.waiting += n
	q.bytes += int64(n) * t.size
	l.bytes += int64(n) * t.size
}

func costOf(weight int) uint64 {
	return uint64(weightUnit / min(max(weight, 1), weightUnit))
}

// dispatchLocked gives free slots to whoever is due.
func (q *queue) dispatchLocked() {
	for q.running < q.capacity && q.waiting > 0 {
		var due *line
		for _, l := range q.lines {
			if len(l.turns) > 0 && (due == nil || l.next < due.next || l.next == due.next && l.turns[0].arrived < due.turns[0].arrived) {
				due = l
			}
		}
		t := due.turns[0]
		due.turns = slices.Delete(due.turns, 0, 1)
		q.clock = due.next
		due.next += t.cost
		due.running++
		q.countLocked(due, t, -1)
		q.running++
		t.began = q.now()
		close(t.ready)
	}
}

// leave gives up the place or the slot. It is idempotent.
func (t *turn) leave() {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.over {
		return
	}
	t.over = true
	l := q.lines[t.principal]
	if i := slices.Index(l.turns, t); i >= 0 {
		l.turns = slices.Delete(l.turns, i, i+1)
		q.countLocked(l, t, -1)
	} else {
		l.running--
		q.running--
		if t.worked {
			q.learnLocked(q.now().Sub(t.began))
		}
	}
	if len(l.turns) == 0 && l.running == 0 {
		delete(q.lines, t.principal)
	}
	q.dispatchLocked()
	q.tell()
}

// isWaitedFor says whether somebody waits for a slot.
func (q *queue) isWaitedFor() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiting > 0
}

// generates notes that the upstream took the request.
func (t *turn) generates() {
	t.queue.mu.Lock()
	t.worked = true
	t.queue.mu.Unlock()
}

// learnLocked takes one generation into the average.
func (q *queue) learnLocked(took time.Duration) {
	if q.typical == 0 {
		q.typical = max(took, 1)
		return
	}
	q.typical = max(q.typical+(took-q.typical)/averageOver, 1)
}

// place says how many slots must free before the turn has one, and about how
// long that takes; 0, 0 once it has one. The wait is 0 while nothing is known.
func (t *turn) place() (position int, wait time.Duration) {
	q := t.queue
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lines[t.principal]
	if t.over || l == nil {
		return 0, 0
	}
	i := slices.Index(l.turns, t)
	if i < 0 {
		return 0, 0
	}
	position = q.aheadLocked(t.principal, l.dueLocked(i), t.arrived) + 1
	return position, q.estimateLocked(position)
}

// dueLocked is the virtual time of the line's turn with index i, which may be
// the one behind the last.
func (l *line) dueLocked(i int) uint64 {
	due := l.next
	for _, t := range l.turns[:i] {
		due += t.cost
	}
	return due
}

// aheadLocked counts who comes before a turn of the principal that is due and
// arrived then.
func (q *queue) aheadLocked(principal string, due, arrived uint64) int {
	ahead := 0
	for name, l := range q.lines {
		at := l.next
		for _, t := range l.turns {
			if name == principal && t.arrived >= arrived || at > due || at == due && t.arrived > arrived {
				break
			}
			ahead++
			at += t.cost
		}
	}
	return ahead
}

// estimateLocked is about how long it takes until so many slots have freed.
func (q *queue) estimateLocked(slots int) time.Duration {
	wait := q.typical * time.Duration(slots) / time.Duration(q.capacity)
	return min((wait + time.Second - 1).Truncate(time.Second), maxEstimate)
}

// maxEstimate is where an estimate stops to mean anything.
const maxEstimate = time.Hour
