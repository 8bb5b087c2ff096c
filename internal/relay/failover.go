package relay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/policy"
	"iap/tunnel"
)

// maxTries is how many agents a request is given to: the choice was the best one
// known, and one more covers what happened since.
const maxTries = 3

// forward sends a request that the guard let pass to an agent and returns its
// answer as soon as the head is there. Another agent is tried only while it is
// certain that no byte of the request has left for an upstream: what is not
// known counts as sent.
func (r *Relay) forward(ctx context.Context, q *guard.Request) (*guard.Response, error) {
	w := want{resource: q.Resource.Name, class: tunnel.Interactive, agent: q.Agent}
	if q.Resource.Kind != guard.KindModel || len(q.Body) > bulkBody {
		w.class = tunnel.Bulk
	}
	if q.Resource.Kind == guard.KindModel {
		w.server, w.only, w.request = q.Resource.Server, q.Resource.Only, &q.Class
		if w.server == "" {
			return nil, r.unread(q)
		}
	}
	var t tries
	w.avoid = t.avoid
	for {
		l, others := r.agents.choose(w)
		if l == nil {
			return nil, t.failure(unserved(q, others))
		}
		x := &exchange{link: l, request: q, spawn: r.spawn, count: r.inflight.of(q.Resource.Kind)}
		response, err := x.run(ctx)
		if err == nil {
			response.Tried = t.tried
			return response, nil
		}
		x.fail()
		failed := upstreamError(err)
		t.note(l.link, failed)
		if !elsewhere(failed) || x.uploads || ctx.Err() != nil || len(t.links) == maxTries {
			return nil, t.failure(failed)
		}
	}
}

// tries are the agents that a request was given to, and that did not send it.
type tries struct {
	links  []*link
	agents []string // whose no is the agent's, whichever session it comes by
	tried  []string // agent and code of each, for the record
	best   *guard.UpstreamError
}

func (t *tries) avoid(l *link) bool {
	return slices.Contains(t.links, l) || slices.Contains(t.agents, l.agent.ID)
}

func (t *tries) note(l *link, failed *guard.UpstreamError) {
	t.links = append(t.links, l)
	t.tried = append(t.tried, l.agent.ID+" "+failed.Code)
	if failed.Agent != "" {
		t.agents = append(t.agents, l.agent.ID)
	}
	failed.Agent = l.agent.ID
	if t.best == nil || tells(failed) > tells(t.best) || tells(failed) == tells(t.best) && failed.RetryAfter < t.best.RetryAfter {
		t.best = failed
	}
}

// tells is how much an agent's no says to the caller: that others wait is worth
// more than that one of several agents is away.
func tells(e *guard.UpstreamError) int {
	switch e.Code {
	case tunnel.CodeQueueFull.String():
		return 2
	case tunnel.CodeDraining.String():
		return 0
	}
	return 1
}

// failure is what the caller is told: what may have been sent goes before all
// else, since it must not be asked again lightly.
func (t *tries) failure(last *guard.UpstreamError) *guard.UpstreamError {
	if last.NotSent && t.best != nil {
		last = t.best
	}
	if len(t.tried) > 1 {
		last.Tried = t.tried
	}
	return last
}

// unread is why a request could not be read: nobody has said what server it is for.
func (r *Relay) unread(q *guard.Request) *guard.UpstreamError {
	if online, _ := r.agents.online(q.Resource.Name); online == 0 {
		return unserved(q, false)
	}
	return &guard.UpstreamError{
		Code: "upstream_unreachable", Status: http.StatusServiceUnavailable, RetryAfter: offlineRetry, NotSent: true,
		Message: fmt.Sprintf("the agent of %s could not find out yet what model server it has", q.Resource.Name),
	}
}

// unserved is why no agent was chosen.
func unserved(q *guard.Request, others bool) *guard.UpstreamError {
	switch {
	case !others:
		return &guard.UpstreamError{
			Code: "agent_offline", Status: http.StatusServiceUnavailable, RetryAfter: offlineRetry, NotSent: true,
			Message: fmt.Sprintf("no agent serves %s right now", q.Resource.Name),
		}
	case q.Class.Model == "":
		return &guard.UpstreamError{
			Code: "model_missing", Status: http.StatusBadRequest, NotSent: true,
			Message: fmt.Sprintf("the agents of %s have different models, and this request names none", q.Resource.Name),
		}
	}
	return &guard.UpstreamError{
		Code: "model_gone", Status: http.StatusNotFound, NotSent: true,
		Message: fmt.Sprintf("no agent of %s has model %s right now", q.Resource.Name, q.Class.Model),
	}
}

// elsewhere says whether another agent may be asked: nothing was sent, and the
// reason is that agent's own.
func elsewhere(e *guard.UpstreamError) bool {
	if !e.NotSent {
		return false
	}
	switch tunnel.ParseCode(e.Code) {
	case tunnel.CodeRefused, tunnel.CodeProtocolError, tunnel.CodeInternal, tunnel.CodeTimeout:
		return false // the agent and we do not read the request alike, or it took its time
	}
	return true
}

// openTCP opens a stream to an agent of a tcp resource that could connect to its
// upstream. Until it says so no byte of the caller's is on its way, so another
// agent may be tried whatever happened to the one before.
func (r *Relay) openTCP(ctx context.Context, h tunnel.Header) (*chosen, *tunnel.Stream, *guard.UpstreamError) {
	var t tries
	w := want{resource: h.Resource, class: tunnel.Bulk, avoid: t.avoid}
	for {
		l, _ := r.agents.choose(w)
		if l == nil {
			e := &guard.UpstreamError{Code: tunnel.CodeAgentOffline.String(), Message: "no agent serves " + h.Resource + " right now", NotSent: true}
			return nil, nil, t.failure(e)
		}
		up, err := openOn(ctx, l.link, h)
		if err == nil {
			return l, up, nil
		}
		l.leave()
		failed := upstreamError(err)
		failed.NotSent = true
		t.note(l.link, failed)
		if !elsewhere(failed) || ctx.Err() != nil || len(t.links) == maxTries {
			return nil, nil, t.failure(failed)
		}
	}
}

// openOn opens a stream of a tcp resource on one session.
func openOn(ctx context.Context, l *link, h tunnel.Header) (*tunnel.Stream, error) {
	up, err := l.session.Open(ctx, h, nil)
	var abort *tunnel.AbortError
	if errors.As(err, &abort) && abort.Code == tunnel.CodeTooManyStreams {
		l.coolDown(0) // idle streams give way
		up, err = l.session.Open(ctx, h, nil)
	}
	if err != nil {
		return nil, err
	}
	reply, err := up.ReadReply(ctx)
	if err == nil && !reply.OK {
		err = refusedByAgent(reply, l.agent.ID)
	}
	if err != nil {
		up.Abort(tunnel.CodeCanceled)
		return nil, err
	}
	return up, nil
}

// tcpHeader is what an agent is told of a tcp stream.
func tcpHeader(s *session, kind, resource, request string, d policy.Decision) tunnel.Header {
	return tunnel.Header{
		Resource: resource, Kind: kind, Request: request, Session: s.tunnel.ID(), Principal: s.identity().id(),
		Action: string(modelapi.Connect), Grant: d.Grant, Priority: d.Priority,
	}
}
