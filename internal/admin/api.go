package admin

import (
	"strings"
	"time"
)

// DiscoveryPath is where a relay publishes its Discovery document.
const DiscoveryPath = "/.well-known/iap-relay"

// JoinPath is where an agent enrols with a join token.
const JoinPath = "/v1/join"

// Discovery is what a client learns from a relay before it can log in. It
// holds nothing secret: PublicClientSecret is what some providers (Google)
// demand of clients that cannot keep a secret.
type Discovery struct {
	Relay          string            `json:"relay"`
	Version        string            `json:"version"`
	Protocols      []string          `json:"protocols"`
	ChannelBinding string            `json:"channel_binding"`       // exporter or nonce
	RelayKey       []byte            `json:"relay_key"`             // Ed25519
	RelayChain     [][]byte          `json:"relay_chain,omitempty"` // how the relay's keys name each other: internal/relaykey
	Issuers        []DiscoveryIssuer `json:"issuers"`               // those people log in at

	Relays []string `json:"relays,omitempty"` // addresses of the relays behind this name, where several share it

	RefreshSeconds     int64 `json:"refresh_seconds,omitempty"`       // renew a session in use this often; 0: an older relay
	MaxTokenAgeSeconds int64 `json:"max_token_age_seconds,omitempty"` // tokens issued longer ago are refused; 0: an older relay
}

// DiscoveryIssuer is one provider a person can log in at.
type DiscoveryIssuer struct {
	Name               string   `json:"name"`
	URL                string   `json:"url"`
	ClientID           string   `json:"client_id"`
	PublicClientSecret string   `json:"public_client_secret,omitempty"`
	Scopes             []string `json:"scopes"`
	Audience           string   `json:"audience,omitempty"` // asked for at the token endpoint where the provider needs it
	Token              string   `json:"token"`              // id_token or access_token: which one the relay wants
}

// Whoami is a principal as the relay sees it.
type Whoami struct {
	Principal     string              `json:"principal"` // issuer/subject
	Issuer        string              `json:"issuer"`
	IssuerURL     string              `json:"issuer_url"`
	Subject       string              `json:"subject"`
	Name          string              `json:"name,omitempty"`
	Email         string              `json:"email,omitempty"` // only when verified
	Groups        []string            `json:"groups"`
	GroupsUnknown bool                `json:"groups_unknown,omitempty"`
	Claims        map[string][]string `json:"claims,omitempty"`
	MFA           bool                `json:"mfa"`
	MFASource     string              `json:"mfa_source,omitempty"`
	AuthTime      *time.Time          `json:"auth_time,omitempty"`
	Binding       string              `json:"binding"`                 // nonce, first-use or none
	Admin         bool                `json:"admin"`                   // some verbs of the administration are given to it
	Verbs         []string            `json:"verbs,omitempty"`         // those that it may use now
	VerbsStepUp   []string            `json:"verbs_step_up,omitempty"` // those that a fresh login would add
	Session       SessionInfo         `json:"session"`
	Lines         []string            `json:"lines"` // to paste into grants.yaml
	Grants        int                 `json:"grants"`
}

// SessionInfo is one live session.
type SessionInfo struct {
	ID             string     `json:"id"`
	Role           string     `json:"role"` // user or agent
	Class          string     `json:"class"`
	Principal      string     `json:"principal,omitempty"`
	Agent          string     `json:"agent,omitempty"`
	Key            string     `json:"key"` // fingerprint of the key it belongs to
	Source         string     `json:"source"`
	Software       string     `json:"software,omitempty"`
	ChannelBinding string     `json:"channel_binding"`
	Started        time.Time  `json:"started"`
	Expires        *time.Time `json:"expires,omitempty"`
	Streams        int        `json:"streams"`
	Relay          string     `json:"relay,omitempty"` // instance that has it, where several share their state (administrators only)
}

// Resource is a resource as one principal may see it.
type Resource struct {
	Name    string            `json:"name"`
	Kind    string            `json:"kind"`
	Server  string            `json:"server,omitempty"` // model server behind it
	Labels  map[string]string `json:"labels,omitempty"`
	Online  bool              `json:"online"`
	Agents  int               `json:"agents"`
	Health  string            `json:"health,omitempty"` // ok, degraded, down or offline
	Load    *Load             `json:"load,omitempty"`   // while an agent is there
	Actions []string          `json:"actions"`
	Models  []string          `json:"models,omitempty"` // those the agent announced and the principal may use
	Grant   string            `json:"grant,omitempty"`
	// Aliases are other names of those models, by alias.
	Aliases map[string]string `json:"aliases,omitempty"`
	// Uses are the actions by the grant that decides on each, with its limits.
	Uses []Use `json:"uses,omitempty"`
	// Of a resource that only a fresh login would let the principal use: why, and which one.
	Reason  string  `json:"reason,omitempty"`
	Message string  `json:"message,omitempty"`
	StepUp  *StepUp `json:"step_up,omitempty"`
}

