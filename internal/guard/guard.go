package guard

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"iap/internal/modelapi"
)

// The kinds of resources the guard serves.
const (
	KindModel = modelapi.KindModel
	KindHTTP  = modelapi.KindHTTP
)

// ActionReach asks whether the caller may reach the resource, or a model on it, with any action at all.
const ActionReach = "*"

// Resource is a named upstream.
type Resource struct {
	Name   string
	Kind   string // KindModel or KindHTTP
	Server string // kind model: "ollama", "llama.cpp", "openai"; "" or "auto" if nobody knows
	// Only is the one model of a server that ignores the name in a request; "" for servers that choose by name.
	Only   string
	Labels map[string]string
	// Aliases are other names for models, as the agents announce them.
	Aliases map[string]string
	// Models are those the agents say the server has, in their order; they are told to callers who may use them.
	Models []string
	// Several servers serve it: a list of models tells of Models, not only of those of the server that answered.
	Several bool
}

// Caller is who sends the requests of one handler.
type Caller struct {
	Principal string // issuer alias and subject
	Session   string
	Source    string     // network address
	Via       string     // "tunnel", "bearer", "key" or "local"
	Local     *LocalRule // set when requests come through a listener on the user's machine
	// Prefix is the raw path the resource is mounted under ("" in a tunnel, "/r/phi3" at the front door); it is cut
	// from the request target byte by byte.
	Prefix string
	// Identity sets the headers that tell the upstream who calls. It runs after every header of the caller's that
	// could be mistaken for one is gone. Nil sets none.
	Identity func(h http.Header, r Resource)
	Value    any // the mounting side's own
}

// atDoor says whether the caller came to the front door, whose origin is the mounting side's own.
func (c *Caller) atDoor() bool { return c.Via == "bearer" || c.Via == "key" }

// LocalRule is what a listener on the user's machine accepts beyond requests of local programs to a loopback name.
type LocalRule struct {
	AllowOrigins []string // "https://app.example", exact
	AllowHosts   []string // "host" or "host:port", exact
	KeyHash      []byte   // SHA-256 of the key every request must carry; nil: none needed
}

// Question is what Decide answers.
type Question struct {
	Resource Resource
	Caller   *Caller
	Action   string // a modelapi.Action, or ActionReach
	Model    string // canonical; "" if the request names none
	Method   string
	Path     string
	Egress   bool
	Media    []string // kinds of input besides text; sorted
}

// Decision is the answer to a Question. The zero value denies.
type Decision struct {
	Allow           bool
	Reason          string // stable code
	Message         string // for a person
	Grant           string
	Revision        string
	Priority        int
	MaxOutputTokens int       // of each answer; 0: no bound
	TokenLimited    bool      // the grant counts tokens and refuses what is too much
	Until           time.Time // when the question must be asked again; zero: never
	StepUp          *StepUp   // of a denial that a fresh login could cure; else nil
	Record          bool      // the request and its answer are kept for an auditor, or do not pass
	Lost            bool      // of a denial: the caller itself lost its right, and Reason is what ends its answers
	Value           any       // the mounting side's own; Reserve gets it back
}

// StepUp is what a login must have for the request to be allowed.
type StepUp struct {
	MFA     bool
	ACR     string        // values of acr, of which one will do, separated by spaces
	MaxAge  time.Duration // since the login; 0: any
	Binding string
}

// Request is what Forward sends: the canonical form, and nothing else.
type Request struct {
	ID       string
	Resource Resource
	Caller   *Caller
	Class    modelapi.Class
	Decision Decision
	Method   string
	Target   string // path and query, origin-form
	Header   http.Header
	Agent    string // the one that must serve it, since the ids in it are its; "" for any
	// Body is the whole body for kind model; Stream the body for kind http, nil if there is none.
	Body          []byte
	Stream        io.Reader
	ContentLength int64 // -1: unknown
}

// Response is an upstream's answer. To a request of Class.Upgrade with status 101 the Body is an io.ReadWriteCloser. The
// guard closes Body exactly when it is done or the context ended, possibly while a Read is running; closing before
// io.EOF cancels the work upstream. Reads of Request.Stream fail from the handler's end on, so whoever reads it needs no
// other end. A Read error should be an *UpstreamError; any other counts as "upstream_reset".
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser
	Agent  string
	Tried  []string // agent and code of each that was asked before and sent nothing
	// Ended is asked once Body has come to io.EOF: the code of an error that the agent, not the model server, put into
	// the answer; "" for none. May be nil.
	Ended func() string
}

// UpstreamError is how Forward and Response.Body report that the other side failed.
type UpstreamError struct {
	Code       string // "agent_offline", "upstream_unreachable", "upstream_reset", "agent_lost", …
	Status     int    // answered to the caller if nothing was sent yet; 0: 502
	Message    string
	RetryAfter time.Duration
	Agent      string // the one it is about, if one was asked
	// NotSent says that no byte of the request can have reached a model server.
	NotSent bool
	Tried   []string // agent and code of each that was asked before another
	Err     error
}

