package policy

// The closed vocabulary of actions. A request is classified as exactly one of
// them; what fits none is Unknown, which no grant can name and no policy is
// asked about.
const (
	ActionConnect      = "connect"       // open a tcp resource, or any request of a plain http resource
	ActionChat         = "chat"          // generate an answer to messages
	ActionComplete     = "complete"      // generate from a bare prompt
	ActionEmbed        = "embed"         // compute embeddings
	ActionRerank       = "rerank"        // order documents by relevance
	ActionTranscribe   = "transcribe"    // turn audio into text
	ActionTokenize     = "tokenize"      // tokens of a text and back
	ActionListModels   = "list-models"   // names of the models
	ActionInspectModel = "inspect-model" // template, parameters and metadata of a model
	ActionManageModel  = "manage-model"  // pull, create, copy, load, unload, delete
	ActionSession      = "session"       // state that a server keeps between requests
	ActionTool         = "tool"          // tools that run on the server
	ActionObserve      = "observe"       // metrics, slots, running requests
	ActionServerAdmin  = "server-admin"  // settings of the server itself
	ActionHealth       = "health"        // is it up
	ActionUI           = "ui"            // pages for a browser
	ActionUnknown      = "unknown"       // in no table: always denied
)

// ActionAny asks whether a principal may reach a resource (and a model, when
// the input names one) at all: any grant whose requirements hold answers it.
// It is a question of the relay, made when a stream opens; no request is ever
// classified as it and no grant may list it.
const ActionAny = "*"

// Actions lists every action a grant may name, in the order of the
// documentation.
func Actions() []string {
	return []string{
		ActionConnect, ActionChat, ActionComplete, ActionEmbed, ActionRerank, ActionTranscribe,
		ActionTokenize, ActionListModels, ActionInspectModel, ActionManageModel, ActionSession,
		ActionTool, ActionObserve, ActionServerAdmin, ActionHealth, ActionUI,
	}
}

// IsAction reports whether name is an action that a grant may list. Neither
// ActionAny nor ActionUnknown is one.
func IsAction(name string) bool {
	switch name {
	case ActionConnect, ActionChat, ActionComplete, ActionEmbed, ActionRerank, ActionTranscribe,
		ActionTokenize, ActionListModels, ActionInspectModel, ActionManageModel, ActionSession,
		ActionTool, ActionObserve, ActionServerAdmin, ActionHealth, ActionUI:
		return true
	}
	return false
}
