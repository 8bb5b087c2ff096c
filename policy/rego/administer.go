package rego

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"iap/policy"
)

// MayAdminister decides whether the principal of the input may use the verb that
// is its action. The entries of admins: decide, and grants play no part; what a
// module adds to data.iap.admin_deny takes away what they give. Nothing gives a
// verb but an entry. Only a session may use one: neither a bearer token nor a
// program's key does.
func (e *Engine) MayAdminister(ctx context.Context, in policy.Input) policy.Decision {
	return e.administer(ctx, e.current.Load(), e.clocked(in))
}

func (e *Engine) administer(ctx context.Context, l *loaded, in policy.Input) policy.Decision {
	d := l.grants.MayAdminister(in.Principal, in.Action, in.Now)
	if in.Via != policy.ViaTunnel {
		d = policy.Decision{Reason: policy.ReasonSessionRequired, Message: "verbs of the administration are for sessions of iapctl, not for tokens and keys at the front door"}
	}
	if d.Allow && l.adminDeny != nil {
		d = e.narrow(ctx, l, in, d)
	}
	d.Revision = l.revision
	return d
}

// narrow asks the operator's modules whether they take the verb away. Whatever is
// no empty set does.
func (e *Engine) narrow(ctx context.Context, l *loaded, in policy.Input, given policy.Decision) policy.Decision {
	in.Resource, in.Model, in.Egress, in.Media = policy.Resource{}, "", false, nil
	value, err := e.query(ctx, *l.adminDeny, newQuestion(in))
	if err == nil && value == nil {
		err = errUndefined
	}
	if err != nil {
		return e.failure(ctx, l, err)
	}
	messages, isSet := value.(ast.Set)
	switch {
	case !isSet:
		return e.failure(ctx, l, fmt.Errorf("data.iap.admin_deny is %s, not a set", typeName(value)))
	case messages.Len() == 0:
		return given
	}
	denied := policy.Decision{Reason: policy.ReasonDeniedByRule, Grant: given.Grant, Message: "a rule of this relay's policy denies it"}
	if text, err := readText("message", messages.Slice()[0].Value, maxMessage); err == nil && text != "" {
		denied.Message = text
	}
	return denied
}

// explainVerb is Explain for a verb: a row for each entry of admins:.
func (e *Engine) explainVerb(ctx context.Context, l *loaded, in policy.Input) policy.Explanation {
	x := policy.Explanation{Decision: e.administer(ctx, l, in), Verb: true}
	for _, entry := range l.grants.Admins {
		row := policy.ExplainedGrant{
			Name: entry.Name(), Line: entry.Line, Action: entry.Has(in.Action),
			Resource: true, Model: true, Egress: true, Media: true, Keys: in.Via == policy.ViaTunnel, // an entry speaks of none of them
		}
		q := newQuestion(in)
		for _, s := range entry.To {
			if entry.Names(in.Principal) && s.Matches(in.Principal) {
				row.To = append(row.To, s.String())
			}
		}
		row.Unmet = entry.Require.Unmet(in.Principal, in.Now)
		row.Allows = !in.Principal.GroupsUnknown && len(row.To) > 0 && row.Action && row.Keys && len(row.Unmet) == 0
		if !row.Allows {
			row.Lacks = verbLacks(entry, row, q)
		}
		row.Decides = row.Allows && x.Decision.Allow && x.Decision.Grant == row.Name
		x.Grants = append(x.Grants, row)
	}
	return x
}

func verbLacks(entry policy.AdminEntry, row policy.ExplainedGrant, q question) []string {
	var all []string
	if len(row.To) == 0 {
		all = append(all, fmt.Sprintf("%s is none of %s", q.Principal.ID(), enumerated(entry.To)))
	}
	if !row.Action {
		all = append(all, fmt.Sprintf("%s is not among %d verbs that it gives", q.Action, len(entry.Verbs)))
	}
	if !row.Keys {
		all = append(all, "verbs are for sessions, and this came by "+q.Via)
	}
	for _, reason := range row.Unmet {
		all = append(all, unmetWords(reason, entry.Require, q))
	}
	return all
}
