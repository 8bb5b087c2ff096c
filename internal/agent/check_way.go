package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"iap/internal/doctor"
	"iap/internal/keyfile"
	"iap/internal/plaintext"
	"iap/internal/relaykey"
	"iap/internal/screen"
	"iap/internal/version"
	"iap/tunnel"
)

const (
	// maxSkew is how far the clocks may differ before somebody should know: tokens and certificates are good from and until.
	maxSkew = 30 * time.Second
	// wayTimeout bounds the way to the relay, and clockTimeout the question for its time.
	wayTimeout   = 15 * time.Second
	clockTimeout = 5 * time.Second
)

// checkStages are the stages in the order in which they are told.
func checkStages() []string {
	return []string{"configuration", "name", "proxy", "tcp", "tls", "upgrade", "clock", "session", "announce", "witness", "upstream"}
}

// Check walks the agent's whole way: its configuration, the relay, what the relay lets it offer, and each upstream. A
// running agent is not disturbed: the session of a check offers nothing.
func Check(ctx context.Context, file string) doctor.Report {
	c := &checkup{}
	c.run(ctx, file)
	c.Complete(checkStages())
	return c.Report
}

// checkup is one run of the check.
type checkup struct {
	doctor.Report
	agent *Agent
}

// run looks at the relay and, whatever came of that, at the upstreams: both are needed, and neither needs the other.
func (c *checkup) run(ctx context.Context, file string) {
	begun := time.Now()
	cfg, err := LoadConfig(file)
	if err == nil {
		c.agent, err = New(cfg, nil)
	}
	if err != nil {
		c.Fail("configuration", time.Since(begun), doctor.Finding{Code: "config_invalid", What: plaintext.Clean(err.Error()), Next: "mend " + file})
		return
	}
	defer c.agent.transport.CloseIdleConnections()
	c.configured(cfg, file, time.Since(begun))
	way, cancel := context.WithTimeout(ctx, wayTimeout)
	c.relay(way, cfg)
	cancel()
	c.witnessed()
	for _, u := range c.agent.upstreams {
		c.upstream(ctx, u)
	}
}

func (c *checkup) configured(cfg *Config, file string, took time.Duration) {
	keys := c.agent.lastKeys
	found := fmt.Sprintf("%s: agent %s, relay %s, %s, key of %s", file, cfg.AgentID, plaintext.Clean(cfg.Relay), screen.Count(len(cfg.Resources), "resource"), keys.Since.Local().Format(time.DateOnly))
	if keys.Next != nil {
		c.Add("configuration", doctor.Warn, took, found+"; a rotation of the key was cut short", "iap-agent run finishes it, and so does: iap-agent rotate")
		return
	}
	c.Add("configuration", doctor.OK, took, found, "")
}

// witnessed tells what the agent holds of the relays' audit logs, and whether one of them was rolled back.
func (c *checkup) witnessed() {
	logs := c.agent.witness.all()
	if len(logs) == 0 {
		c.Add("witness", doctor.OK, 0, "no checkpoint of the relay's audit log yet: one comes soon after the agent runs", "")
		return
	}
	for _, l := range logs {
		if l.Refused != nil {
			c.Fail("witness", 0, doctor.Finding{
				Code: "audit_log_rewritten", What: fmt.Sprintf("on %s the relay showed a checkpoint of %s that does not extend the one held: its audit log was rolled back or rewritten", l.Refused.Time.Format(time.RFC3339), plaintext.Clean(l.Origin)),
				Next: "give the output of `iap-agent witness` to an auditor, for: iapctl audit verify DIR --checkpoint FILE",
			})
			return
		}
	}
	c.Add("witness", doctor.OK, 0, fmt.Sprintf("holds checkpoints of %s, the latest of %s", screen.Count(len(logs), "audit log"), logs[len(logs)-1].Kept.Local().Format(time.DateTime)), "")
}

// relay walks to a session and asks there what may be offered.
func (c *checkup) relay(ctx context.Context, cfg *Config) {
	n := doctor.Network{
		Relay: cfg.Relay, Known: true, CAHint: "ca_file in agent.yaml", Explain: explain,
		Clock: func(t time.Time) string { return t.Local().Format(time.DateTime) },
	}
	begun := time.Now()
	s, way, err := c.look(ctx, c.agent.lastKeys)
	n.Way, n.Err = way, err
	took := time.Since(begun) - way.Resolve - way.TCP - way.Handshake - way.Upgrade
	if c.Network(n) != nil {
		return
	}
	c.clock(ctx)
	if err != nil {
		c.Fail("session", took, n.Betrayed(explain(err)))
		return
	}
	defer func() { _ = s.Close(tunnel.CodeNone, "check") }() // it was only a look
	c.Add("session", doctor.OK, took, fmt.Sprintf("the relay knows this agent, its key is the one pinned; channel binding %s, %s", s.Binding(), relaykey.ID(s.PublicKey())), "")
	c.announce(ctx, s, cfg)
}

// look opens a session that offers nothing, with the key in use or its successor, and changes nothing.
func (c *checkup) look(ctx context.Context, keys keyfile.Keys) (*tunnel.Session, doctor.Way, error) {
	a := c.agent
	d := tunnel.Dialer{Address: a.cfg.Relay, Connect: netip.AddrPort{}, TLS: a.tls}
	traced, end := doctor.Trace(ctx, d.Target())
	conn, err := d.Dial(traced)
	way := end()
	if err != nil {
		return nil, way, err
	}
	s, err := tunnel.Connect(ctx, conn, tunnel.ClientConfig{
		Role: tunnel.RoleAgent, Relay: a.cfg.Relay, AgentID: a.cfg.AgentID, Version: version.String(), Key: keys.Current, CheckRelay: a.pin.check,
	})
	if isRevoked(err) && keys.Next != nil {
		s, nextWay, nextErr := c.look(ctx, keyfile.Keys{Current: keys.Next})
		return s, nextWay, nextErr
	}
	return s, way, err
}

