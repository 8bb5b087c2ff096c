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

// request is a plain request for a row.
func plainRequest(r row, method, path string) Input {
	in := Input{Server: r.Server, Method: method, Path: concrete(path), ContentType: "application/json"}
	if method == "GET" || method == "HEAD" {
		in.ContentType = ""
		return in
	}
	switch {
	case strings.HasPrefix(r.ModelIn, "JSON source"):
		in.Body = []byte(`{"source":"phi3:latest","destination":"phi4:latest"}`)
	case strings.HasPrefix(r.ModelIn, "JSON body is an array"):
		in.Body = []byte(`[{"id":0,"scale":0.5}]`)
	case strings.HasPrefix(r.ModelIn, "JSON"):
		in.Body = []byte(`{"model":"phi3:latest","prompt":"p","input":"i","messages":[{"role":"user","content":"c"}]}`)
	}
	return in
}

func TestEveryRowOfTheEnabledServersIsClassifiedAsTheDataSays(t *testing.T) {
	table := Default()
	seen := 0
	for _, r := range testRows(t) {
		if !slices.Contains(Servers(), r.Server) {
			continue
		}
		for _, path := range append([]string{r.Path}, r.Aliases...) {
			for _, method := range r.Method {
				seen++
				checkRow(t, table, r, method, path)
			}
		}
	}
	if seen < 85 {
		t.Errorf("only %d methods and paths were tried; the table has shrunk", seen)
	}
}

func checkRow(t *testing.T, table *Table, r row, method, path string) {
	t.Helper()
	name := r.Server + " " + method + " " + path
	c, err := table.Classify(plainRequest(r, method, path))
	isForm := strings.HasPrefix(r.ModelIn, "multipart") || r.SubAction == "upload-blob" && method == "POST"
	if isForm {
		if e, ok := err.(*Error); !ok || e.Status != 415 {
			t.Errorf("%s: a body that is no JSON: got %v, want status 415", name, err)
		}
	} else if err != nil {
		t.Errorf("%s: %v", name, err)
	}
	want := Action(r.Action)
	switch {
	case want == "admin":
		want = ServerAdmin
	case strings.Contains(r.SubAction, "dispatch"):
		want = Unknown
	}
	if c.Action != want || want != Unknown && c.SubAction != r.SubAction {
		t.Errorf("%s: got %s %q, want %s %q", name, c.Action, c.SubAction, want, r.SubAction)
	}
	if want == Unknown || isForm {
		return
	}
	wantsModel := strings.HasPrefix(r.ModelIn, "JSON") && !strings.Contains(r.ModelIn, "array") || strings.HasPrefix(r.ModelIn, "path (U") || strings.HasPrefix(r.ModelIn, "path (sl")
	if got := c.Model != ""; got != wantsModel {
		t.Errorf("%s: model %q of a row that has it in %q", name, c.Model, r.ModelIn)
	}
	if method != "HEAD" && c.Stream != (r.Default || method == "GET" && r.Streams) {
		t.Errorf("%s: streams by default: got %v", name, c.Stream)
	}
	if c.Target != concrete(path) {
		t.Errorf("%s: target %q", name, c.Target)
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
		{"POST", "/generate", Unknown},
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
		{"vllm", "POST", "/v1/chat/completions", false},
	} {
		if got := Default().HasRoute(Input{Server: try.server, Method: try.method, Path: try.path}); got != try.want {
			t.Errorf("%v: got %v", try, got)
		}
	}
}

func TestServersThatAreNotEnabledHaveNoRoutes(t *testing.T) {
	for _, server := range []string{"vllm", "sglang", "nonsense"} {
		if Default().Knows(server) {
			t.Errorf("%s is known", server)
		}
		c, err := Default().Classify(Input{Server: server, Method: "GET", Path: "/v1/models"})
		if err != nil || c.Action != Unknown {
			t.Errorf("%s: got %s, %v", server, c.Action, err)
		}
	}
}

func TestOtherServersOfTheDataCanBeSwitchedOnByName(t *testing.T) {
	// vLLM's adapters are named in a field of their own, which wants a place in the table first.
	for _, server := range []string{"sglang", "tgi", "llama-swap"} {
		if _, err := NewTable(append(Servers(), server)...); err != nil {
			t.Errorf("%s: %v", server, err)
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
