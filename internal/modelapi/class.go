package modelapi

// Action is what a request does, one word of the closed vocabulary that grants are written in.
type Action string

// The vocabulary. Connect is the one action of plain HTTP and TCP resources and stands in no table; Unknown is what no
// row matches, and is always denied.
const (
	Connect      Action = "connect"
	Chat         Action = "chat"
	Complete     Action = "complete"
	Embed        Action = "embed"
	Rerank       Action = "rerank"
	Transcribe   Action = "transcribe"
	Tokenize     Action = "tokenize"
	ListModels   Action = "list-models"
	InspectModel Action = "inspect-model"
	ManageModel  Action = "manage-model"
	Session      Action = "session"
	Tool         Action = "tool"
	Observe      Action = "observe"
	ServerAdmin  Action = "server-admin"
	Health       Action = "health"
	UI           Action = "ui"
	Unknown      Action = "unknown"
)

// Computes says whether a model works for the action: that takes a slot of the server's and costs tokens.
func (a Action) Computes() bool {
	switch a {
	case Chat, Complete, Embed, Rerank, Transcribe:
		return true
	}
	return false
}

// Generates says whether the answer is tokens of the model's own, whose number a request can bound.
func (a Action) Generates() bool { return a == Chat || a == Complete }

// UsesModel says whether the action makes a model, or its tokenizer, work. Elsewhere the words of a body mean other
// things than the body rules say, and the action itself is what is granted.
func (a Action) UsesModel() bool { return a.Computes() || a == Tokenize }

// SubSpeech is the sub-action that answers with sounds or images: their bytes are no text.
const SubSpeech = "speech"

// Protocol is the dialect a client expects errors in.
type Protocol string

// The dialects. LlamaCPP is OpenAI's error object with the status as its code, TGI what that server says outside /v1.
const (
	OpenAI    Protocol = "openai"
	Anthropic Protocol = "anthropic"
	Ollama    Protocol = "ollama"
	LlamaCPP  Protocol = "llamacpp"
	TGI       Protocol = "tgi"
)

// Framing is how the answer's body is cut into messages.
type Framing string

// The framings. None is an answer without messages of its own: no body, or one that is no JSON.
const (
	SSE    Framing = "sse"
	NDJSON Framing = "ndjson"
	JSON   Framing = "json"
	None   Framing = "none"
)

// Input is one request as it arrived. Path and Query are raw: the bytes of the request target, cut at the first "?".
type Input struct {
	Server          string // the model server's name; "" and "auto" mean the union of all that agree
	Method          string
	Path            string
	Query           string
	ContentType     string
	ContentEncoding string
	Body            []byte // whole; nil or empty when there is none
	// Only names the one model of a server that ignores the name in the request. If set, it is the model decided on
	// and the name written into the forwarded body.
	Only string
	// Aliases are other names for models, from the agent's configuration. A request that names one names its model.
	Aliases map[string]string
	// Also are models that a list tells of though the server which answered has them not: others behind the same
	// resource do.
	Also []string
	// Upgrade is the protocol that the request asks to change to ("websocket"); "" for none.
	Upgrade string
}

// Class is what a request is, and its canonical form.
type Class struct {
	Action    Action
	SubAction string
	Model     string   // canonical; "" if the request names none
	Models    []string // every model the request names, Model first; a decision must hold for each
	Egress    bool     // the prompt would leave for a service outside
	Stream    bool
	Protocol  Protocol
	Framing   Framing // of a successful answer
	MaxOutput int64   // tokens of output asked for; 0 not said, -1 without bound
	Route     string  // the table's path, parameters by name: "/v1/models/{model}"; "" for Unknown
	Target    string  // canonical path and kept query: what goes upstream
	Body      []byte  // canonical bytes; nil if there is none

	Alias   string   // the name the caller wrote, where Model came from one of the agent's aliases
	Also    []Action // what the body asks for besides Action: Tool, for tools the server would run itself
	Media   []string // kinds of input besides text, sorted: "audio", "file", "image", "video"
	Upgrade bool     // a WebSocket is asked for

	ContentType string // of Body; "" for application/json
	IDs         []ID   // what the request refers to that a server handed out before; all must be the caller's
	Hands       string // the kind of ID the answer hands out: "response", "session"; "" for none

	Choices     int64 // answers asked for: prompts times choices each; 1 where that has no meaning
	PromptBytes int64 // bytes of what the model would read, for an estimate of its tokens
	WantsUsage  bool  // the caller asked for the usage chunk of a stream
	HidesUsage  bool  // Rewrite asked for that chunk: it is taken out of the answer again
}

// ID is a name that a model server gave to something it keeps: it belongs to who was told it first.
type ID struct {
	Kind  string // IDResponse and its like
	Value string
}

// Error says why a request is refused, in a form that fits every dialect. Its code is stable.
type Error struct {
	Status  int
	Code    string
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }
