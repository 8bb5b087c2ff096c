package rego

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"iap/policy"
)

// CaseResult is the outcome of one expected decision.
type CaseResult struct {
	Name     string          `json:"name"`
	Location string          `json:"location"` // file:line
	Passed   bool            `json:"passed"`
	Want     string          `json:"want"` // both in the same words
	Got      string          `json:"got"`
	Decision policy.Decision `json:"decision"`
}

// TestCases decides every case of the tables (YAML, see policy.ParseCases) with the
// policy as it would run, and compares. The error is about loading.
func TestCases(ctx context.Context, cfg Config, files ...string) ([]CaseResult, error) {
	e, err := New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var results []CaseResult
	for _, file := range files {
		text, err := readBounded(file, maxGrantsBytes)
		if err != nil {
			return nil, fmt.Errorf("read policy cases: %w", err)
		}
		cases, err := policy.ParseCases(file, text, cfg.Issuers)
		if err != nil {
			return nil, err
		}
		for _, c := range cases {
			r := e.testCase(ctx, c)
			r.Location = fmt.Sprintf("%s:%d", file, c.Line)
			results = append(results, r)
		}
	}
	return results, ctx.Err()
}

func (e *Engine) testCase(ctx context.Context, c policy.Case) CaseResult {
	decide := e.Decide
	if policy.IsVerb(c.Input.Action) {
		decide = e.MayAdminister
	}
	d := decide(ctx, c.Input)
	r := CaseResult{Name: c.Name, Decision: d}
	r.Passed = d.Allow == c.Allow && (c.Grant == "" || c.Grant == d.Grant) && (c.Reason == "" || c.Reason == d.Reason) &&
		(c.Limits == nil || reflect.DeepEqual(c.Limits, d.Limits))
	r.Want = inWords(c.Allow, c.Grant, c.Reason, c.Limits)
	limits := d.Limits
	if c.Limits == nil {
		limits = nil // nobody asked
	}
	r.Got = inWords(d.Allow, d.Grant, d.Reason, limits)
	return r
}

// inWords writes a decision, wanted or got, in one line.
func inWords(allow bool, grant, reason string, limits []policy.Limits) string {
	var b strings.Builder
	b.WriteString("deny")
	if allow {
		b.Reset()
		b.WriteString("allow")
	}
	if reason != "" && reason != policy.ReasonAllowed {
		b.WriteString(" " + reason)
	}
	if grant != "" {
		b.WriteString(" by " + grant)
	}
	for _, l := range limits {
		b.WriteString(" [" + l.String() + "]")
	}
	return b.String()
}

// caseTable is the name under which a table is found beside the grants file.
const caseTable = "policy_test.yaml"

// CaseTable returns the path of the table that stands beside the grants file, or
// "" if none does.
func (c Config) CaseTable() string {
	path := filepath.Join(filepath.Dir(c.GrantsFile), caseTable)
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	return path
}
