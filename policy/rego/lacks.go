package rego

import (
	"fmt"
	"strings"
	"time"

	"iap/policy"
)

// lacks says in words what keeps a grant from allowing: the findings of its row,
// each with what the grant wants and what there is.
func lacks(g policy.Grant, row policy.ExplainedGrant, q question) []string {
	var all []string
	add := func(missing bool, format string, args ...any) {
		if missing {
			all = append(all, fmt.Sprintf(format, args...))
		}
	}
	add(len(row.To) == 0, "%s is none of %s", q.Principal.ID(), enumerated(g.To))
	add(!row.Resource, "resource %s is not among %s", q.Resource.Name, enumerated(g.Resources))
	if q.Model == "" {
		add(!row.Model, "the request names no model, and the grant is for %s", enumerated(g.Models))
	} else {
		add(!row.Model, "model %s is not among %s", q.Model, enumerated(g.Models))
	}
	add(!row.Action, "action %s is not among %s", q.Action, strings.Join(g.Actions, ", "))
	add(!row.Egress, "the model sends prompts to another host, and the grant has no egress: true")
	kinds := "text alone"
	if len(g.Media) > 0 {
		kinds = strings.Join(g.Media, ", ")
	}
	add(!row.Media, "the request carries %s, and the grant is for %s", strings.Join(q.Media, " and "), kinds)
	add(!row.Keys, "a key asks, and the grant has no keys:")
	for _, reason := range row.Unmet {
		all = append(all, unmetWords(reason, g.Require, q))
	}
	return all
}

func unmetWords(reason string, r policy.Require, q question) string {
	switch reason {
	case policy.ReasonClaimsRequired:
		var wanted []string
		for _, c := range r.UnmetClaims(q.Principal) {
			wanted = append(wanted, claimWords(c, q.Principal))
		}
		return strings.Join(wanted, " and ")
	case policy.ReasonMFARequired:
		if r.MFA == policy.MFAAsserted && q.mfaHeld {
			return "the second factor is the provider's word alone, and the grant wants the token to state it (mfa: asserted)"
		}
		return "the login had no second factor (mfa)"
	case policy.ReasonACRRequired:
		if q.Principal.ACR == "" {
			return "the token states no acr, and the grant wants " + strings.Join(r.ACR, " or ")
		}
		return fmt.Sprintf("the login's acr is %s, and the grant wants %s", q.Principal.ACR, strings.Join(r.ACR, " or "))
	case policy.ReasonAuthTooOld:
		if q.authTime == 0 {
			return "nobody says when the login was, and the grant wants one of the last " + r.AgeText()
		}
		return fmt.Sprintf("the login was %s ago, and the grant wants one of the last %s", q.Now.Sub(time.Unix(0, q.authTime)).Round(time.Second), r.AgeText())
	case policy.ReasonBindingRequired:
		return "the login was not made for the session's key (binding: nonce)"
	}
	return reason
}

// claimWords says what a required claim is and what the token has in its place.
func claimWords(c policy.RequiredClaim, p policy.Principal) string {
	wanted := strings.Join(c.Values, " or ")
	has := p.Claims[c.Name]
	switch {
	case c.Issuer != p.Issuer:
		return fmt.Sprintf("the grant wants claim %s to be %s, and this token is of %s", c.Key(), wanted, p.Issuer)
	case len(has) == 0:
		return fmt.Sprintf("the token has no claim %s, and the grant wants %s", c.Key(), wanted)
	}
	return fmt.Sprintf("claim %s is %s, and the grant wants %s", c.Key(), strings.Join(has, ", "), wanted)
}

// enumerated joins patterns or selectors, the first few of them.
func enumerated[T fmt.Stringer](entries []T) string {
	const most = 5
	texts := make([]string, 0, most+1)
	for i, e := range entries {
		if i == most {
			texts = append(texts, fmt.Sprintf("%d more", len(entries)-most))
			break
		}
		texts = append(texts, e.String())
	}
	return strings.Join(texts, ", ")
}
