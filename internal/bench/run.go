package bench

import (
	"context"
	"fmt"
	"time"

	"iap/internal/bench/load"
	"iap/internal/bench/system"
)

// Measurement is one test on one way in one round.
type Measurement struct {
	Round int    `json:"round"` // from 1
	Way   string `json:"way"`
	load.Result
}

// Results are all measurements of a run, as they are kept on disk.
type Results struct {
	Started      string        `json:"started"`
	LoadAvg      string        `json:"loadavg"` // before the run: a busy machine shows
	Version      string        `json:"version"`
	Measurements []Measurement `json:"measurements"`
}

// Run measures the plan on a running system. It tells tell what it does, a line
// for each test and way. What was measured until an error is in the results.
func Run(ctx context.Context, s *system.System, p Plan, tell func(line string)) (Results, error) {
	r := Results{Started: time.Now().UTC().Format(time.RFC3339), LoadAvg: load.LoadAverage()}
	for round := 1; round <= p.Rounds; round++ {
		for _, step := range p.Steps {
			for _, way := range append([]string{Direct}, step.Ways...) {
				m, err := measure(ctx, s, p, step.Test, way)
				if err != nil {
					return r, err
				}
				m.Round = round
				r.Measurements = append(r.Measurements, m)
				tell(fmt.Sprintf("round %d of %d  %-8s %-7s %s", round, p.Rounds, step.Test, way, brief(m.Result)))
			}
		}
	}
	return r, nil
}

func measure(ctx context.Context, s *system.System, p Plan, test, way string) (Measurement, error) {
	base := s.Direct
	if way != Direct {
		base = s.Ways[way]
	}
	target, err := load.ParseTarget(base)
	if err != nil {
		return Measurement{}, err
	}
	control, err := load.ParseTarget(s.Direct)
	if err != nil {
		return Measurement{}, err
	}
	l := &load.Load{
		Target: target, Bulk: target, Control: control, Hops: s.Hops,
		For: p.For, StreamsFor: p.StreamsFor, TokensPerSecond: p.TokensPerSecond, Rate: load.DefaultRate,
	}
	if way == system.Model { // its way lets model requests through alone
		if l.Bulk, err = load.ParseTarget(s.Ways[system.HTTP]); err != nil {
			return Measurement{}, err
		}
	}
	result, err := l.Run(ctx, test)
	if err == nil {
		err = s.Check()
	}
	return Measurement{Way: way, Result: result}, err
}

// Failed counts the requests and streams that failed, and gives one of the errors
// for each test and way.
func (r Results) Failed() (n int64, examples []string) {
	for _, m := range r.Measurements {
		if m.Failed == 0 {
			continue
		}
		n += m.Failed
		examples = append(examples, fmt.Sprintf("round %d, %s, %s: %d failed, such as: %s", m.Round, m.Test, m.Way, m.Failed, m.Error))
	}
	return n, examples
}

// brief is a result in a few words.
func brief(r load.Result) string {
	text := ""
	switch {
	case r.TokenDelay != nil:
		text = fmt.Sprintf("token delay p50 %.2f ms, p99 %.2f ms", r.TokenDelay.P50/1e3, r.TokenDelay.P99/1e3)
	case r.Latency != nil:
		text = fmt.Sprintf("p50 %.0f us, %.0f requests/s", r.Latency.P50, r.PerSecond)
	default:
		text = fmt.Sprintf("%.0f MB/s", r.MBPerSec)
	}
	if r.Failed > 0 {
		text += fmt.Sprintf(", %d FAILED: %s", r.Failed, r.Error)
	}
	return text
}
