package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/connect"
	"iap/internal/doctor"
	"iap/internal/profile"
	"iap/tunnel"
)

// doctorTimeout bounds the way to the relay: who waits longer than this for an answer has got one.
const doctorTimeout = 15 * time.Second

// doctorStages are the stages in the order in which each needs those before it.
var doctorStages = []string{"configuration", "name", "proxy", "tcp", "tls", "upgrade", "session", "identity", "policy", "agent", "upstream"}

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [RESOURCE]",
		Short: "Find what is wrong between you and a resource",
		Long: `Walk the whole way to the relay and, with RESOURCE, on to the server behind it:
configuration, name, proxy, TCP, TLS, upgrade, session, identity, policy, agent,
upstream. Each stage says how long it took, what was found and what to do next.
What comes after a failed stage is skipped.

Nothing secret is shown, and nothing is changed except that a token which is due
is renewed. A model server is only asked which models there are.

The exit status is that of the stage that failed.`,
		Example: `  iapctl doctor
  iapctl doctor phi3
  iapctl doctor phi3 -o json`,
		Args:              rangeArgs(0, 1),
		ValidArgsFunction: a.completeResources,
		RunE: func(cmd *cobra.Command, args []string) error {
			resource := ""
			if len(args) > 0 {
				resource = args[0]
			}
			return a.doctor(cmd.Context(), resource)
		},
	}
}

func (a *app) doctor(ctx context.Context, resource string) error {
	c, err := a.examine(ctx, resource)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if done, jsonErr := a.json(c.doc); done {
		return firstError(jsonErr, err)
	}
	a.printCheckup(c.report)
	return err
}

// examine runs the doctor.
func (a *app) examine(ctx context.Context, resource string) (*checkup, error) {
	c := &checkup{app: a, resource: resource, doc: doctorDocument{Schema: schemaName, Resource: resource}}
	err := c.run(ctx)
	c.report.Complete(doctorStages)
	c.doc.Stages = c.inProfile()
	c.doc.OK = err == nil
	return c, err
}

// checkup is one run of the doctor.
type checkup struct {
	app      *app
	resource string // "": the way to the relay only
	profile  *profile.Profile
	state    profile.State
	report   doctor.Report
	doc      doctorDocument
}

// add notes a stage.
func (c *checkup) add(stage, verdict string, took time.Duration, found, next string) {
	c.report.Add(stage, verdict, took, found, next)
}

// fail notes the stage that ends the run and returns its error.
func (c *checkup) fail(stage string, took time.Duration, err error) error {
	f := failureOf(err)
	c.report.Fail(stage, took, doctor.Finding{Code: f.code, What: f.what, Next: f.next})
	return f
}

// inProfile is the report with the commands to type as they are in this profile.
func (c *checkup) inProfile() []doctor.Stage {
	for i := range c.report.Stages {
		c.report.Stages[i].Next = c.app.inProfile(c.report.Stages[i].Next)
	}
	return c.report.Stages
}

// run goes on until a stage fails.
func (c *checkup) run(ctx context.Context) error {
	begun := time.Now()
	cfg, err := c.configuration()
	if err != nil {
		return c.fail("configuration", time.Since(begun), err)
	}
	authority := "the system's authorities"
	if file := c.profile.Settings.CAFile; file != "" {
		authority = "the authority in " + clean(file)
	}
	c.add("configuration", doctor.OK, time.Since(begun), fmt.Sprintf("profile %s, relay %s, trusts %s", c.profile.Name, clean(cfg.Relay), authority), "")
	session, err := c.reach(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = session.Close(tunnel.CodeCanceled, "done") }()
	session.SetActive(true)
	client := apiClient(session)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := c.identity(ctx, session, client); err != nil {
		return err
	}
	return c.resources(ctx, session, client)
}

func (c *checkup) configuration() (connect.Config, error) {
	p, err := c.app.relayProfile()
	if err != nil {
		return connect.Config{}, err
	}
	c.profile, c.doc.Profile, c.doc.Relay = p, p.Name, p.Settings.Relay
	if c.state, err = p.State(); err != nil {
		return connect.Config{}, err
	}
	return c.app.connectConfig(p)
}

// reach makes a session and says what was found on the way.
func (c *checkup) reach(ctx context.Context, cfg connect.Config) (*tunnel.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	session, way, err := connect.Examine(ctx, cfg, tunnel.Interactive)
	if err := c.network(way, err); err != nil {
		return nil, err
	}
	var refused *tunnel.DialError
	switch {
	case err == nil:
		c.add("session", doctor.OK, way.Session, sessionText(session, c.state), "")
		return session, nil
	case tunnel.CodeOf(err) == tunnel.CodePopFailed: // what was signed does not fit, which need not be the login's fault
	case connect.NeedsLogin(err) || !errors.As(err, &refused):
		c.add("session", doctor.Skipped, 0, "the relay answers, but opens no session without a login", "")
		return nil, c.fail("identity", way.Token, err)
	}
	return nil, c.fail("session", way.Session, c.betrayed(err, way))
}

func sessionText(s *tunnel.Session, state profile.State) string {
	bound := "bound to this TLS connection"
	if s.Binding() == tunnel.BindingNonce {
		bound = "bound by a nonce: TLS ends in front of the relay"
	}
	if state.RelayKey != "" {
		return "the relay's key is the one remembered; " + bound
	}
	return bound
}

// identity says who the relay takes the user for, and how long that lasts.
func (c *checkup) identity(ctx context.Context, session *tunnel.Session, client *admin.Client) error {
	begun := time.Now()
	who, err := client.Whoami(ctx)
	if err != nil {
		return c.fail("identity", time.Since(begun), err)
	}
	doc, err := c.app.authState(ctx, c.profile)
	if err != nil {
		return c.fail("identity", time.Since(begun), err)
	}
	found := clean(who.Principal) + ", token from " + doc.Source
	if doc.Expires != nil {
		found += ", good until " + clock(*doc.Expires)
	}
	if ends := session.Expires(); !ends.IsZero() {
		found += "; session until " + clock(ends)
	}
	took := time.Since(begun)
	switch {
	case who.GroupsUnknown:
		c.add("identity", doctor.Warn, took, found+"; the provider names your groups by reference only, so the relay does not know them", "ask the relay's operator for another groups claim")
	case doc.Source == "store" && !doc.Refreshable:
		c.add("identity", doctor.Warn, took, found+"; the provider gave no refresh token, so it ends then", "iapctl login")
	default:
		if doc.Refreshable {
			found += ", renewed before"
		}
		c.add("identity", doctor.OK, took, found, "")
	}
	return nil
}
