package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"iap/policy"
)

// AuditQuestion asks GET /v1/admin/audit, or …/audit/tail, for the events for which
// everything holds that is not left out.
type AuditQuestion struct {
	Principal string `json:"principal,omitempty"` // issuer/subject
	Resource  string `json:"resource,omitempty"`
	Agent     string `json:"agent,omitempty"` // id
	Session   string `json:"session,omitempty"`
	Request   string `json:"request,omitempty"`
	Action    string `json:"action,omitempty"`   // of a request, or an admin verb
	Decision  string `json:"decision,omitempty"` // allow or deny
	Reason    string `json:"reason,omitempty"`   // code
	Kind      string `json:"kind,omitempty"`     // decision, outcome, login, session, agent, admin, …
	Since     string `json:"since,omitempty"`    // RFC 3339, or how long ago: 2h
	Until     string `json:"until,omitempty"`    // likewise
	Text      string `json:"text,omitempty"`     // stands somewhere in the record, whatever its case
	Order     string `json:"order,omitempty"`    // newest (default) or oldest first; not of a tail
	Limit     int    `json:"limit,omitempty"`    // events of one answer; 0: 100. Of a tail: how many of the latest come first; 0: none
	Cursor    string `json:"cursor,omitempty"`   // the Next of the answer before. Of a tail: the seq of the last record its reader has
}

// Target is what the record of the call names.
func (q AuditQuestion) Target() string {
	values, err := queryOf(q)
	if err != nil {
		return ""
	}
	values.Del("cursor") // the pages of one search are one read
	return values.Encode()
}

// AuditEvent is one record of the audit log, as it stands there.
type AuditEvent = json.RawMessage

// AuditPage answers GET /v1/admin/audit.
type AuditPage struct {
	Events []AuditEvent `json:"events"`
	Next   string       `json:"next,omitempty"` // there may be more: ask again with this cursor
	// Partial: the search took too long or the answer grew too large; it goes on with Next.
	Partial bool `json:"partial,omitempty"`
	Unread  int  `json:"unread,omitempty"` // lines that are no records
	// Since and Until are the times asked for as this page took them: who gave how
	// long ago asks for the next page with these, or the range moves between the two.
	Since string `json:"since,omitempty"`
	Until string `json:"until,omitempty"`
}

// ParseMoment reads a time of a question, or how long before now it was; zero if
// the text is empty. An error is an *Error.
func ParseMoment(name, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	ago, err := policy.ParseDuration(text)
	if err != nil {
		message := fmt.Sprintf("%s: %q is neither a time such as 2026-11-23T12:00:00Z nor how long ago, such as 2h or 7d", name, text)
		return time.Time{}, &Error{Status: http.StatusBadRequest, Code: "bad_request", Message: message}
	}
	return now.Add(-ago), nil
}

// TailLine is one line of the answer to GET /v1/admin/audit/tail: a record, or how
// many were left out because the reader was too slow, or why there are no more; or
// nothing, which says that the tail has begun.
type TailLine struct {
	Event   AuditEvent `json:"event,omitempty"`
	Dropped uint64     `json:"dropped,omitempty"`
	Error   *Error     `json:"error,omitempty"`
}

// AuditEvents searches the audit log.
func (c *Client) AuditEvents(ctx context.Context, q AuditQuestion) (AuditPage, error) {
	return ask[AuditPage](ctx, c, "/v1/admin/audit", q)
}

// maxTailLine bounds a line of a tail: a record is at most 16 KiB.
const maxTailLine = 64 << 10

// TailAudit hands the lines of a tail to each until it fails, ctx ends, or the
// relay ends it, for which the error says why.
func (c *Client) TailAudit(ctx context.Context, q AuditQuestion, each func(TailLine) error) error {
	values, err := queryOf(q)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+withQuery("/v1/admin/audit/tail", values), nil)
	if err != nil {
		return fmt.Errorf("build request: %w", err)
	}
	endless := *c.http
	endless.Timeout = 0 // it lasts as long as the caller likes
	reply, err := endless.Do(r)
	if err != nil {
		return fmt.Errorf("follow the audit log: %w", err)
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return decodeReply(reply, nil)
	}
	lines := bufio.NewScanner(reply.Body)
	lines.Buffer(nil, maxTailLine)
	for lines.Scan() {
		var line TailLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("read the audit log: %w", err)
		}
		if line.Error != nil {
			return line.Error
		}
		if line.Event == nil && line.Dropped == 0 {
			continue // that it has begun
		}
		if err := each(line); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("follow the audit log: %w", err)
	}
	return errors.New("the relay ended the stream")
}
