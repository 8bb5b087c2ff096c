package relay

import (
	"context"

	"iap/internal/admin"
	"iap/internal/guard"
	"iap/policy"
)

// ask puts a question about a principal to the policy. An agent's key is no
// principal and is granted nothing.
func (r *Relay) ask(ctx context.Context, id *identity, res policy.Resource, action, model, via string, egress bool) policy.Decision {
	if id.agent != nil {
		return policy.Decision{Reason: policy.ReasonNoGrant, Message: "agents open no streams"}
	}
	return r.policy.Decide(ctx, policy.Input{
		Principal: id.policy, Resource: res, Action: action, Model: model, Egress: egress, Via: via, Now: r.now(),
	})
}

// decide answers the guard for each request.
func (r *Relay) decide(ctx context.Context, q guard.Question) guard.Decision {
	who, ok := q.Caller.Value.(principalSource)
	if !ok {
		return guard.Decision{Reason: policy.ReasonInputInvalid, Message: "the relay lost track of who is calling"}
	}
	// The front door takes any name: one that is not enrolled with this kind gets
	// the answer of one that is not granted.
	if known, ok := r.agents.find(q.Resource.Name); !ok || known.Kind != q.Resource.Kind {
		return guard.Decision{Reason: policy.ReasonResourceNotGranted, Message: unknownResource, Revision: r.policy.Revision()}
	}
	res := policy.Resource{Name: q.Resource.Name, Kind: q.Resource.Kind, Labels: q.Resource.Labels}
	d := r.ask(ctx, who.identity(), res, q.Action, q.Model, q.Caller.Via, q.Egress)
	return guard.Decision{
		Allow: d.Allow, Reason: d.Reason, Message: d.Message, Grant: d.Grant, Revision: d.Revision,
		Priority: d.Priority, MaxOutputTokens: d.Limits.MaxOutputTokens, Until: d.Until,
	}
}

// unknownResource does not tell whether the resource exists.
const unknownResource = "no grant gives you a resource of this name"

// principalSource is who a guard's caller is now: a session's identity changes
// with each refresh, a bearer's never.
type principalSource interface{ identity() *identity }

// bearer is the caller of one request at the front door.
type bearer struct{ who *identity }

func (b bearer) identity() *identity { return b.who }

func policyResource(r admin.JoinResource) policy.Resource {
	return policy.Resource{Name: r.Name, Kind: r.Kind, Labels: r.Labels}
}

// reach decides whether the principal may reach the resource at all. A name
// that no agent is enrolled for gets the same answer as one not granted, so
// that nobody learns names by asking.
func (r *Relay) reach(ctx context.Context, id *identity, name, via string) (admin.JoinResource, policy.Decision) {
	res, known := r.agents.find(name)
	if !known {
		return res, policy.Decision{
			Reason:   policy.ReasonResourceNotGranted,
			Message:  unknownResource,
			Revision: r.policy.Revision(),
		}
	}
	action := policy.ActionAny
	if res.Kind != guard.KindModel {
		action = "connect"
	}
	return res, r.ask(ctx, id, policyResource(res), action, "", via, false)
}
