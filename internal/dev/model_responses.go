package dev

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// responsesRequest is what the Responses API takes; the rest is accepted and ignored.
type responsesRequest struct {
	Model        string         `json:"model"`
	Input        responsesInput `json:"input"`
	Instructions string         `json:"instructions"`
	Max          *int           `json:"max_output_tokens"`
	Temperature  *float64       `json:"temperature"`
	Stream       bool           `json:"stream"`
	IgnoreEOS    bool           `json:"ignore_eos"`
}

// responsesInput is one text or a conversation.
type responsesInput []message

func (in *responsesInput) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err == nil {
		*in = responsesInput{{Role: "user", Content: parts(text)}}
		return nil
	}
	var list []message
	if err := json.Unmarshal(data, &list); err != nil {
		return errors.New("input must be a string or a list of messages")
	}
	*in = list
	return nil
}

func (m *DemoModel) respondOpenAI(w http.ResponseWriter, r *http.Request) {
	var in responsesRequest
	if status, err := readJSON(r, &in); err != nil {
		openAIError(w, status, "", err.Error())
		return
	}
	q := request{max: defaultMaxTokens, temperature: defaultTemperature, ignoreEnd: in.IgnoreEOS}
	if in.Max != nil {
		q.max = *in.Max
	}
	if in.Temperature != nil {
		q.temperature = *in.Temperature
	}
	q.prompt = append(Tokens(in.Instructions), conversation(in.Input)...)
	problem := q.problem()
	switch {
	case !m.knows(in.Model):
		modelNotFound(w, in.Model)
		return
	case problem == "" && q.max < 1:
		problem = "max_output_tokens must be at least 1"
	case problem == "" && len(in.Input) == 0:
		problem = "input must not be empty"
	}
	if problem != "" {
		openAIError(w, http.StatusBadRequest, "", problem)
		return
	}
	a := &responding{id: fmt.Sprintf("resp_%016x", rand.Uint64()), item: fmt.Sprintf("msg_%016x", rand.Uint64()), created: time.Now().Unix(), in: in, q: q}
	if in.Stream {
		m.streamResponse(w, r, a)
		return
	}
	var text strings.Builder
	o, err := m.generate(r.Context(), q, func(more string) error {
		text.WriteString(more)
		return nil
	})
	if err == nil { // else the client is gone
		writeJSON(w, http.StatusOK, a.finished(text.String(), o))
	}
}

// responding is one response in the making.
type responding struct {
	id, item string
	created  int64
	in       responsesRequest
	q        request
	number   int // of the next event
}

// response is the object that the answer is, or that an event tells of.
func (a *responding) response(status string, output []any) map[string]any {
	return map[string]any{
		"id": a.id, "object": "response", "created_at": a.created, "status": status, "model": a.in.Model, "output": output,
		"error": nil, "incomplete_details": nil, "instructions": a.in.Instructions, "metadata": map[string]any{}, "usage": nil,
		"parallel_tool_calls": false, "tool_choice": "none", "tools": []any{}, "temperature": a.q.temperature, "top_p": 1, "store": false,
	}
}

func (a *responding) message(status, text string) map[string]any {
	content := []any{}
	if status != "in_progress" {
		content = append(content, outputText(text))
	}
	return map[string]any{"id": a.item, "type": "message", "status": status, "role": "assistant", "content": content}
}

func outputText(text string) map[string]any {
	return map[string]any{"type": "output_text", "text": text, "annotations": []any{}}
}

// finished is the whole response with its numbers.
func (a *responding) finished(text string, o outcome) map[string]any {
	status := "completed"
	if o.reason == reasonLength {
		status = "incomplete"
	}
	whole := a.response(status, []any{a.message(status, text)})
	if status == "incomplete" {
		whole["incomplete_details"] = map[string]string{"reason": "max_output_tokens"}
	}
	whole["usage"] = map[string]any{
		"input_tokens": len(a.q.prompt), "output_tokens": o.tokens, "total_tokens": len(a.q.prompt) + o.tokens,
		"input_tokens_details": map[string]int{"cached_tokens": 0}, "output_tokens_details": map[string]int{"reasoning_tokens": 0},
	}
	return whole
}

// event adds to a part of the answer's what every event has.
func (a *responding) event(out *eventWriter, name string, fields map[string]any) error {
	fields["type"], fields["sequence_number"] = name, a.number
	a.number++
	return out.named(name, fields)
}

// within are the fields of events about the one part of the one message.
func (a *responding) within(key string, value any) map[string]any {
	return map[string]any{"item_id": a.item, "output_index": 0, "content_index": 0, key: value}
}

func (m *DemoModel) streamResponse(w http.ResponseWriter, r *http.Request, a *responding) {
	out := newEventWriter(w)
	begun := a.response("in_progress", []any{})
	err := errors.Join(
		a.event(out, "response.created", map[string]any{"response": begun}),
		a.event(out, "response.in_progress", map[string]any{"response": begun}),
		a.event(out, "response.output_item.added", map[string]any{"output_index": 0, "item": a.message("in_progress", "")}),
		a.event(out, "response.content_part.added", a.within("part", outputText(""))),
	)
	if err != nil {
		return
	}
	var text strings.Builder
	o, err := m.generate(r.Context(), a.q, func(more string) error {
		text.WriteString(more)
		return a.event(out, "response.output_text.delta", a.within("delta", more))
	})
	if err != nil {
		return // the client is gone
	}
	whole := a.finished(text.String(), o)
	status := whole["status"].(string)
	// The client may leave after the last word.
	_ = errors.Join(
		a.event(out, "response.output_text.done", a.within("text", text.String())),
		a.event(out, "response.content_part.done", a.within("part", outputText(text.String()))),
		a.event(out, "response.output_item.done", map[string]any{"output_index": 0, "item": a.message(status, text.String())}),
		a.event(out, "response."+status, map[string]any{"response": whole}),
	)
}
