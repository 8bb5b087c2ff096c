package bench

import (
	"slices"
	"strings"

	"iap/internal/bench/load"
	"iap/internal/bench/system"
)

// figure is one number of a result.
type figure struct {
	name string
	unit string
	of   func(load.Result) float64
}

const millisecond = 1e3 // microseconds

// figures are what is shown of a test of that kind.
func figures(test string) []figure {
	kind, _, _ := strings.Cut(test, "-")
	spread := func(name, unit string, per float64, of func(load.Result) *load.Spread, at func(load.Spread) float64) figure {
		return figure{name, unit, func(r load.Result) float64 {
			if s := of(r); s != nil {
				return at(*s) / per
			}
			return 0
		}}
	}
	latency := func(r load.Result) *load.Spread { return r.Latency }
	delay := func(r load.Result) *load.Spread { return r.TokenDelay }
	first := func(r load.Result) *load.Spread { return r.FirstToken }
	p50 := func(s load.Spread) float64 { return s.P50 }
	p99 := func(s load.Spread) float64 { return s.P99 }
	switch kind {
	case "lat", "new":
		return []figure{spread("request p50", "us", 1, latency, p50), spread("request p99", "us", 1, latency, p99)}
	case "sat", "newsat":
		return []figure{{"requests", "/s", func(r load.Result) float64 { return r.PerSecond }}, spread("request p99", "us", 1, latency, p99)}
	case "sse", "mix":
		return []figure{
			spread("token delay p50", "ms", millisecond, delay, p50), spread("token delay p99", "ms", millisecond, delay, p99),
			spread("first token p50", "ms", millisecond, first, p50),
		}
	case "idle":
		return []figure{{"streams open", "", func(r load.Result) float64 { return float64(r.OpenPeak) }}}
	default:
		return []figure{{"bulk", "MB/s", func(r load.Result) float64 { return r.MBPerSec }}}
	}
}

// How a goal is compared.
const (
	ratio    = "ratio"    // to the direct way in the same round
	absolute = "absolute" // as measured through the tunnel
	added    = "added"    // to the direct way in the same round
)

// goal is what a figure is held to.
type goal struct {
	test, way, figure, how string
	atLeast                bool // else at most
	limit                  float64
}

// Names of the figures that come from the hops.
const (
	cpuAll = "cpu" // seconds for each unit, all hops together
	rss    = "rss" // MB of a hop: rss relay
)

// goals of the product, on two cores shared by load generator, hops and model
// server. The fastest multiplexing peer, ssh with aes-gcm, needs x5.2 for a warm
// request and checks nothing.
func goals() []goal {
	all := []goal{
		{"lat-c1", system.Model, "request p50", ratio, false, 5.2},
		{"lat-c1", system.TCP, "request p50", ratio, false, 4.3},
		{"new-c1", system.Model, "request p50", ratio, false, 4.5},
		{"new-c1", system.TCP, "request p50", ratio, false, 4.5},
		{"sat-c64", system.Model, "requests", ratio, true, 0.30},
		{"sat-c64", system.TCP, "requests", ratio, true, 0.30},
		{"sat-c64", system.Model, cpuAll, absolute, false, 0.20},
		{"sat-c64", system.TCP, cpuAll, absolute, false, 0.20},
		{"sse-50", system.Model, "token delay p50", absolute, false, 0.5},
		{"sse-50", system.Model, "token delay p99", absolute, false, 4},
		{"sse-50", system.Model, "first token p50", added, false, 2},
		{"sse-200", system.Model, "token delay p50", absolute, false, 0.6},
		{"sse-200", system.Model, "token delay p99", absolute, false, 5},
		{"sse-500", system.Model, "token delay p50", absolute, false, 2},
		{"sse-500", system.Model, "token delay p99", absolute, false, 30},
		{"idle-10000", system.Model, "streams open", ratio, true, 1},
		{"idle-10000", system.Model, rss + " " + system.Relay, absolute, false, 250},
		{"idle-10000", system.Model, rss + " " + system.Client, absolute, false, 200},
		{"idle-10000", system.Model, rss + " " + system.Agent, absolute, false, 200},
	}
	for _, test := range []string{"down-1", "up-1"} {
		all = append(all,
			goal{test, system.TCP, "bulk", absolute, true, 300}, goal{test, system.TCP, cpuAll, absolute, false, 4},
			goal{test, system.HTTP, "bulk", absolute, true, 250}, goal{test, system.HTTP, cpuAll, absolute, false, 4})
	}
	return all
}

func goalOf(test, way, figure string) (goal, bool) {
	all := goals()
	i := slices.IndexFunc(all, func(g goal) bool { return g.test == test && g.way == way && g.figure == figure })
	if i < 0 {
		return goal{}, false
	}
	return all[i], true
}

func (g goal) met(value float64) bool {
	if g.atLeast {
		return value >= g.limit
	}
	return value <= g.limit
}

// median is the middle, or between the two in the middle; 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}
