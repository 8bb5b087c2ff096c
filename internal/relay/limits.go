package relay

import (
	"context"
	"errors"
	"time"

	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/limit"
	"iap/policy"
	"iap/tunnel"
)

// settleTimeout bounds how long a stopping relay writes what was used; what it
// cannot write counts as used up.
const settleTimeout = 5 * time.Second

// openLimits opens the book of what principals use. It closes before the store
// does.
func (r *Relay) openLimits(ctx context.Context) error {
	book, err := limit.Open(ctx, limit.Options{
		Store: r.store, Holder: r.cluster.Instance(), Now: r.now, Logger: r.log, Notice: r.limitNotice,
	})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() error {
		closing, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		return book.Close(closing)
	})
	r.limits = book
	return nil
}

// rulesOf are the limits of a decision as they are counted for a principal. A
// request that costs no tokens is not held to a budget of them.
func rulesOf(d policy.Decision, principal string, costs bool) []limit.Rule {
	if len(d.Limits) == 0 {
		return nil
	}
	rules := make([]limit.Rule, 0, len(d.Limits))
	for _, l := range d.Limits {
		rule := limit.Rule{
			Grant: d.Grant, Per: policy.PerPrincipal, Who: principal, Requests: rates(l.Requests), Concurrent: l.Concurrent,
			Warn: l.Mode == policy.ModeWarn, Contact: l.Contact,
		}
		switch {
		case l.Per == policy.PerGrant:
			rule.Per, rule.Who = l.Per, ""
		case l.Per == policy.PerGroup && d.Group != "":
			rule.Per, rule.Who = l.Per, d.Group
		}
		if costs {
			rule.Tokens = rates(l.Tokens)
		}
		if len(rule.Requests) > 0 || len(rule.Tokens) > 0 || rule.Concurrent > 0 {
			rules = append(rules, rule)
		}
	}
	return rules
}

func rates(all []policy.Rate) []limit.Rate {
	if len(all) == 0 {
		return nil
	}
	out := make([]limit.Rate, len(all))
	for i, one := range all {
		out[i] = limit.Rate(one)
	}
	return out
}

// tokenLimited says whether the decision has a budget of tokens that refuses.
func tokenLimited(d policy.Decision) bool {
	for _, l := range d.Limits {
		if len(l.Tokens) > 0 && l.Mode != policy.ModeWarn {
			return true
		}
	}
	return false
}

// reserve sets aside for the guard what a request may use, under every grant
// that it rests on.
func (r *Relay) reserve(ctx context.Context, a guard.Ask) (guard.Reservation, error) {
	var rules []limit.Rule
	for _, one := range append([]guard.Decision{a.Decision}, a.Also...) {
		d, ok := one.Value.(policy.Decision)
		if !ok {
			return nil, errors.New("the decision has lost its limits")
		}
		rules = append(rules, rulesOf(d, a.Question.Caller.Principal, a.Input > 0 || a.Output > 0)...)
	}
	held, err := r.limits.Reserve(ctx, limit.Ask{
		Rules: rules,
		Input: a.Input, Output: a.Output, Choices: a.Choices, Unstated: a.Unstated,
	})
	if err != nil {
		return nil, limited(err)
	}
	return reservation{held}, nil
}

// limited turns a limit's refusal into the guard's; all else, nil too, stays.
func limited(err error) error {
	var exceeded *limit.Exceeded
	if errors.As(err, &exceeded) {
		return &guard.Limited{Code: exceeded.Code, Message: exceeded.Error(), RetryAfter: exceeded.RetryAfter, Header: exceeded.Header}
	}
	return err
}

// reservation is a limit's as the guard knows it.
type reservation struct{ limit.Reservation }

func (r reservation) Use(in, out int64) error { return limited(r.Reservation.Use(in, out)) }

// Settle charges what was counted or estimated; what has no figure by now was not
// spent.
func (r reservation) Settle(e guard.Event) {
	r.Reservation.Settle(max(e.TokensIn, 0), max(e.TokensOut, 0))
}

// reserveStream counts a tcp stream as one request that runs until end is called.
// A refusal becomes a denial.
func (r *Relay) reserveStream(ctx context.Context, id *identity, d policy.Decision) (_ policy.Decision, end func()) {
	held, err := r.limits.Reserve(ctx, limit.Ask{Rules: rulesOf(d, id.id(), false), Choices: 1})
	if err == nil {
		return d, func() { held.Settle(0, 0) }
	}
	no := policy.Decision{Grant: d.Grant, Revision: d.Revision, Reason: "limits_unavailable", Message: "the limits cannot be checked at the moment"}
	var exceeded *limit.Exceeded
	if errors.As(err, &exceeded) {
		no.Reason, no.Message = exceeded.Code, exceeded.Message
	} else {
		r.log.Error("reserve a stream", "principal", id.id(), "error", err)
	}
	return no, func() {}
}

// limitNotice tells that a limit is used to 80 or 100 percent: the log, and the
// people whose limit it is.
func (r *Relay) limitNotice(n limit.Notice) {
	e := audit.Event{Kind: audit.KindLimit, Reason: "used_80", Grant: n.Rule.Grant, Message: n.Text, Detail: map[string]string{"per": n.Rule.Per}}
	if n.Percent >= 100 {
		e.Reason = "used_100"
	}
	switch n.Rule.Per {
	case policy.PerPrincipal:
		e.Principal = n.Rule.Who
	case policy.PerGroup:
		e.Detail["group"] = n.Rule.Who
	}
	if n.Rule.Warn {
		e.Detail["mode"] = policy.ModeWarn
	}
	if err := r.audit.Record(r.ctx, e); err != nil {
		r.log.Error("record limit notice", "grant", n.Rule.Grant, "error", err)
	}
	r.log.Info("limit used", "grant", n.Rule.Grant, "per", n.Rule.Per, "who", n.Rule.Who, "percent", n.Percent)
	for _, s := range r.sessions.all(func(s *session) bool { return concerns(n.Rule, s) }) {
		if err := s.tunnel.Notify(tunnel.Notice{Kind: "limit", Text: n.Text}); err != nil {
			r.log.Debug("limit notice", "session", s.tunnel.ID(), "error", err)
		}
	}
}

// concerns says whether a limit is of the person behind the session. Each client
// has one interactive session; it is told there, once.
func concerns(rule limit.Rule, s *session) bool {
	id := s.identity()
	if id.agent != nil || s.tunnel.Class() != tunnel.Interactive {
		return false
	}
	switch rule.Per {
	case policy.PerPrincipal:
		return id.id() == rule.Who
	case policy.PerGroup:
		for _, g := range id.policy.Groups {
			if id.policy.Issuer+"/"+g == rule.Who {
				return true
			}
		}
	}
	return false
}