func (e *UpstreamError) Error() string { return e.Code + ": " + e.Message }
func (e *UpstreamError) Unwrap() error { return e.Err }

// Ended, as the cause of a request's context, says that the caller lost its right while the answer was running.
type Ended struct {
	Code    string // "revoked", "policy_changed", "session_expired", …
	Message string
}

func (e *Ended) Error() string { return e.Code + ": " + e.Message }

// Limited is an error of Reserve and of Reservation.Use: the caller is within its rights and over its limit.
type Limited struct {
	Code       string
	Message    string
	RetryAfter time.Duration
	Header     http.Header // x-ratelimit-…, added to the answer
}

func (e *Limited) Error() string { return e.Code + ": " + e.Message }

// Ask is what Reserve sets something aside for. Input and Output are tokens; both are 0 for a request that has none.
type Ask struct {
	Question Question
	Decision Decision   // the first one
	Also     []Decision // those of other grants, for further models and actions: their limits hold too
	Input    int64      // estimated
	Output   int64      // of all answers together
	Choices  int64      // answers; at least 1
	Unstated bool       // Output is our word, not the caller's: less is fine
}

// Reservation is what Reserve set aside. Settle or Release is called, once, at the end.
type Reservation interface {
	Output() int64           // tokens of output set aside for all answers together; -1: without bound
	Header(http.Header)      // sets x-ratelimit-…
	Use(in, out int64) error // tokens so far; a *Limited cuts the answer. It is called for each piece of an answer
	Settle(outcome Event)    // the request went upstream and ended so
	Release()                // nothing was sent upstream
}

// Owner is whose an id is that a model server handed out.
type Owner struct {
	Resource string
	Agent    string
	Caller   *Caller
}

// ErrNotOwner says that an id is not the caller's, or not known: no caller learns which.
var ErrNotOwner = errors.New("the id is not the caller's")

// Guard enforces. Its exported fields are set before the first Handler is built and not changed afterwards; Decide,
// Forward, Record and NewID are required. All are called from many goroutines at once.
type Guard struct {
	Decide  func(context.Context, Question) Decision
	Reserve func(context.Context, Ask) (Reservation, error) // nil: no limits
	Forward func(context.Context, *Request) (*Response, error)
	Record  func(context.Context, Event) error
	NewID   func() string
	// Keep writes a request down whose decision demands it, and says what its record should hold of that, before the
	// request goes on. Nil: nothing can be written down, and what must be is refused.
	Keep func(*Request) (keeping Keeping, mark string, err error)
	// Own notes whose an id is before the caller sees it; ErrNotOwner if it is somebody else's. Owned returns the agent
	// of an id that is the caller's, or ErrNotOwner. Nil: no id is handed out, none is known.
	Own   func(context.Context, Owner, modelapi.ID) error
	Owned func(context.Context, Resource, *Caller, modelapi.ID) (agent string, err error)
	// Salt is the cache_salt of a caller: the same for all its requests, nobody else's, and not to be guessed. Nil: none.
	Salt   func(*Caller) string
	Table  *modelapi.Table  // nil: modelapi.Default()
	Logger *slog.Logger     // nil: silent
	Now    func() time.Time // nil: time.Now
	Limits Limits

	buffered     memory    // of request bodies and lists, bounded by Limits.Buffered
	largeBuffers sync.Pool // *[largeBuffer]byte
	smallBuffers sync.Pool // *[smallBuffer]byte
	live         live
}

// Handler serves one resource to one caller. It is cheap to build.
func (g *Guard) Handler(res Resource, caller *Caller) http.Handler {
	return &handler{guard: g, resource: res, caller: caller}
}

// End ends every running answer of the callers named by whose, with why as the last word. Decide must deny them from
// before the call on: what is between its decision and its answer asks again.
func (g *Guard) End(whose func(*Caller) bool, why *Ended) { g.live.end(whose, why) }

// Recheck asks Decide anew for every request whose answer is running, or those of the callers named by whose, and ends
// the ones no longer allowed, with code or, if the caller itself lost its right, with the denial's own. Call it when the
// policy or the rights of somebody changed. If ctx ends first nothing more
// is asked and nothing ended.
func (g *Guard) Recheck(ctx context.Context, code string, whose func(*Caller) bool) {
	g.live.recheck(ctx, code, whose)
}

func (g *Guard) now() time.Time {
	if g.Now != nil {
		return g.Now()
	}
	return time.Now()
}

func (g *Guard) table() *modelapi.Table {
	if g.Table != nil {
		return g.Table
	}
	return modelapi.Default()
}

func (g *Guard) logger() *slog.Logger {
	if g.Logger != nil {
		return g.Logger
	}
	return slog.New(slog.DiscardHandler)
}
