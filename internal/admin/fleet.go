package admin

import (
	"context"
	"net/url"
	"time"
)

// JoinToken is a join token as a list shows it: without its secret.
type JoinToken struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"` // of the agent, for people
	Resources []JoinResource `json:"resources"`
	Share     bool           `json:"share,omitempty"`
	Expires   time.Time      `json:"expires"`
	UsedBy    string         `json:"used_by,omitempty"` // id of the agent that enrolled with it
}

// ResourceStates answers GET /v1/admin/resources.
type ResourceStates struct {
	Resources []ResourceState `json:"resources"`
	Silent    []string        `json:"silent,omitempty"` // instances of relays that did not answer: agents of theirs may seem offline
}

// ResourceState is a resource as an administrator sees it.
type ResourceState struct {
	Name   string            `json:"name"`
	Kind   string            `json:"kind"`
	Labels map[string]string `json:"labels,omitempty"`
	Server string            `json:"server,omitempty"` // model server behind it
	Online bool              `json:"online"`
	Agents int               `json:"agents"` // that serve it now
	Models []string          `json:"models,omitempty"`
	// Health is ok, degraded (some of its agents are not fit), down (none is) or
	// offline (none is there).
	Health string `json:"health"`
	Load
	Aliases  map[string]string `json:"aliases,omitempty"`
	Problems []string          `json:"problems,omitempty"` // what its agents contradict each other about, in words
	ServedBy []ServingAgent    `json:"served_by"`          // every agent enrolled for it
}

// Load is how busy a resource or one of its agents is, in generations or, for
// kinds without them, requests and streams.
type Load struct {
	Running  int `json:"running"`
	Queued   int `json:"queued"`
	Capacity int `json:"capacity,omitempty"` // at once; 0: no bound is set
}

// ServingAgent is one agent of a resource.
type ServingAgent struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Online   bool       `json:"online"`
	Healthy  bool       `json:"healthy"`
	Reason   string     `json:"reason,omitempty"` // why it is not: unreachable, timeout, errors, unauthorized, no_models, failing
	Since    *time.Time `json:"since,omitempty"`  // it has been so, as far as this relay knows
	Server   string     `json:"server,omitempty"`
	Models   []string   `json:"models,omitempty"`
	Software string     `json:"software,omitempty"`  // its version
	LastSeen *time.Time `json:"last_seen,omitempty"` // since this relay's start
	Load
}

// Agents lists the enrolled agents.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	return get[[]Agent](ctx, c, "/v1/admin/agents")
}

// JoinTokens lists the join tokens that were made and not yet forgotten.
func (c *Client) JoinTokens(ctx context.Context) ([]JoinToken, error) {
	return get[[]JoinToken](ctx, c, "/v1/admin/agents/tokens")
}

// CreateJoinToken makes a single-use join token.
func (c *Client) CreateJoinToken(ctx context.Context, t NewJoinToken) (JoinTokenCreated, error) {
	return post[JoinTokenCreated](ctx, c, "/v1/admin/agents/tokens", t)
}

// RevokeJoinToken makes an unused join token worthless.
func (c *Client) RevokeJoinToken(ctx context.Context, id string) error {
	_, err := post[Done](ctx, c, "/v1/admin/agents/tokens/"+url.PathEscape(id)+"/revoke", nil)
	return err
}

// RevokeAgent refuses the agent's key from now on and cuts its sessions.
func (c *Client) RevokeAgent(ctx context.Context, id string) (Ended, error) {
	return post[Ended](ctx, c, "/v1/admin/agents/"+url.PathEscape(id)+"/revoke", nil)
}

// AdminResources lists every resource.
func (c *Client) AdminResources(ctx context.Context) (ResourceStates, error) {
	return get[ResourceStates](ctx, c, "/v1/admin/resources")
}
