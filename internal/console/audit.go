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
	usualTail  = 20  // that come before those that follow
	pageEvents = 500 // asked for at a time
)

// Audit are the commands that read the audit log.
func (c *Console) Audit() *cobra.Command {
	return c.host.Group("audit COMMAND", "Search, follow and verify the audit log", `See who did what, and what was decided. That somebody reads it stands in the
log too.`,
		append([]*cobra.Command{c.auditQuery(), c.auditTail(), c.auditExport()}, c.Proofs()...)...)
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
	q.Limit = max(q.Limit, 1)
	var events []admin.AuditEvent
	for len(events) < q.Limit {
		page, err := client.AuditEvents(ctx, q)
		if err != nil {
			return err
		}
		events = append(events, page.Events...)
		if q.Cursor = page.Next; q.Cursor == "" {
			break
		}
	}
	for _, e := range slices.Backward(events[:min(len(events), t.question.Limit)]) {
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
