package load

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// Result is the outcome of one test. The maps are by hop.
type Result struct {
	Test       string             `json:"test"`
	Seconds    float64            `json:"seconds"`
	Done       int64              `json:"done"`   // requests, or streams that ended well
	Failed     int64              `json:"failed"` // requests or streams that did not
	Error      string             `json:"error,omitempty"`
	PerSecond  float64            `json:"per_second,omitempty"`  // requests
	MBPerSec   float64            `json:"mb_per_s,omitempty"`    // 10^6 bytes
	Latency    *Spread            `json:"latency,omitempty"`     // of requests
	TokenDelay *Spread            `json:"token_delay,omitempty"` // received - sent
	TokenLate  *Spread            `json:"token_late,omitempty"`  // received - due
	FirstToken *Spread            `json:"first_token,omitempty"` // from the dial on
	OpenPeak   int64              `json:"open_peak,omitempty"`   // streams seen open at once
	CPU        map[string]float64 `json:"cpu_s,omitempty"`
	CPUPer     map[string]float64 `json:"cpu_per,omitempty"` // in seconds for each CPUUnit
	CPUUnit    string             `json:"cpu_unit,omitempty"`
	RSSMB      map[string]float64 `json:"rss_mb,omitempty"`
	PeakRSSMB  map[string]float64 `json:"peak_rss_mb,omitempty"`

	bytes         float64
	middle        map[string]usage // sampled while all streams were open
	before, after map[string]usage // set by tests that measure a part of their run only
}

// finish takes over what the collector counted.
func (r *Result) finish(done int64, c *collector) {
	r.Done, r.Failed = done, c.failed
	if c.first != nil {
		r.Error = c.first.Error()
	}
}

// account puts down what the hops used between before and after.
func (r *Result) account(before, after map[string]usage) {
	if r.after != nil {
		before, after = r.before, r.after
	}
	units := 0.0
	switch {
	case r.bytes > 0:
		r.CPUUnit, units = "GB", r.bytes/1e9
	case r.TokenDelay != nil:
		r.CPUUnit, units = "1k tokens", float64(r.TokenDelay.Count)/1e3
	default:
		r.CPUUnit, units = "1k requests", float64(r.Done)/1e3
	}
	r.CPU, r.CPUPer = map[string]float64{}, map[string]float64{}
	r.RSSMB, r.PeakRSSMB = map[string]float64{}, map[string]float64{}
	for hop, u := range after {
		r.CPU[hop] = u.cpu - before[hop].cpu
		if units > 0 {
			r.CPUPer[hop] = r.CPU[hop] / units
		}
		if middle, ok := r.middle[hop]; ok {
			u.rssKB = middle.rssKB
		}
		r.RSSMB[hop] = float64(u.rssKB) / 1024
		r.PeakRSSMB[hop] = float64(u.peakKB) / 1024
	}
}

// Report is what one run of slmload found.
type Report struct {
	URL     string   `json:"url"`
	Label   string   `json:"label"`
	Started string   `json:"started"`
	LoadAvg string   `json:"loadavg"`
	Results []Result `json:"results"`
}

// Print writes the report as a table.
func (r Report) Print(out io.Writer) error {
	fmt.Fprintf(out, "%s %s (%s, load %s)\n", r.Label, r.URL, r.Started, r.LoadAvg)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "test\tdone\tfailed\treq/s\tMB/s\tp50 us\tp90 us\tp99 us\tmax us\ttoken p50\ttoken p99\tlate p99\tfirst p50\tfirst p99\tcpu by hop\t")
	for _, res := range r.Results {
		lat, delay, late, first := value(res.Latency), value(res.TokenDelay), value(res.TokenLate), value(res.FirstToken)
		fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.1f\t", res.Test, res.Done, res.Failed, res.PerSecond, res.MBPerSec)
		fmt.Fprintf(w, "%.0f\t%.0f\t%.0f\t%.0f\t", lat.P50, lat.P90, lat.P99, lat.Max)
		fmt.Fprintf(w, "%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t", delay.P50, delay.P99, late.P99, first.P50, first.P99)
		var cpu []string
		for _, hop := range slices.Sorted(maps.Keys(res.CPUPer)) {
			cpu = append(cpu, fmt.Sprintf("%s %.3f", hop, res.CPUPer[hop]))
		}
		fmt.Fprintf(w, "%s s/%s\t\n", strings.Join(cpu, " "), res.CPUUnit)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, res := range r.Results {
		if res.Error != "" {
			fmt.Fprintf(out, "%s: first failure: %s\n", res.Test, res.Error)
		}
	}
	return nil
}

func value(s *Spread) Spread {
	if s == nil {
		return Spread{}
	}
	return *s
}
