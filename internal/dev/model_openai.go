package dev

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

func (m *DemoModel) routeOpenAI() {
	m.mux.HandleFunc("GET /v1/models", m.listOpenAI)
	m.mux.HandleFunc("GET /v1/models/{id...}", m.showOpenAI)
	m.mux.HandleFunc("POST /v1/chat/completions", m.chatOpenAI)
	m.mux.HandleFunc("POST /v1/completions", m.completeOpenAI)
	m.mux.HandleFunc("POST /v1/embeddings", m.embedOpenAI)
	m.mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		openAIError(w, http.StatusNotFound, "", fmt.Sprintf("no such route: %s %s", r.Method, r.URL.Path))
	})
}

// openAIRequest is the union of what chat and completion take; the rest of OpenAI's fields is accepted and ignored.
type openAIRequest struct {
	Model               string          `json:"model"`
	Messages            []message       `json:"messages"`
	Prompt              json.RawMessage `json:"prompt"`
	MaxTokens           *int            `json:"max_tokens"`
	MaxCompletionTokens *int            `json:"max_completion_tokens"`
	Temperature         *float64        `json:"temperature"`
	Seed                *int64          `json:"seed"`
	Stop                texts           `json:"stop"`
	N                   *int            `json:"n"`
	Stream              bool            `json:"stream"`
	StreamOptions       *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	IgnoreEOS bool `json:"ignore_eos"`
}

// message is one of a conversation. Content is text, or parts of which each must be text.
type message struct {
	Role    string `json:"role"`
	Content parts  `json:"content"`
}

type parts string

func (p *parts) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err == nil {
		*p = parts(text)
		return nil
	}
	var list []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return errors.New("content must be a string or a list of parts")
	}
	var all []string
	for _, part := range list {
		switch part.Type {
		case "text", "input_text", "output_text":
		default:
			return fmt.Errorf("this model reads text only, not %q", part.Type)
		}
		all = append(all, part.Text)
	}
	*p = parts(strings.Join(all, "\n"))
	return nil
}

// texts is a string or a list of strings.
type texts []string

func (t *texts) UnmarshalJSON(data []byte) error {
	var one *string
	if err := json.Unmarshal(data, &one); err == nil {
		if one != nil {
			*t = texts{*one}
		}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return errors.New("want a string or a list of strings")
	}
	*t = many
	return nil
}

type openAIUsage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

func (m *DemoModel) listOpenAI(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]any{"object": "list", "data": []any{m.card()}})
}

func (m *DemoModel) card() map[string]any {
	return map[string]any{"id": m.name, "object": "model", "created": m.started.Unix(), "owned_by": "demo"}
}

func (m *DemoModel) showOpenAI(w http.ResponseWriter, r *http.Request) {
	if id := r.PathValue("id"); !m.knows(id) {
		modelNotFound(w, id)
		return
	}
	writeJSON(w, http.StatusOK, m.card())
}

func modelNotFound(w http.ResponseWriter, name string) {
	openAIError(w, http.StatusNotFound, "model_not_found", fmt.Sprintf("The model %q does not exist", name))
}

func openAIError(w http.ResponseWriter, status int, code, text string) {
	kind := "invalid_request_error"
	if status >= http.StatusInternalServerError {
		kind = "server_error"
	}
	var known any
	if code != "" {
		known = code
	}
	writeJSON(w, status, map[string]any{"error": map[string]any{"message": text, "type": kind, "param": nil, "code": known}})
}

// readOpenAI reads and checks what chat and completion share. It has answered when ok is false.
func (m *DemoModel) readOpenAI(w http.ResponseWriter, r *http.Request) (in openAIRequest, q request, ok bool) {
	if status, err := readJSON(r, &in); err != nil {
		openAIError(w, status, "", err.Error())
		return in, q, false
	}
	q = request{max: defaultMaxTokens, temperature: defaultTemperature, seed: in.Seed, stop: in.Stop, ignoreEnd: in.IgnoreEOS}
	if in.Temperature != nil {
		q.temperature = *in.Temperature
	}
	for _, limit := range []*int{in.MaxTokens, in.MaxCompletionTokens} {
		if limit != nil {
			q.max = *limit
		}
	}
	problem := q.problem()
	switch {
	case !m.knows(in.Model):
		modelNotFound(w, in.Model)
		return in, q, false
	case problem == "" && q.max < 1:
		problem = "max_tokens must be at least 1"
	case in.N != nil && *in.N != 1:
		problem = "n must be 1: this model answers once"
	}
	if problem != "" {
		openAIError(w, http.StatusBadRequest, "", problem)
	}
	return in, q, problem == ""
}

// problem says what a request may not ask.
func (q request) problem() string {
	switch {
	case q.temperature < 0 || q.temperature > 2:
		return "temperature must be between 0 and 2"
	case len(q.stop) > maxStops:
		return fmt.Sprintf("at most %d stop strings", maxStops)
	}
	for _, s := range q.stop {
		if s == "" {
			return "a stop string must not be empty"
		}
	}
	return ""
}

