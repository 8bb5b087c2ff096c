package dev

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

const unpaced = 1e9

func startModel(t *testing.T, o ModelOptions) (*DemoModel, string) {
	t.Helper()
	m := Model(o)
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	return m, server.URL
}

// call posts JSON and returns status and body.
func call(t *testing.T, target, body string) (int, []byte) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Post(target, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, b
}

func TestHoldBackLosesNothingAndLeaksNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		piece := rapid.StringMatching(`[ab ]{1,3}`)
		pieces, stops := rapid.SliceOf(piece).Draw(r, "pieces"), rapid.SliceOfN(rapid.StringMatching(`[ab ]{1,4}`), 0, 3).Draw(r, "stops")
		h, out, stopped := holdBack{stops: stops}, "", false
		for _, p := range pieces {
			var more string
			more, stopped = h.add(p)
			out += more
			if stopped {
				break
			}
		}
		whole := strings.Join(pieces, "")
		if !stopped {
			out += h.rest()
			if out != whole {
				r.Fatalf("%q became %q", whole, out)
			}
		}
		if !strings.HasPrefix(whole, out) {
			r.Fatalf("%q is no beginning of %q", out, whole)
		}
		for _, s := range stops {
			if strings.Contains(out, s) {
				r.Fatalf("%q contains the stop %q", out, s)
			}
		}
	})
}

func TestTokensSurviveSpacing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		tokens := Tokens(rapid.String().Draw(r, "text"))
		text, before := "", ""
		for _, token := range tokens {
			text += spaced(before, token)
			before = token
		}
		if again := Tokens(text); strings.Contains(text, "-") || strings.Contains(text, "'") {
			return // a lone dash between words may join them
		} else if !slices.Equal(again, tokens) {
			r.Fatalf("%q → %q → %q", tokens, text, again)
		}
	})
	if got := Tokens("Don't go-by (2 cats)!"); !slices.Equal(got, []string{"Don't", "go-by", "(", "2", "cats", ")", "!"}) {
		t.Errorf("tokens = %q", got)
	}
}

func TestErrorsHaveTheProtocolsShape(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	for _, c := range []struct {
		path, body string
		status     int
		code       any
	}{
		{"/v1/chat/completions", `{"model":"gpt","messages":[{"role":"user","content":"x"}]}`, 404, "model_not_found"},
		{"/v1/chat/completions", `{"model":"demo","messages":[]}`, 400, nil},
		{"/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":"x"}],"max_tokens":0}`, 400, nil},
		{"/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":"x"}],"n":2}`, 400, nil},
		{"/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":[{"type":"image_url"}]}]}`, 400, nil},
		{"/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":"x"}],"temperature":9}`, 400, nil},
		{"/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":"x"}],"stop":[""]}`, 400, nil},
		{"/v1/chat/completions", `{"model":`, 400, nil},
		{"/v1/chat/completions", `{} {}`, 400, nil},
		{"/v1/completions", `{"model":"demo","prompt":[1,2]}`, 400, nil},
		{"/v1/embeddings", `{"model":"demo","input":[]}`, 400, nil},
		{"/v1/nothing", `{}`, 404, nil},
	} {
		status, b := call(t, base+c.path, c.body)
		var a struct {
			Error struct {
				Message, Type string
				Code          any
			}
		}
		if err := json.Unmarshal(b, &a); err != nil || status != c.status || a.Error.Message == "" || a.Error.Type != "invalid_request_error" || a.Error.Code != c.code {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, b)
		}
	}
	for _, c := range []struct {
		path, body string
		status     int
	}{
		{"/api/chat", `{"model":"gpt","messages":[{"role":"user","content":"x"}]}`, 404},
		{"/api/generate", `{"model":"demo","prompt":"x","options":{"temperature":-1}}`, 400},
		{"/api/show", `{"model":"gpt"}`, 404},
		{"/api/embed", `[`, 400},
	} {
		status, b := call(t, base+c.path, c.body)
		var a struct{ Error string }
		if err := json.Unmarshal(b, &a); err != nil || status != c.status || a.Error == "" {
			t.Errorf("%s %s: %d %s", c.path, c.body, status, b)
		}
	}
}

func TestModelIsListedByBothProtocols(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{})
	for path, want := range map[string]string{
		"/v1/models": `"id":"demo"`, "/v1/models/demo": `"id":"demo"`, "/api/tags": `"name":"demo:latest"`,
		"/api/ps": `"model":"demo:latest"`, "/api/version": `"version"`, "/": "Ollama is running",
	} {
		answer, body, err := get(t, t.Context(), base+path)
		if err != nil || answer.StatusCode != 200 || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, %v", path, body, err)
		}
	}
	if status, b := call(t, base+"/api/show", `{"model":"demo"}`); status != 200 || !strings.Contains(string(b), `"capabilities"`) {
		t.Errorf("show: %d %s", status, b)
	}
	if status, b := call(t, base+"/api/embed", `{"model":"demo","input":"sea"}`); status != 200 || !strings.Contains(string(b), `"prompt_eval_count":1`) {
		t.Errorf("embed: %d %s", status, b)
	}
}

func TestModelStopsWhenTheClientLeaves(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{"true", "false"} {
		started, ended := make(chan struct{}), make(chan struct{})
		m := Model(ModelOptions{TokensPerSecond: 200})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(started)
			m.ServeHTTP(w, r)
			close(ended)
		}))
		ctx, cancel := context.WithCancel(t.Context())
		body := `{"model":"demo","messages":[{"role":"user","content":"x"}],"max_tokens":100000,"ignore_eos":true,"stream":` + stream + `}`
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		left := make(chan error, 1)
		go func() {
			answer, err := client.Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
			left <- err
		}()
		<-started
		cancel()
		if err := <-left; !errors.Is(err, context.Canceled) {
			t.Errorf("client = %v", err)
		}
		<-ended // 100,000 tokens would take minutes
		if m.Active() != 0 || m.Generated() > 10_000 {
			t.Errorf("active %d, generated %d", m.Active(), m.Generated())
		}
		server.Close()
	}
}

func TestFirstTokenIsNotHeldForTheSecond(t *testing.T) {
	t.Parallel()
	m, base := startModel(t, ModelOptions{TokensPerSecond: 1000})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	body := `{"model":"demo","prompt":"x","options":{"ignore_eos":true}}`
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/api/generate", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	for range 3 { // the generation is endless: a line that arrives was flushed by itself
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
	}
	if m.Active() != 1 {
		t.Errorf("active = %d", m.Active())
	}
}

func TestPaceIsSteadyAndDoesNotDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := Model(ModelOptions{TokensPerSecond: 20})
		begun, n := time.Now(), 0
		_, err := m.generate(t.Context(), request{max: 50, ignoreEnd: true, temperature: 1}, func(string) error {
			n++
			if got, want := time.Since(begun), time.Duration(n)*50*time.Millisecond; got != want {
				t.Errorf("token %d at %v, want %v", n, got, want)
			}
			time.Sleep(20 * time.Millisecond) // a slow reader: fake time, and no token is late for it
			return nil
		})
		if err != nil || n != 50 {
			t.Errorf("%d tokens, %v", n, err)
		}
	})
}
