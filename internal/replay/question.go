package replay

import (
	"net/url"
	"strings"

	"iap/internal/audit"
	"iap/policy"
)

// cut ends a text that was too long for its record.
const cut = "…"

// questions returns what the policy was asked for a recorded decision: one
// question for each model and action, all of which had to be allowed. ok is false
// where the record lacks something; nothing is guessed.
func (r *replay) questions(e audit.Event) (all []policy.Input, ok bool) {
	who, known := r.subjects[e.Subject]
	if !known || e.Subject == "" || who.ID() != e.Principal {
		return nil, false
	}
	for _, text := range []string{e.Resource, e.Model, e.Action, e.Detail["models"], e.Detail["also"], e.Detail["media"], e.Detail["labels"]} {
		if strings.HasSuffix(text, cut) {
			return nil, false
		}
	}
	resource, ok := resourceOf(e)
	if !ok {
		return nil, false
	}
	in := policy.Input{
		Principal: who, Resource: resource, Action: e.Action, Model: e.Model, Egress: e.Detail["egress"] == "true",
		Media: strings.Fields(e.Detail["media"]), Via: e.Via, Now: e.Time,
	}
	if e.Detail["asked"] == "reach" && resource.Kind == "model" {
		in.Action = policy.ActionAny
	}
	models := strings.Fields(e.Detail["models"])
	if len(models) == 0 {
		models = []string{e.Model}
	}
	for _, model := range models {
		for _, action := range append([]string{in.Action}, strings.Fields(e.Detail["also"])...) {
			in.Model, in.Action = model, action
			all = append(all, in)
		}
		in.Action = all[0].Action
	}
	return all, true
}

// resourceOf reads a resource as its record tells it.
func resourceOf(e audit.Event) (policy.Resource, bool) {
	res := policy.Resource{Name: e.Resource, Kind: e.Detail["kind"]}
	if res.Kind == "" {
		res.Kind = "model"
	}
	if e.Detail["labels"] == "" {
		return res, res.Name != ""
	}
	values, err := url.ParseQuery(e.Detail["labels"])
	if err != nil {
		return res, false
	}
	res.Labels = map[string]string{}
	for key := range values {
		res.Labels[key] = values.Get(key)
	}
	return res, res.Name != ""
}
