package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"iap/internal/admin"
	"iap/internal/connect"
	"iap/tunnel"
)

const (
	maxEvent  = 1 << 20 // one server-sent event; a delta is a few hundred bytes
	maxAnswer = 8 << 20 // of text kept for the next turn
	maxList   = 4 << 20 // of models
)

// conversation is a talk with one model over one session, with its history.
type conversation struct {
	resource string
	models   []string // those the relay listed
	model    string
	http     *http.Client
	history  []chatMessage
}

type chatMessage struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// chatAnswer is what has come of an answer, also when it was cut.
type chatAnswer struct{ text, finish string }

func newConversation(session *tunnel.Session, r admin.Resource) *conversation {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return connect.DialStream(ctx, session, tunnel.Header{Resource: r.Name, Kind: r.Kind})
	}
	return &conversation{
		resource: r.Name, models: r.Models,
		http: &http.Client{Transport: &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 1}},
	}
}

func (c *conversation) close() { c.http.CloseIdleConnections() }

// chooseModel takes the one asked for, or the first that is offered.
func (c *conversation) chooseModel(ctx context.Context, asked string) (string, error) {
	if asked != "" {
		return asked, nil
	}
	if len(c.models) > 0 {
		return c.models[0], nil
	}
	reply, err := c.call(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(reply.Body, maxList)).Decode(&list); err != nil {
		return "", &failure{code: "upstream_invalid", what: "the list of models cannot be read", next: "name one: --model MODEL", cause: err}
	}
	if len(list.Data) == 0 {
		return "", &failure{code: "model_not_granted", what: "there is no model here that you may use", next: "iapctl policy explain " + clean(c.resource)}
	}
	return list.Data[0].ID, nil
}

// send asks one thing and writes the answer as it comes. It stays in the history only if the answer was complete.
func (c *conversation) send(ctx context.Context, prompt string, w io.Writer) (chatAnswer, error) {
	messages := append(append([]chatMessage(nil), c.history...), chatMessage{Role: "user", Content: prompt})
	body, err := json.Marshal(map[string]any{"model": c.model, "messages": messages, "stream": true})
	if err != nil {
		return chatAnswer{}, fmt.Errorf("encode request: %w", err)
	}
	reply, err := c.call(ctx, http.MethodPost, "/v1/chat/completions", body)
	if err != nil {
		return chatAnswer{}, err
	}
	defer reply.Body.Close()
	answer, err := readEvents(reply.Body, w)
	if err != nil {
		return answer, err
	}
	c.history = append(messages, chatMessage{Role: "assistant", Content: answer.text})
	return answer, nil
}

