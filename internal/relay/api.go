package relay

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/guard"
	"iap/internal/modelapi"
	"iap/internal/version"
	"iap/policy"
	"iap/tunnel"
)

// userAPI is the relay's API as one principal sees it.
type userAPI struct {
	relay   *Relay
	session *session
}

// did records what the session's principal did by this API; refused, if not nil,
// is why it was not done.
func (a *userAPI) did(ctx context.Context, verb, target string, refused error) error {
	id := a.session.identity()
	e := audit.Event{
		Kind: audit.KindAdmin, Principal: id.id(), Issuer: id.principal.Issuer, Binding: id.principal.Binding, Session: a.session.tunnel.ID(), Source: a.session.source,
		Via: policy.ViaTunnel, Action: verb, Detail: map[string]string{"target": target},
	}
	var cause *admin.Error
	if errors.As(refused, &cause) {
		e.Decision, e.Reason, e.Message = audit.Deny, cause.Code, cause.Message
		return a.relay.audit.Denied(ctx, e)
	}
	return a.relay.audit.Record(ctx, e)
}

func (a *userAPI) Whoami(context.Context) (admin.Whoami, error) {
	id := a.session.identity()
	p := id.principal
	w := admin.Whoami{
		Principal: id.id(), Issuer: p.Issuer, IssuerURL: p.IssuerURL, Subject: p.Subject, Name: p.DisplayName,
		Groups: p.Groups, GroupsUnknown: p.GroupsUnknown, Claims: p.Claims, MFA: p.MFA.Asserted, MFASource: p.MFA.Source,
		Binding: p.Binding, Session: a.session.info(), Lines: policy.Lines(id.policy),
	}
	w.Verbs, w.VerbsStepUp = a.relay.policy.Grants().VerbsOf(id.policy, a.relay.now())
	w.Admin = len(w.Verbs)+len(w.VerbsStepUp) > 0
	if p.EmailVerified {
		w.Email = p.Email
	}
	if !p.AuthTime.IsZero() {
		w.AuthTime = &p.AuthTime
	}
	for _, g := range a.relay.policy.Grants().List {
		if slices.ContainsFunc(g.To, func(s policy.Selector) bool { return s.Matches(id.policy) }) {
			w.Grants++
		}
	}
	return w, nil
}

// Resources lists what the principal may reach, and nothing else.
func (a *userAPI) Resources(ctx context.Context) (admin.ResourceList, error) {
	list := admin.ResourceList{Resources: []admin.Resource{}}
	id := a.session.identity()
	for _, name := range a.relay.agents.names() {
		res, d := a.relay.reach(ctx, id, name, "tunnel")
		if !d.Allow && d.StepUp != nil { // a grant names it: it is no secret
			list.Resources = append(list.Resources, admin.Resource{
				Name: name, Kind: res.Kind, Labels: res.Labels, Actions: []string{}, Reason: d.Reason, Message: d.Message, StepUp: a.relay.stepUpOf(id, d.StepUp),
			})
		}
		if !d.Allow {
			continue
		}
		online, announced := a.relay.agents.online(name)
		one := admin.Resource{
			Name: name, Kind: res.Kind, Labels: res.Labels, Server: announced.Server, Online: online > 0 && announced.Healthy, Agents: online,
			Grant: d.Grant, Actions: []string{},
		}
		a.relay.agents.showHealth(&one, announced)
		for _, action := range policy.Actions() {
			if (action == policy.ActionConnect) == (res.Kind == guard.KindModel) {
				continue // connect belongs to tcp and http alone, all others to models
			}
			if d := a.mayAct(ctx, policyResource(res), action, announced.Models); d.Allow {
				one.Actions = append(one.Actions, action)
				one.Uses = addUse(one.Uses, action, d)
			}
		}
		for _, model := range announced.Models {
			if a.relay.ask(ctx, id, policy.Input{Resource: policyResource(res), Action: policy.ActionAny, Model: model, Via: "tunnel"}).Allow {
				one.Models = append(one.Models, model)
			}
		}
		one.Aliases = aliasesOf(announced, one.Models)
		list.Resources = append(list.Resources, one)
	}
	return list, nil
}

