package modelapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

// testRows are the rows of the embedded data, read without the package's own reading of it.
func testRows(t testing.TB) []row {
	t.Helper()
	var all []row
	for _, data := range [][]byte{modelServers, generalServers} {
		var some []row
		if err := json.Unmarshal(data, &some); err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

// concrete replaces the parameters of a route's path.
func concrete(path string) string {
	parts := strings.Split(path, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, ":") || strings.HasPrefix(part, "{") || part == "*" {
			parts[i] = "phi3:latest"
		}
	}
	return strings.Join(parts, "/")
}

// plainRequest is a plain request for a row.
func plainRequest(r row, method, path string) Input {
	in := Input{Server: r.Server, Method: method, Path: concrete(path), ContentType: "application/json"}
	if r.Server == "sglang" || r.Server == "tgi" {
		in.Only = "phi3:latest"
	}
	if path == "/v1/stream" {
		in.Query = "conv_id=1"
	}
	switch {
	case method == "WEBSOCKET":
		in.Method, in.Upgrade, in.ContentType, in.Only = "GET", "websocket", "", "phi3:latest"
	case method == "GET" || method == "HEAD":
		in.ContentType = ""
	case strings.HasPrefix(r.ModelIn, "multipart"):
		in.ContentType = "multipart/form-data; boundary=x"
		in.Body = testForm("x", textPart("model", "phi3:latest"), soundPart)
	case strings.HasPrefix(r.ModelIn, "JSON source"):
		in.Body = []byte(`{"source":"phi3:latest","destination":"phi4:latest"}`)
	case strings.HasPrefix(r.ModelIn, "JSON body is an array"):
		in.Body = []byte(`[{"id":0,"scale":0.5}]`)
	case strings.HasPrefix(r.ModelIn, "JSON lora_name"):
		in.Body = []byte(`{"lora_name":"legal","lora_path":"org/legal"}`)
	case strings.HasPrefix(r.ModelIn, "JSON"):
		in.Body = []byte(`{"model":"phi3:latest","id":"chatcmpl-1","prompt":"p","input":"i","messages":[{"role":"user","content":"c"}]}`)
	case r.Action == "session" && r.SubAction != "open":
		in.Body = []byte(`{"rid":"1","session_id":"2"}`)
	case r.Action != "manage-model":
		in.Body = []byte(`{"text":"t","inputs":"i"}`)
	}
	return in
}

// testCorrections are the known corrections, read without the package's own reading of them.
func testCorrections(t testing.TB) map[string]map[string]any {
	t.Helper()
	var all []map[string]any
	if err := json.Unmarshal(knownCorrections, &all); err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]any{}
	for _, c := range all {
		if c["reason"] == "" {
			t.Errorf("%v has no reason", c)
		}
		out[c["server"].(string)+" "+c["path"].(string)] = c
	}
	return out
}

// corrected is what holds of a row at one of its paths.
func corrected(r row, path string, all map[string]map[string]any, used map[string]bool) row {
	c := all[r.Server+" "+path]
	if c == nil {
		return r
	}
	used[r.Server+" "+path] = true
	if action, ok := c["action"].(string); ok {
		r.Action, r.SubAction = action, c["sub_action"].(string)
	}
	if where, ok := c["model_in"].(string); ok {
		r.ModelIn = where
	}
	return r
}

func TestEveryRowIsClassifiedAsTheDataSays(t *testing.T) {
	table, corrections, used := Default(), testCorrections(t), map[string]bool{}
	seen := map[string]int{}
	for _, r := range testRows(t) {
		for _, path := range append([]string{r.Path}, r.Aliases...) {
			for _, method := range r.Method {
				seen[r.Server]++
				checkRow(t, table, corrected(r, path, corrections, used), method, path)
			}
		}
	}
	for server, least := range map[string]int{
		"ollama": 34, "llama.cpp": 57, "vllm": 71, "sglang": 110, "tgi": 25, "llama-swap": 35, "openai": 14,
	} {
		if seen[server] < least || !slices.Contains(Servers(), server) {
			t.Errorf("%s: %d methods and paths were tried; the table has shrunk", server, seen[server])
		}
	}
	for key := range corrections {
		if !used[key] {
			t.Errorf("the correction of %s corrects nothing", key)
		}
	}
}

// wantAction is what a row's words come to.
func wantAction(r row, method, path string) Action {
	switch {
	case !strings.HasPrefix(path, "/"), method == "*", strings.Contains(path, "*") && r.Action != "ui":
		return Unknown
	case strings.Contains(r.SubAction, "dispatch"):
		return Unknown
	case r.Action == "admin":
		return ServerAdmin
	}
	return Action(r.Action)
}

func checkRow(t *testing.T, table *Table, r row, method, path string) {
	t.Helper()
	name := r.Server + " " + method + " " + path
	in := plainRequest(r, method, path)
	c, err := table.Classify(in)
	want := wantAction(r, method, path)
	isUpload := r.SubAction == "upload-blob" && method == "POST"
	isIDLess := path == "/close_session" && method == "GET" // the id is due in a body
	switch {
	case isUpload, isIDLess:
		if e, ok := err.(*Error); !ok || e.Code != map[bool]string{true: "upload_unsupported", false: "id_missing"}[isUpload] {
			t.Errorf("%s: got %v", name, err)
		}
	case err != nil && strings.HasPrefix(path, "/") && method != "*":
		t.Errorf("%s: %v", name, err)
	}
	if c.Action != want || want != Unknown && c.SubAction != r.SubAction {
		t.Errorf("%s: got %s %q, want %s %q", name, c.Action, c.SubAction, want, r.SubAction)
	}
	if want == Unknown || isUpload || isIDLess {
		if want == Unknown && (c.Target != "" || table.HasRoute(in)) {
			t.Errorf("%s: unknown, and yet there is a target %q", name, c.Target)
		}
		return
	}
	if got, wants := c.Model != "", wantsModel(r, path, in); got != wants {
		t.Errorf("%s: model %q of a row that has it in %q", name, c.Model, r.ModelIn)
	}
	if isSession := c.Action == Session; isSession && len(c.IDs) == 0 && c.Hands == "" {
		t.Errorf("%s: neither an id nor a promise of one", name)
	}
	checkFraming(t, name, r, method, c)
	if got, _, _ := strings.Cut(c.Target, "?"); got != concrete(path) {
		t.Errorf("%s: target %q", name, c.Target)
	}
}

