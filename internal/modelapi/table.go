package modelapi

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
)

// modelServers is the table of the servers' handlers, generalServers the one of servers nobody knows more about.
//
//go:embed data/model-apis.json
var modelServers []byte

//go:embed data/openai.json
var generalServers []byte

// Auto is the server's name when nobody knows it: the union of the routes on which all servers agree.
const Auto = "auto"

// Servers lists the names of the model servers whose routes are switched on.
func Servers() []string { return []string{"ollama", "llama.cpp", "openai"} }

// Table holds the routes of the model servers. It is immutable and safe for concurrent use.
type Table struct {
	servers map[string]*routes
}

// Default is the table of [Servers], built once.
func Default() *Table { return defaultTable() }

var defaultTable = sync.OnceValue(func() *Table {
	t, err := NewTable(Servers()...)
	if err != nil {
		panic("modelapi: the embedded table does not parse: " + err.Error()) // proven by a test
	}
	return t
})

// row is one handler as the data has it; what the table has no use for is left out.
type row struct {
	Server    string   `json:"server"`
	Method    []string `json:"method"`
	Path      string   `json:"path"`
	Aliases   []string `json:"aliases"`
	Action    string   `json:"action"`
	SubAction string   `json:"sub_action"`
	ModelIn   string   `json:"model_in"`
	Streams   bool     `json:"streams"`
	Default   bool     `json:"stream_default"`
	Framing   string   `json:"stream_framing"`
}

// routes are those of one server.
type routes struct {
	literal  map[string]*route // by "METHOD /path"
	patterns []*route
}

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
	needsModel  bool // the server answers nothing without a name
	emptyLoads  bool // without a prompt it loads or unloads the model
}

// NewTable builds the table of the named servers from the embedded data.
func NewTable(servers ...string) (*Table, error) {
	var rows []row
	for _, data := range [][]byte{modelServers, generalServers} {
		var some []row
		if err := json.Unmarshal(data, &some); err != nil {
			return nil, fmt.Errorf("parse table of routes: %w", err)
		}
		rows = append(rows, some...)
	}
	t := &Table{servers: make(map[string]*routes, len(servers)+1)}
	for _, name := range servers {
		t.servers[name] = &routes{literal: map[string]*route{}}
	}
	for _, r := range rows {
		if rs := t.servers[r.Server]; rs != nil {
			if err := rs.add(r); err != nil {
				return nil, fmt.Errorf("row %s %s of %s: %w", r.Method, r.Path, r.Server, err)
			}
		}
	}
	t.servers[Auto] = union(t.servers, servers)
	return t, nil
}

func (rs *routes) add(r row) error {
	for _, path := range append([]string{r.Path}, r.Aliases...) {
		if !strings.HasPrefix(path, "/") {
			continue // a path only the server's environment knows
		}
		for _, method := range r.Method {
			if method == "WEBSOCKET" {
				continue // no method of HTTP; the guard lets no upgrade pass
			}
			made, err := newRoute(r, method, path)
			if err != nil {
				return err
			}
			if made.pattern != nil {
				rs.patterns = append(rs.patterns, made)
				continue
			}
			key := method + " " + path
			if rs.literal[key] != nil {
				return fmt.Errorf("%s is there twice", key)
			}
			rs.literal[key] = made
		}
	}
	return nil
}

func newRoute(r row, method, path string) (*route, error) {
	where, err := parsePlace(r.ModelIn)
	if err != nil {
		return nil, err
	}
	action, err := parseAction(r, where)
	if err != nil {
		return nil, err
	}
	isOllama := r.Server == "ollama"
	made := &route{
		method: method, path: path, pattern: parsePattern(path),
		action: action, sub: r.SubAction, place: where,
		streams: r.Streams, streamByRule: r.Default,
		typed:       strings.Contains(r.Framing, "event:"),
		protocol:    routeProtocol(r, path),
		ollamaNames: isOllama,
		needsModel:  isOllama,
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
	if where == inDispatch || strings.Contains(r.SubAction, "dispatch") {
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

func routeProtocol(r row, path string) Protocol {
	switch {
	case r.Server == "llama.cpp" && !strings.HasPrefix(path, "/v1/"):
		return LlamaCPP
	case r.Server == "ollama" && !strings.HasPrefix(path, "/v1/"):
		return Ollama
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

// place is where a request names its model.
type place int

const (
	nowhere      place = iota
	inModel            // the body's "model"
	inModelName        // the body's "model", or else "name"
	inCreate           // as inModelName, and the body's "from"
	inCopy             // the body's "source" and "destination"
	inPath             // the path's only parameter
	inQuery            // the query's "model"
	inMultipart        // a field of a form
	inUpload           // nowhere: the body is a file
	inArray            // nowhere: the body is a JSON array
	inSlotAction       // nowhere: the query's "action" says what is done
	inDispatch         // in parts of the body, each for another handler
)

// parsePlace reads the data's prose. Longer beginnings stand before the shorter ones they contain.
func parsePlace(prose string) (place, error) {
	for _, known := range []struct {
		prefix string
		place  place
	}{
		{"none", nowhere},
		{"JSON model else name; also from", inCreate},
		{"JSON model else name", inModelName},
		{"JSON source + destination", inCopy},
		{"JSON model", inModel},
		{"JSON id (+model", inModel},
		{"JSON body is an array", inArray},
		{"path (conv_id", nowhere},
		{"path / ?conv_id", nowhere},
		{"path", inPath},
		{"query ?model=", inQuery},
		{"query ?action=", inSlotAction},
		{"multipart", inMultipart},
		{"instances[]", inDispatch},
	} {
		if strings.HasPrefix(prose, known.prefix) {
			return known.place, nil
		}
	}
	return 0, fmt.Errorf("unknown place of the model %q", prose)
}
