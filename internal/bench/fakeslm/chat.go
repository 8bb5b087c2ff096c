package fakeslm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"iap/internal/bench/clock"
)

const (
	promptTokens = 8 // of every prompt, whatever it says
	lineSize     = 512
)

type chatRequest struct {
	Stream        *bool `json:"stream"`
	MaxTokens     int   `json:"max_tokens"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Options struct {
		NumPredict int `json:"num_predict"`
	} `json:"options"`
}

// streams reports whether the answer is streamed; APIs differ in what they do
// unless told.
func (r chatRequest) streams(unlessTold bool) bool {
	if r.Stream == nil {
		return unlessTold
	}
	return *r.Stream
}

// readChat decodes the request and works out the pace of its answer.
func (s *Server) readChat(w http.ResponseWriter, r *http.Request) (chatRequest, Pace, error) {
	s.requests.Add(1)
	var req chatRequest
	p := *s.pace.Load()
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&req); err != nil {
		return req, p, fmt.Errorf("read request body: %w", err)
	}
	if n := max(req.MaxTokens, req.Options.NumPredict); n > 0 {
		p.Tokens = n
	}
	if p.Tokens < 0 || p.Tokens > maxTokens {
		return req, p, errors.New("tokens out of range")
	}
	return req, p, nil
}

func (s *Server) openAIChat(w http.ResponseWriter, r *http.Request) {
	req, p, err := s.readChat(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	usage := map[string]int{"prompt_tokens": promptTokens, "completion_tokens": p.Tokens, "total_tokens": promptTokens + p.Tokens}
	if !req.streams(false) {
		s.wholeAnswer(w, r, p, func(text string) any {
			return map[string]any{
				"id": "chatcmpl-fake", "object": "chat.completion", "created": time.Now().Unix(), "model": Model,
				"choices": []any{map[string]any{
					"index": 0, "finish_reason": "stop", "message": map[string]string{"role": "assistant", "content": text},
				}},
				"usage": usage,
			}
		})
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	start := `data: {"id":"chatcmpl-fake","object":"chat.completion.chunk","created":` + strconv.FormatInt(time.Now().Unix(), 10) +
		`,"model":"` + Model + `","choices":[`
	s.streamAnswer(w, r, p, func(line []byte, t token) []byte {
		line = append(append(line, start...), `{"index":0,"delta":{"content":"tok`...)
		line = strconv.AppendInt(line, int64(t.index), 10)
		if t.last {
			line = append(line, ` "},"finish_reason":"stop"}],`...)
		} else {
			line = append(line, ` "},"finish_reason":null}],`...)
		}
		line = append(t.appendStamps(line), "}\n\n"...)
		if t.last && req.StreamOptions.IncludeUsage {
			line = append(append(line, start...), `],"usage":`...)
			line = fmt.Appendf(line, `{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}`+"\n\n", promptTokens, p.Tokens, promptTokens+p.Tokens)
		}
		if t.last {
			line = append(line, "data: [DONE]\n\n"...)
		}
		return line
	})
}

func (s *Server) ollamaChat(w http.ResponseWriter, r *http.Request) {
	req, p, err := s.readChat(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	created := time.Now().UTC().Format(time.RFC3339Nano)
	if !req.streams(true) {
		s.wholeAnswer(w, r, p, func(text string) any {
			return map[string]any{
				"model": Model, "created_at": created, "done": true, "done_reason": "stop",
				"message":           map[string]string{"role": "assistant", "content": text},
				"prompt_eval_count": promptTokens, "eval_count": p.Tokens,
			}
		})
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	start := `{"model":"` + Model + `","created_at":"` + created + `","message":{"role":"assistant","content":"tok`
	s.streamAnswer(w, r, p, func(line []byte, t token) []byte {
		line = append(line, start...)
		line = strconv.AppendInt(line, int64(t.index), 10)
		line = append(line, ` "},"done":`...)
		line = strconv.AppendBool(line, t.last)
		if t.last {
			line = fmt.Appendf(line, `,"done_reason":"stop","prompt_eval_count":%d,"eval_count":%d`, promptTokens, p.Tokens)
		}
		return append(t.appendStamps(append(line, ',')), "}\n"...)
	})
}

// token is one token of a streamed answer.
type token struct {
	index     int
	last      bool
	due, sent int64 // nanoseconds of package clock
}

func (t token) appendStamps(line []byte) []byte {
	line = append(line, `"x_due_ns":`...)
	line = strconv.AppendInt(line, t.due, 10)
	line = append(line, `,"x_sent_ns":`...)
	return strconv.AppendInt(line, t.sent, 10)
}

// wholeAnswer waits as long as producing the tokens takes, then sends one body.
func (s *Server) wholeAnswer(w http.ResponseWriter, r *http.Request, p Pace, body func(text string) any) {
	if wait := p.due(p.Tokens); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
	}
	writeJSON(w, body(strings.Repeat("tok ", p.Tokens)))
}

// streamAnswer sends the tokens one by one. Their times are absolute, so a slow
// reader delays tokens but never changes the schedule.
func (s *Server) streamAnswer(w http.ResponseWriter, r *http.Request, p Pace, format func(line []byte, t token) []byte) {
	s.streams.Add(1)
	defer s.streams.Add(-1)
	control := http.NewResponseController(w)
	if control.Flush() != nil { // headers go out before the first token, as real servers do
		return
	}
	start := clock.Now()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	line := make([]byte, 0, lineSize)
	for i := range p.Tokens {
		due := start + int64(p.due(i))
		if wait := due - clock.Now(); wait > 0 {
			timer.Reset(time.Duration(wait))
			select {
			case <-timer.C:
			case <-r.Context().Done():
				return
			}
		}
		line = format(line[:0], token{index: i, last: i == p.Tokens-1, due: due, sent: clock.Now()})
		if _, err := w.Write(line); err != nil || control.Flush() != nil {
			return
		}
	}
}