// mayAct is the decision by which the principal may do the action on the
// resource, with any of its models: most grants name models.
func (a *userAPI) mayAct(ctx context.Context, res policy.Resource, action string, models []string) policy.Decision {
	for _, model := range append([]string{""}, models...) {
		if d := a.relay.ask(ctx, a.session.identity(), policy.Input{Resource: res, Action: action, Model: model, Via: "tunnel"}); d.Allow {
			return d
		}
	}
	return policy.Decision{}
}

// addUse puts an action under the grant that decides on it.
func addUse(all []admin.Use, action string, d policy.Decision) []admin.Use {
	i := slices.IndexFunc(all, func(u admin.Use) bool { return u.Grant == d.Grant })
	if i < 0 {
		i = len(all)
		all = append(all, admin.Use{Grant: d.Grant, Limits: apiLimits(d.Limits), KeyTTL: int64(d.Keys.MaxTTL / time.Second), Record: d.Record})
	}
	all[i].Actions = append(all[i].Actions, action)
	return all
}

// aliasesOf are the aliases of models that the principal may use.
func aliasesOf(announced tunnel.Announcement, models []string) map[string]string {
	var visible map[string]string
	only := modelapi.OnlyModel(announced.Server, announced.Models)
	for alias := range announced.Aliases {
		model, _, err := modelapi.MeantModel(announced.Server, only, announced.Aliases, alias)
		if err == nil && slices.Contains(models, model) {
			if visible == nil {
				visible = map[string]string{}
			}
			visible[alias] = model
		}
	}
	return visible
}

// Status shows the principal its own sessions.
func (a *userAPI) Status(context.Context) (admin.Status, error) {
	mine := a.session.identity().id()
	st := a.relay.status(func(s *session) bool { return s.identity().agent == nil && s.identity().id() == mine })
	st.Audit, st.Agents = "", 0
	return st, nil
}

// apiLimits are limits in the words of the API.
func apiLimits(all []policy.Limits) []admin.Limits {
	var out []admin.Limits
	for _, l := range all {
		one := admin.Limits{
			Concurrent: l.Concurrent, MaxOutputTokens: l.MaxOutputTokens, Per: l.Per, Mode: l.Mode, Contact: l.Contact, Text: l.String(),
		}
		for _, rate := range l.Requests {
			one.Requests = append(one.Requests, rate.String())
		}
		for _, rate := range l.Tokens {
			one.Tokens = append(one.Tokens, rate.String())
		}
		out = append(out, one)
	}
	return out
}

func (r *Relay) status(keep func(*session) bool) admin.Status {
	st := admin.Status{
		Relay: r.cfg.Name, Version: version.String(), Started: r.started, ChannelBinding: string(r.cfg.ChannelBinding),
		PolicyRevision: r.policy.Revision(), Audit: "ok", Sessions: []admin.SessionInfo{},
	}
	if err := r.audit.Healthy(); err != nil {
		st.Audit = err.Error()
	} else if err := r.audit.Proving(); err != nil {
		st.Audit = "ok, but without checkpoints: " + err.Error()
	}
	ids := map[string]bool{}
	for _, s := range r.sessions.all(live) {
		if a := s.identity().agent; a != nil {
			ids[a.ID] = true
		}
		if keep(s) {
			st.Sessions = append(st.Sessions, s.info())
		}
	}
	st.Agents = len(ids)
	return st
}

// isPrincipal reports whether id can be a principal of this relay.
func (r *Relay) isPrincipal(id string) bool {
	issuer, subject, ok := strings.Cut(id, "/")
	return ok && subject != "" && len(id) <= maxPrincipal && slices.Contains(r.cfg.IssuerNames(), issuer)
}

// maxPrincipal is an alias and a subject, with room.
const maxPrincipal = 400

func stateUnavailable(err error) error {
	return &admin.Error{Status: http.StatusServiceUnavailable, Code: "state_unavailable", Message: "the relay's database failed: " + err.Error(), Hint: "see the relay's log"}
}
