package dev

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// ollamaVersion is the version whose protocol this is.
const ollamaVersion = "0.12.0"

func (m *DemoModel) routeOllama() {
	m.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, "Ollama is running")
	})
	m.mux.HandleFunc("GET /api/version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"version": ollamaVersion})
	})
	m.mux.HandleFunc("GET /api/tags", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"models": []any{m.ollamaCard()}})
	})
	m.mux.HandleFunc("GET /api/ps", m.runningOllama)
	m.mux.HandleFunc("POST /api/show", m.showOllama)
	m.mux.HandleFunc("POST /api/chat", m.chatOllama)
	m.mux.HandleFunc("POST /api/generate", m.generateOllama)
	m.mux.HandleFunc("POST /api/embed", m.embedOllama)
	m.mux.HandleFunc("POST /api/embeddings", m.embedOneOllama)
	m.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "404 page not found", http.StatusNotFound)
	})
}

func ollamaError(w http.ResponseWriter, status int, text string) {
	writeJSON(w, status, map[string]string{"error": text})
}

func ollamaNotFound(w http.ResponseWriter, name string) {
	ollamaError(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", name))
}

func (m *DemoModel) details() map[string]any {
	return map[string]any{
		"parent_model": "", "format": "ngram", "family": "ngram", "families": []string{"ngram"},
		"parameter_size": fmt.Sprintf("%.1fK", float64(m.learn().parameters())/1000), "quantization_level": "F64",
	}
}

// parameters is what the model has learnt: one number for each continuation.
func (s *statistics) parameters() int {
	n := 0
	for _, list := range s.after {
		n += len(list)
	}
	return n
}

func (m *DemoModel) ollamaCard() map[string]any {
	digest := sha256.Sum256([]byte(corpus))
	return map[string]any{
		"name": m.tagged(), "model": m.tagged(), "modified_at": m.started.UTC(), "size": len(corpus),
		"digest": hex.EncodeToString(digest[:]), "details": m.details(),
	}
}

func (m *DemoModel) runningOllama(w http.ResponseWriter, _ *http.Request) {
	card := m.ollamaCard()
	delete(card, "modified_at")
	card["expires_at"], card["size_vram"] = m.started.UTC().AddDate(1, 0, 0), 0
	writeJSON(w, http.StatusOK, map[string]any{"models": []any{card}})
}

func (m *DemoModel) showOllama(w http.ResponseWriter, r *http.Request) {
	var in struct{ Model, Name string }
	if status, err := readJSON(r, &in); err != nil {
		ollamaError(w, status, err.Error())
		return
	}
	setDefault(&in.Model, in.Name)
	if !m.knows(in.Model) {
		ollamaNotFound(w, in.Model)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"license": "Apache-2.0", "modelfile": "FROM " + m.tagged() + "\n", "parameters": "", "template": "{{ .Prompt }}",
		"details":      m.details(),
		"model_info":   map[string]any{"general.architecture": "ngram", "general.parameter_count": m.learn().parameters(), "ngram.order": 3},
		"capabilities": []string{"completion", "embedding"},
		"modified_at":  m.started.UTC(),
	})
}

// ollamaRequest is the union of chat and generate.
type ollamaRequest struct {
	Model    string    `json:"model"`
	Messages []message `json:"messages"`
	Prompt   string    `json:"prompt"`
	System   string    `json:"system"`
	Stream   *bool     `json:"stream"`
	Keep     any       `json:"keep_alive"`
	Options  struct {
		NumPredict  *int     `json:"num_predict"`
		Temperature *float64 `json:"temperature"`
		Seed        *int64   `json:"seed"`
		Stop        texts    `json:"stop"`
		IgnoreEOS   bool     `json:"ignore_eos"`
	} `json:"options"`
}

func (m *DemoModel) readOllama(w http.ResponseWriter, r *http.Request) (in ollamaRequest, q request, ok bool) {
	if status, err := readJSON(r, &in); err != nil {
		ollamaError(w, status, err.Error())
		return in, q, false
	}
	o := in.Options
	q = request{temperature: defaultTemperature, seed: o.Seed, stop: o.Stop, ignoreEnd: o.IgnoreEOS}
	if o.Temperature != nil {
		q.temperature = *o.Temperature
	}
	if o.NumPredict != nil {
		q.max = max(0, *o.NumPredict) // zero and negative numbers mean: no limit
	}
	if problem := q.problem(); problem != "" {
		ollamaError(w, http.StatusBadRequest, problem)
		return in, q, false
	}
	if !m.knows(in.Model) {
		ollamaNotFound(w, in.Model)
		return in, q, false
	}
	return in, q, true
}

