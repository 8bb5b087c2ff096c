//go:build real

package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"iap/internal/audit"
)

// realGrants let people use one of the two models, and none of them manage any.
const realGrants = `version: 1
grants:
  - name: engineers
    to: ["group:dev/ml-eng"]
    resources: ["*"]
    models: ["tiny:*"]
    actions: [chat, complete, embed, list-models, inspect-model]
admins: ["user:dev/alice"]
`

// ollama is a real Ollama with two models of random weights: tiny, which is granted, and secret, which is not.
type ollama struct {
	*caller // of its own port, past the product
	t       *testing.T
}

func startOllama(t *testing.T) *ollama {
	t.Helper()
	binary := os.Getenv("OLLAMA")
	if binary == "" {
		t.Fatal("OLLAMA names no program: run make test-real, which builds one, or set it to the path of an ollama")
	}
	dir, address := shortDir(t), freeAddress(t)
	start(t, append(baseEnv(dir), "OLLAMA_HOST="+address, "OLLAMA_MODELS="+dir+"/models", "OLLAMA_CONTEXT_LENGTH=8192", "OLLAMA_NUM_PARALLEL=1"), binary, "serve")
	o := &ollama{t: t, caller: newCaller(t, "http://"+address)}
	eventually(t, "Ollama answers", func() bool {
		got, err := o.tryAsk("GET", "/api/version", "")
		return err == nil && got.status == http.StatusOK
	})
	o.create("tiny", tinyModel(1))
	o.create("secret", tinyModel(2))
	return o
}

// create gives Ollama a model file by its own API.
func (o *ollama) create(name string, file []byte) {
	o.t.Helper()
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(file))
	if got := o.ask("POST", "/api/blobs/"+digest, string(file)); got.status != http.StatusCreated {
		o.t.Fatalf("give Ollama a model file: %d %s", got.status, got.body)
	}
	body, err := json.Marshal(map[string]any{
		"model": name, "files": map[string]string{"tiny.gguf": digest}, "stream": false,
		"template":   "{{ range .Messages }}{{ .Role }}: {{ .Content }}\n{{ end }}assistant:",
		"parameters": map[string]any{"temperature": 0, "num_predict": 8},
	})
	if err != nil {
		o.t.Fatal(err)
	}
	if got := o.ask("POST", "/api/create", string(body)); got.status != http.StatusOK || !strings.Contains(got.body, "success") {
		o.t.Fatalf("create %s: %d %s", name, got.status, got.body)
	}
}

// figures are the counts of an answer, in whichever of Ollama's dialects.
type figures struct {
	In    int64 `json:"prompt_eval_count"`
	Out   int64 `json:"eval_count"`
	Usage struct {
		Prompt     int64 `json:"prompt_tokens"`
		Completion int64 `json:"completion_tokens"`
		Input      int64 `json:"input_tokens"`
		Output     int64 `json:"output_tokens"`
	}
	Response json.RawMessage // an object in a Responses event, text from generate
}

// figuresOf takes the last counts that an answer names.
func figuresOf(body string) (in, out int64) {
	for line := range strings.SplitSeq(body, "\n") {
		var f figures
		if json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &f) != nil {
			continue
		}
		if bytes.HasPrefix(f.Response, []byte("{")) && json.Unmarshal(f.Response, &f) != nil {
			continue
		}
		in = max(in, f.In, f.Usage.Prompt, f.Usage.Input)
		out = max(out, f.Out, f.Usage.Completion, f.Usage.Output)
	}
	return in, out
}

func TestRealOllamaIsUsedAndNotManaged(t *testing.T) {
	o := startOllama(t)
	s := newSystem(t, options{grants: realGrants})
	s.startAgent(map[string]string{"phi3=model": o.base})
	local := s.loggedIn("alice").connect("phi3")
	web := newCaller(t, local.url())

	t.Run("what is granted works and is counted as Ollama counts", func(t *testing.T) { useOllama(t, s, web) })
	t.Run("usage is counted though nobody asked to see it", func(t *testing.T) { countHidden(t, s, web, o) })
	t.Run("what was left is charged and ends in Ollama", func(t *testing.T) { leaveOllama(t, s, web, o) })
	t.Run("lists tell of granted models only", func(t *testing.T) { listOllama(t, web, o) })
	t.Run("Ollama's own client needs to know where, and nothing else", func(t *testing.T) { runOllama(t, local.url()) })
	t.Run("what is not granted never happens", func(t *testing.T) { manageOllama(t, web, o) })
}

