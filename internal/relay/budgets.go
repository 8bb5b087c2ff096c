package relay

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/limit"
	"iap/policy"
)

// maxHolders is how many principals and groups of one grant are shown at once.
const maxHolders = 500

// Budgets shows the caller how its own limits stand.
func (a *userAPI) Budgets(ctx context.Context, q admin.OwnBudgets) (admin.BudgetList, error) {
	id := a.session.identity()
	return a.relay.showBudgets(ctx, id.id(), a.relay.ownRules(ctx, id, q.Resource), nil)
}

// AdminBudgets shows how the limits of others stand.
func (a *adminAPI) AdminBudgets(ctx context.Context, q admin.BudgetQuestion) (admin.BudgetList, error) {
	if q.Who == "" && q.Grant == "" {
		return admin.BudgetList{}, badRequest("who: say whose budgets, or of which grant")
	}
	if err := a.relay.checkBudgetNames(q.Who, q.Grant); err != nil {
		return admin.BudgetList{}, err
	}
	return a.relay.budgets(ctx, q)
}

// ResetBudgets forgets what somebody has used.
func (a *adminAPI) ResetBudgets(ctx context.Context, q admin.BudgetReset) (admin.BudgetList, error) {
	if err := a.relay.checkBudgetNames(q.Who, q.Grant); err != nil {
		return admin.BudgetList{}, err
	}
	return a.relay.resetBudgets(ctx, q)
}

// holderOf reads whose counters somebody speaks of.
func (r *Relay) holderOf(who string) (limit.Holder, error) {
	kind, name, prefixed := strings.Cut(who, ":")
	switch {
	case who == "all":
		return limit.Holder{Per: policy.PerGrant}, nil
	case prefixed && kind == policy.SelectGroup && r.isPrincipal(name): // the same form
		return limit.Holder{Per: policy.PerGroup, Who: name}, nil
	case prefixed && kind == policy.SelectUser && r.isPrincipal(name):
		return limit.Holder{Per: policy.PerPrincipal, Who: name}, nil
	case r.isPrincipal(who):
		return limit.Holder{Per: policy.PerPrincipal, Who: who}, nil
	}
	return limit.Holder{}, badRequest(fmt.Sprintf("who: %q is neither ISSUER/SUBJECT nor group:ISSUER/GROUP, with an issuer of relay.yaml, nor all", who))
}

// maxGrantName is more than any grant's name has.
const maxGrantName = 256

func (r *Relay) checkBudgetNames(who, grant string) error {
	if len(grant) > maxGrantName {
		return badRequest("grant: no grant has so long a name")
	}
	if who == "" {
		return nil
	}
	_, err := r.holderOf(who)
	return err
}

// budgets answers an administrator.
func (r *Relay) budgets(ctx context.Context, q admin.BudgetQuestion) (admin.BudgetList, error) {
	if q.Who == "" {
		return r.budgetsOfGrant(ctx, q.Grant)
	}
	h, err := r.holderOf(q.Who)
	if err != nil {
		return admin.BudgetList{}, err
	}
	if h.Per == policy.PerGrant && q.Grant == "" {
		return admin.BudgetList{}, badRequest("grant: say which grant all are counted together for")
	}
	id := r.knownPrincipal(h)
	var rules []limit.Rule
	var keep func(limit.Standing) bool
	if id != nil {
		rules = r.ownRules(ctx, id, q.Resource)
	} else {
		rules = r.holderRules(h, q.Resource)
		if h.Per == policy.PerPrincipal { // which grants name it is not known: those that it has used do
			keep = inUse
		}
	}
	if q.Grant != "" {
		rules = slices.DeleteFunc(rules, func(l limit.Rule) bool { return l.Grant != q.Grant })
	}
	return r.showBudgets(ctx, q.Who, rules, keep)
}

// budgetsOfGrant shows everybody who has used something of the grant.
func (r *Relay) budgetsOfGrant(ctx context.Context, grant string) (admin.BudgetList, error) {
	if !slices.ContainsFunc(r.policy.Grants().List, func(g policy.Grant) bool { return g.Name == grant }) {
		return admin.BudgetList{}, unknownGrant(grant)
	}
	holders, more, err := r.limits.Holders(ctx, grant, maxHolders)
	if err != nil {
		return admin.BudgetList{}, limitsUnavailable(err)
	}
	var rules []limit.Rule
	for _, h := range holders {
		for _, rule := range r.holderRules(h, "") {
			if rule.Grant == grant {
				rules = append(rules, rule)
			}
		}
	}
	list, err := r.showBudgets(ctx, "", rules, inUse)
	list.More = more
	return list, err
}

