package modelapi

import (
	"fmt"
	"slices"
	"strings"
)

// route is one method and path of one server, or of several that agree on it.
type route struct {
	method, path string
	pattern      *pattern // nil: path is literal
	action       Action
	sub          string
	place        place
	streams      bool
	streamByRule bool // streams unless the request says no
	framing      Framing
	typed        bool // events carry a name beside their data
	protocol     Protocol

	ollamaNames bool // names are Ollama's to spell
	ignoresName bool // the server runs its one model whatever it is called
	emptyLoads  bool // without a prompt it loads or unloads the model
}

func newRoute(r row, method, path string) (*route, error) {
	where, err := parsePlace(r.ModelIn)
	if err != nil {
		return nil, err
	}
	if pattern := parsePattern(path); pattern != nil && pattern.wild && r.Action != "ui" {
		r.Action, r.SubAction = "unknown", "" // whatever lies below: nobody has read it
	}
	action, err := parseAction(r, where)
	if err != nil {
		return nil, err
	}
	isOllama := r.Server == ServerOllama
	made := &route{
		method: method, path: path, pattern: parsePattern(path),
		action: action, sub: r.SubAction, place: where,
		streams: r.Streams, streamByRule: r.Default,
		typed:       strings.Contains(r.Framing, "event:"),
		protocol:    routeProtocol(r, path),
		ollamaNames: isOllama,
		ignoresName: ignoresNames(r.Server),
		emptyLoads:  isOllama && (action == Chat || action == Complete),
	}
	if made.framing, err = parseFraming(r); err != nil {
		return nil, err
	}
	return made, nil
}

// parseAction reads the data's word. A handler that hands the request on to other handlers, by what its body says,
// has no action of its own: it would defeat every rule about paths.
func parseAction(r row, where place) (Action, error) {
	if where == inDispatch || strings.Contains(r.SubAction, "dispatch") || r.Action == "unknown" {
		return Unknown, nil
	}
	if r.Action == "admin" {
		return ServerAdmin, nil
	}
	known := []Action{
		Chat, Complete, Embed, Rerank, Transcribe, Tokenize, ListModels, InspectModel, ManageModel, Session, Tool,
		Observe, Health, UI,
	}
	if a := Action(r.Action); slices.Contains(known, a) {
		return a, nil
	}
	return "", fmt.Errorf("unknown action %q", r.Action)
}

func parseFraming(r row) (Framing, error) {
	switch {
	case !r.Streams && (r.Action == "health" || r.Action == "ui"), strings.HasPrefix(r.Framing, "websocket"):
		return None, nil
	case !r.Streams:
		return JSON, nil
	case strings.HasPrefix(r.Framing, "SSE"), r.Framing == "as upstream":
		return SSE, nil
	case strings.HasPrefix(r.Framing, "NDJSON"):
		return NDJSON, nil
	}
	return "", fmt.Errorf("unknown framing %q", r.Framing)
}

// routeProtocol is the dialect of a route's own clients: what stands below /v1 speaks as its inventors do everywhere.
func routeProtocol(r row, path string) Protocol {
	if strings.HasPrefix(path, "/v1/") {
		return ProtocolOf(path)
	}
	switch {
	case r.Server == ServerLlamaCPP, r.Server == ServerLlamaSwap && (path == "/completion" || path == "/infill"):
		return LlamaCPP
	case r.Server == ServerOllama:
		return Ollama
	case r.Server == ServerTGI:
		return TGI
	}
	return ProtocolOf(path)
}

// ProtocolOf guesses the dialect of a client from the path alone, for answers given before or without a table.
func ProtocolOf(path string) Protocol {
	switch {
	case path == "/v1/messages" || strings.HasPrefix(path, "/v1/messages/"):
		return Anthropic
	case strings.HasPrefix(path, "/api/"):
		return Ollama
	}
	return OpenAI
}