func useOllama(t *testing.T, s *system, web *caller) {
	const messages = `"messages":[{"role":"user","content":"sail the sea"}]`
	for _, q := range []struct{ name, path, body, has string }{
		{"chat, plain", "/api/chat", `{"model":"tiny","stream":false,` + messages + `}`, `"done":true`},
		{"chat, by a longer name", "/api/chat", `{"model":"library/Tiny:latest","stream":false,` + messages + `}`, `"done":true`},
		{"chat, streamed", "/api/chat", `{"model":"tiny",` + messages + `}`, `"done":false`},
		{"generate, plain", "/api/generate", `{"model":"tiny","stream":false,"prompt":"sail the sea"}`, `"done":true`},
		{"generate, streamed", "/api/generate", `{"model":"tiny","prompt":"sail the sea"}`, `"done":false`},
		{"embed", "/api/embed", `{"model":"tiny","input":["sail","the sea"]}`, `"embeddings":[[`},
		{"OpenAI chat, plain", "/v1/chat/completions", `{"model":"tiny","max_tokens":5,` + messages + `}`, `"choices":[`},
		{"OpenAI chat, streamed", "/v1/chat/completions", `{"model":"tiny","stream":true,"stream_options":{"include_usage":true},` + messages + `}`, `"choices":[]`},
		{"OpenAI completions, plain", "/v1/completions", `{"model":"tiny","prompt":"sail the sea"}`, `"choices":[`},
		{"OpenAI embeddings", "/v1/embeddings", `{"model":"tiny","input":"sail the sea"}`, `"embedding":[`},
		{"OpenAI responses, plain", "/v1/responses", `{"model":"tiny","input":"sail the sea"}`, `"output":[`},
		{"OpenAI responses, streamed", "/v1/responses", `{"model":"tiny","stream":true,"input":"sail the sea"}`, "response.completed"},
		{"Anthropic messages, plain", "/v1/messages", `{"model":"tiny","max_tokens":5,` + messages + `}`, `"content":[`},
		{"Anthropic messages, streamed", "/v1/messages", `{"model":"tiny","max_tokens":5,"stream":true,` + messages + `}`, "message_stop"},
	} {
		t.Run(q.name, func(t *testing.T) {
			got := web.ask("POST", q.path, q.body)
			if got.status != http.StatusOK || !strings.Contains(got.body, q.has) {
				t.Fatalf("%d %s", got.status, got.body)
			}
			in, out := figuresOf(got.body)
			if in == 0 || out == 0 && !strings.Contains(q.path, "embed") {
				t.Fatalf("Ollama counts %d + %d: %s", in, out, got.body)
			}
			checkCounted(t, s, got, in, out)
		})
	}
}

// checkCounted looks at what the log says of an answer's cost.
func checkCounted(t *testing.T, s *system, got answer, in, out int64) {
	t.Helper()
	id := got.header.Get("X-Request-Id")
	o := s.awaitRecord("the outcome of "+id, func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Request == id })
	if o.TokensIn != in || o.TokensOut != out || o.Usage != "provider" || o.Ended != "completed" {
		t.Errorf("the log says %d + %d by %q, %s; Ollama %d + %d: %s", o.TokensIn, o.TokensOut, o.Usage, o.Ended, in, out, got.body)
	}
}

func countHidden(t *testing.T, s *system, web *caller, o *ollama) {
	const question = `"model":"tiny","stream":true,"max_tokens":7,"temperature":0,"messages":[{"role":"user","content":"sail the sea"}]`
	in, out := figuresOf(o.ask("POST", "/v1/chat/completions", `{`+question+`,"stream_options":{"include_usage":true}}`).body)
	got := web.ask("POST", "/v1/chat/completions", `{`+question+`}`)
	if got.status != http.StatusOK || strings.Contains(got.body, `"choices":[]`) || !strings.HasSuffix(got.body, "data: [DONE]\n\n") {
		t.Fatalf("%d %s", got.status, got.body)
	}
	checkCounted(t, s, got, in, out)
}

// leaveOllama asks for more than could come within a test's patience (Ollama generates ten contexts at most), and goes
// away.
func leaveOllama(t *testing.T, s *system, web *caller, o *ollama) {
	const enough = 3
	ctx, leave := limited(t)
	defer leave()
	response, err := web.do(ctx, "POST", "/api/generate", `{"model":"tiny","prompt":"sail the sea","options":{"num_predict":100000000}}`)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	for range enough {
		if !lines.Scan() {
			t.Fatalf("the answer broke off: %d, %v", response.StatusCode, lines.Err())
		}
	}
	leave()
	id := response.Header.Get("X-Request-Id")
	e := s.awaitRecord("the outcome of "+id, func(e audit.Event) bool { return e.Kind == audit.KindOutcome && e.Request == id })
	if e.Ended != "client_gone" || e.Usage != "deltas" || e.TokensOut < enough {
		t.Errorf("the log says %d tokens by %q, %s", e.TokensOut, e.Usage, e.Ended)
	}
	// Ollama answers one at a time.
	if got := o.ask("POST", "/api/generate", `{"model":"tiny","prompt":"sail on","stream":false}`); got.status != http.StatusOK {
		t.Errorf("Ollama is still busy: %d %s", got.status, got.body)
	}
}