// Use is what one grant lets the principal do on a resource.
type Use struct {
	Grant   string   `json:"grant"`
	Actions []string `json:"actions"`
	Limits  []Limits `json:"limits,omitempty"`      // all hold at once
	KeyTTL  int64    `json:"key_seconds,omitempty"` // how long a key for these may live; 0: none may
	Record  bool     `json:"recorded,omitempty"`    // requests and answers are recorded for an auditor
}

// ResourceList answers GET /v1/resources.
type ResourceList struct {
	Resources []Resource `json:"resources"`
}

// Question asks POST /v1/policy/explain what the policy says of the caller, and
// POST /v1/admin/policy/explain what it says of somebody else.
type Question struct {
	Who      *Subject `json:"who,omitempty"` // left out, it is about the caller
	Resource string   `json:"resource"`
	Action   string   `json:"action,omitempty"` // empty: any
	Model    string   `json:"model,omitempty"`
	Egress   bool     `json:"egress,omitempty"`
	Media    []string `json:"media,omitempty"` // image, audio, video, file
	Via      string   `json:"via,omitempty"`   // tunnel (default), bearer or key
}

// Subject is somebody an administrator asks about. Where nothing but the principal
// is said, the relay takes what it knows by a live session.
type Subject struct {
	Principal string              `json:"principal,omitempty"` // issuer/subject; empty: somebody in the groups
	Groups    []string            `json:"groups,omitempty"`    // issuer/group
	Claims    map[string][]string `json:"claims,omitempty"`
	MFA       bool                `json:"mfa,omitempty"` // stated in the token
	ACR       string              `json:"acr,omitempty"`
	AuthAge   string              `json:"auth_age,omitempty"` // 1h; empty: nobody says when the login was
	Binding   string              `json:"binding,omitempty"`
}

// Target is what the record of the call names.
func (q Question) Target() string {
	if q.Who == nil {
		return ""
	}
	if q.Who.Principal == "" {
		return strings.Join(q.Who.Groups, " ")
	}
	return q.Who.Principal
}

// Described reports whether more than the principal is said.
func (s Subject) Described() bool {
	return len(s.Groups) > 0 || len(s.Claims) > 0 || s.MFA || s.ACR != "" || s.AuthAge != "" || s.Binding != ""
}

// Answer is the decision on a Question.
type Answer struct {
	Principal       string      `json:"principal"`
	MeantModel      string      `json:"meant_model,omitempty"` // decided on, where the question has an alias or another spelling of it
	Allow           bool        `json:"allow"`
	Reason          string      `json:"reason"`
	Message         string      `json:"message,omitempty"`
	Grant           string      `json:"grant,omitempty"`
	Group           string      `json:"group,omitempty"`     // by which the grant applies
	Closest         string      `json:"closest,omitempty"`   // of a denial: the grant that came closest
	Shortfall       string      `json:"shortfall,omitempty"` // and what it lacked, in words
	Revision        string      `json:"revision"`
	Priority        int         `json:"priority,omitempty"`
	Until           *time.Time  `json:"until,omitempty"`
	Record          bool        `json:"recorded,omitempty"`          // the request and its answer are recorded for an auditor
	Limits          []Limits    `json:"limits,omitempty"`            // all hold at once
	MaxOutputTokens int         `json:"max_output_tokens,omitempty"` // the least of those that are enforced
	StepUp          *StepUp     `json:"step_up,omitempty"`           // of a denial that a fresh login would change
	Considered      []GrantStep `json:"considered,omitempty"`        // grants that name the principal, in file order
}

// Limits is how much a grant allows.
type Limits struct {
	Requests        []string `json:"requests,omitempty"` // 60/1m
	Tokens          []string `json:"tokens,omitempty"`
	Concurrent      int      `json:"concurrent,omitempty"`
	MaxOutputTokens int      `json:"max_output_tokens,omitempty"`
	Per             string   `json:"per"`               // principal, group or grant
	Mode            string   `json:"mode"`              // enforce or warn
	Contact         string   `json:"contact,omitempty"` // whom to ask for more
	Text            string   `json:"text"`              // all of it for a person, in one line
}

// GrantStep says how one grant fared.
type GrantStep struct {
	Grant  string   `json:"grant"`
	Line   int      `json:"line"`
	Result string   `json:"result"`          // allowed, or the reason it did not
	Lacks  []string `json:"lacks,omitempty"` // each thing that keeps it from allowing, in words
}

// Status is the relay as its operator or a principal sees it.
type Status struct {
	Relay          string        `json:"relay"`
	Version        string        `json:"version"`
	Started        time.Time     `json:"started"`
	ChannelBinding string        `json:"channel_binding"`
	PolicyRevision string        `json:"policy_revision,omitempty"`
	Sessions       []SessionInfo `json:"sessions"`                // a principal sees its own; administrators the 500 oldest
	SessionCount   int           `json:"session_count,omitempty"` // of all (administrators only)
	Agents         int           `json:"agents"`
	Audit          string        `json:"audit,omitempty"`  // ok, or what is wrong (operator only)
	Relays         []RelayState  `json:"relays,omitempty"` // where several share their state (administrators only)
	Silent         []string      `json:"silent,omitempty"` // instances that did not answer
}

