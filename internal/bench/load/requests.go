package load

import (
	"context"
	"sync"
	"time"
)

const (
	chatBody = `{"model":"fake-slm","messages":[{"role":"user","content":"Say something short about relays."}],"max_tokens":16}`

	warmups      = 3 // requests on a connection before it counts
	grace        = 30 * time.Second
	samplesGuess = 4096
	dialRetry    = 10 * time.Millisecond // a port that refuses shall not spin
)

// requestTest says how small requests are sent.
type requestTest struct {
	connections int
	fresh       bool // a new connection for each request
	paced       bool // at Load.Rate in all
}

// requests runs small chat requests for l.For.
func (l *Load) requests(ctx context.Context, res *Result, t requestTest) {
	if err := l.setPace(ctx, 0); err != nil {
		res.Failed, res.Error = 1, err.Error()
		return
	}
	var interval time.Duration
	if t.paced {
		rate := l.Rate
		if t.fresh {
			rate /= 4
		}
		interval = time.Duration(float64(t.connections) / rate * float64(time.Second))
	}
	var col collector
	var all, warm sync.WaitGroup
	var deadline time.Time // set before begin is closed
	begin := make(chan struct{})
	warm.Add(t.connections)
	for i := range t.connections {
		all.Go(func() {
			r := &requester{load: l, test: t, interval: interval, col: &col, request: l.Target.request("POST", "/v1/chat/completions", []byte(chatBody))}
			err := r.warmUp(ctx)
			warm.Done()
			if err != nil {
				col.fail(err)
				return
			}
			defer r.close()
			<-begin
			r.run(ctx, time.Now().Add(interval*time.Duration(i)/time.Duration(t.connections)), deadline)
		})
	}
	warm.Wait()
	start := time.Now()
	deadline = start.Add(l.For)
	close(begin)
	all.Wait()
	res.Seconds = time.Since(start).Seconds()
	latency := col.all.spread()
	res.Latency = &latency
	res.finish(int64(latency.Count), &col)
	res.PerSecond = float64(latency.Count) / res.Seconds
}

// requester sends requests on one connection, or on one new connection each.
// Owned by one goroutine.
type requester struct {
	load     *Load
	test     requestTest
	interval time.Duration
	col      *collector
	request  []byte
	conn     *conn
	release  func() bool // of the context's hold on conn
}

func (r *requester) open(ctx context.Context) error {
	c, err := r.load.Target.dial(ctx)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(r.load.For + grace)) // a fresh connection takes deadlines
	r.conn, r.release = c, context.AfterFunc(ctx, func() { c.Close() })
	return nil
}

func (r *requester) close() {
	if r.conn == nil {
		return
	}
	r.release()
	r.conn.Close()
	r.conn = nil
}

// warmUp opens a connection that is kept and uses it.
func (r *requester) warmUp(ctx context.Context) error {
	if r.test.fresh {
		return nil
	}
	if err := r.open(ctx); err != nil {
		return err
	}
	for range warmups {
		if err := r.conn.roundTrip(r.request); err != nil {
			r.close()
			return err
		}
	}
	return nil
}

// run sends requests until the deadline, the first of a paced test at next.
func (r *requester) run(ctx context.Context, next, deadline time.Time) {
	mine := make(samples, 0, samplesGuess)
	defer func() { r.col.merge(mine) }()
	for time.Now().Before(deadline) && ctx.Err() == nil {
		// Latency counts from the scheduled time when the connection was still
		// busy then: waiting in line is latency. A late wake-up of this process
		// is not.
		began := next
		if wait := time.Until(next); !r.test.paced || wait > 0 {
			if r.test.paced {
				pause(ctx, wait)
			}
			began = time.Now()
		}
		err := r.once(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.col.fail(err)
			if !r.test.fresh {
				return
			}
			pause(ctx, dialRetry)
		default:
			mine.add(time.Since(began))
		}
		next = next.Add(r.interval)
	}
}

func (r *requester) once(ctx context.Context) error {
	if r.test.fresh {
		if err := r.open(ctx); err != nil {
			return err
		}
		defer r.close()
	}
	return r.conn.roundTrip(r.request)
}

// pause waits, less if ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
