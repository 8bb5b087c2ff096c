package console

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/audit/filter"
	"iap/internal/plaintext"
	"iap/internal/screen"
)

const (
	usualEvents = 100 // of a search that names no limit
	mostLost    = 5   // connections in a row that bring no page
)

// auditSearch is what is asked of a log, a relay's or that of a folder.
type auditSearch struct {
	console  *Console
	question admin.AuditQuestion
	dir      string
	oldest   bool
	thorough bool
	free     string         // the filter as it was typed
	filter   *filter.Filter // nil: none
	names    func(principal string) []string
}

// flags adds those that say which records, and where from.
func (s *auditSearch) flags(cmd *cobra.Command) {
	filters(cmd, &s.question)
	flags := cmd.Flags()
	flags.StringVar(&s.question.Since, "since", "", "not older than a `time`: 2h, 7d, or RFC 3339")
	flags.StringVar(&s.question.Until, "until", "", "not younger than a `time`, likewise")
	complete(cmd, "since", timesAgo()...)
	complete(cmd, "until", timesAgo()...)
	flags.StringVar(&s.free, "filter", "", "`expression` that holds, such as 'status >= 500 and model == \"phi3\"'")
	flags.StringVar(&s.dir, "dir", "", "read the `folder` of a log, not the relay's")
	flags.BoolVar(&s.thorough, "thorough", false, "with --dir: leave out no file for the times at its ends")
}

// check finds what is wrong with the flags before anything is read.
func (s *auditSearch) check() (err error) {
	if s.thorough && s.dir == "" {
		return s.console.usage("--thorough reads files: name their folder with --dir")
	}
	if s.free == "" {
		return nil
	}
	if s.filter, err = filter.New(s.free); err != nil {
		return s.console.usage("--filter: %s", plaintext.Clean(err.Error()))
	}
	return nil
}

// run hands each record over, as it stands in the log and valid until each returns,
// until each fails, which is run's error. What each does not take is not read on.
func (s *auditSearch) run(ctx context.Context, each func(seq uint64, line []byte) error) (unread int, err error) {
	chosen := func(seq uint64, line []byte) error {
		if found, err := s.chosen(line); err != nil || !found {
			return err
		}
		return each(seq, line)
	}
	if s.dir != "" {
		return s.scan(ctx, chosen)
	}
	return s.pages(ctx, chosen)
}

// chosen says whether the free filter takes a record. The relay evaluates none: what
// it does for a question stays bounded whatever is asked.
func (s *auditSearch) chosen(line []byte) (bool, error) {
	if s.filter == nil {
		return true, nil
	}
	found, err := s.filter.Match(line)
	if err != nil {
		return false, &admin.Error{Code: "filter_failed", Message: "--filter: " + plaintext.Clean(err.Error()), Hint: "have the filter leave such records out first, such as tokens_in > 0 and …"}
	}
	return found, nil
}

// query is the question as the reader of files takes it.
func (s *auditSearch) query() (audit.Query, error) {
	q, now := s.question, time.Now()
	since, err := admin.ParseMoment("--since", q.Since, now)
	if err != nil {
		return audit.Query{}, s.console.host.Usage(err)
	}
	until, err := admin.ParseMoment("--until", q.Until, now)
	if err != nil {
		return audit.Query{}, s.console.host.Usage(err)
	}
	query := audit.Query{
		Kind: q.Kind, Request: q.Request, Session: q.Session, Agent: q.Agent, Resource: q.Resource, Action: q.Action,
		Decision: q.Decision, Reason: q.Reason, Since: since, Until: until, Text: q.Text,
	}
	if q.Principal != "" {
		query.Principals = s.recorded(q.Principal)
	}
	if err := query.Check(); err != nil {
		return audit.Query{}, s.console.host.Usage(fmt.Errorf("--%w", err))
	}
	return query, nil
}

// recorded are the names that a person stands under in the log: at least the one
// that was typed.
func (s *auditSearch) recorded(principal string) []string {
	if s.names == nil {
		return []string{principal}
	}
	return append(s.names(principal), principal)
}

func (s *auditSearch) scan(ctx context.Context, each func(uint64, []byte) error) (int, error) {
	query, err := s.query()
	if err != nil {
		return 0, err
	}
	way := audit.Way{Newest: !s.oldest, Thorough: s.thorough}
	if s.question.Cursor != "" {
		if way.After, err = strconv.ParseUint(s.question.Cursor, 10, 64); err != nil || way.After == 0 {
			return 0, s.console.usage("--cursor: %q is none", plaintext.Clean(s.question.Cursor))
		}
	}
	segments, err := audit.Segments(s.dir)
	if err != nil || len(segments) == 0 {
		return 0, unreadable(cmp.Or(err, fmt.Errorf("%s holds no audit log: give the folder with the files audit-….jsonl", s.dir)))
	}
	var taken error
	unread, err := audit.Scan(ctx, s.dir, query, way, func(seq uint64, line []byte) error { taken = each(seq, line); return taken })
	if err != nil && taken == nil && ctx.Err() == nil {
		err = unreadable(err)
	}
	return unread, err
}

