package admin

import (
	"context"
	"strings"
	"time"
)

// UsageQuestion asks GET /v1/usage what the caller has used, and GET
// /v1/admin/usage what everybody has.
type UsageQuestion struct {
	By       string `json:"by,omitempty"`       // rows: principal, group, model (default), resource, grant or action
	Per      string `json:"per,omitempty"`      // points: minute (kept for two hours), hour (14 days) or day; none without
	Since    string `json:"since,omitempty"`    // how long ago (7d, the default), a date or a time
	Until    string `json:"until,omitempty"`    // likewise; default now
	Who      string `json:"who,omitempty"`      // issuer/subject; only administrators name another
	Resource string `json:"resource,omitempty"` // of this one alone
	Model    string `json:"model,omitempty"`    // likewise
	Top      int    `json:"top,omitempty"`      // rows, at most 1000; default 20
}

// maxTarget is how much of a question its record repeats.
const maxTarget = 512

// Target is what the record of the call names.
func (q UsageQuestion) Target() string {
	target := strings.Join(strings.Fields(q.Who+" "+q.Resource+" "+q.Model), " ")
	return strings.ToValidUTF8(target[:min(len(target), maxTarget)], "?")
}

// UsageReport is the answer to both. Times are UTC, rounded outwards to what is
// kept.
type UsageReport struct {
	From       time.Time    `json:"from"`
	To         time.Time    `json:"to"`
	By         string       `json:"by"`
	Per        string       `json:"per,omitempty"`
	Who        string       `json:"who,omitempty"` // empty: everybody
	Resource   string       `json:"resource,omitempty"`
	Model      string       `json:"model,omitempty"`
	Total      UsageSum     `json:"total"`                // exact, however many rows there are
	Rows       []UsageRow   `json:"rows"`                 // those that used most first; by group they sum up to more than the total
	Others     *UsageSum    `json:"others,omitempty"`     // of further rows
	OtherRows  int          `json:"other_rows,omitempty"` // how many
	Points     []UsagePoint `json:"points,omitempty"`     // by time; those with nothing in them are left out
	Incomplete bool         `json:"incomplete,omitempty"` // some of what is kept cannot be read
}

// UsageSum is what was used together.
type UsageSum struct {
	Requests   int64 `json:"requests"`  // that were allowed and have ended
	Denied     int64 `json:"denied"`    // not among the requests
	Errors     int64 `json:"errors"`    // of the requests: failed, or were cut
	Cancelled  int64 `json:"cancelled"` // of the requests: their callers left
	TokensIn   int64 `json:"tokens_in"`
	TokensOut  int64 `json:"tokens_out"`
	DurationMS int64 `json:"duration_ms"` // of all requests together
	// Times to the first byte of an answer, right to a fifth; none where there was no answer.
	TTFTP50MS int64 `json:"ttft_p50_ms,omitempty"`
	TTFTP95MS int64 `json:"ttft_p95_ms,omitempty"`
}

// UsageRow is the part of one principal, group, model …
type UsageRow struct {
	Name string `json:"name"`
	UsageSum
}

// UsagePoint is the part of one minute, hour or day.
type UsagePoint struct {
	Start time.Time `json:"start"`
	UsageSum
}

// Usage tells what the caller has used.
func (c *Client) Usage(ctx context.Context, q UsageQuestion) (UsageReport, error) {
	return ask[UsageReport](ctx, c, "/v1/usage", q)
}

// AdminUsage tells what everybody has used.
func (c *Client) AdminUsage(ctx context.Context, q UsageQuestion) (UsageReport, error) {
	return ask[UsageReport](ctx, c, "/v1/admin/usage", q)
}