// announce asks whether each resource may be offered, without offering it.
func (c *checkup) announce(ctx context.Context, s *tunnel.Session, cfg *Config) {
	begun := time.Now()
	var allowed, refused []string
	for _, r := range cfg.Resources {
		err := s.CheckAnnouncement(ctx, []tunnel.Announcement{{Resource: r.Name, Kind: r.Kind, Aliases: r.Aliases}})
		var said *tunnel.Refusal
		switch {
		case err == nil:
			allowed = append(allowed, r.Name)
		case errors.As(err, &said):
			refused = append(refused, r.Name+" ("+said.Message+")")
		default:
			c.Fail("announce", time.Since(begun), explain(err))
			return
		}
	}
	if len(refused) > 0 {
		c.Fail("announce", time.Since(begun), doctor.Finding{
			Code: "not_announced", What: plaintext.Clean("the relay does not take from this agent: " + strings.Join(refused, "; ")),
			Next: "take them out of agent.yaml, or enrol with a join token that names them",
		})
		return
	}
	c.Add("announce", doctor.OK, time.Since(begun), "may offer "+strings.Join(allowed, ", "), "")
}

// clock compares this machine's time with the relay's.
func (c *checkup) clock(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	begun := time.Now()
	theirs, err := c.relayTime(ctx)
	took := time.Since(begun)
	if err != nil {
		c.Add("clock", doctor.Skipped, took, "the relay did not tell its time", "")
		return
	}
	skew := begun.Add(took / 2).Sub(theirs).Round(time.Second)
	if skew.Abs() > maxSkew {
		c.Add("clock", doctor.Warn, took, fmt.Sprintf("this machine's clock is %s off the relay's", skew), "set the clock, by NTP")
		return
	}
	c.Add("clock", doctor.OK, took, "agrees with the relay's", "")
}

// relayTime is what the relay says in its Date header, which has whole seconds.
func (c *checkup) relayTime(ctx context.Context) (time.Time, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+c.agent.cfg.Relay+"/healthz", nil)
	if err != nil {
		return time.Time{}, err
	}
	transport := &http.Transport{TLSClientConfig: c.agent.tls.Clone(), Proxy: http.ProxyFromEnvironment, OnProxyConnectResponse: tunnel.ProxyAnswer, DisableKeepAlives: true}
	reply, err := transport.RoundTrip(q)
	if err != nil {
		return time.Time{}, err
	}
	_, _ = io.CopyN(io.Discard, reply.Body, 1<<10) // the connection is closed either way
	_ = reply.Body.Close()
	return http.ParseTime(reply.Header.Get("Date"))
}

// explain says what an error on the way to the relay means to who runs an agent.
func explain(err error) doctor.Finding {
	f := doctor.Finding{Code: "relay_unreachable", What: plaintext.Clean(err.Error()), Next: "check the network between this machine and the relay"}
	var dial *tunnel.DialError
	if !errors.As(err, &dial) {
		return f
	}
	if dial.Code != tunnel.CodeNone {
		f.Code = dial.Code.String()
	}
	var said *tunnel.Refusal
	if errors.As(err, &said) && said.Message != "" {
		f.What = "the relay says: " + plaintext.Clean(said.Message)
	}
	switch dial.Stage {
	case "resolve":
		f.Code, f.Next = "relay_unknown_name", "check relay in agent.yaml, and this machine's name server"
	case "proxy":
		f.Next = "check HTTPS_PROXY and NO_PROXY"
	case "tls":
		f.Code, f.Next = "relay_certificate", "if the relay has an authority of its own: ca_file in agent.yaml"
	case "upgrade":
		f.Code, f.Next = "not_a_relay", "check relay in agent.yaml, and that nothing in between takes upgrades out"
	}
	switch dial.Code {
	case tunnel.CodeRevoked:
		f.Next = "ask the relay's operator; if this agent shall serve: a new join token, then iap-agent join"
	case tunnel.CodeRelayUntrusted:
		f.Next = "compare the fingerprints with the relay's operator before anything else"
	case tunnel.CodeNameMismatch:
		f.Next = "write relay in agent.yaml as the relay's operator named it"
	case tunnel.CodeVersionMismatch:
		f.Next = "upgrade iap-agent"
	}
	return f
}

// upstream asks an upstream who it is.
func (c *checkup) upstream(ctx context.Context, u *upstream) {
	stage, begun := "upstream "+u.cfg.Name, time.Now()
	found, problem, warning := u.check(ctx)
	took := time.Since(begun)
	switch {
	case problem != "":
		c.Fail(stage, took, doctor.Finding{Code: "upstream_not_ready", What: plaintext.Clean(problem), Next: "start the server, or mend its part of agent.yaml"})
	case warning != "":
		c.Add(stage, doctor.Warn, took, plaintext.Clean(found+"; "+warning), "see models and aliases of "+u.cfg.Name+" in agent.yaml")
	default:
		c.Add(stage, doctor.OK, took, plaintext.Clean(found), "")
	}
}
