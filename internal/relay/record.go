package relay

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/policy"
	"iap/tunnel"
)

// record writes what the guard tells: the one place where its events become
// audit lines.
func (r *Relay) record(ctx context.Context, e guard.Event) error {
	line := audit.Event{
		Kind: e.Kind, Time: e.Time, Request: e.Request, Resource: e.Resource.Name, Action: e.Action, Model: e.Model,
		Method: e.Method, Path: e.Path, Decision: e.Decision, Reason: e.Reason, Message: e.Message, Grant: e.Grant, Revision: e.Revision,
		Status: e.Status, BytesIn: e.BytesIn, BytesOut: e.BytesOut, TTFTMs: e.TTFT.Milliseconds(), DurationMs: e.Duration.Milliseconds(),
		Ended: e.Ended, Agent: e.Agent, Usage: e.Usage, TokensIn: max(e.TokensIn, 0), TokensOut: max(e.TokensOut, 0),
	}
	line.Detail = details(e)
	r.countRequest(&e)
	if e.Caller != nil {
		line.Session, line.Principal, line.Via, line.Source = e.Caller.Session, e.Caller.Principal, e.Caller.Via, e.Caller.Source
		if who, ok := e.Caller.Value.(principalSource); ok {
			id := who.identity()
			line.Issuer, line.Binding = id.principal.Issuer, id.principal.Binding
			if e.Kind == audit.KindDecision {
				if err := r.subjects.name(ctx, &line, id); err != nil {
					return err
				}
			}
		}
	}
	if e.Decision == audit.Deny {
		return r.audit.Denied(ctx, line)
	}
	return r.audit.Record(ctx, line)
}

// details are what few requests have.
func details(e guard.Event) map[string]string {
	var all map[string]string
	add := func(key, value string) {
		if value == "" {
			return
		}
		if all == nil {
			all = map[string]string{}
		}
		all[key] = value
	}
	add("sub_action", e.SubAction)
	if e.Kind == audit.KindDecision {
		resourceFacts(add, e.Resource.Kind, e.Resource.Labels)
	}
	if len(e.Models) > 1 {
		add("models", strings.Join(e.Models, " "))
	}
	if e.Egress {
		add("egress", "true")
	}
	add("recorded", e.Recorded)
	add("alias", e.Alias)
	add("also", strings.Join(e.Also, " "))
	add("refused", e.Refused)
	add("media", strings.Join(e.Media, " "))
	add("tried", strings.Join(e.Tried, ", "))
	if e.Cached > 0 {
		add("cached", strconv.FormatInt(e.Cached, 10))
	}
	if e.Reasoning > 0 {
		add("reasoning", strconv.FormatInt(e.Reasoning, 10))
	}
	if e.Caller != nil {
		if program, ok := e.Caller.Value.(*keyCaller); ok {
			add("key", program.key.ID)
		}
	}
	return all
}

// streamRecord is the audit of one user stream: its decision and its end.
type streamRecord struct {
	relay *Relay
	who   *identity
	kind  string // of the resource
	line  audit.Event
	start time.Time
	tried []string // agents that could not open it, if several were asked
}

// recordStream writes the decision on a stream before anything goes upstream.
func (r *Relay) recordStream(ctx context.Context, s *session, h tunnel.Header, res admin.JoinResource, d policy.Decision) (*streamRecord, error) {
	id := s.identity()
	rec := &streamRecord{relay: r, who: id, kind: res.Kind, start: r.now(), line: audit.Event{
		Kind: audit.KindDecision, Request: newID("st"), Session: s.tunnel.ID(), Principal: id.id(), Issuer: id.principal.Issuer,
		Binding: id.principal.Binding, Resource: h.Resource, Action: policy.ActionConnect, Via: "tunnel", Source: s.source,
		Grant: d.Grant, Reason: d.Reason, Revision: d.Revision, Decision: audit.Allow,
	}}
	rec.line.Detail = map[string]string{"asked": "reach"}
	resourceFacts(func(key, value string) { rec.line.Detail[key] = value }, res.Kind, res.Labels)
	if err := r.subjects.name(ctx, &rec.line, id); err != nil {
		return rec, err
	}
	if !d.Allow {
		rec.line.Decision, rec.line.Message = audit.Deny, d.Message
		rec.countDenied()
		return rec, r.audit.Denied(ctx, rec.line)
	}
	return rec, r.audit.Record(ctx, rec.line)
}

// ended writes how the stream ended.
func (rec *streamRecord) ended(why string, agent string, in, out int64) {
	rec.count(why)
	line := rec.line
	line.Kind, line.Decision, line.Reason, line.Subject, line.Detail, line.Time = audit.KindOutcome, "", "", "", nil, time.Time{}
	if len(rec.tried) > 0 {
		line.Detail = map[string]string{"tried": strings.Join(rec.tried, ", ")}
	}
	line.Ended, line.Agent, line.BytesIn, line.BytesOut = why, agent, in, out
	line.DurationMs = rec.relay.now().Sub(rec.start).Milliseconds()
	// An outcome is written whatever the caller's context says; the log's own
	// reserve holds it when the disk is full.
	if err := rec.relay.audit.Record(context.Background(), line); err != nil {
		rec.relay.log.Error("record stream end", "request", line.Request, "error", err)
	}
}

// newID makes a random id with a prefix that says of what.
func newID(prefix string) string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + "-" + hex.EncodeToString(b[:])
}
