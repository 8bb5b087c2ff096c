package guard

import (
	"time"

	"iap/internal/modelapi"
)

const (
	// bodyStall is how long a request body may make no progress: a sender of a prompt has it at hand.
	bodyStall = 30 * time.Second
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

// hold sets n bytes of memory aside and says whether they were free.
func (g *Guard) hold(n int64) bool {
	most := g.Limits.Buffered
	if most <= 0 {
		most = defaultBuffered
	}
	if g.buffered.Add(n) <= most {
		return true
	}
	g.buffered.Add(-n)
	return false
}

func (g *Guard) free(n int64) { g.buffered.Add(-n) }
