package guard

import (
	"sync"
	"time"

	"iap/internal/modelapi"
)

const (
	// bodyStall is how long a request body may take beside what bodyRate grants it: a sender of a prompt has it at hand.
	bodyStall = 30 * time.Second
	// bodyRate is how fast, in bytes per second, a request body must come in the long run: a sender that trickles holds
	// memory of everybody's.
	bodyRate = 64 << 10
	// smallBody is never refused for want of memory: it is what nearly every request is.
	smallBody = 64 << 10
	// memoryShares is the part of the memory one caller can hold.
	memoryShares = 8
	// maxTarget is what fits a tunnel's stream header with all the rest.
	maxTarget = 8 << 10
	// drainLimit is how long the rest of a refused request's body may take to come.
	drainLimit = 5 * time.Second
	// lastWords is how long the error event may take to leave when an answer is cut: the reader may be gone.
	lastWords = time.Second
	// firstRead is the memory spent on a body before its first bytes came.
	firstRead = 4 << 10
	// smallBuffer is what a token by token answer needs, of which thousands wait at once.
	smallBuffer = 4 << 10
	// largeBuffer is one tunnel frame, for answers that come as fast as they are taken.
	largeBuffer = 32 << 10
	// defaultBuffered holds sixteen of the largest requests, or thousands of usual ones.
	defaultBuffered = 512 << 20
	// overloadRetry is when a caller should come back who met full memory.
	overloadRetry = time.Second
)

// Limits bound what the guard holds in memory. Zero fields take the defaults.
type Limits struct {
	Body     int64 // one request body; default, and most, modelapi.MaxBody
	Buffered int64 // all request bodies and model lists held at once; default 512 MiB
}

func (l Limits) body() int64 {
	if l.Body <= 0 || l.Body > modelapi.MaxBody {
		return modelapi.MaxBody
	}
	return l.Body
}

// memory is what requests hold at once, in all and by caller: nobody's large prompts keep out those of the others.
type memory struct {
	mu     sync.Mutex
	all    int64            // guarded by mu
	shares map[string]int64 // guarded by mu; by principal, only while above zero
}

// hold sets n bytes of memory aside for the caller and says whether they were free.
func (x *exchange) hold(n int64) bool {
	most := x.guard.Limits.Buffered
	if most <= 0 {
		most = defaultBuffered
	}
	m, who := &x.guard.buffered, x.caller.Principal
	m.mu.Lock()
	defer m.mu.Unlock()
	share := max(most/memoryShares, modelapi.MaxList)
	if m.all+n > most || m.shares[who]+n > share {
		return false
	}
	if m.shares == nil {
		m.shares = map[string]int64{}
	}
	m.all += n
	m.shares[who] += n
	x.held += n
	return true
}

// holdDecoded sets aside what a compressed body may decode to, before it is: as it is read and in canonical form.
func (x *exchange) holdDecoded() bool { return x.hold(2 * int64(modelapi.MaxDecoded(len(x.body)))) }

// holdOnly gives back what is held beyond n bytes: what came is dropped once its canonical form is there.
func (x *exchange) holdOnly(n int) {
	if spare := x.held - int64(n); spare > 0 {
		x.giveBack(spare)
	}
}

// free gives back what the exchange holds.
func (x *exchange) free() { x.giveBack(x.held) }

func (x *exchange) giveBack(n int64) {
	if n == 0 {
		return
	}
	m, who := &x.guard.buffered, x.caller.Principal
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all -= n
	if m.shares[who] -= n; m.shares[who] <= 0 {
		delete(m.shares, who)
	}
	x.held -= n
}