func inUse(s limit.Standing) bool { return s.Used > 0 || s.Held > 0 }

// resetRules are the limits that a reset is about: those that are counted for
// exactly whom it names.
func (r *Relay) resetRules(ctx context.Context, q admin.BudgetReset) ([]limit.Rule, error) {
	h, err := r.holderOf(q.Who)
	if err != nil {
		return nil, err
	}
	all := r.holderRules(h, "")
	if id := r.knownPrincipal(h); id != nil {
		all = r.ownRules(ctx, id, "")
		if !slices.ContainsFunc(all, func(l limit.Rule) bool { return l.Grant == q.Grant }) { // it had the grant once
			all = r.holderRules(h, "")
		}
	}
	var rules []limit.Rule
	shared := false
	for _, rule := range all {
		if rule.Grant != q.Grant {
			continue
		}
		rule.Concurrent = 0 // what runs ends by itself
		switch {
		case rule.Per != h.Per || rule.Who != h.Who:
			shared = true
		case len(rule.Requests) > 0 || len(rule.Tokens) > 0:
			rules = append(rules, rule)
		}
	}
	switch {
	case len(rules) > 0:
		return rules, nil
	case !shared && !slices.ContainsFunc(r.policy.Grants().List, func(g policy.Grant) bool { return g.Name == q.Grant }):
		return nil, unknownGrant(q.Grant)
	}
	return nil, &admin.Error{
		Status: http.StatusNotFound, Code: "nothing_to_reset", Message: fmt.Sprintf("grant %s counts nothing for %s alone", q.Grant, q.Who),
		Hint: "iapctl budgets show --grant " + q.Grant + " says whose counts there are; name the group as group:ISSUER/GROUP, or all",
	}
}

func (r *Relay) resetBudgets(ctx context.Context, q admin.BudgetReset) (admin.BudgetList, error) {
	rules, err := r.resetRules(ctx, q)
	if err != nil {
		return admin.BudgetList{}, err
	}
	for _, rule := range rules {
		if err := r.limits.Reset(ctx, rule); err != nil {
			return admin.BudgetList{}, limitsUnavailable(err)
		}
	}
	return r.showBudgets(ctx, q.Who, rules, nil)
}

// knownPrincipal is what a live session, or else a program's key, tells of the
// holder; nil if nothing does.
func (r *Relay) knownPrincipal(h limit.Holder) *identity {
	if h.Per != policy.PerPrincipal {
		return nil
	}
	live := r.sessions.all(func(s *session) bool { return s.identity().agent == nil && s.identity().id() == h.Who })
	if len(live) > 0 {
		return live[len(live)-1].identity()
	}
	r.keys.mu.Lock()
	defer r.keys.mu.Unlock()
	if owner := r.keys.owners[h.Who]; owner != nil {
		return owner.who
	}
	return nil
}

// ownRules are the limits that a principal's requests are held to by the policy
// in force, on the counters that they are counted on: of each grant that names
// it, or, where a module of the operator decides, of each decision on what it
// may reach.
func (r *Relay) ownRules(ctx context.Context, id *identity, resource string) []limit.Rule {
	if id.policy.GroupsUnknown { // nothing is granted
		return nil
	}
	var decisions []policy.Decision
	if r.policy.Replaced() {
		decisions = r.decisionsFor(ctx, id, resource)
	} else {
		for _, g := range r.grantsOn(resource) {
			if slices.ContainsFunc(g.To, func(s policy.Selector) bool { return s.Matches(id.policy) }) {
				decisions = append(decisions, policy.Decision{Grant: g.Name, Group: g.Group(id.policy), Limits: g.Limits})
			}
		}
	}
	var rules []limit.Rule
	for _, d := range decisions {
		rules = append(rules, rulesOf(d, id.id(), true)...)
	}
	return rules
}

