package replay

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"iap/internal/audit"
	"iap/policy"
)

// Bounds of what a replay remembers, however long the log is.
const (
	maxSubjects = 20_000 // some hundred megabytes if each is in two hundred groups
	maxChanges  = 10_000
	// factsBefore is how long before a decision the facts it names may stand.
	factsBefore = 25 * time.Hour
)

// Options say what is replayed.
type Options struct {
	Dir    string    // of the audit log; it may be in use
	Since  time.Time // decisions from here on
	Decide func(context.Context, policy.Input) policy.Decision
}

// Kinds of changes.
const (
	NowDenied   = "now_denied"
	NowAllowed  = "now_allowed"
	OtherGrant  = "other_grant"  // allowed still, by another grant and so perhaps within other limits
	OtherReason = "other_reason" // denied still
)

// Why a recorded decision is not replayed.
const (
	NoFacts    = "no_facts"   // the log does not say all the decision rested on
	NotPolicy  = "not_policy" // something else refused: a limit, a key's own list, a resource that is not there
	Counted    = "counted"    // refusals that were counted instead of written in full
	Unreadable = "unreadable" // lines that are no records
)

// Report is what a replay found.
type Report struct {
	Since       time.Time        `json:"since"`
	Decided     int64            `json:"decided"`
	Same        int64            `json:"same"`
	Verdicts    int64            `json:"verdicts"` // decisions that would be allowed instead of denied, or the reverse
	NotReplayed map[string]int64 `json:"not_replayed"`
	Changes     []Change         `json:"changes"` // verdicts first, then by how often
	Omitted     int64            `json:"omitted"` // decisions that differ beyond those listed
}

// Change is what differs in the same way for one principal, as often as Count.
type Change struct {
	Kind      string    `json:"kind"`
	Principal string    `json:"principal"`
	Resource  string    `json:"resource"`
	Action    string    `json:"action"`
	Model     string    `json:"model,omitempty"`
	Via       string    `json:"via"`
	Old       string    `json:"old"` // the grant that allowed, or the reason of the denial
	New       string    `json:"new"`
	Message   string    `json:"message,omitempty"` // of the new denial
	Count     int64     `json:"count"`
	Last      time.Time `json:"last"`
}

// group is what changes are counted by.
type group struct{ kind, principal, resource, action, model, via, before, after string }

type replay struct {
	opts     Options
	report   Report
	subjects map[string]policy.Principal
	changes  map[group]*Change
}

// Run reads the log once, from the day before Since on.
func Run(ctx context.Context, opts Options) (Report, error) {
	r := &replay{
		opts: opts, subjects: map[string]policy.Principal{}, changes: map[group]*Change{},
		report: Report{Since: opts.Since, NotReplayed: map[string]int64{}, Changes: []Change{}},
	}
	for e, err := range audit.ReadSince(opts.Dir, opts.Since.Add(-factsBefore)) {
		var bad *audit.LineError
		switch {
		case ctx.Err() != nil:
			return r.report, ctx.Err()
		case errors.As(err, &bad):
			r.report.NotReplayed[Unreadable]++
		case err != nil:
			return r.report, err
		default:
			r.event(ctx, e)
		}
	}
	for _, c := range r.changes {
		r.report.Changes = append(r.report.Changes, *c)
	}
	slices.SortFunc(r.report.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(rank(a.Kind), rank(b.Kind)), cmp.Compare(b.Count, a.Count), strings.Compare(a.Principal, b.Principal),
			strings.Compare(a.Resource, b.Resource), strings.Compare(a.Action, b.Action), strings.Compare(a.Model, b.Model))
	})
	return r.report, nil
}

func rank(kind string) int {
	return slices.Index([]string{NowDenied, NowAllowed, OtherGrant, OtherReason}, kind)
}

func (r *replay) event(ctx context.Context, e audit.Event) {
	switch {
	case e.Kind == audit.KindSubject:
		r.learn(e)
	case e.Time.Before(r.opts.Since):
	case e.Kind == audit.KindDeniedCount:
		r.report.NotReplayed[Counted] += e.Count
	case e.Kind == audit.KindDecision:
		r.decision(ctx, e)
	}
}

// learn remembers the facts of a subject. Facts that were cut are none.
func (r *replay) learn(e audit.Event) {
	var p policy.Principal
	if json.Unmarshal([]byte(e.Facts), &p) != nil || p.ID() != e.Principal {
		delete(r.subjects, e.Subject)
		return
	}
	for known := range r.subjects {
		if len(r.subjects) < maxSubjects {
			break
		}
		delete(r.subjects, known)
	}
	r.subjects[e.Subject] = p
}

func (r *replay) decision(ctx context.Context, e audit.Event) {
	if e.Revision == "" || e.Decision == audit.Deny && elsewhere(e) {
		r.report.NotReplayed[NotPolicy]++
		return
	}
	questions, ok := r.questions(e)
	if !ok {
		r.report.NotReplayed[NoFacts]++
		return
	}
	r.report.Decided++
	var d policy.Decision
	for i, in := range questions {
		again := r.opts.Decide(ctx, in)
		if i == 0 || !again.Allow {
			d = again
		}
		if !d.Allow {
			break
		}
	}
	r.compare(e, d)
}

// elsewhere tells denials that are not the policy's. Those of how a request is
// written have a status of their own; a rule of the operator's may have any
// reason, but says no with 403, or 401 where a login would do.
func elsewhere(e audit.Event) bool {
	switch e.Reason {
	case "unknown_resource", "rate_limited", "concurrency_exceeded", "budget_exceeded", "limits_unavailable", "websocket_limited", "recording_unavailable", "output_unbounded",
		"key_scope", "key_lifetime", "revoked", "preflight_refused", "host_refused", "fetch_site_refused", "referer_refused", "origin_refused":
		return true
	}
	return e.Status != 0 && e.Status != http.StatusForbidden && e.Status != http.StatusUnauthorized
}

// compare counts how an old decision and its new twin differ.
func (r *replay) compare(e audit.Event, d policy.Decision) {
	g := group{principal: e.Principal, resource: e.Resource, action: e.Action, model: e.Model, via: e.Via, before: e.Reason, after: d.Reason}
	if e.Detail["asked"] == "reach" {
		g.action = "(open)"
	}
	allowed := e.Decision == audit.Allow
	if allowed {
		g.before = e.Grant
	}
	if d.Allow {
		g.after = d.Grant
	}
	switch {
	case allowed && !d.Allow:
		g.kind = NowDenied
	case !allowed && d.Allow:
		g.kind = NowAllowed
	case g.before == g.after:
		r.report.Same++
		return
	case allowed:
		g.kind = OtherGrant
	default:
		g.kind = OtherReason
	}
	if allowed != d.Allow {
		r.report.Verdicts++
	}
	c := r.changes[g]
	if c == nil {
		if len(r.changes) >= maxChanges {
			r.report.Omitted++
			return
		}
		c = &Change{
			Kind: g.kind, Principal: g.principal, Resource: g.resource, Action: g.action, Model: g.model, Via: g.via, Old: g.before, New: g.after,
		}
		if !d.Allow {
			c.Message = d.Message
		}
		r.changes[g] = c
	}
	c.Count++
	c.Last = e.Time
}
