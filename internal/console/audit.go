package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

const (
	usualEvents = 100 // of a search that names no limit
	usualTail   = 20  // that come before those that follow
	pageEvents  = 500 // asked for at a time
	mostEvents  = 100_000
)

// Audit are the commands that read the audit log.
func (c *Console) Audit() *cobra.Command {
	return c.host.Group("audit COMMAND", "Search, follow and verify the audit log", `See who did what, and what was decided. That somebody reads it stands in the
log too.`,
		append([]*cobra.Command{c.auditQuery(), c.auditTail()}, c.Proofs()...)...)
}

// filters are the flags that say which records.
func filters(cmd *cobra.Command, q *admin.AuditQuestion) {
	flags := cmd.Flags()
	flags.StringVar(&q.Principal, "principal", "", "about `ISSUER/SUBJECT`")
	flags.StringVar(&q.Resource, "resource", "", "about a resource, by its `name`")
	flags.StringVar(&q.Agent, "agent", "", "about an agent, by its `id`")
	flags.StringVar(&q.Session, "session", "", "about a session, by its `id`")
	flags.StringVar(&q.Request, "request", "", "about a request, by its `id`")
	flags.StringVar(&q.Action, "action", "", "`action` of a request, or verb of an administrator")
	flags.StringVar(&q.Decision, "decision", "", "`word`: allow or deny")
	flags.StringVar(&q.Reason, "reason", "", "`code` of the reason")
	flags.StringVar(&q.Kind, "kind", "", "`kind`: "+strings.Join(audit.Kinds(), ", "))
	flags.StringVar(&q.Text, "text", "", "`text` that stands anywhere in the record")
	complete(cmd, "decision", audit.Allow, audit.Deny)
	complete(cmd, "kind", audit.Kinds()...)
}

func (c *Console) auditQuery() *cobra.Command {
	var q admin.AuditQuestion
	var oldest bool
	limit := usualEvents
	cmd := &cobra.Command{
		Use: "query", Short: "Search the audit log", Args: c.args(0, 0),
		Long: `Search the audit log, newest records first. All the flags must hold at once.
With -o json the records are as they stand in the log.`,
		Example: c.examples("audit query --principal corp/8a7f3c --since 2h", "audit query --decision deny --limit 20", "audit query --kind admin --since 2026-11-01 -o json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 || limit > mostEvents {
				return c.usage("--limit: between 1 and %d", mostEvents)
			}
			if oldest {
				q.Order = "oldest"
			}
			return c.host.Follow(cmd.Context(), func(ctx context.Context, client *admin.Client) error {
				doc, err := search(ctx, client, q, limit)
				if err != nil {
					return err
				}
				return c.show(cmd.OutOrStdout(), doc, func(w io.Writer) { c.printEvents(w, cmd.ErrOrStderr(), doc) })
			})
		},
	}
	filters(cmd, &q)
	cmd.Flags().StringVar(&q.Since, "since", "", "not older than a `time`: 2h, 7d, or RFC 3339")
	cmd.Flags().StringVar(&q.Until, "until", "", "not younger than a `time`, likewise")
	complete(cmd, "since", timesAgo()...)
	complete(cmd, "until", timesAgo()...)
	cmd.Flags().BoolVar(&oldest, "oldest", false, "oldest first")
	cmd.Flags().IntVarP(&limit, "limit", "n", usualEvents, "at most so `many`")
	cmd.Flags().StringVar(&q.Cursor, "cursor", "", "go on behind the answer that named this `cursor`")
	return cmd
}

// search asks page by page until there are limit records or no more.
func search(ctx context.Context, client *admin.Client, q admin.AuditQuestion, limit int) (auditDocument, error) {
	doc := auditDocument{Schema: Schema, Events: []admin.AuditEvent{}}
	for {
		q.Limit = min(limit-len(doc.Events), pageEvents)
		page, err := client.AuditEvents(ctx, q)
		if err != nil {
			return doc, err
		}
		doc.Events = append(doc.Events, page.Events...)
		doc.Unread += page.Unread
		if q.Cursor, doc.Next = page.Next, page.Next; page.Next == "" || len(doc.Events) >= limit {
			return doc, nil
		}
	}
}

func (c *Console) printEvents(w, narration io.Writer, doc auditDocument) {
	if len(doc.Events) == 0 {
		fmt.Fprintln(narration, "There is no such record.")
	}
	for _, e := range doc.Events {
		c.printLine(w, e)
	}
	if doc.Unread > 0 {
		fmt.Fprintf(narration, "%s of the log could not be read.\n", screen.Count(doc.Unread, "line"))
	}
	if doc.Next != "" {
		fmt.Fprintf(narration, "There may be more: add --cursor %s, or raise --limit.\n", plaintext.Clean(doc.Next))
	}
}

