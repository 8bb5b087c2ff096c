package agent

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"iap/internal/modelapi"
)

// posture is how a model server answers GETs: what it knows, what it says to the rest, and what of it wants a key.
type posture struct {
	name   string // of the test
	server string // what it is found to be; "" for no model server
	models string // found, joined
	routes map[string]string
	header string // "Name: value" of every answer
	guards func(path string) bool
	denial string // what a guarded route says
	status int    // of every answer, if not as usual
}

func prefixed(prefixes ...string) func(string) bool {
	return func(path string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(path, p) })
	}
}

const testKey = "sk-upstream"

// postures follow the servers' sources; a guarded one is asked with and without its key.
var postures = []posture{
	{
		name: "ollama", server: "ollama", models: "phi3:latest,vllm/trap:latest",
		routes: map[string]string{
			"/": "Ollama is running", "/api/version": `{"version":"0.12.3"}`,
			"/api/tags":  `{"models":[{"name":"phi3:latest","model":"phi3:latest"},{"name":"vllm/trap:latest"}]}`,
			"/v1/models": `{"object":"list","data":[{"id":"phi3:latest","owned_by":"library"},{"id":"vllm/trap:latest","owned_by":"vllm"}]}`,
		},
	},
	{
		name: "ollama with one model of a namespace called like a server", server: "ollama", models: "vllm/trap:latest",
		routes: map[string]string{
			"/api/version": `{"version":"0.12.3"}`, "/api/tags": `{"models":[{"name":"vllm/trap:latest"}]}`,
			"/v1/models": `{"object":"list","data":[{"id":"vllm/trap:latest","owned_by":"vllm"}]}`,
		},
	},
	{name: "ollama without models", server: "ollama", routes: map[string]string{"/api/version": `{"version":"0.12.3"}`, "/api/tags": `{"models":[]}`, "/v1/models": `{"object":"list","data":null}`}},
	{
		name: "llama.cpp", server: "llama.cpp", models: "model.gguf", header: "Server: llama.cpp", guards: prefixed("/props", "/slots"), denial: `{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}`,
		routes: map[string]string{"/v1/models": `{"models":[{"name":"model.gguf"}],"object":"list","data":[{"id":"model.gguf","object":"model","owned_by":"llamacpp","meta":null}]}`, "/health": `{"status":"ok"}`},
	},
	{name: "llama.cpp behind a proxy", server: "llama.cpp", models: "model.gguf", header: "Server: nginx", routes: llamaCPP},
	{name: "llama.cpp router without models", server: "llama.cpp", header: "Server: llama.cpp", routes: map[string]string{"/v1/models": `{"object":"list","data":[]}`}},
	{
		name: "vllm", server: "vllm", models: "facebook/opt-125m,sql-lora", header: "Server: uvicorn", guards: prefixed("/v1"), denial: `{"error":"Unauthorized"}`,
		routes: map[string]string{
			"/version": `{"version":"0.11.0"}`, "/health": "", "/metrics": "# HELP vllm:num_requests_running\n",
			"/v1/models": `{"object":"list","data":[{"id":"facebook/opt-125m","owned_by":"vllm","root":"facebook/opt-125m","parent":null,"max_model_len":2048},{"id":"sql-lora","owned_by":"vllm","parent":"facebook/opt-125m"}]}`,
		},
	},
	{
		name: "sglang", server: "sglang", models: "Qwen/Qwen3-8B", header: "Server: uvicorn", guards: func(path string) bool { return !prefixed("/health", "/ready", "/metrics")(path) }, denial: `{"error":"Unauthorized"}`,
		routes: map[string]string{
			"/get_model_info": `{"model_path":"Qwen/Qwen3-8B","tokenizer_path":"Qwen/Qwen3-8B","is_generation":true}`,
			"/api/tags":       `{"models":[{"name":"Qwen/Qwen3-8B"}]}`,
			"/v1/models":      `{"object":"list","data":[{"id":"Qwen/Qwen3-8B","owned_by":"sglang","root":"Qwen/Qwen3-8B","parent":null,"max_model_len":40960},{"id":"tuned","owned_by":"sglang","parent":"Qwen/Qwen3-8B"}]}`,
		},
	},
	{
		name: "sglang behind its gateway", server: "sglang", models: "Qwen/Qwen3-8B",
		routes: map[string]string{"/get_model_info": `{"model_path":"Qwen/Qwen3-8B","is_generation":true}`, "/v1/models": `{"object":"list","data":[{"id":"Qwen/Qwen3-8B","owned_by":"self_hosted"}]}`},
	},
	{
		name: "tgi", server: "tgi", models: "bigscience/bloom",
		routes: map[string]string{
			"/info":      `{"model_id":"bigscience/bloom","model_sha":null,"max_concurrent_requests":128,"max_best_of":2,"router":"text-generation-router","version":"3.3.0"}`,
			"/v1/models": `{"object":"list","data":[{"id":"bigscience/bloom","object":"model","created":0,"owned_by":"bigscience/bloom"}]}`,
		},
	},
	{name: "tgi before it listed models", server: "tgi", models: "gpt2", routes: map[string]string{"/info": `{"model_id":"gpt2","max_best_of":2,"version":"1.4.0"}`}},
	{
		name: "llama-swap", server: "llama-swap", models: "qwen,phi", guards: prefixed("/v1", "/api", "/running"), denial: "unauthorized: invalid or missing API key", header: `Www-Authenticate: Basic realm="llama-swap"`,
		routes: map[string]string{
			"/health": "OK", "/running": `{"running":[]}`, "/api/version": `{"version":"170","commit":"abc","build_date":"2026-10-01"}`,
			"/v1/models": `{"object":"list","data":[{"id":"qwen","owned_by":"llama-swap"},{"id":"phi","owned_by":"llama-swap"}]}`,
		},
	},
	{name: "llama-swap without models", server: "llama-swap", routes: map[string]string{"/running": `{"running":[]}`, "/api/version": `{"version":"170","commit":"abc","build_date":"2026-10-01"}`, "/v1/models": `{"object":"list","data":[]}`}},
	{name: "any other", server: "openai", models: "gpt", routes: map[string]string{"/v1/models": `{"object":"list","data":[{"id":"gpt","owned_by":"me"}]}`, "/version": `{"version":"1"}`, "/api/version": `{"version":"1"}`}},
	{name: "owners that differ", server: "openai", models: "a,b", routes: map[string]string{"/v1/models": `{"object":"list","data":[{"id":"a","owned_by":"vllm"},{"id":"b","owned_by":"sglang"}]}`}},
	{name: "a web site", routes: website},
	{name: "a web site behind a login", routes: website, guards: prefixed("/"), denial: `{"error":"Unauthorized"}`},
	{name: "a site with a version", routes: map[string]string{"/api/version": `{"version":"1.2","commit":"abc","build_date":"x"}`, "/info": `{"version":"1.2"}`}},
}

