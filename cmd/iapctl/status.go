package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/profile"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what is connected and how the relay is",
		Long: `Show what this profile has connected on this machine, and the relay's own
view: its version, your sessions, how many agents are there.

What runs here is shown also when the relay cannot be reached.`,
		Example: `  iapctl status
  iapctl status -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
}

func (a *app) status(ctx context.Context) error {
	p, err := a.relayProfile()
	if err != nil {
		return err
	}
	doc, err := a.localStatus(p)
	if err != nil {
		return err
	}
	relayErr := a.withRelay(ctx, p, func(ctx context.Context, client *admin.Client) error {
		status, err := client.Status(ctx)
		if err == nil {
			doc.Relay = &status
		}
		return err
	})
	if relayErr != nil {
		f := failureOf(relayErr)
		doc.Error = &errorBody{Code: f.code, Message: f.what, Next: f.next, Exit: f.exit()}
	}
	if done, err := a.json(doc); done {
		return firstError(err, relayErr)
	}
	a.printStatus(doc)
	return relayErr
}

func (a *app) localStatus(p *profile.Profile) (statusDocument, error) {
	doc := statusDocument{Schema: schemaName, Profile: p.Name, RelayName: p.Settings.Relay, Connections: []connectionDocument{}}
	state, err := p.State()
	if err != nil {
		return doc, err
	}
	if state.Login != nil {
		doc.Principal = state.Login.Principal
	}
	runs, err := a.registry(p).List()
	if err != nil {
		return doc, err
	}
	for _, run := range runs {
		c := connectionOf(run)
		c.Online, c.LocalKey = true, "" // a status is copied into reports: no secrets
		doc.Connections = append(doc.Connections, c)
	}
	return doc, nil
}

func (a *app) printStatus(doc statusDocument) {
	s := a.ui.out
	list := [][2]string{{"Profile", doc.Profile}, {"Relay", clean(doc.RelayName)}, {"Principal", clean(doc.Principal)}}
	if r := doc.Relay; r != nil {
		list = append(list,
			[2]string{"State", s.good.Render("reachable") + ", up " + ago(time.Since(r.Started)) + ", version " + clean(r.Version)},
			[2]string{"Binding", clean(r.ChannelBinding)},
			[2]string{"Policy", clean(r.PolicyRevision)},
			[2]string{"Agents", countText(r.Agents)},
			[2]string{"Audit", clean(r.Audit)},
		)
	} else {
		list = append(list, [2]string{"State", s.bad.Render("not reachable")})
	}
	a.pairs(a.out, s, 0, list...)
	if len(doc.Connections) > 0 {
		fmt.Fprintln(a.out)
		var rows [][]string
		for _, c := range doc.Connections {
			state := "ok"
			if c.LoginNeeded {
				state = "login needed: " + a.inProfile("iapctl login")
			}
			rows = append(rows, []string{clean(c.Resource), clean(c.Kind), fmt.Sprint(c.PID), firstOf(c.URL, localAddr(c.Port)), state})
		}
		a.table([]string{"CONNECTED", "KIND", "PID", "LISTENS ON", "STATE"}, rows)
	}
	if doc.Relay != nil && len(doc.Relay.Sessions) > 0 {
		fmt.Fprintln(a.out)
		a.table([]string{"SESSION", "CLASS", "STREAMS", "FROM", "ENDS"}, sessionRows(doc.Relay.Sessions))
	}
}

const shownSession = 10 // the beginning is enough to tell a few apart

func sessionRows(list []admin.SessionInfo) [][]string {
	var rows [][]string
	for _, s := range list {
		ends := "never"
		if s.Expires != nil {
			ends = clock(*s.Expires)
		}
		id := clean(s.ID)
		rows = append(rows, []string{id[:min(len(id), shownSession)], clean(s.Class), fmt.Sprint(s.Streams), clean(s.Source), ends})
	}
	return rows
}

// countText leaves out what the relay does not tell everybody.
func countText(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
