package rego

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/tester"
)

// testDeadline bounds one unit test of a policy; a loop that never ends must
// not hold up a pipeline for longer.
const testDeadline = 5 * time.Second

// TestResult is the outcome of one test_ rule.
type TestResult struct {
	Package  string        `json:"package"`
	Name     string        `json:"name"`
	Location string        `json:"location"` // file:line
	Passed   bool          `json:"passed"`
	Skipped  bool          `json:"skipped,omitempty"`
	Error    string        `json:"error,omitempty"`  // set if the test could not be evaluated
	Output   string        `json:"output,omitempty"` // what it printed
	Duration time.Duration `json:"duration"`
}

// Test runs the unit tests of a policy, that is the test_ rules of the _test.rego
// files among cfg.Modules, against the same grants, modules and restrictions
// with which it would run. The error is about loading; results say the rest, in
// the order of their names.
func Test(ctx context.Context, cfg Config) (results []TestResult, err error) {
	src, err := readSource(cfg, true)
	if err != nil {
		return nil, err
	}
	c, err := assemble(src)
	if err != nil {
		return nil, err
	}
	txn, err := c.store.NewTransaction(ctx)
	if err != nil {
		return nil, fmt.Errorf("test policy: %w", err)
	}
	defer c.store.Abort(ctx, txn)
	outcomes, err := tester.NewRunner().
		SetCompiler(c.compiler.WithEnablePrintStatements(true)).
		SetStore(c.store).
		SetModules(c.modules).
		CapturePrintOutput(true).
		RaiseBuiltinErrors(true).
		SetTimeout(testDeadline).
		SetParallel(1).
		RunTests(ctx, txn)
	if err != nil {
		return nil, fmt.Errorf("compile policy tests: %w", err)
	}
	for outcome := range outcomes { // drained to its end, or the runner's goroutines stay
		results = append(results, testResult(outcome))
	}
	slices.SortFunc(results, func(a, b TestResult) int {
		return cmp.Or(strings.Compare(a.Package, b.Package), strings.Compare(a.Name, b.Name))
	})
	return results, ctx.Err()
}

func testResult(r *tester.Result) TestResult {
	out := TestResult{
		Package: r.Package, Name: r.Name, Passed: r.Pass(), Skipped: r.Skip,
		Output: string(r.Output), Duration: r.Duration,
	}
	if r.Location != nil {
		out.Location = fmt.Sprintf("%s:%d", r.Location.File, r.Location.Row)
	}
	if r.Error != nil {
		out.Error = r.Error.Error()
	}
	return out
}