func (c *Console) auditTail() *cobra.Command {
	var q admin.AuditQuestion
	var follow, all bool
	cmd := &cobra.Command{
		Use: "tail", Short: "Show the latest records, and follow the log", Args: c.args(0, 0),
		Long: `Show the latest records of the audit log and, with -f, each new one as it is
written, until Ctrl-C. After a lost connection it goes on where it was, and says
so when records are missing. How requests ended is shown with --all. With
-o json each line is a record as it stands in the log.`,
		Example: c.examples("audit tail -f", "audit tail -f --decision deny", "audit tail -n 50 --kind admin -o json"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if q.Limit < 0 || q.Limit > pageEvents {
				return c.usage("--lines: between 0 and %d", pageEvents)
			}
			t := &tail{console: c, out: cmd.OutOrStdout(), narration: cmd.ErrOrStderr(), question: q, all: all || q.Kind != "" || q.Request != ""}
			if !follow {
				return c.host.Call(cmd.Context(), t.latest)
			}
			return t.follow(cmd.Context())
		},
	}
	filters(cmd, &q)
	cmd.Flags().IntVarP(&q.Limit, "lines", "n", usualTail, "how `many` of the latest come first")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with each new record")
	cmd.Flags().BoolVar(&all, "all", false, "also how requests ended, and what the log notes for itself")
	return cmd
}

// tail shows records as they come.
type tail struct {
	console        *Console
	out, narration io.Writer
	question       admin.AuditQuestion
	all            bool
	last           uint64 // seq of the last record that was seen
}

// latest shows the last records that there are.
func (t *tail) latest(ctx context.Context, client *admin.Client) error {
	q := t.question
	page, err := search(ctx, client, q, max(q.Limit, 1))
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(page.Events[:min(len(page.Events), q.Limit)]) {
		if err := t.event(e); err != nil {
			return err
		}
	}
	return nil
}

const (
	firstPause = time.Second // before a lost connection is made again
	mostPause  = 15 * time.Second
)

// follow shows new records until ctx ends, over as many connections as that takes.
func (t *tail) follow(ctx context.Context) error {
	pause := firstPause
	for {
		q, before := t.question, t.last
		if t.last > 0 {
			q.Limit, q.Cursor = 0, strconv.FormatUint(t.last, 10)
		}
		err := t.console.host.Follow(ctx, func(ctx context.Context, client *admin.Client) error { return client.TailAudit(ctx, q, t.line) })
		var written *outputError
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how it is meant to end
		case final(err) || errors.As(err, &written):
			return err
		case t.last == 0:
			return err // it never began
		case t.last > before:
			pause = firstPause
		}
		fmt.Fprintln(t.narration, "The connection to the relay is lost; trying again.")
		t.console.wait(ctx, pause)
		pause = min(2*pause, mostPause)
	}
}

// final reports whether asking again would be answered the same: the relay has
// said no, and not only that it cannot just now.
func final(err error) bool {
	var refused *admin.Error
	if !errors.As(err, &refused) || refused.Status >= http.StatusInternalServerError {
		return false
	}
	switch refused.Code {
	case "relay_shutdown", "audit_unavailable", "state_unavailable", "overloaded", "internal":
		return false
	}
	return true
}

// outputError is that nobody reads any more what is shown.
type outputError struct{ err error }

func (e *outputError) Error() string { return "write output: " + e.err.Error() }
func (e *outputError) Unwrap() error { return e.err }

// line takes one line of the relay's answer.
func (t *tail) line(l admin.TailLine) error {
	if l.Dropped > 0 {
		if t.console.host.JSON() {
			return t.json(tailDocument{Schema: Schema, Dropped: l.Dropped})
		}
		fmt.Fprintf(t.narration, "%s are missing here.\n", screen.Count(int(l.Dropped), "record"))
	}
	if l.Event == nil {
		return nil
	}
	return t.event(l.Event)
}

// event shows a record once.
func (t *tail) event(e admin.AuditEvent) error {
	var r record
	if err := json.Unmarshal(e, &r); err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	if t.last = max(t.last, r.Seq); !t.all && (r.Kind == "outcome" || r.Kind == "subject") {
		return nil
	}
	if t.console.host.JSON() {
		return t.json(e)
	}
	if _, err := fmt.Fprintln(t.out, t.console.lineOf(r)); err != nil {
		return &outputError{err}
	}
	return nil
}

func (t *tail) json(document any) error {
	data, err := json.Marshal(document)
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	if _, err := t.out.Write(append(plaintext.JSON(data), '\n')); err != nil {
		return &outputError{err}
	}
	return nil
}
