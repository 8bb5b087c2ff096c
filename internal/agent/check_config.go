package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"iap/internal/modelapi"
)

// check asks the upstream who it is. problem is what keeps it from serving, warning what its operator may not have meant.
func (u *upstream) check(ctx context.Context) (found, problem, warning string) {
	found = u.cfg.Upstream
	state, err := u.probe(ctx)
	switch {
	case state.foreign:
		return found, fmt.Sprintf("%s answers as a model server; give it kind model, or opaque: true", u.cfg.Upstream), ""
	case err != nil && state.server != "" && u.cfg.Server == "":
		return found, fmt.Sprintf("%s is %s but not ready: %v", u.cfg.Upstream, state.server, err), ""
	case err != nil:
		return found, fmt.Sprintf("%s is not ready: %v", u.cfg.Upstream, err), ""
	case u.cfg.Kind != modelapi.KindModel:
		return found + " takes connections", "", ""
	}
	found += u.describe(ctx, state)
	if len(state.models) > 0 && !slices.ContainsFunc(state.models, u.cfg.servesModel) {
		warning = fmt.Sprintf("models lists none of what it has: %s", strings.Join(state.models, ", "))
	}
	return found, u.astray(state), warning
}

// describe tells what was found, and what the configuration makes of it.
func (u *upstream) describe(ctx context.Context, found probed) string {
	text := " is " + found.server
	if u.cfg.Server != "" {
		asked := *u.cfg
		asked.Server = ""
		look := &upstream{cfg: &asked, transport: u.transport}
		if other, err := look.probe(ctx); err == nil && other.server != found.server {
			text += fmt.Sprintf(" by configuration (it answers as %s)", other.server)
		}
	}
	served := slices.DeleteFunc(slices.Clone(found.models), func(m string) bool { return !u.cfg.servesModel(m) })
	switch {
	case len(served) == 0:
		text += " without models to serve"
	default:
		text += " with " + strings.Join(served, ", ")
	}
	for _, alias := range slices.Sorted(maps.Keys(u.cfg.Aliases)) {
		text += fmt.Sprintf("; %s is %s", alias, u.cfg.Aliases[alias])
	}
	if u.queue == nil {
		return text + "; capacity has no bound"
	}
	q := u.cfg.Queue
	return text + fmt.Sprintf("; capacity %d, then %d may wait, %d of each principal, up to %s", u.cfg.Capacity, q.Max, q.PerPrincipal, time.Duration(q.MaxWait))
}

// astray finds an alias that leads to a model which is not there.
func (u *upstream) astray(found probed) string {
	for _, alias := range slices.Sorted(maps.Keys(u.cfg.Aliases)) {
		model := u.cfg.Aliases[alias]
		there := slices.ContainsFunc(found.models, func(m string) bool {
			return m == model || found.server == modelapi.ServerOllama && foldName(m) == foldName(model)
		})
		if !there && len(found.models) < maxModels {
			return fmt.Sprintf("aliases: %s leads to %s, which %s does not have; it has %s", alias, model, u.cfg.Upstream, strings.Join(found.models, ", "))
		}
	}
	return ""
}
