package fakeslm

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func post(t *testing.T, base, path, body string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Post(base+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func start(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(New(Pace{Tokens: 4}).Handler())
	t.Cleanup(server.Close)
	return server.URL
}

func TestStreamsCarryTheTokensAskedForWithStamps(t *testing.T) {
	base := start(t)
	for path, body := range map[string]string{
		"/v1/chat/completions": `{"model":"fake-slm","stream":true,"max_tokens":5,"stream_options":{"include_usage":true}}`,
		"/api/chat":            `{"model":"fake-slm","options":{"num_predict":5}}`,
	} {
		text := post(t, base, path, body)
		if n := strings.Count(text, `"x_sent_ns":`); n != 5 {
			t.Errorf("%s: %d tokens in %s", path, n, text)
		}
		if strings.HasPrefix(path, "/v1") && (!strings.HasSuffix(text, "data: [DONE]\n\n") || !strings.Contains(text, `"completion_tokens":5`)) {
			t.Errorf("%s ends with %q", path, text[max(0, len(text)-200):])
		}
	}
}

func TestEveryStreamedLineIsJSON(t *testing.T) {
	base := start(t)
	text := post(t, base, "/v1/chat/completions", `{"stream":true}`) + post(t, base, "/api/chat", `{}`)
	lines := 0
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "data: ")
		if line == "" || line == "[DONE]" {
			continue
		}
		if lines++; !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	if lines != 8 {
		t.Errorf("%d lines", lines)
	}
}

func TestWholeAnswersCountTheirTokens(t *testing.T) {
	base := start(t)
	if text := post(t, base, "/v1/chat/completions", `{"max_tokens":3}`); !strings.Contains(text, `"completion_tokens":3`) {
		t.Error(text)
	}
	if text := post(t, base, "/api/chat", `{"stream":false}`); !strings.Contains(text, `"eval_count":4`) {
		t.Error(text)
	}
}

func TestSinkCountsWhatArrives(t *testing.T) {
	base := start(t)
	post(t, base, "/sink", strings.Repeat("x", 1000))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, want := range map[string]string{"/stats": `"sunk_bytes":1000`, "/bytes?n=3": "\x00\x07\x0e"} {
		r, err := client.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(r.Body)
		r.Body.Close()
		if !strings.Contains(string(text), want) {
			t.Errorf("%s: %q", path, text)
		}
	}
}

func TestPaceIsRefusedIfItMakesNoSense(t *testing.T) {
	base := start(t)
	if text := post(t, base, "/pace?tps=5&tokens=2&ttft=1s", ""); !strings.Contains(text, `"tps":5`) {
		t.Error(text)
	}
	for _, bad := range []string{"tps=x", "tokens=x", "ttft=x", "what=1"} {
		if text := post(t, base, "/pace?"+bad, ""); strings.HasPrefix(text, "{") {
			t.Errorf("%s passed: %s", bad, text)
		}
	}
}

func TestTokensAreDueAtTheirPace(t *testing.T) {
	p := Pace{PerSecond: 10, FirstWait: time.Second}
	if due := p.due(5); due != 1500*time.Millisecond {
		t.Errorf("token 5 is due at %s", due)
	}
	if due := (Pace{FirstWait: time.Second}).due(5); due != time.Second {
		t.Errorf("without a pace token 5 is due at %s", due)
	}
}

func TestCommandSaysWhereItListensAndEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Command(ctx, []string{"-listen", "127.0.0.1:0"}, w) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "listening on 127.0.0.1:") {
		t.Errorf("it said %q, %v", line, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := Command(t.Context(), []string{"-listen", "127.0.0.1:0,256.0.0.1:0"}, io.Discard); err == nil {
		t.Error("an address that is none passed")
	}
}