func (p posture) start(t testing.TB) (url string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var paths []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.Method+" "+r.RequestURI)
		mu.Unlock()
		if name, value, ok := strings.Cut(p.header, ": "); ok {
			w.Header().Set(name, value)
		}
		body, known := p.routes[r.URL.Path]
		switch {
		case p.status != 0:
			http.Error(w, "loading", p.status)
		case p.guards != nil && p.guards(r.URL.Path) && r.Header.Get("Authorization") != "Bearer "+testKey:
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, p.denial)
		case !known:
			http.NotFound(w, r)
		default:
			fmt.Fprint(w, body)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return paths
	}
}

func TestEveryModelServerIsToldFromTheOthers(t *testing.T) {
	for _, p := range postures {
		url, asked := p.start(t)
		u := probing(t, ResourceConfig{Name: "r", Kind: modelapi.KindModel, Upstream: url})
		u.cfg.apiKey = testKey
		found, err := u.probe(within(t))
		if p.server == "" {
			if err == nil || found.healthy || found.server != "" {
				t.Errorf("%s: %+v", p.name, found)
			}
			continue
		}
		if err != nil || found.server != p.server || !found.healthy || strings.Join(found.models, ",") != p.models {
			t.Errorf("%s: %+v, %v", p.name, found, err)
		}
		if n := len(asked()); n > 5 {
			t.Errorf("%s: took %d questions: %q", p.name, n, asked())
		}
		for _, one := range asked() {
			if path, ok := strings.CutPrefix(one, "GET "); !ok || strings.Contains(path, "?") || strings.HasPrefix(path, "/health") || path == "/get_server_info" {
				t.Errorf("%s: asked %s, which may make a server work", p.name, one)
			}
		}
		named := probing(t, ResourceConfig{Name: "r", Kind: modelapi.KindModel, Upstream: url, Server: p.server})
		named.cfg.apiKey = testKey
		if again, err := named.probe(within(t)); err != nil || again.server != p.server || !again.healthy || !slices.Equal(again.models, found.models) {
			t.Errorf("%s, by configuration: %+v, %v", p.name, again, err)
		}
	}
}

func TestServerWithoutItsKeyIsNamedButNotHealthy(t *testing.T) {
	for _, p := range postures {
		if p.guards == nil || p.server == "" || p.server == "llama.cpp" {
			continue
		}
		url, _ := p.start(t)
		found, err := probing(t, ResourceConfig{Name: "r", Kind: modelapi.KindModel, Upstream: url}).probe(within(t))
		if err == nil || !strings.Contains(err.Error(), "api_key_file") || found.healthy || found.server != p.server {
			t.Errorf("%s: %+v, %v", p.name, found, err)
		}
	}
}

func TestModelServersAreNotServedAsSomethingElse(t *testing.T) {
	for _, p := range postures {
		at, _ := p.start(t)
		for kind, upstream := range map[string]string{modelapi.KindHTTP: at, modelapi.KindTCP: strings.TrimPrefix(at, "http://")} {
			got, _ := probeOf(t, kind, upstream, false)
			if wrong := p.server != ""; got.foreign != wrong || got.healthy == wrong {
				t.Errorf("%s as %s: %+v", p.name, kind, got)
			}
			if got, err := probeOf(t, kind, upstream, true); err != nil || got.foreign || !got.healthy {
				t.Errorf("%s as %s, opaque: %+v, %v", p.name, kind, got, err)
			}
		}
	}
}

// TestServerThatLoadsIsNoWebSite: what answers that it is not ready may turn out to be anything.
func TestServerThatLoadsIsNoWebSite(t *testing.T) {
	loading, _ := posture{status: http.StatusServiceUnavailable}.start(t)
	if got, err := probeOf(t, modelapi.KindHTTP, loading, false); err == nil || got.healthy {
		t.Errorf("%+v, %v", got, err)
	}
	named, _ := posture{status: http.StatusServiceUnavailable, header: "Server: llama.cpp"}.start(t)
	if got, _ := probeOf(t, modelapi.KindHTTP, named, false); !got.foreign {
		t.Errorf("%+v", got)
	}
}

func probing(t testing.TB, cfg ResourceConfig) *upstream {
	t.Helper()
	must(t, cfg.validate(""))
	u := openUpstream(&cfg, newTransport(newLingers(nil)))
	t.Cleanup(u.transport.CloseIdleConnections)
	return u
}
