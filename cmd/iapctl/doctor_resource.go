package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"iap/internal/admin"
	"iap/internal/connect"
	"iap/internal/doctor"
	"iap/tunnel"
)

// resources looks at policy, agent and upstream of the resource asked for, or at the first two of all.
func (c *checkup) resources(ctx context.Context, session *tunnel.Session, client *admin.Client) error {
	begun := time.Now()
	list, err := client.Resources(ctx)
	if err != nil {
		return c.fail("policy", time.Since(begun), err)
	}
	if c.resource == "" {
		c.overview(list.Resources, time.Since(begun))
		return nil
	}
	r, err := c.policy(ctx, client, list.Resources, begun)
	if err != nil {
		return err
	}
	if err := c.agent(r); err != nil {
		return err
	}
	return c.upstream(ctx, session, r)
}

// overview counts what a doctor without a resource can say.
func (c *checkup) overview(list []admin.Resource, took time.Duration) {
	open, online := 0, 0
	for _, r := range list {
		if r.StepUp == nil {
			open++
			if r.Online {
				online++
			}
		}
	}
	if open == 0 {
		c.add("policy", doctor.Warn, took, "you may reach nothing yet", "iapctl whoami (its lines go into the relay's grants.yaml)")
		return
	}
	c.add("policy", doctor.OK, took, fmt.Sprintf("you may reach %d of the relay's resources", open), "")
	found := fmt.Sprintf("%d of %d online", online, open)
	if online < open {
		c.add("agent", doctor.Warn, 0, found, "iapctl resources")
	} else {
		c.add("agent", doctor.OK, 0, found, "")
	}
	c.add("upstream", doctor.Skipped, 0, "asked only for a resource", "iapctl doctor RESOURCE")
}

// policy asks whether the resource may be reached, and of a denial which grant came closest.
func (c *checkup) policy(ctx context.Context, client *admin.Client, list []admin.Resource, begun time.Time) (admin.Resource, error) {
	answer, err := client.Explain(ctx, admin.Question{Resource: c.resource})
	if err == nil && !answer.Allow {
		err = c.denied(answer)
	}
	var r admin.Resource
	if err == nil {
		r, err = c.app.findResource(list, c.resource)
	}
	took := time.Since(begun)
	if err != nil {
		return r, c.fail("policy", took, err)
	}
	c.add("policy", doctor.OK, took, fmt.Sprintf("grant %s allows %s", clean(answer.Grant), strings.Join(cleanEach(r.Actions), ", ")), "")
	return r, nil
}

func (c *checkup) denied(answer admin.Answer) error {
	if answer.StepUp != nil {
		return c.app.stepUpFailure(answer.Reason, firstOf(answer.Message, answer.Reason), answer.StepUp)
	}
	f := &failure{code: clean(answer.Reason), what: firstOf(clean(answer.Message), "the policy does not allow it"), next: "iapctl policy explain " + clean(c.resource)}
	if answer.Shortfall != "" {
		f.what += "; closest: " + clean(answer.Shortfall)
	}
	if f.exit() == exitError {
		f.exitCode = exitDenied
	}
	return f
}

func (c *checkup) agent(r admin.Resource) error {
	switch {
	case r.Online:
		c.add("agent", doctor.OK, 0, fmt.Sprintf("%d online, the server behind it is well", r.Agents), "")
	case r.Agents > 0:
		c.add("agent", doctor.Warn, 0, fmt.Sprintf("%d online, but cannot use the server behind it", r.Agents), "tell the agent's operator: iap-agent check")
	default:
		return c.fail("agent", 0, &failure{
			code: "agent_offline", what: fmt.Sprintf("no agent serves %s right now", clean(r.Name)), next: "tell its operator: iap-agent check on the machine beside the server",
		})
	}
	return nil
}

// upstream asks the server behind the agent for something that costs nothing, as any request: through the guard.
func (c *checkup) upstream(ctx context.Context, session *tunnel.Session, r admin.Resource) error {
	path, found := "", ""
	switch {
	case r.Kind == "tcp":
		found = "takes connections"
	case r.Kind == "http":
		path, found = "/", "answers"
	case slices.Contains(r.Actions, "list-models"):
		path, found = "/v1/models", "lists its models"
	case slices.Contains(r.Actions, "health"):
		path, found = "/health", "answers"
	default:
		c.add("upstream", doctor.Skipped, 0, "your grant has neither list-models nor health, and all else costs something", "iapctl chat "+clean(r.Name)+" Hello")
		return nil
	}
	begun := time.Now()
	var err error
	if path == "" {
		err = openOnce(ctx, session, r)
	} else {
		err = askOnce(ctx, session, r, path)
	}
	if err != nil {
		return c.fail("upstream", time.Since(begun), err)
	}
	c.add("upstream", doctor.OK, time.Since(begun), found, "")
	return nil
}

func openOnce(ctx context.Context, session *tunnel.Session, r admin.Resource) error {
	conn, err := connect.DialStream(ctx, session, tunnel.Header{Resource: r.Name, Kind: r.Kind})
	if err != nil {
		return err
	}
	return conn.Close()
}

// askOnce counts any answer of the server's own below 500 as good, and none that the relay gives in its place.
func askOnce(ctx context.Context, session *tunnel.Session, r admin.Resource, path string) error {
	talk := newConversation(session, r)
	defer talk.close()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	reply, err := talk.http.Transport.RoundTrip(q)
	if err != nil {
		return streamError(err)
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(io.LimitReader(reply.Body, maxList))
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	ours := reply.Header.Get("X-Iap-Error") != "" || strings.HasPrefix(reply.Header.Get("X-Iap-Decision"), "deny")
	if ours || reply.StatusCode >= http.StatusInternalServerError {
		return httpFailure(reply, data)
	}
	return nil
}

// streamError prefers the relay's reply to what net/http says of it.
func streamError(err error) error {
	var reply *connect.ReplyError
	if errors.As(err, &reply) {
		return reply
	}
	return err
}

// printCheckup prints a line for each stage, and below it what to do.
func (a *app) printCheckup(report doctor.Report) {
	s := a.ui.out
	styles := map[string]func(...string) string{doctor.OK: s.good.Render, doctor.Warn: s.bold.Render, doctor.Fail: s.bad.Render, doctor.Skipped: s.dim.Render}
	a.table(doctor.Heading(), report.Rows(func(verdict string) string { return styles[verdict](verdict) }))
}