// pages asks the relay page by page. The next is asked for when the one before has
// been taken, behind its last record: none comes twice and none is left out, also
// over a lost connection.
func (s *auditSearch) pages(ctx context.Context, each func(uint64, []byte) error) (unread int, err error) {
	q := s.question
	if s.oldest {
		q.Order = "oldest"
	}
	if q.Limit == 0 || s.filter != nil {
		q.Limit = pageEvents
	}
	begun, lost, pause := false, 0, firstPause
	for {
		var taken error
		err := s.console.host.Follow(ctx, func(ctx context.Context, client *admin.Client) error {
			for {
				page, err := client.AuditEvents(ctx, q)
				if err != nil {
					return err
				}
				begun, lost, pause = true, 0, firstPause
				unread += page.Unread
				for _, e := range page.Events {
					if taken = hand(e, each); taken != nil {
						return taken
					}
				}
				if page.Next == "" {
					return nil
				}
				q.Cursor, q.Since, q.Until = page.Next, cmp.Or(page.Since, q.Since), cmp.Or(page.Until, q.Until)
			}
		})
		if lost++; err == nil || taken != nil || ctx.Err() != nil || final(err) || !begun && !busy(err) || lost > mostLost {
			return unread, err
		}
		s.console.wait(ctx, pause)
		pause = min(2*pause, mostPause)
	}
}

// hand hands a record of a page over.
func hand(e admin.AuditEvent, each func(uint64, []byte) error) error {
	var r struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(e, &r); err != nil {
		return fmt.Errorf("read the audit log: %w", err)
	}
	return each(r.Seq, e)
}

// busy says whether others are read to just now.
func busy(err error) bool {
	var refused *admin.Error
	return errors.As(err, &refused) && refused.Code == "overloaded"
}

func (c *Console) auditQuery() *cobra.Command {
	s := auditSearch{console: c}
	limit, raw := usualEvents, false
	cmd := &cobra.Command{
		Use: "query", Short: "Search the audit log", Args: c.args(0, 0),
		Long: `Search the audit log, newest records first. All the flags must hold at once.
Records are shown as they are found: a search over years takes time and no
memory, and stops where its reader does. With --dir the files of a folder are
read, and no relay is asked.

--filter is an expression over the fields of a record, by their names in the
log: == != < <= > >= and or not in contains startsWith endsWith matches
+ - * / % ?: lower() upper() trim() len() now() date("2026-11-24")
duration("90m") any(["a", "b"], # == model). A field that a record leaves out is
"" or 0. It is evaluated here, not by the relay.

With -o json one document is written as records are found, each on a line as it
stands in the log; with --raw those lines alone.`,
		Example: c.examples("audit query --principal corp/8a7f3c --since 2h", "audit query --filter 'status >= 500 and seq > 900'",
			"audit query --kind admin --since 2026-11-01T00:00:00Z --raw", "audit query --dir ./audit --filter 'count > 9'"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return c.usage("--limit: 0 for all, or how many")
			}
			if err := s.check(); err != nil {
				return err
			}
			if s.question.Limit = 0; limit > 0 {
				s.question.Limit = min(limit, pageEvents)
			}
			f := found{console: c, out: cmd.OutOrStdout(), json: c.host.JSON() && !raw, raw: raw, limit: limit}
			unread, err := s.run(cmd.Context(), f.record)
			if err != nil && !errors.Is(err, errEnough) {
				return err
			}
			return f.end(cmd.ErrOrStderr(), unread)
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&s.oldest, "oldest", false, "oldest first")
	cmd.Flags().IntVarP(&limit, "limit", "n", usualEvents, "at most so `many`; 0: all")
	cmd.Flags().StringVar(&s.question.Cursor, "cursor", "", "go on behind the answer that named this `cursor`")
	cmd.Flags().BoolVar(&raw, "raw", false, "records as they stand in the log, a line each, and nothing else")
	return cmd
}

// errEnough ends a search that has found as many as were asked for.
var errEnough = errors.New("enough records")

// found shows records one by one. With -o json they make one document, written as
// they come: schema, events (as they stand in the log), next (the --cursor for those
// that come behind), unread (lines that are no records).
type found struct {
	console   *Console
	out       io.Writer
	json, raw bool
	limit     int // 0: none
	shown     int
	last      uint64
}

// record shows one.
func (f *found) record(seq uint64, line []byte) error {
	var text strings.Builder
	switch {
	case f.json:
		text.WriteString(f.head())
		text.Write(plaintext.JSON(line))
	case f.raw:
		text.Write(plaintext.JSON(line))
		text.WriteByte('\n')
	default:
		f.console.printLine(&text, line)
	}
	if err := f.write(text.String()); err != nil {
		return err
	}
	f.last = seq
	if f.shown++; f.shown == f.limit {
		return errEnough
	}
	return nil
}

// head is what stands before a record of the document.
func (f *found) head() string {
	if f.shown > 0 {
		return ",\n    "
	}
	return fmt.Sprintf("{\n  \"schema\": %q,\n  \"events\": [\n    ", Schema)
}

func (f *found) write(text string) error {
	if _, err := io.WriteString(f.out, text); err != nil {
		return &outputError{err}
	}
	return nil
}

// end closes the document, or tells what the records do not.
func (f *found) end(narration io.Writer, unread int) error {
	next := ""
	if f.limit > 0 && f.shown == f.limit {
		next = strconv.FormatUint(f.last, 10)
	}
	if f.json {
		tail := "\n  ]"
		if f.shown == 0 {
			tail = strings.TrimRight(f.head(), "\n ") + "]"
		}
		if next != "" {
			tail += fmt.Sprintf(",\n  \"next\": %q", next)
		}
		if unread > 0 {
			tail += fmt.Sprintf(",\n  \"unread\": %d", unread)
		}
		return f.write(tail + "\n}\n")
	}
	if f.shown == 0 {
		fmt.Fprintln(narration, "There is no such record.")
	}
	if unread > 0 {
		fmt.Fprintf(narration, "%s of the log could not be read.\n", screen.Count(unread, "line"))
	}
	if next != "" {
		fmt.Fprintf(narration, "There may be more: add --cursor %s, or raise --limit.\n", next)
	}
	return nil
}
