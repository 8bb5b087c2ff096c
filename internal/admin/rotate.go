package admin

import (
	"context"
	"net/url"
)

// AgentRotation tells how far an agent's change of keys is.
type AgentRotation struct {
	Agent string `json:"agent"` // id
	State string `json:"state"` // asked or done
}

// RelayRotation tells of the relay's new key.
type RelayRotation struct {
	Key []byte `json:"key,omitempty"` // Ed25519, public
}

// RotateAgent has an agent take a new key.
func (c *Client) RotateAgent(ctx context.Context, id string) (AgentRotation, error) {
	return post[AgentRotation](ctx, c, "/v1/admin/agents/"+url.PathEscape(id)+"/rotate", nil)
}

// RotateRelay has the relay take a new key.
func (c *Client) RotateRelay(ctx context.Context) (RelayRotation, error) {
	return post[RelayRotation](ctx, c, "/v1/admin/relay/rotate", nil)
}