func (m *DemoModel) chatOllama(w http.ResponseWriter, r *http.Request) {
	in, q, ok := m.readOllama(w, r)
	if !ok {
		return
	}
	q.prompt = conversation(in.Messages)
	m.answerOllama(w, r, in, q, len(in.Messages) == 0, func(text string) (string, any) {
		return "message", map[string]string{"role": "assistant", "content": text}
	})
}

func (m *DemoModel) generateOllama(w http.ResponseWriter, r *http.Request) {
	in, q, ok := m.readOllama(w, r)
	if !ok {
		return
	}
	q.prompt = Tokens(in.System + " " + in.Prompt)
	m.answerOllama(w, r, in, q, in.Prompt == "", func(text string) (string, any) { return "response", text })
}

// answerOllama streams unless told not to. A request without a prompt only loads the model.
func (m *DemoModel) answerOllama(w http.ResponseWriter, r *http.Request, in ollamaRequest, q request, load bool, piece func(string) (string, any)) {
	record := func(text string) map[string]any {
		key, value := piece(text)
		return map[string]any{"model": in.Model, "created_at": time.Now().UTC(), "done": false, key: value}
	}
	if load {
		last := record("")
		last["done"], last["done_reason"] = true, "load"
		if in.Keep == 0.0 || in.Keep == "0" || in.Keep == "0s" {
			last["done_reason"] = "unload"
		}
		writeJSON(w, http.StatusOK, last)
		return
	}
	if in.Stream != nil && !*in.Stream {
		var text strings.Builder
		o, err := m.generate(r.Context(), q, func(more string) error {
			text.WriteString(more)
			return nil
		})
		if err == nil { // else the client is gone
			writeJSON(w, http.StatusOK, finished(record(text.String()), q, o))
		}
		return
	}
	out := newRecordWriter(w, "application/x-ndjson")
	o, err := m.generate(r.Context(), q, func(text string) error { return out.line(record(text)) })
	if err == nil {
		_ = out.line(finished(record(""), q, o)) // the client may leave after the last word
	}
}

// finished makes a record the last one, with the numbers.
func finished(record map[string]any, q request, o outcome) map[string]any {
	record["done"], record["done_reason"] = true, o.reason
	record["total_duration"] = o.finished.Sub(o.started).Nanoseconds()
	record["load_duration"] = 0
	record["prompt_eval_count"], record["prompt_eval_duration"] = len(q.prompt), o.firstAt.Sub(o.started).Nanoseconds()
	record["eval_count"], record["eval_duration"] = o.tokens, o.finished.Sub(o.firstAt).Nanoseconds()
	return record
}

func (m *DemoModel) embedOllama(w http.ResponseWriter, r *http.Request) {
	begun := time.Now()
	var in struct {
		Model      string `json:"model"`
		Input      texts  `json:"input"`
		Dimensions int    `json:"dimensions"`
	}
	if status, err := readJSON(r, &in); err != nil {
		ollamaError(w, status, err.Error())
		return
	}
	setDefault(&in.Dimensions, defaultDimensions)
	switch {
	case !m.knows(in.Model):
		ollamaNotFound(w, in.Model)
		return
	case in.Dimensions < 1 || in.Dimensions > maxDimensions:
		ollamaError(w, http.StatusBadRequest, fmt.Sprintf("dimensions must be between 1 and %d", maxDimensions))
		return
	}
	vectors, count := make([][]float32, len(in.Input)), 0
	for i, text := range in.Input {
		count += len(Tokens(text))
		vectors[i] = m.learn().embed(text, in.Dimensions)
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"model": in.Model, "embeddings": vectors, "total_duration": time.Since(begun).Nanoseconds(),
		"load_duration": 0, "prompt_eval_count": count,
	})
}

// embedOneOllama is the older form, which tells no numbers.
func (m *DemoModel) embedOneOllama(w http.ResponseWriter, r *http.Request) {
	var in struct{ Model, Prompt string }
	if status, err := readJSON(r, &in); err != nil {
		ollamaError(w, status, err.Error())
		return
	}
	if !m.knows(in.Model) {
		ollamaNotFound(w, in.Model)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"embedding": m.learn().embed(in.Prompt, defaultDimensions)})
}
