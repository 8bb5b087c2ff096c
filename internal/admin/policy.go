package admin

import (
	"context"
	"time"
)

// PolicyInForce answers GET /v1/admin/policy.
type PolicyInForce struct {
	Revision string       `json:"revision"`
	Loaded   time.Time    `json:"loaded"`
	By       string       `json:"by"` // start, watch, signal, or the administrator who reloaded it
	Files    []PolicyFile `json:"files"`
	Grants   []Placed     `json:"grants"` // in the order of decision
	Admins   []Placed     `json:"admins"`
	Warnings []string     `json:"warnings,omitempty"`
	// Failed is why the files as they are now are not in force; empty: they are.
	Failed string `json:"failed,omitempty"`
}

// PolicyFile is one file of the policy in force, as it was when it was loaded.
type PolicyFile struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"` // in hex
	Text   string `json:"text"`
	Cut    bool   `json:"cut,omitempty"` // the text is longer
}

// Placed is a grant, or an entry of admins:, and where it stands in the grants file.
type Placed struct {
	Name string `json:"name"`
	Line int    `json:"line"`
}

// PolicyReloaded answers POST /v1/admin/policy/reload.
type PolicyReloaded struct {
	Revision string `json:"revision"`
}

// ShowPolicy tells the policy in force.
func (c *Client) ShowPolicy(ctx context.Context) (PolicyInForce, error) {
	return get[PolicyInForce](ctx, c, "/v1/admin/policy")
}

// AdminExplain asks what the policy says of somebody else.
func (c *Client) AdminExplain(ctx context.Context, q Question) (Answer, error) {
	return post[Answer](ctx, c, "/v1/admin/policy/explain", q)
}

// ReloadPolicy reads the policy files again and returns the new revision.
func (c *Client) ReloadPolicy(ctx context.Context) (string, error) {
	reply, err := post[PolicyReloaded](ctx, c, "/v1/admin/policy/reload", nil)
	return reply.Revision, err
}
