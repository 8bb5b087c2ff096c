package admin

import (
	"context"
	"net/url"
	"time"
)

// SessionQuestion asks GET /v1/admin/sessions for some of the live sessions: those
// for which everything holds that is not left out.
type SessionQuestion struct {
	Principal string `json:"principal,omitempty"` // issuer/subject
	Agent     string `json:"agent,omitempty"`     // id
	Role      string `json:"role,omitempty"`      // user or agent
	Key       string `json:"key,omitempty"`       // fingerprint
	Limit     int    `json:"limit,omitempty"`     // of one answer; 0: 500
	Cursor    string `json:"cursor,omitempty"`    // the Next of the answer before
}

// SessionList is its answer, oldest first.
type SessionList struct {
	Sessions []SessionInfo `json:"sessions"`
	Next     string        `json:"next,omitempty"` // there are more: ask again with this cursor
}

// PrincipalQuestion asks GET /v1/admin/principals.
type PrincipalQuestion struct {
	Principal string `json:"principal,omitempty"` // issuer/subject: this one alone
	State     string `json:"state,omitempty"`     // live or revoked
	Limit     int    `json:"limit,omitempty"`     // of one answer; 0: 500
	Cursor    string `json:"cursor,omitempty"`    // the Next of the answer before
}

// PrincipalList is its answer, in the order of their names.
type PrincipalList struct {
	Principals []PrincipalInfo `json:"principals"`
	Next       string          `json:"next,omitempty"` // there are more: ask again with this cursor
}

// PrincipalInfo is a principal the relay knows: it has sessions or keys for
// programs, or it is revoked.
type PrincipalInfo struct {
	Principal string          `json:"principal"` // issuer/subject
	Name      string          `json:"name,omitempty"`
	Workload  bool            `json:"workload,omitempty"`
	Sessions  int             `json:"sessions"`
	Keys      int             `json:"keys"` // keys for programs
	LastSeen  *time.Time      `json:"last_seen,omitempty"`
	Revoked   *RevocationInfo `json:"revoked,omitempty"`
}

// RevocationInfo says since when a principal is refused.
type RevocationInfo struct {
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
	Reason string    `json:"reason,omitempty"`
}

// PrincipalAct revokes or restores a principal.
type PrincipalAct struct {
	ID     string `json:"-" path:"id"`      // issuer/subject
	Reason string `json:"reason,omitempty"` // for the record, one line
}

// Target is what the record of the call names.
func (q PrincipalAct) Target() string { return q.ID }

// Why is what the record of the call gives as its reason.
func (q PrincipalAct) Why() string { return q.Reason }

// Sessions lists live sessions.
func (c *Client) Sessions(ctx context.Context, q SessionQuestion) (SessionList, error) {
	return ask[SessionList](ctx, c, "/v1/admin/sessions", q)
}

// KillSession ends a session and refuses its key until a new login.
func (c *Client) KillSession(ctx context.Context, id string) error {
	_, err := post[Done](ctx, c, "/v1/admin/sessions/"+url.PathEscape(id)+"/kill", nil)
	return err
}

// Principals lists who is known.
func (c *Client) Principals(ctx context.Context, q PrincipalQuestion) (PrincipalList, error) {
	return ask[PrincipalList](ctx, c, "/v1/admin/principals", q)
}

// RevokePrincipal refuses every key and token of the principal until
// RestorePrincipal, and ends its sessions.
func (c *Client) RevokePrincipal(ctx context.Context, id, reason string) error {
	_, err := post[Done](ctx, c, "/v1/admin/principals/"+url.PathEscape(id)+"/revoke", PrincipalAct{Reason: reason})
	return err
}

// RestorePrincipal takes a revocation back.
func (c *Client) RestorePrincipal(ctx context.Context, id, reason string) error {
	_, err := post[Done](ctx, c, "/v1/admin/principals/"+url.PathEscape(id)+"/restore", PrincipalAct{Reason: reason})
	return err
}
