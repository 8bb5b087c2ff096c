package rego

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"iap/policy"
)

// Limits of an evaluation.
const (
	// defaultDeadline is two hundred times what the built-in policy takes; a
	// module that needs longer holds up every stream.
	defaultDeadline = 50 * time.Millisecond
	// slotsPerCPU evaluations run at once for each processor, the rest wait in
	// line. Without the line, hundreds of streams that ask again after a reload
	// would share the processors until all of them ran into the deadline.
	slotsPerCPU = 2
	// maxWait bounds the time in that line.
	maxWait = 5 * time.Second
	// failureLogEvery keeps a broken module from filling the log.
	failureLogEvery = 10 * time.Second
)

// Config says what an Engine loads and how it runs.
type Config struct {
	GrantsFile string           // the grants file; required
	Modules    []string         // .rego files, and directories whose .rego files are taken; none: the built-in policy alone
	Issuers    []string         // aliases of the configured identity providers; at least one
	Deadline   time.Duration    // of one evaluation; 0: 50 ms
	Logger     *slog.Logger     // nil: silent
	Now        func() time.Time // the clock of inputs without one; nil: time.Now
}

// Engine evaluates the policy. All methods may be called at the same time; each
// decision is made by one loaded policy as a whole, never by parts of two.
type Engine struct {
	cfg     Config
	logger  *slog.Logger
	slots   chan struct{}
	current atomic.Pointer[loaded]

	reloading sync.Mutex // held while a policy is read and put in place
	lastLog   atomic.Int64
}

