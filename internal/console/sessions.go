package console

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

// maxListed bounds what a list asks for, page by page: nobody reads more.
const maxListed = 10_000

// Sessions are the commands about live sessions.
func (c *Console) Sessions() *cobra.Command {
	return c.host.Group("sessions COMMAND", "List and end live sessions", `See who is connected right now, and end it.

A session is one connection of a person, a program or an agent to the relay.
What is ended takes its running requests along, within a second.`,
		c.sessionsLs(), c.sessionsKill())
}

func (c *Console) sessionsLs() *cobra.Command {
	var q admin.SessionQuestion
	cmd := &cobra.Command{
		Use: "ls", Short: "List the live sessions", Args: c.args(0, 0),
		Example: c.examples("sessions ls", "sessions ls --principal corp/8a7f3c", "sessions ls --role agent -o json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				all, silent, err := sessionsOf(ctx, client, q)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), sessionsDocument{Schema, all, silent}, func(w io.Writer) {
					c.printSessions(w, all)
					printSilent(w, silent, "Their sessions are not listed.")
				})
			})
		},
	}
	cmd.Flags().StringVar(&q.Principal, "principal", "", "those of `ISSUER/SUBJECT`")
	cmd.Flags().StringVar(&q.Agent, "agent", "", "those of the agent with this `id`")
	cmd.Flags().StringVar(&q.Role, "role", "", "those of a `role`: user or agent")
	cmd.Flags().StringVar(&q.Key, "key", "", "those of the key with this `fingerprint`")
	return cmd
}

// sessionsOf asks for all pages. silent are relays that did not answer.
func sessionsOf(ctx context.Context, client *admin.Client, q admin.SessionQuestion) (all []admin.SessionInfo, silent []string, err error) {
	all = []admin.SessionInfo{}
	for {
		page, err := client.Sessions(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, page.Sessions...)
		for _, relay := range page.Silent {
			if !slices.Contains(silent, relay) {
				silent = append(silent, relay)
			}
		}
		if q.Cursor = page.Next; page.Next == "" || len(all) >= maxListed {
			return all, silent, nil
		}
	}
}

// printSilent says which relays did not answer, and what follows.
func printSilent(w io.Writer, silent []string, so string) {
	if len(silent) > 0 {
		fmt.Fprintf(w, "\nNo answer from %s. %s\n", strings.Join(cleaned(silent), ", "), so)
	}
}

func (c *Console) printSessions(w io.Writer, all []admin.SessionInfo) {
	if len(all) == 0 {
		fmt.Fprintln(w, "Nobody is connected.")
		return
	}
	now := time.Now()
	rows := make([][]string, len(all))
	for i, s := range all {
		ends := "-"
		if s.Expires != nil {
			ends = screen.Ago(now, *s.Expires)
		}
		rows[i] = []string{short(s.ID), fmt.Sprint(s.Streams), screen.Ago(s.Started, now), ends, whoIs(s)}
	}
	c.table(w, []string{"ID", "STREAMS", "AGE", "LEFT", "WHO"}, rows)
}

// whoIs names whose a session is, and whence it comes on a line of its own.
func whoIs(s admin.SessionInfo) string {
	who := plaintext.Clean(s.Principal)
	if s.Agent != "" {
		who = "agent " + plaintext.Clean(s.Agent)
	}
	at := ""
	if s.Relay != "" {
		at = " at " + plaintext.Clean(s.Relay)
	}
	return fmt.Sprintf("%s\n%s from %s%s", who, plaintext.Clean(s.Class), plaintext.Clean(s.Source), at)
}

type killFlags struct {
	principal, agent, reason string
	yes                      bool
}

func (c *Console) sessionsKill() *cobra.Command {
	var f killFlags
	cmd := &cobra.Command{
		Use: "kill ID... | --principal WHO | --agent ID", Short: "End sessions; their logins are refused from then on",
		Long: `End sessions and what runs in them, and refuse the key they belong to until its
owner logs in again. With the session end the others of the same login and the
keys that it made for programs. Of an ID the beginning is enough.

--principal ends every session of somebody, who may log in again: to keep them
out, use principals revoke. --agent ends those of an agent, which comes back by
itself: to keep it out, use agents revoke.`,
		Example: c.examples("sessions kill 3f9ac1d204", "sessions kill --principal corp/8a7f3c --reason INC-412"),
		Args:    c.args(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ways := 0
			for _, given := range []bool{len(args) > 0, f.principal != "", f.agent != ""} {
				if given {
					ways++
				}
			}
			if ways != 1 {
				return c.usage("say which sessions: one or more IDs, or --principal, or --agent")
			}
			return c.kill(cmd, args, f)
		},
		ValidArgsFunction: c.completing(sessionWords),
	}
	cmd.Flags().StringVar(&f.principal, "principal", "", "every session of `ISSUER/SUBJECT`")
	cmd.Flags().StringVar(&f.agent, "agent", "", "every session of the agent with this `id`")
	reasonFlag(cmd, &f.reason)
	yesFlag(cmd, &f.yes)
	return cmd
}