// decisionsFor are the decisions by which the principal may do something, one
// for each grant.
func (r *Relay) decisionsFor(ctx context.Context, id *identity, resource string) []policy.Decision {
	var found []policy.Decision
	for _, name := range r.agents.names() {
		if resource != "" && name != resource {
			continue
		}
		res, known := r.agents.find(name)
		if !known {
			continue
		}
		_, announced := r.agents.online(name)
		for _, action := range policy.Actions() {
			for _, model := range append([]string{""}, announced.Models...) {
				d := r.ask(ctx, id, policy.Input{Resource: policyResource(res), Action: action, Model: model, Via: policy.ViaTunnel})
				if d.Allow && !slices.ContainsFunc(found, func(o policy.Decision) bool { return o.Grant == d.Grant && o.Group == d.Group }) {
					found = append(found, d)
				}
			}
		}
	}
	return found
}

// grantsOn are the grants that name the resource; all of them without one.
func (r *Relay) grantsOn(resource string) []policy.Grant {
	all := r.policy.Grants().List
	if resource == "" {
		return all
	}
	res, known := r.agents.find(resource)
	if !known {
		res = admin.JoinResource{Name: resource}
	}
	var some []policy.Grant
	for _, g := range all {
		if slices.ContainsFunc(g.Resources, func(p policy.ResourcePattern) bool { return p.Matches(policyResource(res)) }) {
			some = append(some, g)
		}
	}
	return some
}

// holderRules are the limits of the grants that can be counted for the holder
// alone, whether or not they name it now.
func (r *Relay) holderRules(h limit.Holder, resource string) []limit.Rule {
	var rules []limit.Rule
	for _, g := range r.grantsOn(resource) {
		d := policy.Decision{Grant: g.Name, Limits: g.Limits}
		byGroup := slices.DeleteFunc(slices.Clone(g.To), func(s policy.Selector) bool { return s.Kind != policy.SelectGroup })
		switch {
		case h.Per == policy.PerGroup:
			if !slices.ContainsFunc(byGroup, func(s policy.Selector) bool { return s.Issuer+"/"+s.Name == h.Who }) {
				continue
			}
			d.Group = h.Who
		case len(byGroup) > 0 && len(byGroup) == len(g.To): // nobody holds it but by a group, whose count is not a principal's
			d.Group = byGroup[0].Issuer + "/" + byGroup[0].Name
		}
		for _, rule := range rulesOf(d, h.Who, true) {
			if rule.Per == h.Per && rule.Who == h.Who {
				rules = append(rules, rule)
			}
		}
	}
	return rules
}

// showBudgets looks the limits up. keep, if there is one, leaves some out.
func (r *Relay) showBudgets(ctx context.Context, who string, rules []limit.Rule, keep func(limit.Standing) bool) (admin.BudgetList, error) {
	list := admin.BudgetList{Who: who, Budgets: []admin.Budget{}, Revision: r.policy.Revision()}
	all, err := r.limits.Usage(ctx, rules)
	if err != nil {
		return admin.BudgetList{}, limitsUnavailable(err)
	}
	for _, s := range all {
		if keep == nil || keep(s) {
			list.Budgets = append(list.Budgets, budgetOf(s))
		}
	}
	return list, nil
}

func budgetOf(s limit.Standing) admin.Budget {
	b := admin.Budget{
		Grant: s.Rule.Grant, Per: s.Rule.Per, Who: s.Rule.Who, Kind: s.Kind, Limit: s.Limit, Window: int64(s.Window / time.Second),
		Used: s.Used, Held: s.Held, Left: max(0, s.Limit-s.Used-s.Held), Mode: policy.ModeEnforce, Contact: s.Rule.Contact,
	}
	if s.Rule.Warn {
		b.Mode = policy.ModeWarn
	}
	if s.Used > 0 && s.Window > 0 {
		b.Resets = &s.Resets
	}
	if !s.Next.IsZero() {
		b.Next, b.NextLeft = &s.Next, s.NextFree
	}
	return b
}

func unknownGrant(name string) error {
	return &admin.Error{Status: http.StatusNotFound, Code: "unknown_grant", Message: fmt.Sprintf("the policy has no grant %q", name), Hint: "look at the name in the grants file"}
}

func limitsUnavailable(err error) error {
	return &admin.Error{Status: http.StatusServiceUnavailable, Code: "limits_unavailable", Message: err.Error(), Hint: "see the relay's log"}
}
