package console

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/internal/audit/checkpoint"
	"iap/internal/audit/verify"
	"iap/internal/plaintext"
	"iap/internal/relaykey"
	"iap/internal/screen"
)

// export is what of a person goes out.
type export struct {
	auditSearch
	subject verify.Subject
	format  string
	out     string
}

// bundleDocument: audit check-bundle.
type bundleDocument struct {
	Schema  string         `json:"schema"`
	OK      bool           `json:"ok"`
	Origin  string         `json:"origin"`
	Subject verify.Subject `json:"subject"`
	Records int64          `json:"records"`
	Lines   int64          `json:"lines"` // that the checkpoint covers
	Signed  time.Time      `json:"signed"`
	Key     string         `json:"key"`
	Missing *int64         `json:"missing,omitempty"` // with --dir
}

func (c *Console) auditExport() *cobra.Command {
	x := export{auditSearch: auditSearch{console: c, oldest: true}}
	cmd := &cobra.Command{
		Use: "export --principal P", Short: "Write everything the log holds about a person", Args: c.args(0, 0),
		Long: `Write every record of a person's, and of what administrators did to them, oldest
first: to hand out, or to keep for an audit.

  csv      a table for people, with a column for each common field and the rest
           as JSON. It proves nothing.
  bundle   the lines as they stand in the log (--dir), each with a proof that it
           stands there: "audit check-bundle" checks them without the log.

A bundle cannot prove that nothing is missing from it: who holds the log can see
that, with "audit check-bundle --dir".`,
		Example: c.examples("audit export --principal corp/bob --out bob.csv",
			"audit export --principal corp/bob -o bundle --dir ./audit"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := x.check(time.Now()); err != nil {
				return err
			}
			return x.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&x.subject.Principal, "principal", "", "whose: `ISSUER/SUBJECT`")
	flags.StringVar(&x.question.Since, "since", "", "not older than a `time`: 2h, 7d, or RFC 3339")
	flags.StringVar(&x.question.Until, "until", "", "not younger than a `time`, likewise")
	flags.StringVarP(&x.format, "output", "o", "csv", "`form`: csv or bundle")
	flags.StringVar(&x.out, "out", "", "`file` to make; default: standard output")
	flags.StringVar(&x.dir, "dir", "", "read the `folder` of a log, not the relay's")
	complete(cmd, "output", "csv", "bundle")
	complete(cmd, "since", timesAgo()...)
	complete(cmd, "until", timesAgo()...)
	return cmd
}

// check finds what is wrong with the flags before anything is read, and pins down the
// times.
func (x *export) check(now time.Time) (err error) {
	c := x.console
	switch {
	case x.subject.Principal == "":
		return c.usage("--principal: name the person, ISSUER/SUBJECT")
	case x.format != "csv" && x.format != "bundle":
		return c.usage("-o: %q is neither csv nor bundle", plaintext.Clean(x.format))
	case x.format == "bundle" && x.dir == "":
		return c.usage("--dir: a bundle is made of the log's files: name their folder, or a copy of it")
	}
	if x.subject.Since, err = admin.ParseMoment("--since", x.question.Since, now); err == nil {
		x.subject.Until, err = admin.ParseMoment("--until", x.question.Until, now)
	}
	if err != nil {
		return c.host.Usage(err)
	}
	x.question.Text, x.question.Limit = string(audit.Quote(x.subject.Principal)), pageEvents
	return nil
}

// run writes to standard output, or a file that is there when all is in it.
func (x *export) run(cmd *cobra.Command) error {
	if x.out == "" {
		_, err := x.write(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		return err
	}
	if _, err := os.Lstat(x.out); err == nil {
		return x.console.usage("--out: %s is there already; name another file", plaintext.Clean(x.out))
	}
	draft, err := os.CreateTemp(filepath.Dir(x.out), "."+filepath.Base(x.out)+".*") // for its owner alone
	if err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	n, err := x.write(cmd.Context(), draft, cmd.ErrOrStderr())
	if err = errors.Join(err, draft.Sync(), draft.Close()); err == nil {
		err = os.Rename(draft.Name(), x.out)
	}
	if err != nil {
		_ = os.Remove(draft.Name())
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s about %s in %s\n", screen.Count(int(n), "record"), plaintext.Clean(x.subject.Principal), plaintext.Clean(x.out))
	return nil
}

// write returns how many records it has written.
func (x *export) write(ctx context.Context, w, narration io.Writer) (int64, error) {
	if x.format == "csv" {
		return x.csv(ctx, w, narration)
	}
	end, err := verify.WriteBundle(ctx, w, x.dir, x.subject, time.Now().UTC())
	if err != nil && ctx.Err() == nil {
		err = unreadable(err)
	}
	if end.Unsigned > 0 && err == nil {
		fmt.Fprintf(narration, "%s not in it: no checkpoint covers them yet. Export again in ten seconds.\n", screen.Count(int(end.Unsigned), "record"))
	}
	return end.Records, err
}

// csvColumns are the fields that have a column.
func csvColumns(e *audit.Event) ([]string, []string) {
	number := func(n int64) string {
		if n == 0 {
			return ""
		}
		return strconv.FormatInt(n, 10)
	}
	detail := ""
	if len(e.Detail) > 0 {
		if text, err := json.Marshal(e.Detail); err == nil {
			detail = string(text)
		}
	}
	return []string{
		"seq", "time", "kind", "request", "session", "principal", "agent", "resource", "action", "model", "grant", "via", "source", "method", "path",
		"decision", "reason", "message", "status", "bytes_in", "bytes_out", "tokens_in", "tokens_out", "duration_ms", "ended", "facts", "detail",
	}, []string{
		strconv.FormatUint(e.Seq, 10), e.Time.UTC().Format(time.RFC3339Nano), e.Kind, e.Request, e.Session, e.Principal, e.Agent, e.Resource, e.Action,
		e.Model, e.Grant, e.Via, e.Source, e.Method, e.Path, e.Decision, e.Reason, e.Message, number(int64(e.Status)), number(e.BytesIn),
		number(e.BytesOut), number(e.TokensIn), number(e.TokensOut), number(e.DurationMs), e.Ended, e.Facts, detail,
	}
}

// csv writes a table as RFC 4180 has it.
func (x *export) csv(ctx context.Context, w, narration io.Writer) (n int64, err error) {
	table := csv.NewWriter(w)
	table.UseCRLF = true
	names, _ := csvColumns(&audit.Event{})
	if err := table.Write(names); err != nil {
		return 0, &outputError{err}
	}
	unread, err := x.auditSearch.run(ctx, func(_ uint64, line []byte) error {
		e, err := audit.Parse(line)
		if err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		if !x.subject.Concerns(&e) {
			return nil
		}
		_, cells := csvColumns(&e)
		for i := range cells {
			cells[i] = cell(cells[i])
		}
		n++
		if err := table.Write(cells); err != nil {
			return &outputError{err}
		}
		return nil
	})
	if table.Flush(); err == nil && table.Error() != nil {
		err = &outputError{table.Error()}
	}
	if unread > 0 {
		fmt.Fprintf(narration, "%s of the log could not be read.\n", screen.Count(unread, "line"))
	}
	return n, err
}

// cell keeps a spreadsheet from taking a text of a stranger's for a formula.
func cell(text string) string {
	if text != "" && strings.ContainsRune("=+-@\t\r", rune(text[0])) {
		return "'" + text
	}
	return text
}

func (c *Console) auditCheckBundle() *cobra.Command {
	var t trust
	var dir string
	cmd := &cobra.Command{
		Use: "check-bundle FILE", Short: "Check what a bundle of records proves", Args: c.args(1, 1),
		Long: `Check that every record in a bundle made by "audit export" stands in the log of
the relay whose key you trust, and is about the person that the bundle names.
With --dir, also that none is missing which that log holds. Exit status 1 if
anything is wrong.`,
		Example: c.examples("audit check-bundle bob.bundle --key SHA256:…", "audit check-bundle bob.bundle --key SHA256:… --dir ./audit"),
		RunE: func(cmd *cobra.Command, args []string) error {
			anchors, _, err := t.read()
			if err == nil && len(anchors) == 0 {
				err = errors.New("--key: name the relay's key that you trust: a bundle that brings its own proves nothing")
			}
			if err != nil {
				return c.host.Usage(err)
			}
			doc, err := checkBundle(cmd.Context(), args[0], anchors, dir)
			if err != nil {
				return err
			}
			if err := c.show(cmd.OutOrStdout(), doc, func(w io.Writer) { printBundle(w, doc) }); err != nil || doc.OK {
				return err
			}
			return &admin.Error{Code: "bundle_incomplete", Message: screen.Count(int(*doc.Missing), "record") + " of the log missing from the bundle", Hint: "have the bundle made anew"}
		},
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&dir, "dir", "", "`folder` of the log, to see whether records are missing")
	return cmd
}

func checkBundle(ctx context.Context, file string, anchors []checkpoint.Anchor, dir string) (*bundleDocument, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	defer f.Close()
	b, err := verify.CheckBundle(ctx, f, anchors)
	if err != nil {
		return nil, &admin.Error{Code: "bundle_fails", Message: "the bundle is not what was exported: " + plaintext.Clean(err.Error()), Hint: "have it made anew, and compare the key with the relay's operator"}
	}
	doc := &bundleDocument{
		Schema: Schema, OK: true, Origin: b.Head.Origin, Subject: b.Head.Subject, Records: b.End.Records,
		Lines: b.Signed.Size, Signed: b.Signed.Time, Key: relaykey.ID(b.Signed.Key),
	}
	if dir == "" {
		return doc, nil
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	if err := b.Compare(ctx, f, dir); err != nil {
		return nil, unreadable(err)
	}
	doc.Missing, doc.OK = &b.Missing, b.Missing == 0
	return doc, nil
}

func printBundle(w io.Writer, d *bundleDocument) {
	fmt.Fprintf(w, "Proven   %s about %s\n", screen.Count(int(d.Records), "record"), plaintext.Clean(d.Subject.Principal))
	fmt.Fprintf(w, "Log      %s\n", plaintext.Clean(d.Origin))
	fmt.Fprintf(w, "By       a checkpoint over %s, signed\n         %s by %s\n", screen.Count(int(d.Lines), "record"), d.Signed.Format(time.RFC3339), d.Key)
	switch {
	case d.Missing == nil:
		fmt.Fprintln(w, "Missing  nobody can tell from the bundle: --dir DIR looks in the log")
	case *d.Missing > 0:
		fmt.Fprintf(w, "MISSING  %s that the log holds\n", screen.Count(int(*d.Missing), "record"))
	default:
		fmt.Fprintln(w, "Missing  nothing that the log holds up to this checkpoint")
	}
}
