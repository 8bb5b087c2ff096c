package guard

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// readBody reads the whole body of a request to a model server, since the field that counts can be its last. Memory is
// taken as bytes come, not as a header promises them.
func (x *exchange) readBody() *refusal {
	r, limit := x.r, x.guard.Limits.body()
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return nil
	}
	if r.ContentLength > limit {
		return errTooLarge()
	}
	control := http.NewResponseController(x.w)
	begun := time.Now()
	for {
		if err := x.growBody(r.ContentLength, limit); err != nil {
			return err
		}
		patience := begun.Add(bodyStall + time.Duration(x.received)*time.Second/bodyRate)
		_ = control.SetReadDeadline(patience) // not supported: the mounting side's own limits hold
		n, err := r.Body.Read(x.body[len(x.body):cap(x.body)])
		x.body = x.body[:len(x.body)+n]
		x.received += int64(n)
		var tooLarge *http.MaxBytesError
		switch {
		case x.received > limit || errors.As(err, &tooLarge):
			return errTooLarge()
		case errors.Is(err, io.EOF):
			_ = control.SetReadDeadline(time.Time{}) // the answer may take as long as it takes
			x.whole = true
			return nil
		case err != nil:
			return &refusal{status: 400, code: "body_incomplete", message: "the request body ended before it was whole"}
		}
	}
}

// closeUnlessWhole ends the connection behind an answer that is sent before the request's body is whole. What comes
// next on it would be the rest of that body, read as a request of its own.
func (x *exchange) closeUnlessWhole() {
	whole := x.whole || x.r.Body == nil || x.r.Body == http.NoBody || x.r.ContentLength == 0
	if x.counted != nil {
		whole = x.counted.whole.Load()
	}
	if !whole {
		x.endConnection()
	}
}

// limitDrain bounds how long net/http reads on after an answer to less than the whole request, to find the
// connection's next one: a sender that trickles would hold it for ever.
func (x *exchange) limitDrain() {
	if x.whole || x.counted != nil && x.counted.whole.Load() || x.r.Body == nil || x.r.Body == http.NoBody {
		return
	}
	_ = http.NewResponseController(x.w).SetReadDeadline(time.Now().Add(drainLimit))
}

func errTooLarge() *refusal {
	return &refusal{status: 413, code: "body_too_large", message: "the request body is larger than what passes here"}
}

// growBody makes room for one more read: what the header says if that is near, else twice what is there.
func (x *exchange) growBody(promised, limit int64) *refusal {
	have := int64(cap(x.body))
	if int64(len(x.body)) < have {
		return nil
	}
	want := max(firstRead, 2*have)
	if promised >= 0 && promised < want {
		want = max(promised+1, have+1) // one more byte tells the end without growing again
	}
	want = min(want, limit+1)
	if want > smallBody && !x.hold(want-have) {
		return &refusal{status: 503, code: "overloaded", message: "too many large requests are under way", retryAfter: overloadRetry}
	}
	grown := make([]byte, len(x.body), want)
	copy(grown, x.body)
	x.body = grown
	return nil
}

// countedBody counts what the upstream's forwarder reads of a request that is streamed. Reads and the count are from
// different goroutines.
type countedBody struct {
	body   io.Reader
	n      atomic.Int64
	whole  atomic.Bool // it was read to its end
	broken atomic.Bool // the caller stopped in the middle

	mu      sync.Mutex // held by a Read that runs
	stopped bool       // no more Reads; guarded by mu
}

// endUpload frees a forwarder that waits for more of a body whose answer is over, and keeps it from reading on: the
// body belongs to the handler. The answer is written by now, and closeUnlessWhole has ended the connection behind it.
func (x *exchange) endUpload() {
	c := x.counted
	if c == nil || c.whole.Load() {
		return
	}
	control := http.NewResponseController(x.w)
	_ = control.Flush() // a broken connection needs no answer
	_ = control.SetReadDeadline(time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = true
}

func (c *countedBody) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped {
		return 0, http.ErrBodyReadAfterClose
	}
	n, err := c.body.Read(p)
	c.n.Add(int64(n))
	switch {
	case err == nil, errors.Is(err, http.ErrBodyReadAfterClose):
	case errors.Is(err, io.EOF):
		c.whole.Store(true)
	default:
		c.broken.Store(true)
	}
	return n, err
}

func (x *exchange) bytesIn() int64 {
	if x.counted != nil {
		return x.counted.n.Load()
	}
	return x.received
}
