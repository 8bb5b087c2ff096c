package bench

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"iap/internal/bench/load"
	"iap/internal/bench/system"
)

func TestMedianIsTheMiddle(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %g, want %g", c.values, got, c.want)
		}
	}
	values := []float64{3, 1, 2}
	if median(values); values[0] != 3 {
		t.Error("median sorted its argument")
	}
}

func latency(round int, way string, p50 float64) Measurement {
	return Measurement{Round: round, Way: way, Result: load.Result{Test: "lat-c1", Done: 1, Latency: &load.Spread{P50: p50}}}
}

// The rounds' ratios are 2, 3 and 10: their median is 3, while the ratio of the
// medians would be 20/10. Only neighbours in a round are compared.
func TestRatioIsTheMedianOfTheRounds(t *testing.T) {
	r := Results{Measurements: []Measurement{
		latency(1, Direct, 10), latency(1, system.Model, 20),
		latency(2, Direct, 5), latency(2, system.Model, 15),
		latency(3, Direct, 100), latency(3, system.Model, 1000),
		latency(4, system.Model, 20), // its direct neighbour was not measured
	}}
	row := r.compare()[0]
	if row.ratio != 3 || row.direct != 10 || row.tunnel != 20 || row.added != 10 {
		t.Errorf("row = %+v", row)
	}
}

func TestCostsSumTheHopsOfARoundBeforeTheMedian(t *testing.T) {
	with := func(round int, client, relay float64) Measurement {
		m := latency(round, system.TCP, 1)
		m.CPUPer, m.CPUUnit = map[string]float64{system.Client: client, system.Relay: relay}, "1k requests"
		m.RSSMB = map[string]float64{system.Relay: relay * 100}
		return m
	}
	r := Results{Measurements: []Measurement{latency(1, Direct, 1), with(1, 1, 5), with(2, 2, 2), with(3, 9, 1)}}
	costs := r.costs()
	if len(costs) != 1 {
		t.Fatalf("%d costs: direct has none", len(costs))
	}
	c := costs[0]
	if c.cpu[system.Client] != 2 || c.cpu[system.Relay] != 2 || c.cpuAll != 6 || c.rssMB[system.Relay] != 200 {
		t.Errorf("cost = %+v", c)
	}
}

func TestGoalsNameFiguresThatExist(t *testing.T) {
	for _, g := range goals() {
		if g.figure == cpuAll || strings.HasPrefix(g.figure, rss+" ") {
			continue
		}
		found := false
		for _, f := range figures(g.test) {
			found = found || f.name == g.figure
		}
		if !found {
			t.Errorf("%s has no figure %q", g.test, g.figure)
		}
		if _, ok := goalOf(g.test, g.way, g.figure); !ok {
			t.Errorf("goal %+v is not found", g)
		}
	}
}

func TestVerdictComparesTheRightWayRound(t *testing.T) {
	for _, c := range []struct {
		goal  goal
		value float64
		want  string
	}{
		{goal{how: ratio, limit: 5.2}, 5.2, "<= x5.20 met"},
		{goal{how: ratio, limit: 5.2}, 5.3, "<= x5.20 NOT MET"},
		{goal{how: absolute, atLeast: true, limit: 300}, 299, ">= 300 NOT MET"},
		{goal{how: added, limit: 2}, 1.5, "<= +2.00 +1.50 met"},
	} {
		if got := c.goal.verdict(c.value); got != c.want {
			t.Errorf("verdict = %q, want %q", got, c.want)
		}
	}
}

func TestNumbersKeepThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0.00", 0.1234: "0.12", 5.204: "5.20", 12.34: "12.3", 123.4: "123", -45.67: "-45.7", 25519: "25519"} {
		if got := number(v); got != want {
			t.Errorf("number(%g) = %q, want %q", v, got, want)
		}
	}
	if got := number(math.Inf(1)); got != "+Inf" {
		t.Errorf("number(+Inf) = %q", got)
	}
}

func TestTableSetsGoalsBesideFigures(t *testing.T) {
	m := latency(1, system.Model, 60)
	m.CPUPer, m.CPUUnit = map[string]float64{system.Relay: .25}, "1k requests"
	r := Results{Measurements: []Measurement{latency(1, Direct, 10), m}}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"request p50, us", "x6.00", "<= x5.20 NOT MET", "1k requests", "0.250"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("wider than a terminal: %s", line)
		}
	}
}

func TestFailedRequestsAreReported(t *testing.T) {
	bad := latency(2, system.Model, 1)
	bad.Failed, bad.Error = 3, "status 502"
	n, examples := Results{Measurements: []Measurement{latency(1, Direct, 1), bad}}.Failed()
	if n != 3 || len(examples) != 1 || !strings.Contains(examples[0], "round 2, lat-c1, model: 3 failed, such as: status 502") {
		t.Errorf("failed = %d, %q", n, examples)
	}
}

func TestPlanTakesOtherTestsOfTheKnownKinds(t *testing.T) {
	p := Full()
	if err := p.Only("down-16,lat-c1,idle-2000"); err != nil {
		t.Fatal(err)
	}
	if len(p.Steps) != 3 || p.Steps[0].Test != "down-16" || p.Steps[1].Test != "lat-c1" || p.Steps[2].Ways[0] != system.Model {
		t.Errorf("steps = %+v", p.Steps)
	}
	if p.Streams() < 2000 {
		t.Errorf("streams = %d", p.Streams())
	}
	if err := p.Only("nonsense-1"); err == nil {
		t.Error("nonsense passed")
	}
}
