package dev

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
)

// anthropicRequest is what the Messages API takes; the rest is accepted and ignored.
type anthropicRequest struct {
	Model       string    `json:"model"`
	Messages    []message `json:"messages"`
	System      parts     `json:"system"`
	Max         int       `json:"max_tokens"`
	Temperature *float64  `json:"temperature"`
	Stop        []string  `json:"stop_sequences"`
	Stream      bool      `json:"stream"`
	IgnoreEOS   bool      `json:"ignore_eos"`
}

func anthropicError(w http.ResponseWriter, status int, text string) {
	kind := map[int]string{http.StatusNotFound: "not_found_error", http.StatusRequestEntityTooLarge: "request_too_large"}[status]
	setDefault(&kind, "invalid_request_error")
	writeJSON(w, status, map[string]any{"type": "error", "error": map[string]string{"type": kind, "message": text}})
}

func (m *DemoModel) messageAnthropic(w http.ResponseWriter, r *http.Request) {
	var in anthropicRequest
	if status, err := readJSON(r, &in); err != nil {
		anthropicError(w, status, err.Error())
		return
	}
	q := request{max: in.Max, temperature: defaultTemperature, stop: in.Stop, ignoreEnd: in.IgnoreEOS}
	if in.Temperature != nil {
		q.temperature = *in.Temperature
	}
	q.prompt = append(Tokens(string(in.System)), conversation(in.Messages)...)
	problem := q.problem()
	switch {
	case problem == "" && in.Max < 1:
		problem = "max_tokens is required and must be positive"
	case problem == "" && len(in.Messages) == 0:
		problem = "messages is required"
	case problem == "" && !m.knows(in.Model):
		anthropicError(w, http.StatusNotFound, fmt.Sprintf("model '%s' not found", in.Model))
		return
	}
	if problem != "" {
		anthropicError(w, http.StatusBadRequest, problem)
		return
	}
	whole := map[string]any{
		"id": fmt.Sprintf("msg_%016x", rand.Uint64()), "type": "message", "role": "assistant", "model": in.Model,
		"content": []any{}, "stop_reason": nil, "stop_sequence": nil, "usage": messageUsage(q, 0),
	}
	if in.Stream {
		m.streamMessage(w, r, q, whole)
		return
	}
	var text strings.Builder
	o, err := m.generate(r.Context(), q, func(more string) error {
		text.WriteString(more)
		return nil
	})
	if err != nil {
		return // the client is gone
	}
	whole["content"] = []any{textBlock(text.String())}
	whole["stop_reason"], whole["usage"] = stopReason(o), messageUsage(q, o.tokens)
	writeJSON(w, http.StatusOK, whole)
}

func textBlock(text string) map[string]string { return map[string]string{"type": "text", "text": text} }

func messageUsage(q request, output int) map[string]int {
	return map[string]int{"input_tokens": len(q.prompt), "output_tokens": output}
}

// stopReason is, as with Ollama, end_turn for a stop sequence too.
func stopReason(o outcome) string {
	if o.reason == reasonLength {
		return "max_tokens"
	}
	return "end_turn"
}

func (m *DemoModel) streamMessage(w http.ResponseWriter, r *http.Request, q request, whole map[string]any) {
	out := newEventWriter(w)
	event := func(name string, fields map[string]any) error {
		fields["type"] = name
		return out.named(name, fields)
	}
	err := errors.Join(
		event("message_start", map[string]any{"message": whole}),
		event("content_block_start", map[string]any{"index": 0, "content_block": textBlock("")}),
	)
	if err != nil {
		return
	}
	o, err := m.generate(r.Context(), q, func(more string) error {
		return event("content_block_delta", map[string]any{"index": 0, "delta": map[string]string{"type": "text_delta", "text": more}})
	})
	if err != nil {
		return // the client is gone
	}
	// The client may leave after the last word.
	_ = errors.Join(
		event("content_block_stop", map[string]any{"index": 0}),
		event("message_delta", map[string]any{"delta": map[string]any{"stop_reason": stopReason(o), "stop_sequence": nil}, "usage": messageUsage(q, o.tokens)}),
		event("message_stop", map[string]any{}),
	)
}
