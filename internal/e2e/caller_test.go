package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// caller is an HTTP client of a local listener, as a program of the user's would be.
type caller struct {
	t    *testing.T
	http *http.Client
	base string
}

// caller talks to base and keeps connections until the test ends.
func newCaller(t *testing.T, base string) *caller {
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{t: t, http: &http.Client{Transport: transport}, base: base}
}

// do sends one request. The caller closes the answer's body.
func (c *caller) do(ctx context.Context, method, path, body string, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, c.base+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header[name] = append(r.Header[name], value) // verbatim: some tests spell names oddly
	}
	return c.http.Do(r)
}

// answer is a whole answer.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends one request and reads its answer to the end.
func (c *caller) ask(method, path, body string, header ...string) answer {
	c.t.Helper()
	a, err := c.tryAsk(method, path, body, header...)
	if err != nil {
		c.t.Fatalf("%s %s: %v after %q", method, path, err, a.body)
	}
	return a
}

func (c *caller) tryAsk(method, path, body string, header ...string) (answer, error) {
	ctx, cancel := limited(c.t)
	defer cancel()
	response, err := c.do(ctx, method, path, body, header...)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// code is the error code of an answer in OpenAI's or Ollama's shape.
func (a answer) code() string {
	var openAI struct {
		Error struct{ Code string }
	}
	if json.Unmarshal([]byte(a.body), &openAI) == nil && openAI.Error.Code != "" {
		return openAI.Error.Code
	}
	var ollama struct{ Error, Code string }
	_ = json.Unmarshal([]byte(a.body), &ollama) // what is neither has no code
	return ollama.Code
}

// chatBody is a chat request. What it asks stands in the prompt, so that the upstream can tell requests apart.
func chatBody(model, prompt string, stream bool, maxTokens int) string {
	return fmt.Sprintf(`{"model":%q,"stream":%t,"max_tokens":%d,"ignore_eos":true,"messages":[{"role":"user","content":%q}]}`, model, stream, maxTokens, prompt)
}

// live is a streamed answer that is being read.
type live struct {
	response *http.Response
	lines    *bufio.Scanner
	leave    context.CancelFunc
}

// ending is how a streamed answer ended.
type ending struct {
	done bool   // [DONE], or Ollama's done:true
	code string // of an error inside the answer
	err  error  // of the transport
}

// visible says whether a client must have noticed that the answer is not whole.
func (e ending) visible() bool {
	return !e.done && e.err != nil && !errors.Is(e.err, context.DeadlineExceeded)
}

// stream opens a streamed chat and waits for its first token.
func (c *caller) stream(path, body string) (*live, error) {
	ctx, leave := context.WithTimeout(c.t.Context(), 2*patience)
	response, err := c.do(ctx, http.MethodPost, path, body)
	if err != nil {
		leave()
		return nil, err
	}
	s := &live{response: response, lines: bufio.NewScanner(response.Body), leave: leave}
	c.t.Cleanup(s.close)
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(response.Body) // the status alone says enough
		return nil, fmt.Errorf("%s: %s", response.Status, text)
	}
	for s.lines.Scan() {
		if strings.Contains(s.lines.Text(), `"content":"`) && !strings.Contains(s.lines.Text(), `"content":""`) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("no token came: %w", s.lines.Err())
}

// mustStream is stream for a test that cannot go on without.
func (c *caller) mustStream(path, body string) *live {
	c.t.Helper()
	s, err := c.stream(path, body)
	if err != nil {
		c.t.Fatalf("POST %s: %v", path, err)
	}
	return s
}

// rest reads to the end.
func (s *live) rest() ending {
	var e ending
	for s.lines.Scan() {
		line := s.lines.Text()
		data := strings.TrimPrefix(line, "data: ")
		if data == "[DONE]" || strings.Contains(line, `"done":true`) {
			e.done = true
		}
		if code := (answer{body: data}).code(); code != "" {
			e.code = code
		}
	}
	e.err = s.lines.Err()
	return e
}

// close leaves, as a user who presses Ctrl-C.
func (s *live) close() {
	s.leave()
	_ = s.response.Body.Close()
}
