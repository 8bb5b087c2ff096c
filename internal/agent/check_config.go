package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// CheckResult is one line of `iap-agent check`. An empty Problem is a pass.
type CheckResult struct{ Name, Detail, Problem string }

// Check reads the configuration, asks each upstream who it is and opens and
// closes a session to the relay.
func Check(ctx context.Context, file string) []CheckResult {
	cfg, err := LoadConfig(file)
	if err != nil {
		return []CheckResult{{Name: "config", Problem: err.Error()}}
	}
	a, err := New(cfg, nil)
	if err != nil {
		return []CheckResult{{Name: "config", Problem: err.Error()}}
	}
	defer a.transport.CloseIdleConnections()
	results := []CheckResult{{Name: "config", Detail: file}}
	for _, u := range a.upstreams {
		results = append(results, u.check(ctx))
	}
	return append(results, a.checkSession(ctx))
}

func (u *upstream) check(ctx context.Context) CheckResult {
	r := CheckResult{Name: u.cfg.Name, Detail: u.cfg.Upstream}
	found, err := u.probe(ctx)
	switch {
	case found.foreign:
		r.Problem = fmt.Sprintf("%s answers as a model server; give it kind model, or opaque: true", u.cfg.Upstream)
	case err != nil && found.server != "" && u.cfg.Server == "":
		r.Problem = fmt.Sprintf("%s is %s but not ready: %v", u.cfg.Upstream, found.server, err)
	case err != nil:
		r.Problem = fmt.Sprintf("%s is not ready: %v", u.cfg.Upstream, err)
	case u.cfg.Kind == modelapi.KindModel:
		r.Detail += u.describe(ctx, found)
		r.Problem = u.astray(found)
	}
	return r
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

func (a *Agent) checkSession(ctx context.Context) CheckResult {
	r := CheckResult{Name: "relay", Detail: a.cfg.Relay}
	s, err := a.connect(ctx, netip.AddrPort{}, tunnel.Interactive)
	if err != nil {
		r.Problem = err.Error()
		return r
	}
	r.Detail += " knows this agent, channel binding " + string(s.Binding())
	_ = s.Close(tunnel.CodeNone, "check") // it was only a look
	return r
}
