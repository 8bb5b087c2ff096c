package relay

import (
	"context"

	"iap/internal/admin"
	"iap/internal/guard"
	"iap/policy"
)

// ask puts a question about a principal to the policy; who and when it fills
// in. An agent's key is no principal and is granted nothing.
func (r *Relay) ask(ctx context.Context, id *identity, in policy.Input) policy.Decision {
	if id.agent != nil {
		return policy.Decision{Reason: policy.ReasonNoGrant, Message: "agents open no streams"}
	}
	if no := r.refusal(id); no != nil {
		return policy.Decision{Reason: no.Code.String(), Message: no.Message, Revision: r.policy.Revision()}
	}
	if ctx.Value(recheckKey{}) == nil { // what takes rights away stands in nobody's queue
		leave, ok := r.line.enter(ctx, id.id())
		if !ok {
			return policy.Decision{Reason: policy.ReasonPolicyTimeout, Message: "the request ended before the policy was asked"}
		}
		defer leave()
	}
	in.Principal, in.Now = id.policy, r.now()
	d := r.policy.Decide(ctx, in)
	if d.Allow && d.Record && in.Action == policy.ActionConnect { // a module's word: a grants file cannot say so
		d = policy.Decision{Reason: "recording_unavailable", Message: "the policy demands a recording, and what passes under connect is not read", Grant: d.Grant, Revision: d.Revision}
	}
	return d
}

// recheckKey marks the context of questions about what is running.
type recheckKey struct{}

// decide answers the guard for each request.
func (r *Relay) decide(ctx context.Context, q guard.Question) guard.Decision {
	who, ok := q.Caller.Value.(principalSource)
	if !ok {
		return guard.Decision{Reason: policy.ReasonInputInvalid, Message: "the relay lost track of who is calling"}
	}
	ask := func(action string) policy.Decision {
		_, d := r.askNamed(ctx, who.identity(), policy.Input{
			Resource: policy.Resource{Name: q.Resource.Name, Kind: q.Resource.Kind},
			Action:   action, Model: q.Model, Egress: q.Egress, Media: q.Media, Via: q.Caller.Via,
		})
		return d
	}
	var d policy.Decision
	if key, ok := who.(*keyCaller); ok {
		d = key.decide(q, ask)
	} else {
		d = ask(q.Action)
	}
	if no, unreached := ctx.Value(unreachedKey{}).(policy.Decision); unreached && d.Allow {
		d = no
	}
	answer := guard.Decision{
		Allow: d.Allow, Reason: d.Reason, Message: d.Message, Grant: d.Grant, Revision: d.Revision,
		Priority: d.Priority, MaxOutputTokens: d.MaxOutputTokens(), TokenLimited: tokenLimited(d), Until: d.Until, Value: d,
		Record: d.Record,
		Lost:   !d.Allow && isLost(d.Reason),
	}
	if d.StepUp != nil {
		answer.StepUp = r.guardStepUp(who.identity(), d.StepUp)
		if s, ok := who.(*session); ok && (q.Action != policy.ActionAny || q.Model == "") { // not for what a list leaves out
			r.tellStepUp(s, q.Resource.Name, d)
		}
	}
	return answer
}

// principalSource is who a guard's caller is now: a session's identity changes
// with each refresh, a bearer's never.
type principalSource interface{ identity() *identity }

// bearer is the caller of one request at the front door.
type bearer struct{ who *identity }

func (b bearer) identity() *identity { return b.who }

func policyResource(r admin.JoinResource) policy.Resource {
	return policy.Resource{Name: r.Name, Kind: r.Kind, Labels: r.Labels}
}

// reach decides whether the principal may reach the resource at all.
func (r *Relay) reach(ctx context.Context, id *identity, name, via string) (admin.JoinResource, policy.Decision) {
	action := policy.ActionAny
	if res, known := r.agents.find(name); known && res.Kind != guard.KindModel {
		action = policy.ActionConnect
	}
	return r.askNamed(ctx, id, policy.Input{Resource: policy.Resource{Name: name}, Action: action, Via: via})
}

// reasonUnknown is for who may have every resource of this name, of which there
// is none.
const reasonUnknown = "unknown_resource"

// askNamed asks about a resource by its name. A name that no agent is enrolled
// for, or for another kind than the one asked for, is put to the policy as any
// other: whoever is not granted it gets the same answer as for one that
// exists, so that nobody learns names by asking.
func (r *Relay) askNamed(ctx context.Context, id *identity, in policy.Input) (admin.JoinResource, policy.Decision) {
	name, kind := in.Resource.Name, in.Resource.Kind
	res, known := r.agents.find(name)
	if known && (kind == "" || kind == res.Kind) {
		in.Resource = policyResource(res)
		return res, r.ask(ctx, id, in)
	}
	res = admin.JoinResource{Name: name, Kind: guard.KindModel}
	in.Resource = policyResource(res)
	d := r.ask(ctx, id, in)
	if d.Allow {
		d = policy.Decision{Reason: reasonUnknown, Message: "no agent is enrolled for a resource of this name", Revision: d.Revision}
	}
	return res, d
}