// RelayState is one of several relays that share their state.
type RelayState struct {
	Instance       string    `json:"instance"`
	Version        string    `json:"version"`
	Started        time.Time `json:"started"`
	PolicyRevision string    `json:"policy_revision"` // each has files of its own: they should be alike
	RelayKey       string    `json:"relay_key"`       // fingerprint; they should be alike
	Audit          string    `json:"audit"`           // ok, or what is wrong
	Sessions       int       `json:"sessions"`        // of users
	Streams        int       `json:"streams"`
	Agents         int       `json:"agents"` // online at it
}

// Agent is one enrolled agent.
type Agent struct {
	ID        string         `json:"id"`
	Name      string         `json:"name"`
	Key       string         `json:"key"`
	Enrolled  time.Time      `json:"enrolled"`
	Revoked   *time.Time     `json:"revoked,omitempty"`
	Online    bool           `json:"online"`
	Sessions  int            `json:"sessions"`
	Silent    []string       `json:"silent,omitempty"` // of one that is not online: instances of relays that did not answer and may have it
	Resources []JoinResource `json:"resources"`
}

// JoinResource is a resource a join token lets its agent serve.
type JoinResource struct {
	Name   string            `json:"name"`
	Kind   string            `json:"kind"`
	Labels map[string]string `json:"labels,omitempty"`
}

// NewJoinToken asks POST /v1/admin/agents/tokens for a single-use join token.
type NewJoinToken struct {
	Name      string         `json:"name"` // of the agent, for people
	Resources []JoinResource `json:"resources"`
	TTL       string         `json:"ttl,omitempty"`   // Go duration, default 10m
	Share     bool           `json:"share,omitempty"` // may serve names another agent serves already
}

// Target is what the record of the call names.
func (t NewJoinToken) Target() string { return t.Name }

// JoinTokenCreated is its answer. Token is shown once.
type JoinTokenCreated struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// JoinRequest is what an agent posts to JoinPath.
type JoinRequest struct {
	TokenID   string `json:"token_id"`
	Secret    []byte `json:"secret"`
	PublicKey []byte `json:"public_key"`
	Nonce     []byte `json:"nonce"`     // fresh, in what both sides sign
	Signature []byte `json:"signature"` // by the agent's key: it holds what it registers
}

// JoinReply is the relay's answer. Signature is by RelayKey, whose hash the
// agent compares with the one in its join token.
type JoinReply struct {
	AgentID    string         `json:"agent_id"`
	RelayKey   []byte         `json:"relay_key"`
	RelayChain [][]byte       `json:"relay_chain,omitempty"` // from the key whose hash the token has to RelayKey, where it is another by now
	Resources  []JoinResource `json:"resources"`
	Signature  []byte         `json:"signature"`
}

// NewKey asks POST /v1/keys for a key for a program.
type NewKey struct {
	Name      string   `json:"name"` // unique among the caller's keys
	Resources []string `json:"resources"`
	Actions   []string `json:"actions"`
	Models    []string `json:"models,omitempty"`      // empty: every model the grants allow
	TTL       int64    `json:"ttl_seconds,omitempty"` // 0: 30 days, or less where a grant allows less
}

// KeyCreated is its answer. Key is shown once.
type KeyCreated struct {
	Key
	Text string `json:"key"`
	URL  string `json:"url"` // of the front door; a resource's name follows
}

// Key is a key for a program.
type Key struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Owner     string     `json:"owner"` // principal
	Resources []string   `json:"resources"`
	Actions   []string   `json:"actions"`
	Models    []string   `json:"models,omitempty"`
	Created   time.Time  `json:"created"`
	Expires   time.Time  `json:"expires"`
	LastUsed  *time.Time `json:"last_used,omitempty"` // to the minute
	State     string     `json:"state"`               // good, expired, or asleep: its owner was not seen for too long
}

// Error is the body of every refusal of the API, and what Client returns.
type Error struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	// StepUp is what a fresh login would have to be for the answer to be another.
	StepUp *StepUp `json:"step_up,omitempty"`
}

// NoticeStepUp is the kind of a notice on the control stream of a session whose
// text is a StepUpNotice.
const NoticeStepUp = "step_up"

// StepUpNotice says that a request was denied which a fresh login would allow.
type StepUpNotice struct {
	Resource string `json:"resource"`
	Reason   string `json:"reason"`
	Message  string `json:"message"`
	StepUp   StepUp `json:"step_up"`
}

// StepUp is what a login must have that a grant asks for.
type StepUp struct {
	MFA     bool   `json:"mfa,omitempty"`             // a second factor
	ACR     string `json:"acr,omitempty"`             // acr_values: classes of which one will do, with spaces between
	MaxAge  int64  `json:"max_age_seconds,omitempty"` // since the login; 0: any
	Binding string `json:"binding,omitempty"`         // nonce: a login in a browser of this machine; "": any
}

func (e *Error) Error() string { return e.Message }
