package admin

import (
	"context"
	"strings"
	"time"
)

// OwnBudgets asks POST /v1/budgets how the caller's limits stand.
type OwnBudgets struct {
	Resource string `json:"resource,omitempty"` // of grants that name it
}

// BudgetQuestion asks GET /v1/admin/budgets how limits stand: of somebody, or of a
// grant.
type BudgetQuestion struct {
	Who      string `json:"who,omitempty"`      // issuer/subject, group:issuer/group, or all: what everybody of a grant shares
	Grant    string `json:"grant,omitempty"`    // this grant's alone; without Who: of everybody who has used it
	Resource string `json:"resource,omitempty"` // of grants that name it
}

// BudgetReset asks POST /v1/admin/budgets/reset to forget what was used. What others
// share stays: a group's count is reset by the group's name, a grant's by all.
type BudgetReset struct {
	Who   string `json:"who"`
	Grant string `json:"grant"`
}

// BudgetList is the answer to both: how the limits stand, after a reset those
// that were reset.
type BudgetList struct {
	Who      string   `json:"who,omitempty"`
	Budgets  []Budget `json:"budgets"`
	More     bool     `json:"more,omitempty"` // there are others, too many to list
	Revision string   `json:"revision"`       // of the policy that the limits are from
}

// Budget is how one limit stands.
type Budget struct {
	Grant    string     `json:"grant"`
	Per      string     `json:"per"`           // principal, group or grant: whose count it is
	Who      string     `json:"who,omitempty"` // that principal or group
	Kind     string     `json:"kind"`          // requests, tokens or concurrent
	Limit    int64      `json:"limit"`
	Window   int64      `json:"window_seconds,omitempty"` // sliding; none of concurrent requests
	Used     int64      `json:"used"`
	Held     int64      `json:"held"` // set aside for what is running
	Left     int64      `json:"left"`
	Next     *time.Time `json:"next,omitempty"`      // when more is left than now, if nothing else is used
	NextLeft int64      `json:"next_left,omitempty"` // how much is left then
	Resets   *time.Time `json:"resets,omitempty"`    // when all of it has come free
	Mode     string     `json:"mode"`                // enforce or warn
	Contact  string     `json:"contact,omitempty"`   // whom to ask for more
}

// Target is what the record of the call names.
func (q BudgetQuestion) Target() string { return strings.TrimSpace(q.Who + " " + q.Grant) }

// Target is what the record of the call names.
func (q BudgetReset) Target() string { return strings.TrimSpace(q.Who + " " + q.Grant) }

// Budgets tells how the caller's limits stand.
func (c *Client) Budgets(ctx context.Context, q OwnBudgets) (BudgetList, error) {
	return post[BudgetList](ctx, c, "/v1/budgets", q)
}

// AdminBudgets tells how the limits of others stand.
func (c *Client) AdminBudgets(ctx context.Context, q BudgetQuestion) (BudgetList, error) {
	return ask[BudgetList](ctx, c, "/v1/admin/budgets", q)
}

// ResetBudgets forgets what was used.
func (c *Client) ResetBudgets(ctx context.Context, q BudgetReset) (BudgetList, error) {
	return post[BudgetList](ctx, c, "/v1/admin/budgets/reset", q)
}
