package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/tunnel"
)

const (
	defaultEvents = 100
	maxEvents     = 1000
	maxEventBytes = 2 << 20         // of one answer: less than a client reads
	searchWithin  = 3 * time.Second // then the answer is partial, and goes on by its cursor
	maxSearches   = 2               // at once: each reads as fast as it can
	maxTails      = 16              // at once
	maxFilter     = 512             // bytes of one
)

// auditReaders bounds who reads the audit log at once.
type auditReaders struct{ searches, tails chan struct{} }

func newAuditReaders() auditReaders {
	return auditReaders{make(chan struct{}, maxSearches), make(chan struct{}, maxTails)}
}

// take takes a place, which the func it returns gives back.
func take(places chan struct{}) (func(), error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	default:
		return nil, &admin.Error{Status: http.StatusTooManyRequests, Code: tunnel.CodeOverloaded.String(), Message: "others read the audit log just now", Hint: "try again in a moment"}
	}
}

// AuditEvents searches the audit log.
func (a *adminAPI) AuditEvents(ctx context.Context, q admin.AuditQuestion) (admin.AuditPage, error) {
	query, err := a.relay.auditQuery(q)
	if err != nil {
		return admin.AuditPage{}, err
	}
	cursor, err := readCursor(q.Cursor)
	switch {
	case err != nil:
		return admin.AuditPage{}, err
	case q.Order != "" && q.Order != "newest" && q.Order != "oldest":
		return admin.AuditPage{}, badRequest(fmt.Sprintf("order: %q is neither newest nor oldest", q.Order))
	case q.Limit > maxEvents:
		return admin.AuditPage{}, badRequest(fmt.Sprintf("limit: at most %d", maxEvents))
	}
	free, err := take(a.relay.auditors.searches)
	if err != nil {
		return admin.AuditPage{}, err
	}
	defer free()
	found, err := audit.Search(ctx, a.relay.cfg.Audit.Dir, query, audit.Bounds{
		Newest: q.Order != "oldest", After: cursor, Limit: cmp.Or(q.Limit, defaultEvents), Bytes: maxEventBytes, Within: searchWithin,
	})
	if err != nil {
		return admin.AuditPage{}, a.unreadable(err)
	}
	page := admin.AuditPage{Events: []admin.AuditEvent{}, Partial: found.Partial, Unread: found.Unread}
	for _, text := range found.Lines {
		page.Events = append(page.Events, text)
	}
	if found.Next > 0 {
		page.Next, page.Since, page.Until = strconv.FormatUint(found.Next, 10), moment(query.Since), moment(query.Until)
	}
	return page, nil
}

// TailAudit follows the audit log, from the latest records on or from behind the
// one that the reader has.
func (a *adminAPI) TailAudit(ctx context.Context, q admin.AuditQuestion, each func(admin.TailLine) error) error {
	query, err := a.relay.auditQuery(q)
	if err != nil {
		return err
	}
	after, err := readCursor(q.Cursor)
	switch {
	case err != nil:
		return err
	case q.Order != "" || q.Until != "":
		return badRequest("order, until: a tail has neither")
	case q.Limit > maxEvents || q.Limit > 0 && q.Cursor != "":
		return badRequest(fmt.Sprintf("limit: at most %d, and none with a cursor", maxEvents))
	}
	free, err := take(a.relay.auditors.tails)
	if err != nil {
		return err
	}
	defer free()
	if q.Cursor == "" {
		if after, err = a.latest(ctx, query, q.Limit, each); err != nil {
			return a.unreadable(err)
		}
	}
	if err := each(admin.TailLine{}); err != nil { // the reader learns that it follows, though nothing happens
		return err
	}
	err = audit.Follow(ctx, a.relay.cfg.Audit.Dir, query, after, func(f audit.Followed) error {
		return each(admin.TailLine{Event: f.Line, Dropped: f.Dropped})
	})
	return a.unreadable(err)
}

// latest hands the latest n records over that the query selects, and returns the
// number of the latest of all.
func (a *adminAPI) latest(ctx context.Context, query audit.Query, n int, each func(admin.TailLine) error) (uint64, error) {
	bounds := audit.Bounds{Newest: true, Limit: 1, Bytes: maxEventBytes, Within: searchWithin}
	last, err := audit.Search(ctx, a.relay.cfg.Audit.Dir, audit.Query{}, bounds)
	if err != nil || n == 0 {
		return last.Next, err
	}
	if bounds.Limit = n; last.Next > 0 {
		bounds.After = last.Next + 1
	}
	found, err := audit.Search(ctx, a.relay.cfg.Audit.Dir, query, bounds)
	if err != nil {
		return 0, err
	}
	for _, text := range slices.Backward(found.Lines) {
		if err := each(admin.TailLine{Event: text}); err != nil {
			return 0, err
		}
	}
	return last.Next, nil
}

// unreadable words an error of reading the log; that of whoever left is as it is.
func (a *adminAPI) unreadable(err error) error {
	var worded *admin.Error
	if err == nil || errors.Is(err, context.Canceled) || errors.As(err, &worded) {
		return err
	}
	a.relay.log.Error("read the audit log", "caller", a.caller, "error", err)
	return &admin.Error{Status: http.StatusServiceUnavailable, Code: "audit_unreadable", Message: "the relay cannot read its audit log", Hint: "its log says why"}
}

func (r *Relay) auditQuery(q admin.AuditQuestion) (audit.Query, error) {
	for _, text := range []string{q.Principal, q.Resource, q.Agent, q.Session, q.Request, q.Action, q.Decision, q.Reason, q.Kind, q.Text} {
		if len(text) > maxFilter {
			return audit.Query{}, badRequest(fmt.Sprintf("a filter is at most %d bytes long", maxFilter))
		}
	}
	now := r.now()
	since, err := admin.ParseMoment("since", q.Since, now)
	if err != nil {
		return audit.Query{}, err
	}
	until, err := admin.ParseMoment("until", q.Until, now)
	if err != nil {
		return audit.Query{}, err
	}
	query := audit.Query{
		Kind: q.Kind, Request: q.Request, Session: q.Session, Principal: q.Principal, Agent: q.Agent, Resource: q.Resource, Action: q.Action,
		Decision: q.Decision, Reason: q.Reason, Since: since, Until: until, Text: q.Text,
	}
	if err := query.Check(); err != nil {
		return audit.Query{}, badRequest(err.Error())
	}
	return query, nil
}

// moment is a time of a query as a question has it.
func moment(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

func readCursor(text string) (uint64, error) {
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, badRequest(fmt.Sprintf("cursor: %q is none that this relay gave", text))
	}
	return n, nil
}
