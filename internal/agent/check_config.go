package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

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
	case err != nil:
		r.Problem = fmt.Sprintf("%s does not answer: %v", u.cfg.Upstream, err)
	case found.server != "":
		r.Detail += fmt.Sprintf(" is %s with %s", found.server, strings.Join(found.models, ", "))
	}
	return r
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
