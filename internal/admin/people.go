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
	Next     string        `json:"next,omitempty"`   // there are more: ask again with this cursor
	Silent   []string      `json:"silent,omitempty"` // instances of relays that did not answer: their sessions are not listed
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
	Next       string          `json:"next,omitempty"`   // there are more: ask again with this cursor
	Silent     []string        `json:"silent,omitempty"` // instances of relays that did not tell of all their sessions
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
	At     time.Time `json:"at,omitzero"` // zero: the relay's database, which knows, is away
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

// SessionAct ends the session with an id, and the others of its login.
type SessionAct struct {
	ID     string `json:"-" path:"id"`
	Reason string `json:"reason,omitempty"` // for the record, one line
}

// Target is what the record of the call names.
func (q SessionAct) Target() string { return q.ID }

// Why is what the record of the call gives as its reason.
func (q SessionAct) Why() string { return q.Reason }

// KillQuestion ends every session of a principal or of an agent; one of them is
// set.
type KillQuestion struct {
	Principal string `json:"principal,omitempty"` // issuer/subject
	Agent     string `json:"agent,omitempty"`     // id
	Reason    string `json:"reason,omitempty"`    // for the record, one line
}

// Target is what the record of the call names.
func (q KillQuestion) Target() string { return q.Principal + q.Agent }

// Why is what the record of the call gives as its reason.
func (q KillQuestion) Why() string { return q.Reason }

// Ended is how much ended with a right that was taken away.
type Ended struct {
	Sessions int `json:"sessions"`
	Streams  int `json:"streams"` // that ran in those sessions
	Keys     int `json:"keys"`    // for programs
	// Silent are instances of relays that did not answer: they do the same as soon
	// as they hear of it, or have died.
	Silent []string `json:"silent,omitempty"`
}

// Sessions lists live sessions.
func (c *Client) Sessions(ctx context.Context, q SessionQuestion) (SessionList, error) {
	return ask[SessionList](ctx, c, "/v1/admin/sessions", q)
}

// KillSession ends a session and refuses its key until a new login.
func (c *Client) KillSession(ctx context.Context, id, reason string) (Ended, error) {
	return post[Ended](ctx, c, "/v1/admin/sessions/"+url.PathEscape(id)+"/kill", SessionAct{Reason: reason})
}

// KillSessions ends every session of somebody. A person needs a new login; an
// agent may come back at once.
func (c *Client) KillSessions(ctx context.Context, q KillQuestion) (Ended, error) {
	return post[Ended](ctx, c, "/v1/admin/sessions/kill", q)
}

// Principals lists who is known.
func (c *Client) Principals(ctx context.Context, q PrincipalQuestion) (PrincipalList, error) {
	return ask[PrincipalList](ctx, c, "/v1/admin/principals", q)
}

// RevokePrincipal refuses every key and token of the principal until
// RestorePrincipal, and ends its sessions.
func (c *Client) RevokePrincipal(ctx context.Context, id, reason string) (Ended, error) {
	return post[Ended](ctx, c, "/v1/admin/principals/"+url.PathEscape(id)+"/revoke", PrincipalAct{Reason: reason})
}

// RestorePrincipal takes a revocation back.
func (c *Client) RestorePrincipal(ctx context.Context, id, reason string) error {
	_, err := post[Done](ctx, c, "/v1/admin/principals/"+url.PathEscape(id)+"/restore", PrincipalAct{Reason: reason})
	return err
}
