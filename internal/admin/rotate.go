package admin

import (
	"context"
	"net/url"
	"time"
)

// AgentRotation tells of an agent's new key.
type AgentRotation struct {
	Agent    string    `json:"agent"`     // id
	Key      string    `json:"key"`       // the new one's fingerprint
	OldKey   string    `json:"old_key"`   // the one it replaced
	OldUntil time.Time `json:"old_until"` // until when that still opens sessions
}

// NewRelayKey asks for the relay's next key.
type NewRelayKey struct {
	Overlap string `json:"overlap,omitempty"` // how long it is announced before it is in force, as 24h; empty: 24h; at most 720h
}

// Target is what the record of the call names.
func (q NewRelayKey) Target() string { return q.Overlap }

// RelayRotation tells of the relay's next key.
type RelayRotation struct {
	Key    string    `json:"key"`    // fingerprint of the key until From
	Next   string    `json:"next"`   // of the key after
	From   time.Time `json:"from"`   // when Next comes into force
	Number int64     `json:"number"` // of Next
}

// RotateAgent has an agent take a new key.
func (c *Client) RotateAgent(ctx context.Context, id string) (AgentRotation, error) {
	return post[AgentRotation](ctx, c, "/v1/admin/agents/"+url.PathEscape(id)+"/rotate", nil)
}

// RotateRelay has the relay announce its next key.
func (c *Client) RotateRelay(ctx context.Context, q NewRelayKey) (RelayRotation, error) {
	return post[RelayRotation](ctx, c, "/v1/admin/relay/rotate", q)
}
