// Package doctor is what `iapctl doctor` and `iap-agent check` have in common: the
// stages of a way to a relay, how long each took, what was found and what to do
// next. It exists so that both find the same faults and name them in the same
// words. It looks; what it says is printed by others.
//
// # Rooms
//
//	doctor.go   stages and their verdicts
//	way.go      the stages of one dial, as they happen
//	network.go  what they mean, from the name to the upgrade
package doctor

import (
	"fmt"
	"slices"
	"time"
)

// Verdicts of a stage.
const (
	OK      = "ok"
	Warn    = "warn"
	Fail    = "fail"
	Skipped = "skipped"
)

// Stage is one stage as it is printed and as JSON has it.
type Stage struct {
	Stage   string  `json:"stage"`
	Verdict string  `json:"verdict"` // ok, warn, fail or skipped
	MS      float64 `json:"ms"`      // how long it took, in milliseconds
	Found   string  `json:"found,omitempty"`
	Code    string  `json:"code,omitempty"` // of a failure
	Next    string  `json:"next,omitempty"` // what to do
}

// Finding is a fault in words.
type Finding struct {
	Code string // stable
	What string
	Next string // what to do
}

// Report is what was looked at so far.
type Report struct{ Stages []Stage }

// Add notes a stage.
func (r *Report) Add(stage, verdict string, took time.Duration, found, next string) {
	r.Stages = append(r.Stages, Stage{Stage: stage, Verdict: verdict, MS: float64(took.Microseconds()) / 1000, Found: found, Next: next})
}

// Fail notes a stage that failed.
func (r *Report) Fail(stage string, took time.Duration, f Finding) {
	r.Add(stage, Fail, took, f.What, f.Next)
	r.Stages[len(r.Stages)-1].Code = f.Code
}

// Failed reports whether a stage has.
func (r *Report) Failed() bool {
	return slices.ContainsFunc(r.Stages, func(s Stage) bool { return s.Verdict == Fail })
}

// Complete puts every stage in its place that was not looked at. A stage with
// parts, "upstream phi3", counts for its first word.
func (r *Report) Complete(order []string) {
	var all []Stage
	for _, name := range order {
		found := false
		for _, s := range r.Stages {
			if s.Stage == name || len(s.Stage) > len(name) && s.Stage[:len(name)+1] == name+" " {
				all, found = append(all, s), true
			}
		}
		if !found {
			all = append(all, Stage{Stage: name, Verdict: Skipped})
		}
	}
	r.Stages = all
}

// Heading is that of Rows.
func Heading() []string { return []string{"STAGE", "VERDICT", "TIME", "FOUND"} }

// Rows are the stages as a table. style, which may be nil, is for verdicts.
func (r *Report) Rows(style func(verdict string) string) [][]string {
	var rows [][]string
	for _, s := range r.Stages {
		verdict, took, found := s.Verdict, "", s.Found
		if style != nil {
			verdict = style(verdict)
		}
		if s.MS > 0 {
			took = fmt.Sprintf("%.0f ms", s.MS)
		}
		if s.Next != "" {
			found += "\nNext: " + s.Next
		}
		rows = append(rows, []string{s.Stage, verdict, took, found})
	}
	return rows
}