func (m *DemoModel) chatOpenAI(w http.ResponseWriter, r *http.Request) {
	in, q, ok := m.readOpenAI(w, r)
	if !ok {
		return
	}
	if len(in.Messages) == 0 {
		openAIError(w, http.StatusBadRequest, "", "messages must not be empty")
		return
	}
	q.prompt = conversation(in.Messages)
	shape := answerShape{
		object: "chat.completion", chunk: "chat.completion.chunk", prefix: "chatcmpl-",
		whole: func(text string) map[string]any {
			return map[string]any{"message": map[string]any{"role": "assistant", "content": text}}
		},
		first: map[string]any{"delta": map[string]any{"role": "assistant", "content": ""}},
		piece: func(text string) map[string]any { return map[string]any{"delta": map[string]any{"content": text}} },
		last:  map[string]any{"delta": map[string]any{}},
	}
	m.answerOpenAI(w, r, in, q, shape)
}

// conversation is the prompt: the words of all messages.
func conversation(messages []message) []string {
	var prompt []string
	for _, one := range messages {
		prompt = append(prompt, Tokens(string(one.Content))...)
	}
	return prompt
}

func (m *DemoModel) completeOpenAI(w http.ResponseWriter, r *http.Request) {
	in, q, ok := m.readOpenAI(w, r)
	if !ok {
		return
	}
	var prompt texts
	if err := json.Unmarshal(in.Prompt, &prompt); err != nil || len(prompt) != 1 {
		openAIError(w, http.StatusBadRequest, "", "prompt must be one string")
		return
	}
	q.prompt = Tokens(prompt[0])
	text := func(text string) map[string]any { return map[string]any{"text": text, "logprobs": nil} }
	m.answerOpenAI(w, r, in, q, answerShape{
		object: "text_completion", chunk: "text_completion", prefix: "cmpl-", whole: text, piece: text, last: text(""),
	})
}

// answerShape is where chat and completion differ: the choice of a whole answer and those of a stream.
type answerShape struct {
	object, chunk, prefix string
	whole, piece          func(text string) map[string]any
	first, last           map[string]any // first: nil means none
}

func (m *DemoModel) answerOpenAI(w http.ResponseWriter, r *http.Request, in openAIRequest, q request, shape answerShape) {
	id, created := fmt.Sprintf("%s%016x", shape.prefix, rand.Uint64()), time.Now().Unix()
	head := func(object string, choices ...any) map[string]any {
		if choices == nil {
			choices = []any{}
		}
		return map[string]any{"id": id, "object": object, "created": created, "model": in.Model, "choices": choices}
	}
	if in.Stream {
		m.streamOpenAI(w, r, in, q, shape, head)
		return
	}
	var text strings.Builder
	o, err := m.generate(r.Context(), q, func(piece string) error {
		text.WriteString(piece)
		return nil
	})
	if err != nil {
		return // the client is gone; nobody reads an answer
	}
	answer := head(shape.object, choice(shape.whole(text.String()), o.reason))
	answer["usage"] = usage(q, o)
	writeJSON(w, http.StatusOK, answer)
}

func (m *DemoModel) streamOpenAI(
	w http.ResponseWriter, r *http.Request, in openAIRequest, q request, shape answerShape, head func(string, ...any) map[string]any,
) {
	out := newEventWriter(w)
	withUsage := in.StreamOptions != nil && in.StreamOptions.IncludeUsage
	send := func(c map[string]any, reason string) error {
		event := head(shape.chunk, choice(c, reason))
		if withUsage {
			event["usage"] = nil
		}
		return out.event(event)
	}
	if shape.first != nil {
		if send(shape.first, "") != nil {
			return
		}
	}
	o, err := m.generate(r.Context(), q, func(text string) error { return send(shape.piece(text), "") })
	if err != nil || send(shape.last, o.reason) != nil {
		return
	}
	if withUsage {
		final := head(shape.chunk)
		final["usage"] = usage(q, o)
		if out.event(final) != nil {
			return
		}
	}
	_ = out.done() // the client may leave after the last word
}

// choice puts the one choice's index and finish reason beside its content.
func choice(content map[string]any, reason string) map[string]any {
	out := map[string]any{"index": 0, "finish_reason": nil}
	if reason != "" {
		out["finish_reason"] = reason
	}
	for k, v := range content {
		out[k] = v
	}
	return out
}

func usage(q request, o outcome) openAIUsage {
	return openAIUsage{Prompt: len(q.prompt), Completion: o.tokens, Total: len(q.prompt) + o.tokens}
}

func (m *DemoModel) embedOpenAI(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Model      string `json:"model"`
		Input      texts  `json:"input"`
		Format     string `json:"encoding_format"`
		Dimensions int    `json:"dimensions"`
	}
	if status, err := readJSON(r, &in); err != nil {
		openAIError(w, status, "", err.Error())
		return
	}
	setDefault(&in.Dimensions, defaultDimensions)
	switch {
	case !m.knows(in.Model):
		modelNotFound(w, in.Model)
		return
	case len(in.Input) == 0:
		openAIError(w, http.StatusBadRequest, "", "input must not be empty")
		return
	case in.Dimensions < 1 || in.Dimensions > maxDimensions:
		openAIError(w, http.StatusBadRequest, "", fmt.Sprintf("dimensions must be between 1 and %d", maxDimensions))
		return
	}
	data, count := make([]any, len(in.Input)), 0
	for i, text := range in.Input {
		count += len(Tokens(text))
		vector := m.learn().embed(text, in.Dimensions)
		entry := map[string]any{"object": "embedding", "index": i, "embedding": vector}
		if in.Format == "base64" {
			entry["embedding"] = base64.StdEncoding.EncodeToString(float32Bytes(vector))
		}
		data[i] = entry
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"object": "list", "model": in.Model, "data": data,
		"usage": map[string]int{"prompt_tokens": count, "total_tokens": count},
	})
}