// call makes one request; an answer of 400 and above becomes a failure.
func (c *conversation) call(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("build request: %w", err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	reply, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	if reply.StatusCode >= http.StatusBadRequest {
		defer reply.Body.Close()
		data, _ := io.ReadAll(io.LimitReader(reply.Body, maxEvent))
		return nil, httpFailure(reply, data)
	}
	return reply, nil
}

// apiError is the error object of OpenAI's API.
type apiError struct {
	Message string `json:"message"`
	Code    any    `json:"code"` // a word, or a number on some servers
	Type    string `json:"type"`
}

func (e apiError) failure(status int) *failure {
	code, _ := e.Code.(string)
	f := &failure{code: clean(firstOf(code, e.Type, "upstream_error")), what: firstOf(clean(e.Message), "the model server refused the request")}
	f.what = strings.TrimPrefix(f.what, f.code+": ") // the code has a line of its own
	if _, known := exitCodes[f.code]; !known {
		f.exitCode = statusExit(status)
	}
	f.next = nextFor(f.exit())
	return f
}

func httpFailure(reply *http.Response, data []byte) *failure {
	var body struct {
		Error apiError `json:"error"`
	}
	_ = json.Unmarshal(data, &body) // without an object the status speaks alone
	if body.Error.Message == "" {
		body.Error.Message = "the answer was " + reply.Status
	}
	f := body.Error.failure(reply.StatusCode)
	if f.stepUp = stepUpOfHeader(reply.Header); f.stepUp != nil {
		f.next, f.exitCode = stepUpLogin(f.stepUp).command(), exitLogin
	}
	if after := reply.Header.Get("Retry-After"); after != "" && f.exit() == exitLimit {
		f.next = "try again in " + waitText(after)
	}
	return f
}

// waitText writes a Retry-After for a person.
func waitText(seconds string) string {
	n, err := strconv.Atoi(seconds)
	switch {
	case err != nil:
		return clean(seconds) // a date
	case n < 120:
		return strconv.Itoa(n) + " seconds"
	case n < 120*60:
		return "about " + strconv.Itoa((n+59)/60) + " minutes"
	}
	return "about " + strconv.Itoa((n+3599)/3600) + " hours"
}

// statusExit is the exit status for an HTTP status whose code says nothing to us.
func statusExit(status int) int {
	switch status {
	case http.StatusUnauthorized:
		return exitLogin
	case http.StatusForbidden:
		return exitDenied
	case http.StatusTooManyRequests:
		return exitLimit
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return exitOffline
	}
	return exitError
}

func nextFor(exit int) string {
	switch exit {
	case exitUsage: // again would be the same
		return anyHelp
	case exitLogin:
		return "iapctl login"
	case exitDenied:
		return "iapctl resources"
	case exitOffline:
		return "iapctl resources"
	case exitLimit:
		return "wait, then try again"
	}
	return "try again"
}

var errCutAnswer = errors.New("stream ended before [DONE]")

// readEvents reads a stream of chat chunks. An answer that ends without saying so was cut, and that is an error.
func readEvents(body io.Reader, w io.Writer) (chatAnswer, error) {
	var text strings.Builder
	var finish string
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue // comments, empty lines, names of events
		}
		data = strings.TrimSpace(data)
		if data == "[DONE]" {
			return chatAnswer{text: text.String(), finish: finish}, nil
		}
		var chunk chatChunk
		if err := json.Unmarshal([]byte(data), &chunk); err != nil {
			return chatAnswer{text: text.String()}, cutAnswer(err)
		}
		if chunk.Error != nil {
			return chatAnswer{text: text.String()}, chunk.Error.failure(0)
		}
		if len(chunk.Choices) == 0 {
			continue
		}
		finish = firstOf(chunk.Choices[0].FinishReason, finish)
		piece := chunk.Choices[0].Delta.Content
		if text.Len() < maxAnswer {
			text.WriteString(piece)
		}
		if _, err := io.WriteString(w, piece); err != nil {
			return chatAnswer{text: text.String()}, fmt.Errorf("write answer: %w", err)
		}
	}
	err := lines.Err()
	if err == nil {
		err = errCutAnswer
	}
	return chatAnswer{text: text.String()}, cutAnswer(err)
}

type chatChunk struct {
	Choices []struct {
		Delta struct {
			Content string `json:"content"`
		} `json:"delta"`
		FinishReason string `json:"finish_reason"`
	} `json:"choices"`
	Error *apiError `json:"error"`
}

// cutAnswer names why the stream broke where the tunnel knows it.
func cutAnswer(err error) error {
	if errors.Is(err, context.Canceled) || tunnel.CodeOf(err) != tunnel.CodeNone {
		return err
	}
	return &failure{code: "answer_cut", what: "the answer was cut off before its end", next: "try again", cause: err}
}

// firstWrite runs a hook before the first byte: a spinner ends there.
type firstWrite struct {
	w    io.Writer
	hook func()
	once sync.Once
}

func (f *firstWrite) Write(p []byte) (int, error) {
	if len(p) > 0 {
		f.once.Do(f.hook)
	}
	return f.w.Write(p)
}
