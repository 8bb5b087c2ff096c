package bench

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"iap/internal/bench/load"
	"iap/internal/bench/system"
)

// Direct is the way without a tunnel; the others are kinds of resources.
const Direct = "direct"

// Step is one test with the ways through the tunnel that it is run on, right
// after each other and after the direct one.
type Step struct {
	Test string
	Ways []string
}

// Plan is what a run measures and how long.
type Plan struct {
	Steps           []Step
	Rounds          int
	For             time.Duration // of each request or bulk test
	StreamsFor      time.Duration // of each stream
	TokensPerSecond float64
}

// Full is the plan that figures are taken from.
func Full() Plan {
	return Plan{Steps: steps(), Rounds: 5, For: 3 * time.Second, StreamsFor: 10 * time.Second, TokensPerSecond: load.DefaultTokensPerSecond}
}

// Quick is one short round, to see that everything still works.
func Quick() Plan {
	p := Full()
	p.Rounds, p.For, p.StreamsFor = 1, 500*time.Millisecond, 2*time.Second
	return p
}

func steps() []Step {
	small := []string{system.Model, system.TCP}
	model := []string{system.Model}
	bulk := []string{system.TCP, system.HTTP}
	return []Step{
		{"lat-c1", small},
		{"new-c1", small},
		{"sat-c64", small},
		{"sse-50", model},
		{"sse-200", model},
		{"sse-500", model},
		{"down-1", bulk},
		{"up-1", bulk},
	}
}

// Only keeps the named tests, in the order given, and lets other ones of the
// known kinds in.
func (p *Plan) Only(tests string) error {
	var kept []Step
	for name := range strings.SplitSeq(tests, ",") {
		if i := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Test == name }); i >= 0 {
			kept = append(kept, p.Steps[i])
			continue
		}
		kind, _, _ := strings.Cut(name, "-")
		switch kind {
		case "down", "up":
			kept = append(kept, Step{name, []string{system.TCP, system.HTTP}})
		case "lat", "new", "sat", "newsat":
			kept = append(kept, Step{name, []string{system.Model, system.TCP}})
		case "sse", "idle", "mix":
			kept = append(kept, Step{name, []string{system.Model}})
		default:
			return fmt.Errorf("no test %q", name)
		}
	}
	p.Steps = kept
	return nil
}

// Idle adds a test with n streams that hardly ever say anything.
func (p *Plan) Idle(n int) {
	p.Steps = append(p.Steps, Step{"idle-" + strconv.Itoa(n), []string{system.Model}})
}

// Streams is the most streams that the plan opens at once, with room for some
// that are just ending.
func (p *Plan) Streams() int {
	most := 1024
	for _, s := range p.Steps {
		_, count, _ := strings.Cut(s.Test, "-")
		if n, err := strconv.Atoi(strings.TrimPrefix(count, "c")); err == nil {
			most = max(most, n+n/8)
		}
	}
	return most
}