func listOllama(t *testing.T, web *caller, o *ollama) {
	for _, path := range []string{"/api/tags", "/v1/models"} {
		if direct := o.ask("GET", path, ""); !strings.Contains(direct.body, "secret") {
			t.Fatalf("%s of Ollama itself: %s", path, direct.body)
		}
		if got := web.ask("GET", path, ""); got.status != http.StatusOK || !strings.Contains(got.body, "tiny") || strings.Contains(got.body, "secret") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := web.ask("POST", "/api/show", `{"model":"tiny"}`); got.status != http.StatusOK || !strings.Contains(got.body, `"general.architecture":"llama"`) {
		t.Errorf("show: %d %s", got.status, got.body)
	}
}

func runOllama(t *testing.T, at string) {
	env := append(baseEnv(shortDir(t)), "OLLAMA_HOST="+at)
	client := func(args ...string) result { return run(t, env, os.Getenv("OLLAMA"), args...) }
	if r := client("list"); r.code != 0 || !strings.Contains(r.out, "tiny:latest") || strings.Contains(r.out, "secret") {
		t.Errorf("list: %d %s %s", r.code, r.out, r.errOut)
	}
	if r := client("show", "tiny"); r.code != 0 || !strings.Contains(r.out, "llama") {
		t.Errorf("show: %d %s %s", r.code, r.out, r.errOut)
	}
	if r := client("run", "tiny", "sail the sea"); r.code != 0 || strings.TrimSpace(r.out) == "" {
		t.Errorf("run: %d %s %s", r.code, r.out, r.errOut)
	}
	for _, args := range [][]string{{"run", "secret", "sail the sea"}, {"rm", "tiny"}, {"cp", "tiny", "stolen"}, {"stop", "tiny"}, {"pull", "phi3"}} {
		if r := client(args...); r.code == 0 || !strings.Contains(r.errOut+r.out, "grant") {
			t.Errorf("%v: %d %s %s", args, r.code, r.out, r.errOut)
		}
	}
}

func manageOllama(t *testing.T, web *caller, o *ollama) {
	o.ask("POST", "/api/generate", `{"model":"tiny"}`) // is loaded now
	for _, q := range []struct{ name, method, path, body string }{
		{"pull", "POST", "/api/pull", `{"model":"phi3"}`},
		{"push", "POST", "/api/push", `{"model":"tiny"}`},
		{"delete", "DELETE", "/api/delete", `{"model":"tiny"}`},
		{"copy", "POST", "/api/copy", `{"source":"tiny","destination":"stolen"}`},
		{"create", "POST", "/api/create", `{"model":"stolen","from":"tiny"}`},
		{"unload by generate", "POST", "/api/generate", `{"model":"tiny","keep_alive":0}`},
		{"unload by an empty prompt", "POST", "/api/generate", `{"model":"tiny","prompt":"","keep_alive":0}`},
		{"unload by chat", "POST", "/api/chat", `{"model":"tiny","messages":[],"keep_alive":0}`},
		{"what runs", "GET", "/api/ps", ""},
		{"show of another model", "POST", "/api/show", `{"model":"secret"}`},
		{"chat with another model", "POST", "/api/chat", `{"model":"secret","messages":[{"role":"user","content":"x"}]}`},
		{"chat with another model by OpenAI's API", "POST", "/v1/chat/completions", `{"model":"Library/Secret","messages":[{"role":"user","content":"x"}]}`},
		{"a model of the cloud", "POST", "/api/chat", `{"model":"tiny:cloud","messages":[{"role":"user","content":"x"}]}`},
	} {
		if got := web.ask(q.method, q.path, q.body); got.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", q.name, got.status, got.body)
		}
	}
	tags, running := o.ask("GET", "/api/tags", "").body, o.ask("GET", "/api/ps", "").body
	if !strings.Contains(tags, "tiny:latest") || strings.Contains(tags, "stolen") || strings.Contains(tags, "phi3") {
		t.Errorf("Ollama has now %s", tags)
	}
	if !strings.Contains(running, "tiny:latest") || strings.Contains(running, "secret") {
		t.Errorf("Ollama runs now %s", running)
	}
}

// A model file is the same for the same seed, so that a failure comes back.
func TestRealTinyModelIsTheSameEachTime(t *testing.T) {
	if file := tinyModel(1); !bytes.Equal(file, tinyModel(1)) || bytes.Equal(file, tinyModel(2)) || len(file) > 1<<20 {
		t.Errorf("%d bytes", len(file))
	}
}
