package bench

import "iap/internal/bench/load"

// row is one figure of one test on one way, over all rounds.
type row struct {
	test, way      string
	figure         figure
	direct, tunnel float64 // medians
	ratio          float64 // median of the rounds' ratios, 0 if direct is 0
	added          float64 // median of the rounds' differences
}

// value is what the goal looks at.
func (r row) value(g goal) float64 {
	switch g.how {
	case ratio:
		return r.ratio
	case added:
		return r.added
	default:
		return r.tunnel
	}
}

// cost is what the hops spent on one test on one way, medians over all rounds.
type cost struct {
	test, way, unit string
	cpu             map[string]float64 // seconds for each unit, by hop
	cpuAll          float64            // all hops together
	rssMB           map[string]float64 // by hop
}

// key finds the measurements that belong together.
type key struct{ test, way string }

// byKey groups the measurements, the rounds of each in order, and lists the keys
// in the order of their first appearance.
func (r Results) byKey() (groups map[key][]Measurement, order []key) {
	groups = map[key][]Measurement{}
	for _, m := range r.Measurements {
		k := key{m.Test, m.Way}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], m)
	}
	return groups, order
}

// compare sets each way beside the direct one of the same round.
func (r Results) compare() []row {
	groups, order := r.byKey()
	var rows []row
	for _, k := range order {
		if k.way == Direct {
			continue
		}
		for _, f := range figures(k.test) {
			rows = append(rows, compareOne(k, f, groups[key{k.test, Direct}], groups[k]))
		}
	}
	return rows
}

func compareOne(k key, f figure, direct, tunnel []Measurement) row {
	base := map[int]load.Result{} // by round
	for _, m := range direct {
		base[m.Round] = m.Result
	}
	var directs, tunnels, ratios, differences []float64
	for _, m := range tunnel {
		value := f.of(m.Result)
		tunnels = append(tunnels, value)
		without, ok := base[m.Round]
		if !ok {
			continue
		}
		d := f.of(without)
		directs = append(directs, d)
		differences = append(differences, value-d)
		if d != 0 {
			ratios = append(ratios, value/d)
		}
	}
	return row{
		test: k.test, way: k.way, figure: f,
		direct: median(directs), tunnel: median(tunnels), ratio: median(ratios), added: median(differences),
	}
}

// costs is what the hops spent on each test and way.
func (r Results) costs() []cost {
	groups, order := r.byKey()
	var costs []cost
	for _, k := range order {
		if k.way == Direct {
			continue
		}
		c := cost{test: k.test, way: k.way, cpu: map[string]float64{}, rssMB: map[string]float64{}}
		cpu, memory, sums := map[string][]float64{}, map[string][]float64{}, []float64{}
		for _, m := range groups[k] {
			c.unit = m.CPUUnit
			sum := 0.0
			for hop, seconds := range m.CPUPer {
				cpu[hop] = append(cpu[hop], seconds)
				sum += seconds
			}
			for hop, mb := range m.RSSMB {
				memory[hop] = append(memory[hop], mb)
			}
			sums = append(sums, sum)
		}
		for hop := range cpu {
			c.cpu[hop] = median(cpu[hop])
		}
		for hop := range memory {
			c.rssMB[hop] = median(memory[hop])
		}
		c.cpuAll = median(sums)
		costs = append(costs, c)
	}
	return costs
}
