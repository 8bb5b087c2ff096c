package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bulkBytes  = int64(1) << 42 // more than any test moves
	bulkWarmup = 700 * time.Millisecond
	bulkBlock  = 128 << 10
)

// bulk moves data on n connections for l.For, after a warm-up.
func (l *Load) bulk(ctx context.Context, res *Result, n int, up bool) {
	var col collector
	var received atomic.Int64
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	for range n {
		group.Go(func() {
			transfer := func() error { return l.download(running, &received) }
			if up {
				transfer = func() error { return l.upload(running) }
			}
			if err := transfer(); err != nil && running.Err() == nil {
				col.fail(err)
			}
		})
	}
	count := func() (int64, error) { return received.Load(), nil }
	if up { // what has left this process says little
		count = func() (int64, error) { return l.sunkBytes(ctx) }
	}
	err := l.measureBulk(running, res, count)
	stop()
	group.Wait()
	if err != nil && ctx.Err() == nil {
		col.fail(err)
	}
	res.finish(int64(n)-col.failed, &col)
}

// measureBulk counts what moves between the warm-up and the end.
func (l *Load) measureBulk(ctx context.Context, res *Result, count func() (int64, error)) error {
	pause(ctx, bulkWarmup)
	res.before = usageOf(l.Hops)
	before, err := count()
	if err != nil {
		return err
	}
	start := time.Now()
	pause(ctx, l.For)
	after, err := count()
	if err != nil {
		return err
	}
	res.Seconds = time.Since(start).Seconds()
	res.after = usageOf(l.Hops)
	res.bytes = float64(after - before)
	res.MBPerSec = res.bytes / 1e6 / res.Seconds
	return nil
}

func (l *Load) download(ctx context.Context, received *atomic.Int64) error {
	c, err := l.Bulk.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	release := context.AfterFunc(ctx, func() { c.Close() })
	defer release()
	if _, err := c.begin(l.Bulk.request("GET", fmt.Sprintf("/bytes?n=%d", bulkBytes), nil)); err != nil {
		return err
	}
	block := make([]byte, bulkBlock)
	for {
		n, err := c.r.Read(block)
		received.Add(int64(n))
		if err != nil {
			return err
		}
	}
}

func (l *Load) upload(ctx context.Context) error {
	c, err := l.Bulk.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	release := context.AfterFunc(ctx, func() { c.Close() })
	defer release()
	if _, err := c.Write(l.Bulk.head("POST", "/sink", "application/octet-stream", bulkBytes)); err != nil {
		return err
	}
	block := make([]byte, bulkBlock)
	for {
		if _, err := c.Write(block); err != nil {
			return err
		}
	}
}

// mix runs n streams with one download beside them, to see what the download
// does to the tokens.
func (l *Load) mix(ctx context.Context, res *Result, n int) {
	var received atomic.Int64
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	var bulkErr error
	group.Go(func() {
		if err := l.download(running, &received); err != nil && running.Err() == nil {
			bulkErr = fmt.Errorf("download: %w", err)
		}
	})
	pause(ctx, bulkWarmup)
	before, start := received.Load(), time.Now()
	l.streams(ctx, res, n, l.TokensPerSecond)
	res.MBPerSec = float64(received.Load()-before) / 1e6 / time.Since(start).Seconds()
	stop()
	group.Wait()
	if bulkErr != nil {
		res.Failed++
		if res.Error == "" {
			res.Error = bulkErr.Error()
		}
	}
}
