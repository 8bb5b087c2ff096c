package relay

import (
	"context"
	"net/http"
	"slices"
	"time"

	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/internal/usage"
	"iap/policy"
	"iap/tunnel"
)

// openUsage opens the book of usage statistics. It closes before the store does.
// That the last seconds of them are lost is no failure of the relay.
func (r *Relay) openUsage() error {
	book, err := usage.Open(usage.Options{
		Store: r.store, Holder: r.cluster.Instance(), Retain: time.Duration(r.cfg.Usage.Retain), Now: r.now, Logger: r.log,
	})
	if err != nil {
		return err
	}
	r.closers = append(r.closers, func() error {
		closing, cancel := context.WithTimeout(context.Background(), settleTimeout)
		defer cancel()
		if err := book.Close(closing); err != nil {
			r.log.Error("the last usage statistics are lost", "error", err)
		}
		return nil
	})
	r.usage = book
	return nil
}

// countRequest adds what the guard tells to the statistics: each denial, and each
// request that was allowed, once it has ended.
func (r *Relay) countRequest(e *guard.Event) {
	denied := e.Kind == guard.EventDecision && e.Decision == audit.Deny
	if e.Caller == nil || e.Kind != guard.EventOutcome && !denied {
		return
	}
	entry := usage.Entry{
		Time: e.Time, Principal: e.Caller.Principal, Resource: e.Resource.Name, Model: countedModel(e), Action: e.Action, Grant: e.Grant,
		Outcome: usage.Denied, TokensIn: e.TokensIn, TokensOut: e.TokensOut, TTFT: e.TTFT, Duration: e.Duration,
	}
	if who, ok := e.Caller.Value.(principalSource); ok {
		entry.Groups = r.countedGroups(who.identity())
	}
	if denied {
		entry.Resource, entry.Model = r.deniedResource(e.Resource.Name), usage.Refused
	} else {
		entry.Outcome = outcomeOf(e.Ended, e.Status)
	}
	r.usage.Add(entry)
}

// countedGroups are the principal's groups. Of very many those come first that
// grants name: usage keeps no more than some.
func (r *Relay) countedGroups(id *identity) []string {
	if len(id.policy.Groups) <= usage.MaxGroups {
		return id.policy.Groups
	}
	id.counting.Do(func() {
		var rest []string
		grants := r.policy.Grants().List
		for _, group := range id.policy.Groups {
			one := policy.Selector{Kind: policy.SelectGroup, Issuer: id.policy.Issuer, Name: group}
			if slices.ContainsFunc(grants, func(g policy.Grant) bool { return slices.Contains(g.To, one) }) {
				id.counted = append(id.counted, group)
			} else {
				rest = append(rest, group)
			}
		}
		id.counted = append(id.counted, rest...)
	})
	return id.counted
}

// countedModel is the model's name, if it is one that the server has: by what its
// agents say, or by its having answered. Any other is a text of the caller's.
func countedModel(e *guard.Event) string {
	if e.Model == "" || slices.Contains(e.Resource.Models, e.Model) || e.Status > 0 && e.Status < http.StatusBadRequest {
		return e.Model
	}
	return usage.Unknown
}

// deniedResource is the name, if a resource has it: one that was refused may be
// any text.
func (r *Relay) deniedResource(name string) string {
	if _, known := r.agents.find(name); known {
		return name
	}
	return usage.Unknown
}

// outcomeOf sorts the words by which requests and streams end.
func outcomeOf(ended string, status int) usage.Outcome {
	switch {
	case ended == "completed" && status < http.StatusBadRequest:
		return usage.Completed
	case ended == "client_gone", ended == tunnel.CodeCanceled.String(), ended == "connection_lost":
		return usage.Cancelled
	}
	return usage.Failed
}

// count adds a stream of a tcp resource that has ended. A stream that carries
// requests is counted by these.
func (rec *streamRecord) count(ended string) {
	if rec.kind != modelapi.KindTCP {
		return
	}
	rec.relay.usage.Add(usage.Entry{
		Principal: rec.who.id(), Groups: rec.relay.countedGroups(rec.who), Resource: rec.line.Resource, Action: policy.ActionConnect, Grant: rec.line.Grant,
		Outcome: outcomeOf(ended, 0), Duration: rec.relay.now().Sub(rec.start),
	})
}

// countDenied adds a stream that was denied.
func (rec *streamRecord) countDenied() {
	rec.relay.usage.Add(usage.Entry{
		Principal: rec.who.id(), Groups: rec.relay.countedGroups(rec.who), Resource: rec.relay.deniedResource(rec.line.Resource), Model: usage.Refused,
		Action: policy.ActionConnect, Grant: rec.line.Grant, Outcome: usage.Denied,
	})
}
