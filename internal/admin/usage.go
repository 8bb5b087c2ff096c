package admin

import "context"

// UsageQuestion asks GET /v1/admin/usage.
type UsageQuestion struct {
	By    string `json:"by,omitempty"`    // principal, group, model or resource
	Since string `json:"since,omitempty"` // a time such as 7d
}

// UsageReport is its answer.
type UsageReport struct{}

// AdminUsage tells what everybody has used.
func (c *Client) AdminUsage(ctx context.Context, q UsageQuestion) (UsageReport, error) {
	return ask[UsageReport](ctx, c, "/v1/admin/usage", q)
}
