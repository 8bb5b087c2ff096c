package tunnel

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"time"
)

const (
	// Protocol is the token of the HTTP Upgrade header.
	Protocol = "iap-tunnel/1"
	// Path is the request target of the upgrade.
	Path = "/tunnel"
)

// A Role is what a client of the relay is.
type Role string

// The roles.
const (
	RoleUser  Role = "user"  // proves a key and a token
	RoleAgent Role = "agent" // proves a key that was enrolled
)

// A Class keeps tokens and bulk on connections of their own: one full send queue would hold up every answer.
type Class string

// The classes.
const (
	Interactive Class = "interactive" // small windows, many streams
	Bulk        Class = "bulk"        // large windows, few streams
)

// A Binding says what ties the proof of a key to its connection.
type Binding string

// The bindings, strongest first.
const (
	BindingExporter Binding = "exporter" // the TLS exporter: a proof is worth nothing on any other connection
	BindingNonce    Binding = "nonce"    // the relay's nonce only: whatever ends TLS before the relay is trusted
)

// Windows are the receive windows granted to each stream, by the session's class. Zero means the default, and less
// than 256 KiB means 256 KiB: yamux grants so much in any case.
type Windows struct {
	Interactive uint32 // default 256 KiB
	Bulk        uint32 // default 4 MiB, which is also the most
}

// A ClientConfig is what a client, user or agent, needs to begin a session.
type ClientConfig struct {
	Role    Role
	Class   Class  // default Interactive
	Relay   string // the relay's name as the user dialled it; signed
	AgentID string // agents only
	Version string // software version, informative

	// Token gives the compact JWS to present. Users only.
	Token func(ctx context.Context) (string, error)
	// Key is the session key of a user or the enrolled key of an agent.
	Key ed25519.PrivateKey
	// CheckRelay judges the relay's long-term key (a pin). Nil accepts any: TLS alone names the relay then. chain is what
	// the relay shows of how its keys name each other: anybody's bytes, worth what is signed in them. The relay has not
	// proven pub yet: nothing may be kept.
	CheckRelay func(pub ed25519.PublicKey, chain [][]byte) error
	// OnRelayKeys is told the same once pub is proven, in Connect, and again when the relay shows more in the session.
	OnRelayKeys func(pub ed25519.PublicKey, chain [][]byte)
	// OnRotate makes a new key and calls Session.Rotate, because the relay asks for it. Agents only; nil refuses.
	OnRotate func(ctx context.Context, s *Session) error
	// OnCheckpoint keeps what the relay shows of its audit log. Agents only; nil leaves the relay without an answer.
	OnCheckpoint func(Checkpoint) Witnessed
	// MinBinding refuses a relay whose channel binding is weaker. Empty accepts both.
	MinBinding Binding
	// Announce is sent first on the control stream. Agents only.
	Announce []Announcement
	// MaxStreams caps the streams the relay may have open at once. Default: agents as in ServerConfig, users none.
	MaxStreams int
	Windows    Windows
	Logger     *slog.Logger // nil is silent
	// OnNotice receives what the relay has to say. It runs on the control stream's reader and must not block.
	OnNotice func(Notice)
}

// An Announcement offers one resource of an agent.
type Announcement struct {
	Resource string            `json:"resource"`
	Kind     string            `json:"kind"`
	Server   string            `json:"server,omitzero"`   // the kind of model server
	Models   []string          `json:"models,omitempty"`  // as the server names them
	Aliases  map[string]string `json:"aliases,omitempty"` // other names for models: name → model
	Healthy  bool              `json:"healthy"`
	Reason   string            `json:"reason,omitzero"`   // why not, in a word
	Capacity int               `json:"capacity,omitzero"` // generations at once; 0: the agent sets no bound
	Labels   map[string]string `json:"labels,omitempty"`
}

// A Notice is a message to the person or the log at the other end.
type Notice struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// A ServerConfig is how a relay accepts sessions. All funcs may be called concurrently, for different sessions.
type ServerConfig struct {
	Key     ed25519.PrivateKey // the relay's long-term key; signs each welcome
	Binding Binding            // default BindingExporter; never negotiated
	Names   []string           // relay names accepted in Hello.Relay, without regard to case; a port counts only if it stands here. None accepts nobody

	// Authenticate decides before the key is proven and must not change any state. It returns who the peer would be.
	Authenticate func(ctx context.Context, hello Hello) (Peer, error)
	// Bind runs after the key was proven: first-use binding, registration. It may refine the Peer. Nil keeps it.
	Bind func(ctx context.Context, hello Hello, peer Peer) (Peer, error)
	// Refresh judges a new token whose proof of possession already held, and says until when the session lives. Users only.
	Refresh func(ctx context.Context, s *Session, token string) (expires time.Time, err error)
	// OnWithdraw hears that a user gives the session up, and why. It may run before Accept returned and must not block for long.
	OnWithdraw func(s *Session, why Code)
	// Chain is shown to clients: how the relay's keys name each other, in an encoding of the caller's.
	Chain [][]byte
	// Rotate stores the next key of an agent, which was proven along with the one that opened the session. Nil refuses.
	Rotate func(ctx context.Context, s *Session, next ed25519.PublicKey) error
	// OnAnnounce takes an agent's list, before Announced shows it. It may run before Accept returned, never twice at once
	// for one session, and must not block for long.
	OnAnnounce func(s *Session, list []Announcement) error
	// CheckAnnounce judges a list that an agent only asks about. Nil refuses.
	CheckAnnounce func(s *Session, list []Announcement) error
	// OnLoad takes what an agent says it works on. It runs on the control stream's reader and must not block. Nil passes
	// over it.
	OnLoad func(s *Session, list []Load)

	// MaxStreams caps the peer's open streams on a session: 1,024 interactive, 128 bulk by default. Beyond it
	// streams are reset with CodeTooManyStreams. A stream counts until its handler returned.
	MaxStreams int
	Windows    Windows
	Logger     *slog.Logger // nil is silent
}

// A Peer is who Authenticate found.
type Peer struct {
	Token     any       // the relay's own value
	Name      string    // for logs
	Expires   time.Time // zero: never
	TokenHash []byte    // SHA-256 of the verified payload; empty for agents
}
