package modelapi

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
)

// modelServers is the table of the servers' handlers, generalServers the one of servers nobody knows more about,
// knownCorrections what is wrong or missing in single rows of the first.
//
//go:embed data/model-apis.json
var modelServers []byte

//go:embed data/openai.json
var generalServers []byte

//go:embed data/corrections.json
var knownCorrections []byte

// Auto is the server's name when nobody knows it: the union of the routes on which all servers agree.
const Auto = "auto"

// Servers lists the names of the model servers whose routes are switched on.
func Servers() []string {
	return []string{
		ServerOllama, ServerLlamaCPP, ServerVLLM, ServerSGLang, ServerTGI, ServerLlamaSwap, ServerOpenAI,
	}
}

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
	corrections, err := readCorrections()
	if err != nil {
		return nil, err
	}
	t := &Table{servers: make(map[string]*routes, len(servers)+1)}
	for _, name := range servers {
		t.servers[name] = &routes{literal: map[string]*route{}}
	}
	for _, r := range rows {
		if rs := t.servers[r.Server]; rs != nil {
			if err := rs.add(r, corrections); err != nil {
				return nil, fmt.Errorf("row %s %s of %s: %w", r.Method, r.Path, r.Server, err)
			}
		}
	}
	t.servers[Auto] = union(t.servers, servers)
	return t, nil
}

// add makes a route of each method and path of a row. Rows with a path that only the server's environment knows, or for
// any method, make none: what they match stays unknown.
func (rs *routes) add(r row, corrections corrections) error {
	for _, path := range append([]string{r.Path}, r.Aliases...) {
		if !strings.HasPrefix(path, "/") {
			continue
		}
		for _, method := range r.Method {
			if method == "*" {
				continue
			}
			made, err := newRoute(corrections.apply(r, method, path), method, path)
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

// find returns the route of a method and path, and the path's parameters; nil if there is none.
func (rs *routes) find(method, path string) (*route, map[string]string) {
	if r := rs.literal[method+" "+path]; r != nil {
		return r, nil
	}
	var found *route
	var values map[string]string
	for _, r := range rs.patterns {
		if r.method != method {
			continue
		}
		v, ok := r.pattern.match(path)
		if !ok {
			continue
		}
		if found == nil {
			found, values = r, v
			continue
		}
		merged := agree(found, r)
		// Of two patterns the one that takes fewer paths has the names of the parameters.
		if found.pattern.open && !r.pattern.open {
			merged.pattern, merged.path, values = r.pattern, r.path, v
		}
		found = merged
	}
	return found, values
}

// routesOf returns a server's routes; nil if they are not switched on.
func (t *Table) routesOf(server string) *routes {
	if server == "" {
		server = Auto
	}
	return t.servers[server]
}