// wantsModel says whether the plain request of a row names a model, or its server has but one.
func wantsModel(r row, path string, in Input) bool {
	switch {
	case in.Only != "":
		return r.Action != "list-models" && r.Action != "health"
	case strings.HasPrefix(r.ModelIn, "multipart"):
		return true
	case strings.HasPrefix(r.ModelIn, "JSON"):
		return !strings.Contains(r.ModelIn, "array")
	case strings.HasPrefix(r.ModelIn, "path"):
		return !strings.Contains(r.ModelIn, "conv_id") && (strings.Contains(path, "{") || strings.Contains(path, ":"))
	}
	return false
}

func checkFraming(t *testing.T, name string, r row, method string, c Class) {
	t.Helper()
	switch {
	case method == "HEAD" || method == "WEBSOCKET":
		if c.Framing != None || c.Upgrade != (method == "WEBSOCKET") {
			t.Errorf("%s: framing %s, upgrade %v", name, c.Framing, c.Upgrade)
		}
		return
	case c.Stream != (r.Default || method == "GET" && r.Streams):
		t.Errorf("%s: streams by default: got %v", name, c.Stream)
	}
	want := JSON
	switch {
	case !r.Streams && (r.Action == "health" || r.Action == "ui"):
		want = None
	case c.Stream && strings.HasPrefix(r.Framing, "NDJSON"):
		want = NDJSON
	case c.Stream:
		want = SSE
	}
	if c.Framing != want {
		t.Errorf("%s: framing %s, want %s", name, c.Framing, want)
	}
}

func TestDispatchRoutesAreUnknownWhateverTheyClaimToBe(t *testing.T) {
	for _, server := range []string{"llama.cpp", Auto} {
		c, err := Default().Classify(Input{
			Server: server, Method: "POST", Path: "/predict", ContentType: "application/json",
			Body: []byte(`{"instances":[{"@requestFormat":"chatCompletions","model":"phi3"}]}`),
		})
		if err != nil || c.Action != Unknown {
			t.Errorf("%q: got %s, %v", server, c.Action, err)
		}
	}
}

func TestAutoKnowsWhatAllServersAgreeOnAndNothingElse(t *testing.T) {
	for _, try := range []struct {
		method, path string
		want         Action
	}{
		{"POST", "/v1/chat/completions", Chat},
		{"POST", "/api/chat", Chat},
		{"POST", "/completion", Complete},
		{"GET", "/v1/models", ListModels},
		{"GET", "/v1/models/phi3", InspectModel},
		{"GET", "/", Unknown}, // health of one server, a page of another
		{"POST", "/invocations", Unknown},
		{"POST", "/nonsense", Unknown},
	} {
		in := Input{Server: "", Method: try.method, Path: try.path}
		if try.method == "POST" {
			in.ContentType = "application/json"
			in.Body = []byte(`{"model":"phi3:latest","prompt":"p","messages":[{"role":"user"}]}`)
		}
		c, err := Default().Classify(in)
		if err != nil || c.Action != try.want {
			t.Errorf("%s %s: got %s, %v; want %s", try.method, try.path, c.Action, err, try.want)
		}
	}
}

func TestARouteIsKnownBeforeItsBodyIsRead(t *testing.T) {
	for _, try := range []struct {
		server, method, path string
		want                 bool
	}{
		{"ollama", "POST", "/api/chat", true},
		{"ollama", "GET", "/v1/models/x", true},
		{"", "POST", "/api/chat", true},
		{"ollama", "POST", "/api/chat/", false},
		{"ollama", "POST", "//api/chat", false},
		{"llama.cpp", "POST", "/predict", false},
		{"vllm", "POST", "/v1/chat/completions", true},
		{"vllm", "GET", "/v1/realtime", false},
		{"llama-swap", "GET", "/upstream/phi3/v1/models", false},
	} {
		if got := Default().HasRoute(Input{Server: try.server, Method: try.method, Path: try.path}); got != try.want {
			t.Errorf("%v: got %v", try, got)
		}
	}
}

func TestServersOfNoTableHaveNoRoutes(t *testing.T) {
	for _, server := range []string{"nonsense", "Ollama", "vllm "} {
		c, err := Default().Classify(Input{Server: server, Method: "GET", Path: "/v1/models"})
		if err != nil || c.Action != Unknown {
			t.Errorf("%s: got %s, %v", server, c.Action, err)
		}
	}
}

func TestFieldsThatCountAreKnownNames(t *testing.T) {
	for _, field := range append(parameterFields[:], "model", "name", "stream", "messages", "prompt", "input") {
		if !isKnownName(field) {
			t.Errorf("%q counts and is not a known name", field)
		}
	}
}