// New loads the policy. A policy that does not load as a whole is an error.
func New(ctx context.Context, cfg Config) (*Engine, error) {
	e := newEngine(cfg)
	if err := e.Reload(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

func newEngine(cfg Config) *Engine {
	cfg.Modules, cfg.Issuers = slices.Clone(cfg.Modules), slices.Clone(cfg.Issuers)
	if cfg.Deadline <= 0 {
		cfg.Deadline = defaultDeadline
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Engine{cfg: cfg, logger: cfg.Logger, slots: make(chan struct{}, slotsPerCPU*runtime.GOMAXPROCS(0))}
}

// Reload reads everything anew and puts it in place at once. On an error the
// policy in place stays. Decisions made before keep their revision.
func (e *Engine) Reload(ctx context.Context) error {
	e.reloading.Lock()
	defer e.reloading.Unlock()
	src, err := readSource(e.cfg, false)
	if err != nil {
		return err
	}
	return e.install(ctx, src)
}

// install puts a source in place; the caller holds reloading.
func (e *Engine) install(ctx context.Context, src source) error {
	next, err := load(ctx, src)
	if err != nil {
		return err
	}
	next.source.Loaded = e.cfg.Now().UTC()
	e.current.Store(next)
	return nil
}

// Check loads the policy as New does and keeps nothing of it.
func Check(ctx context.Context, cfg Config) error {
	_, err := New(ctx, cfg)
	return err
}

// Revision names the policy in place: a short hash of all it is made of.
func (e *Engine) Revision() string { return e.current.Load().revision }

// Source returns what the policy in place was made of.
func (e *Engine) Source() Source { return e.current.Load().source }

// Grants returns the grants in place.
func (e *Engine) Grants() *policy.Grants { return e.current.Load().grants }

// Replaced reports whether a module of the operator decides in place of the grants:
// limits are then what it says, and only a decision tells them.
func (e *Engine) Replaced() bool { return e.current.Load().replaced }

// Decide answers one question. It never fails open: whatever goes wrong is a
// denial whose reason says what. An answer may come from the cache, which is
// keyed by the whole input and kept until the answer's Until or the next reload;
// the lists in its Limits are shared and must not be changed.
func (e *Engine) Decide(ctx context.Context, in policy.Input) policy.Decision {
	return e.decide(ctx, e.current.Load(), e.clocked(in))
}

// clocked gives an input without a clock the engine's.
func (e *Engine) clocked(in policy.Input) policy.Input {
	if in.Now.IsZero() {
		in.Now = e.cfg.Now()
	}
	return in
}

func (e *Engine) decide(ctx context.Context, l *loaded, in policy.Input) policy.Decision {
	if reason, message := refusal(in); reason != "" {
		return policy.Decision{Reason: reason, Message: message, Revision: l.revision}
	}
	q := newQuestion(in)
	if l.cache == nil {
		d, _ := e.evaluate(ctx, l, q)
		return d
	}
	key := q.key()
	if d, found := l.cache.get(key, in.Now); found {
		return d
	}
	d, ok := e.evaluate(ctx, l, q)
	if ok && l.cacheable(d) {
		l.cache.put(key, d)
	}
	return d
}

// cacheable reports whether the decision says itself how long it holds. A denial
// by a grant with a max_auth_age does not, nor does what a replaced policy may
// have taken from such a grant without passing its until on.
func (l *loaded) cacheable(d policy.Decision) bool {
	switch {
	case d.Allow && l.replaced && l.ages:
		return !d.Until.IsZero()
	case !d.Allow:
		return l.byName[d.Grant].Require.MaxAuthAge == 0
	}
	return true
}

// evaluate asks the policy; ok is false if it gave no valid answer.
func (e *Engine) evaluate(ctx context.Context, l *loaded, q question) (d policy.Decision, ok bool) {
	value, err := e.query(ctx, l.decision, q)
	if err == nil && value == nil {
		err = errUndefined
	}
	if err == nil {
		d, err = readDecision(value, q.Now)
	}
	if err != nil {
		return e.failure(ctx, l, err), false
	}
	d = l.complete(q, d)
	if d.Message == "" {
		d.Message = l.message(q, d)
	}
	d.Revision = l.revision
	return d, true
}

// complete holds an answer against the question: what follows from the grant it
// names, and what no answer may grant.
func (l *loaded) complete(q question, d policy.Decision) policy.Decision {
	switch {
	case d.Allow && q.Via == policy.ViaKey && !d.Keys.Allowed(): // of a module of the operator's own
		return policy.Decision{Reason: policy.ReasonKeysNotGranted, Until: d.Until}
	case d.Allow && d.Group == "":
		d.Group = l.byName[d.Grant].Group(q.Principal)
	case q.Principal.Workload || q.Via == policy.ViaKey:
		d.StepUp = nil // no person is there to log in
	}
	return d
}

var (
	errUndefined = errors.New("the policy gives no answer: data.iap.decision is undefined")
	errTooSlow   = errors.New("the policy took too long")
	errBusy      = errors.New("too many evaluations are waiting")
)

// failure denies and, now and then, logs why.
func (e *Engine) failure(ctx context.Context, l *loaded, err error) policy.Decision {
	d := policy.Decision{Reason: policy.ReasonPolicyError, Revision: l.revision}
	switch {
	case errors.Is(err, errUndefined):
		d.Reason = policy.ReasonPolicyUndefined
	case errors.Is(err, errTooSlow), errors.Is(err, errBusy):
		d.Reason = policy.ReasonPolicyTimeout
	case ctx.Err() != nil:
		d.Message = "the request ended before the policy answered"
		return d
	}
	d.Message = "this relay's policy failed (" + d.Reason + "), so the request is denied: ask its administrator"
	now, last := time.Now().UnixNano(), e.lastLog.Load()
	if now-last >= int64(failureLogEvery) && e.lastLog.CompareAndSwap(last, now) {
		e.logger.ErrorContext(ctx, "policy failed", "reason", d.Reason, "revision", l.revision, "error", err)
	}
	return d
}

// query evaluates one prepared query; nil without an error means undefined.
func (e *Engine) query(ctx context.Context, prepared rego.PreparedEvalQuery, q question) (ast.Value, error) {
	if err := e.acquire(ctx); err != nil {
		return nil, err
	}
	defer func() { <-e.slots }()
	cancel := topdown.NewCancel()
	defer time.AfterFunc(e.cfg.Deadline, cancel.Cancel).Stop()
	defer context.AfterFunc(ctx, cancel.Cancel)()
	results, err := prepared.Eval(ctx,
		rego.EvalParsedInput(q.document()),
		rego.EvalTime(q.Now),
		rego.EvalExternalCancel(cancel),
		rego.EvalGenerateJSON(keepTerm),
	)
	switch {
	case topdown.IsCancel(err) && ctx.Err() == nil:
		return nil, errTooSlow
	case err != nil:
		return nil, fmt.Errorf("evaluate policy: %w", err)
	case len(results) == 0:
		return nil, nil
	case len(results) != 1 || len(results[0].Expressions) != 1:
		return nil, fmt.Errorf("evaluate policy: %d results instead of one", len(results))
	}
	term, isTerm := results[0].Expressions[0].Value.(*ast.Term)
	if !isTerm {
		return nil, errors.New("evaluate policy: the result is no term")
	}
	return term.Value, nil
}

// keepTerm hands a result over as it is, with OPA's types: made into JSON, a
// set would look like a list.
func keepTerm(t *ast.Term, _ *rego.EvalContext) (any, error) { return t, nil }

// acquire takes a place among the evaluations that run at once.
func (e *Engine) acquire(ctx context.Context) error {
	select {
	case e.slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy
	case <-ctx.Done():
		return ctx.Err()
	}
}