func (c *Console) kill(cmd *cobra.Command, args []string, f killFlags) error {
	if f.principal != "" || f.agent != "" {
		whose := plaintext.Clean(f.principal + f.agent)
		if err := c.sure(cmd.Context(), f.yes, "End every session of "+whose+"?"); err != nil {
			return err
		}
	}
	return c.host.Call(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
		doc := endedDocument{Schema: Schema, Action: "kill", Names: args}
		var err error
		switch {
		case f.principal != "":
			doc.Names = []string{f.principal}
			doc.Ended, err = client.KillSessions(ctx, admin.KillQuestion{Principal: f.principal, Reason: f.reason})
		case f.agent != "":
			if doc.Names, err = c.agentIDs(ctx, client, []string{f.agent}); err == nil {
				doc.Ended, err = client.KillSessions(ctx, admin.KillQuestion{Agent: doc.Names[0], Reason: f.reason})
			}
		default:
			if doc.Names, err = c.sessionIDs(ctx, client, args); err == nil {
				doc.Ended, err = killEach(ctx, client, doc.Names, f.reason)
			}
		}
		if err != nil {
			return err
		}
		return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) { c.printKilled(w, doc, f) })
	})
}

func (c *Console) printKilled(w io.Writer, doc endedDocument, f killFlags) {
	defer printSilent(w, doc.Silent, "What they have ends when they hear of it.")
	if doc.Sessions == 0 && len(doc.Silent) > 0 {
		fmt.Fprintln(w, "Nothing was connected where there was an answer.")
		return
	}
	if doc.Sessions == 0 {
		fmt.Fprintln(w, "Nothing was connected, so nothing is refused either.")
		return
	}
	fmt.Fprintf(w, "%s.\n", endedText(doc.Ended))
	switch {
	case f.agent != "":
		fmt.Fprintf(w, "The agent may connect again. To keep it out: %s\n", c.typed("agents revoke "+short(doc.Names[0])))
	case f.principal != "":
		fmt.Fprintf(w, "A new login is needed, and is possible. To keep them out:\n  %s\n", c.typed("principals revoke "+plaintext.Clean(f.principal)))
	default:
		fmt.Fprintln(w, "Their logins are refused from now on: the users must log in again.")
	}
}

// killEach ends the sessions one by one. One that is gone meanwhile, with another
// of its login perhaps, is no failure.
func killEach(ctx context.Context, client *admin.Client, ids []string, reason string) (admin.Ended, error) {
	var all admin.Ended
	for _, id := range ids {
		one, err := client.KillSession(ctx, id, reason)
		if err != nil && !(gone(err) && all.Sessions > 0) {
			return all, err
		}
		all.Sessions += one.Sessions
		all.Streams += one.Streams
		all.Keys += one.Keys
		all.Silent = one.Silent
	}
	return all, nil
}

// sessionIDs are the full ids of what was typed. Who typed a full one needs no
// right to list.
func (c *Console) sessionIDs(ctx context.Context, client *admin.Client, typed []string) ([]string, error) {
	const fullID = 32
	var all []named
	ids := make([]string, len(typed))
	for i, id := range typed {
		if ids[i] = id; len(id) >= fullID {
			continue
		}
		if all == nil {
			live, _, err := sessionsOf(ctx, client, admin.SessionQuestion{Role: "user"})
			if err != nil {
				return nil, err
			}
			for _, s := range live {
				all = append(all, named{id: s.ID})
			}
		}
		var err error
		if ids[i], err = pick("session", id, c.typed("sessions ls"), all); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

func sessionWords(ctx context.Context, client *admin.Client) ([]string, error) {
	live, _, err := sessionsOf(ctx, client, admin.SessionQuestion{Role: "user"})
	var words []string
	for _, s := range live {
		words = completion(words, short(s.ID), fmt.Sprintf("%s, %s", s.Principal, screen.Count(s.Streams, "stream")))
	}
	return words, err
}

// endedText says how much was ended, of what there was any.
func endedText(e admin.Ended) string {
	if e.Sessions == 0 && e.Streams == 0 && e.Keys == 0 {
		return "nothing was connected"
	}
	text := screen.Count(e.Sessions, "session")
	if e.Streams > 0 {
		text += ", " + screen.Count(e.Streams, "stream")
	}
	if e.Keys > 0 {
		text += ", " + screen.Count(e.Keys, "key") + " for programs"
	}
	return text + " ended"
}
