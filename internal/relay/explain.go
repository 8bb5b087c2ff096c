package relay

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"iap/internal/admin"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/internal/relay/settings"
	"iap/policy"
	"iap/tunnel"
)

// Explain says how the policy decides a question about the caller, and why.
func (a *userAPI) Explain(ctx context.Context, q admin.Question) (admin.Answer, error) {
	if q.Who != nil {
		return admin.Answer{}, badRequest("who: this call is about yourself; others are asked about at /v1/admin/policy/explain")
	}
	return a.relay.answer(ctx, a.session.identity(), q, false)
}

// AdminExplain says it of somebody else.
func (a *adminAPI) AdminExplain(ctx context.Context, q admin.Question) (admin.Answer, error) {
	if q.Who == nil {
		return admin.Answer{}, badRequest("who: say about whom")
	}
	who, err := a.relay.subjectOf(*q.Who)
	if err != nil {
		return admin.Answer{}, err
	}
	return a.relay.answer(ctx, who, q, true)
}

// answer checks a question and decides it. An explanation is evaluated anew each
// time, where decisions wait for their turn: one at a time, and not for everybody
// at once.
func (r *Relay) answer(ctx context.Context, who *identity, q admin.Question, isAdmin bool) (admin.Answer, error) {
	if q.Action != "" && !policy.IsAction(q.Action) && !policy.IsVerb(q.Action) {
		return admin.Answer{}, badRequest(fmt.Sprintf("action: %q is neither one of %v nor a verb such as %s", q.Action, policy.Actions(), policy.VerbSessionsKill))
	}
	if q.Via != "" && !slices.Contains([]string{policy.ViaTunnel, policy.ViaBearer, policy.ViaKey}, q.Via) {
		return admin.Answer{}, badRequest(fmt.Sprintf("via: %q is not one of tunnel, bearer, key", q.Via))
	}
	select {
	case r.explaining <- struct{}{}:
		defer func() { <-r.explaining }()
	default:
		return admin.Answer{}, &admin.Error{Status: http.StatusTooManyRequests, Code: tunnel.CodeOverloaded.String(), Message: "the relay is explaining something to somebody else", Hint: "try again in a moment"}
	}
	return r.explain(ctx, who, q, isAdmin), nil
}

// explain decides a question and says how each grant that names the principal
// fared. Grants that are about others are shown to administrators alone.
func (r *Relay) explain(ctx context.Context, id *identity, q admin.Question, isAdmin bool) admin.Answer {
	res, known := r.agents.find(q.Resource)
	if !known {
		res = admin.JoinResource{Name: q.Resource, Kind: guard.KindModel}
	}
	in := policy.Input{
		Principal: id.policy, Resource: policyResource(res), Action: q.Action, Model: q.Model, Egress: q.Egress, Media: q.Media, Via: q.Via, Now: r.now(),
	}
	in.Action = cmp.Or(in.Action, policy.ActionAny)
	in.Via = cmp.Or(in.Via, policy.ViaTunnel)
	if known && res.Kind == guard.KindModel {
		r.readModel(res, &in)
	}
	known = known || policy.IsVerb(q.Action) // which is about no resource
	x := r.policy.Explain(ctx, in)
	d := x.Decision
	answer := admin.Answer{
		Principal: id.policy.ID(),
		Allow:     d.Allow && known, Reason: d.Reason, Message: d.Message, Grant: d.Grant, Group: d.Group, Revision: d.Revision, Priority: d.Priority, Record: d.Record,
		Limits: apiLimits(d.Limits), MaxOutputTokens: d.MaxOutputTokens(), StepUp: r.stepUpOf(id, d.StepUp),
	}
	if in.Model != q.Model {
		answer.MeantModel = in.Model
	}
	if d.Allow && !known {
		answer.Reason, answer.Message, answer.Grant = reasonUnknown, "no agent is enrolled for a resource of this name", ""
	}
	if !d.Until.IsZero() {
		answer.Until = &d.Until
	}
	for _, g := range x.Grants {
		if len(g.To) > 0 {
			answer.Considered = append(answer.Considered, admin.GrantStep{Grant: g.Name, Line: g.Line, Result: g.Verdict(), Lacks: g.Lacks})
		}
	}
	if near := x.Closest(); near != nil && !d.Allow && (isAdmin || len(near.To) > 0) {
		answer.Closest, answer.Shortfall = near.Name, near.Shortfall()
	}
	return answer
}

// readModel puts the model that a request would be decided on in place of the
// name in the question. A name that is none stays: the policy says no to it.
func (r *Relay) readModel(res admin.JoinResource, in *policy.Input) {
	if in.Model == "" {
		return
	}
	about := r.guardResource(res)
	if in.Action == policy.ActionManageModel {
		about.Aliases = nil // whoever manages models means what it writes
	}
	if model, egress, err := modelapi.MeantModel(about.Server, about.Only, about.Aliases, in.Model); err == nil {
		in.Model, in.Egress = model, in.Egress || egress
	}
}

// subjectOf is whom an administrator asks about: somebody as described, or, where
// nothing is described, as the latest of the principal's live sessions has it.
func (r *Relay) subjectOf(who admin.Subject) (*identity, error) {
	id := who.Principal
	if id == "" && len(who.Groups) > 0 { // somebody in that group
		issuer, _, _ := strings.Cut(who.Groups[0], "/")
		id = issuer + "/" + nobody
	}
	if !r.isPrincipal(id) {
		return nil, badRequest(fmt.Sprintf("principal %q is not of the form ISSUER/SUBJECT with an issuer of relay.yaml", id))
	}
	if !who.Described() {
		live := r.sessions.all(func(s *session) bool { return s.identity().agent == nil && s.identity().id() == id })
		if len(live) > 0 {
			return live[len(live)-1].identity(), nil
		}
	}
	issuer, subject, _ := strings.Cut(id, "/")
	p := policy.Principal{
		Issuer: issuer, Subject: subject, Claims: who.Claims, ACR: who.ACR, Binding: who.Binding,
		Workload: slices.ContainsFunc(r.cfg.Issuers, func(i settings.IssuerConfig) bool { return i.Name == issuer && i.Workload }),
	}
	for _, group := range who.Groups {
		p.Groups = append(p.Groups, strings.TrimPrefix(group, issuer+"/"))
	}
	if who.MFA {
		p.MFA, p.MFASource = true, policy.MFASourceAMR
	}
	if who.AuthAge != "" {
		age, err := policy.ParseDuration(who.AuthAge)
		if err != nil {
			return nil, badRequest("auth_age: " + err.Error())
		}
		p.AuthTime = r.now().Add(-age)
	}
	return &identity{policy: p}, nil
}

// nobody is the subject of whoever is only described.
const nobody = "(somebody)"
