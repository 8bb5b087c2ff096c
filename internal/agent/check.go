package agent

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// refusal is why the agent says no: a code and a sentence for the reply, and
// when it is worth to ask again.
type refusal struct {
	code       tunnel.Code
	message    string
	retryAfter time.Duration
}

func (r *refusal) Error() string { return r.code.String() + ": " + r.message }

func refusef(code tunnel.Code, format string, args ...any) error {
	return &refusal{code: code, message: fmt.Sprintf(format, args...)}
}

// asRefusal is what may be said of err outside.
func asRefusal(err error) *refusal {
	var no *refusal
	if errors.As(err, &no) {
		return no
	}
	return &refusal{code: tunnel.CodeInternal, message: "the agent could not do that"}
}

// request is what the second check looks at: the bytes as they arrived.
type request struct {
	method, target, contentType, contentEncoding, upgrade string
	body                                                  []byte
}

// lookup finds the resource that a header names in the agent's own list.
func (a *Agent) lookup(h tunnel.Header) (*upstream, error) {
	i := slices.IndexFunc(a.upstreams, func(u *upstream) bool { return u.cfg.Name == h.Resource })
	if i < 0 || a.upstreams[i].cfg.Kind != h.Kind {
		return nil, refusef(tunnel.CodeNotAnnounced, "this agent does not serve %q", h.Resource)
	}
	u := a.upstreams[i]
	if err := u.checkCleared(); err != nil {
		a.doubts()
		return nil, err
	}
	return u, nil
}

// checkCleared refuses an http or tcp resource of which it is not known, or known
// otherwise, that it is no model server: that it is not announced would not keep
// a relay from sending.
func (u *upstream) checkCleared() error {
	if u.cfg.Kind == modelapi.KindModel || u.cfg.Opaque {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.state.foreign:
		return refusef(tunnel.CodeNotAnnounced, "%s answers as a model server and is not served as what it is not", u.cfg.Name)
	case !u.cleared:
		return refusef(tunnel.CodeUpstreamUnreachable, "the upstream of %s has not answered its agent yet", u.cfg.Name)
	}
	return nil
}

// checkHeader holds the header against the agent's list of actions.
func (u *upstream) checkHeader(h tunnel.Header) error {
	if len(u.cfg.Actions) > 0 && !slices.Contains(u.cfg.Actions, h.Action) {
		return refusef(tunnel.CodePolicyDenied, "this agent's own list does not allow %s on %s", h.Action, u.cfg.Name)
	}
	if u.cfg.Kind != modelapi.KindModel && h.Action != string(modelapi.Connect) {
		return refusef(tunnel.CodeProtocolError, "action %q does not fit kind %s", h.Action, u.cfg.Kind)
	}
	return nil
}

// checkRequest reads the request anew and refuses it unless it is what the
// relay decided on: same action, same model, same target, and all in the
// agent's own list.
func (u *upstream) checkRequest(table *modelapi.Table, h tunnel.Header, q request) (modelapi.Class, error) {
	var none modelapi.Class
	if q.method != h.Method || q.target != h.Path {
		return none, refusef(tunnel.CodeProtocolError, "the request is not the one that was decided on")
	}
	if u.cfg.Kind != modelapi.KindModel {
		return none, nil
	}
	if !u.known() {
		return none, refusef(tunnel.CodeUpstreamUnreachable, "the agent could not find out yet which models %s has", u.cfg.Name)
	}
	rawPath, query, _ := strings.Cut(q.target, "?")
	class, err := table.Verify(modelapi.Input{
		Server: u.server(), Only: modelapi.OnlyModel(u.server(), u.announced()), Method: q.method, Path: rawPath, Query: query,
		ContentType: q.contentType, ContentEncoding: q.contentEncoding, Upgrade: q.upgrade, Body: q.body,
	})
	if err != nil {
		return none, refusef(tunnel.CodeRefused, "the agent reads this request as invalid: %v", err)
	}
	if string(class.Action) != h.Action || class.Model != h.Model || class.Target != q.target {
		return none, refusef(tunnel.CodeRefused, "the agent reads this request as %s of model %q, the relay as %s of %q", class.Action, class.Model, h.Action, h.Model)
	}
	for _, model := range class.Models {
		if !u.cfg.servesModel(model) {
			return none, refusef(tunnel.CodePolicyDenied, "this agent's own list does not allow model %s", model)
		}
		if class.Action.Computes() && !class.Egress && u.isRemote(model) {
			return none, refusef(tunnel.CodePolicyDenied, "model %s has a local name, and %s sends its prompts to another host; nobody was granted that by this name", model, u.cfg.Name)
		}
	}
	for _, also := range class.Also {
		if len(u.cfg.Actions) > 0 && !slices.Contains(u.cfg.Actions, string(also)) {
			return none, refusef(tunnel.CodePolicyDenied, "this agent's own list does not allow %s on %s", also, u.cfg.Name)
		}
	}
	return class, nil
}

// isRemote reports whether the server said of a model that another host serves
// it. Its name does not tell, so no grant can have been asked for egress.
func (u *upstream) isRemote(model string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.ContainsFunc(u.state.remote, func(name string) bool {
		canonical, _, err := modelapi.MeantModel(modelapi.ServerOllama, "", nil, name)
		return err == nil && canonical == model
	})
}

// known reports whether enough was learned of the model server to tell what a
// request does: without that a name in it would be believed that the server may
// ignore.
func (u *upstream) known() bool {
	u.mu.Lock()
	learned := len(u.state.models) > 0
	u.mu.Unlock()
	server := u.server()
	return server == modelapi.ServerOllama || server != "" && learned
}
