package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"iap/internal/modelapi"
)

// strangeAnswer is an HTTP answer that does not answer the question.
type strangeAnswer struct {
	status int
	head   http.Header
	body   string // its beginning
	what   string
}

func (e *strangeAnswer) Error() string {
	if e.status == http.StatusUnauthorized || e.status == http.StatusForbidden {
		return fmt.Sprintf("answered %d: it wants an API key, which api_key_file or api_key_env would give", e.status)
	}
	return "answered " + e.what + " to a model server's question"
}

// unready says that the answer may be another one soon.
func (e *strangeAnswer) unready() bool {
	return e.status == http.StatusTooManyRequests || e.status >= 502 && e.status <= 504
}

// modelList is GET /v1/models, which all of the servers have.
type modelList struct {
	Object string `json:"object"`
	Data   []struct {
		ID      string  `json:"id"`
		OwnedBy string  `json:"owned_by"`
		Parent  *string `json:"parent"` // the model that an adapter belongs to
	} `json:"data"`
}

// inquiry is one round of questions to a server. Each is a GET that changes
// nothing and makes no model load or compute: SGLang's and TGI's /health, and
// whatever takes a model in its query, are left alone.
type inquiry struct {
	upstream *upstream
	base     *url.URL
	ollama   []string // models, once tags answered
	remote   []string // of these, the ones that another host serves
	list     modelList
	listErr  error
	llamaCPP bool // an answer named itself so, be it an error
}

// probeModel tells the model servers apart. Ollama and llama-swap are asked
// first, since the owners that they list are whatever their models are called.
// The rest name themselves as the owner of all their models, or are known by a
// route that no other has. What answers like none of them is openai if it lists
// models, and nothing else.
func (u *upstream) probeModel(ctx context.Context, base *url.URL) (probed, error) {
	q := &inquiry{upstream: u, base: base}
	if u.cfg.Server != "" {
		return q.models(ctx, u.cfg.Server)
	}
	server, err := q.version(ctx)
	if err != nil {
		return probed{}, err
	}
	if server != "" {
		return q.models(ctx, server)
	}
	q.readList(ctx)
	if server := q.byOwner(); server != "" {
		return q.models(ctx, server)
	}
	u.mu.Lock()
	before := u.state
	u.mu.Unlock()
	if q.listErr == nil && before.healthy && before.server == modelapi.ServerOpenAI {
		return q.models(ctx, before.server) // it was asked everything when it came up
	}
	if server := q.byRoute(ctx); server != "" {
		return q.models(ctx, server)
	}
	if q.listErr != nil {
		return probed{}, q.listErr
	}
	return q.models(ctx, modelapi.ServerOpenAI)
}

// version asks what only Ollama and llama-swap answer. Ollama says no more than
// its version, and lists models in its own way. An error means that nobody
// answers in HTTP, and need not be asked more.
func (q *inquiry) version(ctx context.Context) (string, error) {
	var v struct {
		Version   string  `json:"version"`
		Commit    *string `json:"commit"`
		BuildDate *string `json:"build_date"`
	}
	var answered *strangeAnswer
	err := q.ask(ctx, "/api/version", &v)
	switch {
	case errors.As(err, &answered):
		return "", nil
	case err != nil:
		return "", err
	case v.Commit != nil && v.BuildDate != nil:
		var r struct {
			Running *[]json.RawMessage `json:"running"`
		}
		if q.ask(ctx, "/running", &r) == nil && r.Running != nil {
			return modelapi.ServerLlamaSwap, nil
		}
	case v.Version != "":
		if q.tags(ctx) == nil {
			return modelapi.ServerOllama, nil
		}
	}
	return "", nil
}

// tags lists Ollama's models.
func (q *inquiry) tags(ctx context.Context) error {
	var tags struct {
		Models *[]struct {
			Name       string `json:"name"`
			RemoteHost string `json:"remote_host"`
		} `json:"models"`
	}
	if q.ollama != nil {
		return nil
	}
	if err := q.ask(ctx, "/api/tags", &tags); err != nil {
		return err
	}
	if tags.Models == nil {
		return &strangeAnswer{what: "no list of models"}
	}
	q.ollama = []string{}
	for _, m := range *tags.Models {
		q.ollama = append(q.ollama, m.Name)
		if m.RemoteHost != "" {
			q.remote = append(q.remote, m.Name)
		}
	}
	return nil
}

func (q *inquiry) readList(ctx context.Context) {
	q.listErr = q.ask(ctx, "/v1/models", &q.list)
	if q.listErr == nil && q.list.Object != "list" {
		q.listErr = &strangeAnswer{what: "something else"}
	}
}

