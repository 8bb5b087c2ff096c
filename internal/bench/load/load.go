package load

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Load is what the tests run against and for how long.
type Load struct {
	Target  Target // gets the requests and streams
	Bulk    Target // gets the downloads and uploads, since a model's way lets model requests through alone
	Control Target // the model server itself, which sets the pace and counts what arrived
	Hops    []Hop  // processes to account for; none: no accounting

	For             time.Duration // length of each request or bulk test
	StreamsFor      time.Duration // length of each stream
	TokensPerSecond float64       // of each stream
	Rate            float64       // requests per second of the paced tests; a quarter of it with new connections
}

// kinds of tests by the word before the hyphen.
func (l *Load) kinds() map[string]func(context.Context, *Result, int) {
	requests := func(fresh, saturate bool) func(context.Context, *Result, int) {
		return func(ctx context.Context, res *Result, n int) {
			l.requests(ctx, res, requestTest{connections: n, fresh: fresh, paced: n > 1 && !saturate})
		}
	}
	streams := func(perSecond float64) func(context.Context, *Result, int) {
		return func(ctx context.Context, res *Result, n int) { l.streams(ctx, res, n, perSecond) }
	}
	return map[string]func(context.Context, *Result, int){
		"lat": requests(false, false), "sat": requests(false, true), "new": requests(true, false), "newsat": requests(true, true),
		"sse": streams(l.TokensPerSecond), "idle": streams(idleTokensPerSecond), "mix": l.mix,
		"down": func(ctx context.Context, res *Result, n int) { l.bulk(ctx, res, n, false) },
		"up":   func(ctx context.Context, res *Result, n int) { l.bulk(ctx, res, n, true) },
	}
}

// Run does one test. Failures of requests are in the result; an error means
// that there is no such test or that ctx ended.
func (l *Load) Run(ctx context.Context, test string) (Result, error) {
	kind, count, _ := strings.Cut(test, "-")
	n, err := strconv.Atoi(strings.TrimPrefix(count, "c"))
	run := l.kinds()[kind]
	if run == nil || err != nil || n < 1 {
		return Result{}, fmt.Errorf("unknown test %q, want KIND-N such as lat-c1, sse-50, down-1", test)
	}
	res := Result{Test: test}
	before, start := usageOf(l.Hops), time.Now()
	run(ctx, &res, n)
	if err := ctx.Err(); err != nil {
		return res, err
	}
	if res.Seconds == 0 {
		res.Seconds = time.Since(start).Seconds()
	}
	if len(l.Hops) > 0 {
		res.account(before, usageOf(l.Hops))
	}
	return res, nil
}
