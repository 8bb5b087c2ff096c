package bench

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"iap/internal/bench/system"
)

// Print writes the tables: figures with their goals, and what each hop spent.
func (r Results) Print(out io.Writer) error {
	fmt.Fprintf(out, "started %s, version %s, load average before it: %s\n\n", r.Started, r.Version, r.LoadAvg)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TEST\tWAY\tFIGURE\tDIRECT\tTUNNEL\tRATIO\tGOAL")
	for _, row := range r.compare() {
		verdict := ""
		if g, ok := goalOf(row.test, row.way, row.figure.name); ok {
			verdict = g.verdict(row.value(g))
		}
		times := "-"
		if row.ratio != 0 {
			times = "x" + number(row.ratio)
		}
		fmt.Fprintf(w, "%s\t%s\t%s, %s\t%s\t%s\t%s\t%s\n", row.test, row.way, row.figure.name, row.figure.unit, number(row.direct), number(row.tunnel), times, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return r.printCosts(out)
}

func (r Results) printCosts(out io.Writer) error {
	hops := []string{system.Client, system.Relay, system.Agent}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nTEST\tWAY\tCPU s PER\tCLIENT\tRELAY\tAGENT\tALL\tGOAL")
	costs := r.costs()
	for _, c := range costs {
		fmt.Fprintf(w, "%s\t%s\t%s", c.test, c.way, c.unit)
		for _, hop := range hops {
			fmt.Fprintf(w, "\t%.3f", c.cpu[hop])
		}
		verdict := ""
		if g, ok := goalOf(c.test, c.way, cpuAll); ok {
			verdict = g.verdict(c.cpuAll)
		}
		fmt.Fprintf(w, "\t%.3f\t%s\n", c.cpuAll, verdict)
	}
	fmt.Fprintln(w, "\nTEST\tWAY\tMEMORY\tCLIENT\tRELAY\tAGENT\t\tGOAL")
	for _, c := range costs {
		fmt.Fprintf(w, "%s\t%s\tMB", c.test, c.way)
		verdict := ""
		for _, hop := range hops {
			fmt.Fprintf(w, "\t%.0f", c.rssMB[hop])
			if g, ok := goalOf(c.test, c.way, rss+" "+hop); ok {
				verdict += hop + " " + g.verdict(c.rssMB[hop]) + "  "
			}
		}
		fmt.Fprintf(w, "\t\t%s\n", verdict)
	}
	return w.Flush()
}

// verdict is the goal in words and whether the value meets it.
func (g goal) verdict(value float64) string {
	sign := "<="
	if g.atLeast {
		sign = ">="
	}
	mark := map[string]string{ratio: "x", added: "+"}[g.how]
	outcome := "met"
	if !g.met(value) {
		outcome = "NOT MET"
	}
	if g.how == added {
		outcome = "+" + number(value) + " " + outcome
	}
	return fmt.Sprintf("%s %s%s %s", sign, mark, number(g.limit), outcome)
}

// number writes three significant digits and no exponent.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