// byOwner goes by the owner of all models, which some servers fill in with
// their own name.
func (q *inquiry) byOwner() string {
	if q.listErr != nil || len(q.list.Data) == 0 {
		return ""
	}
	owner := q.list.Data[0].OwnedBy
	for _, m := range q.list.Data {
		if m.OwnedBy != owner {
			return ""
		}
	}
	return map[string]string{
		"llamacpp": modelapi.ServerLlamaCPP, "vllm": modelapi.ServerVLLM,
		"sglang": modelapi.ServerSGLang, "llama-swap": modelapi.ServerLlamaSwap,
	}[owner]
}

// byRoute asks for what only one server has: when there is no list of models,
// when it is empty, and when its owners say nothing.
func (q *inquiry) byRoute(ctx context.Context) string {
	if q.llamaCPP {
		return modelapi.ServerLlamaCPP
	}
	if q.wantsKey() {
		return q.behindKey(ctx)
	}
	var info struct {
		ModelID string `json:"model_id"`
		Version string `json:"version"`
		Router  string `json:"router"`
		MaxBest *int   `json:"max_best_of"`
	}
	if q.ask(ctx, "/info", &info) == nil && info.ModelID != "" && info.Version != "" && (info.Router != "" || info.MaxBest != nil) {
		return modelapi.ServerTGI
	}
	if q.listErr != nil {
		return ""
	}
	var model struct {
		Path       string `json:"model_path"`
		Generation *bool  `json:"is_generation"`
	}
	if q.ask(ctx, "/get_model_info", &model) == nil && model.Path != "" && model.Generation != nil {
		return modelapi.ServerSGLang
	}
	return ""
}

// wantsKey says that a server keeps even its list of models to itself.
func (q *inquiry) wantsKey() bool {
	answer, ok := q.listErr.(*strangeAnswer)
	return ok && answer.status == http.StatusUnauthorized
}

// behindKey goes by what a server that wants a key answers without one. vLLM
// guards only what begins with /v1 and the like. SGLang guards all but health
// and metrics, in the same words. llama-swap names itself.
func (q *inquiry) behindKey(ctx context.Context) string {
	answer := q.listErr.(*strangeAnswer)
	if strings.Contains(answer.head.Get("Www-Authenticate"), `"llama-swap"`) {
		return modelapi.ServerLlamaSwap
	}
	var says struct {
		Error string `json:"error"`
	}
	if json.Unmarshal([]byte(answer.body), &says) != nil || says.Error != "Unauthorized" {
		return ""
	}
	var v struct {
		Version string `json:"version"`
	}
	if q.ask(ctx, "/version", &v) == nil && v.Version != "" {
		return modelapi.ServerVLLM
	}
	var none struct{}
	metrics, ok := q.ask(ctx, "/metrics", &none).(*strangeAnswer)
	if ok && (metrics.status == http.StatusNotFound || strings.Contains(metrics.body, "sglang:")) {
		return modelapi.ServerSGLang
	}
	return ""
}

// models asks a known server for its models. The server is there as soon as it
// answers, but serves nobody whose key it does not take.
func (q *inquiry) models(ctx context.Context, server string) (probed, error) {
	found := probed{server: server}
	if server == modelapi.ServerOllama {
		err := q.tags(ctx)
		found.healthy, found.remote = err == nil, q.remote
		for _, name := range q.ollama {
			found.add(name)
		}
		return found, err
	}
	if q.list.Object == "" && q.listErr == nil {
		q.readList(ctx)
	}
	if q.listErr != nil && server == modelapi.ServerTGI { // before 2.0 it had no list
		var info struct {
			ModelID string `json:"model_id"`
		}
		if q.ask(ctx, "/info", &info) == nil && info.ModelID != "" {
			found.healthy = true
			found.add(info.ModelID)
			return found, nil
		}
	}
	found.healthy = q.listErr == nil
	for _, m := range q.list.Data {
		if server == modelapi.ServerSGLang && m.Parent != nil {
			continue // an adapter: no model of its own there
		}
		found.add(m.ID)
	}
	return found, q.listErr
}

func (p *probed) add(model string) {
	if validName(model, modelapi.MaxName) && len(p.models) < maxModels && !slices.Contains(p.models, model) {
		p.models = append(p.models, model)
	}
}

// ask reads one JSON document from the upstream. The error is a *strangeAnswer
// if there was an answer.
func (q *inquiry) ask(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, q.base.Scheme+"://"+q.base.Host+q.base.EscapedPath()+path, nil)
	if err != nil {
		return err
	}
	if key := q.upstream.cfg.apiKey; key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	response, err := q.upstream.transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	q.llamaCPP = q.llamaCPP || response.Header.Get("Server") == "llama.cpp"
	strange := &strangeAnswer{status: response.StatusCode, head: response.Header, what: strconv.Itoa(response.StatusCode)}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxProbe+1))
	if response.StatusCode == http.StatusOK && err == nil && len(data) <= maxProbe {
		if err = json.Unmarshal(data, v); err == nil {
			return nil
		}
		strange.what = "no JSON"
	}
	strange.body = string(data[:min(len(data), 4<<10)])
	return strange
}
