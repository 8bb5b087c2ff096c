package rego

import (
	"context"
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"

	"iap/policy"
)

// Explain decides an input afresh and says for each grant what speaks for and
// against it. The rows come from the same rules as the decision. They are empty
// where the question is refused before the policy is asked, and where the policy
// fails. Where a module replaces the decision, the rows still show the grants,
// but none of them decides. Of a verb of the administration the rows are the
// entries of admins:.
func (e *Engine) Explain(ctx context.Context, in policy.Input) policy.Explanation {
	l, in := e.current.Load(), e.clocked(in)
	if policy.IsVerb(in.Action) {
		return e.explainVerb(ctx, l, in)
	}
	if reason, message := refusal(in); reason != "" {
		return policy.Explanation{Decision: policy.Decision{Reason: reason, Message: message, Revision: l.revision}}
	}
	q := newQuestion(in)
	var x policy.Explanation
	x.Decision, _ = e.evaluate(ctx, l, q)
	value, err := e.query(ctx, l.explain, q)
	if err == nil {
		x.Grants, err = l.rows(value, q, x.Decision)
	}
	if err != nil && !x.Decision.Allow {
		return x // the decision's own reason says more
	}
	if err != nil {
		x.Decision = e.failure(ctx, l, err)
	}
	return x
}

// rows joins the policy's findings with the grants they are about.
func (l *loaded) rows(v ast.Value, q question, d policy.Decision) ([]policy.ExplainedGrant, error) {
	list, isList := v.(*ast.Array)
	if !isList || list.Len() != len(l.grants.List) {
		return nil, fmt.Errorf("explain decision: %d grants, but the answer is %v", len(l.grants.List), v)
	}
	rows := make([]policy.ExplainedGrant, list.Len())
	for i, grant := range l.grants.List {
		finding := list.Elem(i).Value.(ast.Object)
		row := policy.ExplainedGrant{
			Name:     grant.Name,
			Line:     grant.Line,
			Resource: holds(finding, "resource"),
			Model:    holds(finding, "model"),
			Action:   holds(finding, "action"),
			Egress:   holds(finding, "egress"),
			Media:    holds(finding, "media"),
			Keys:     holds(finding, "keys"),
			Unmet:    reasons(finding, "unmet"),
		}
		for _, s := range grant.To {
			if s.Matches(q.Principal) {
				row.To = append(row.To, s.String())
			}
		}
		row.Allows = holds(finding, "principal") && row.Resource && row.Model && row.Action && row.Egress && row.Media && row.Keys && len(row.Unmet) == 0
		if !row.Allows {
			row.Lacks = lacks(grant, row, q)
		}
		row.Decides = row.Allows && d.Allow && !l.replaced && d.Grant == grant.Name
		rows[i] = row
	}
	return rows, nil
}

func holds(finding ast.Object, name string) bool {
	term := finding.Get(ast.InternedTerm(name))
	return term != nil && term.Value.Compare(ast.Boolean(true)) == 0
}

func reasons(finding ast.Object, name string) []string {
	term := finding.Get(ast.InternedTerm(name))
	if term == nil {
		return nil
	}
	list, _ := term.Value.(*ast.Array)
	var out []string
	for i := range list.Len() {
		if s, isText := list.Elem(i).Value.(ast.String); isText {
			out = append(out, string(s))
		}
	}
	return out
}
