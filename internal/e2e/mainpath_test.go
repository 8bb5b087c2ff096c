package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"iap/internal/audit"
	"iap/internal/dev"
)

func stockClient(c *connection) openai.Client {
	return openai.NewClient(option.WithBaseURL(c.report.Connections[0].OpenAI), option.WithAPIKey("unused"), option.WithMaxRetries(0))
}

func question(prompt string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{
		Model: "demo", MaxCompletionTokens: openai.Int(20),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(prompt)},
	}
}

// The product's one sentence: a stock client, a real login, a model that listens to nobody outside its machine.
func TestStockClientStreamsAChatAfterADeviceLogin(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	c := s.loggedIn("alice").connect("phi3")
	if r := c.report; r.Principal != "dev/alice" || !r.Connections[0].Online || r.Connections[0].Kind != "model" {
		t.Errorf("connect reports %+v", r)
	}
	client := stockClient(c)

	t.Run("streamed", func(t *testing.T) { streamStock(t, client) })
	t.Run("whole", func(t *testing.T) {
		got, err := client.Chat.Completions.New(t.Context(), question("Tell me about ships."))
		if err != nil {
			t.Fatal(err)
		}
		checkAnswer(t, got.Choices[0].Message.Content, "Tell me about ships.", got.Usage)
	})
	t.Run("models", func(t *testing.T) {
		got, err := client.Models.List(t.Context())
		if err != nil || len(got.Data) != 1 || got.Data[0].ID != "demo" {
			t.Errorf("models = %+v, %v", got, err)
		}
	})
	all := s.awaitSettled()
	checkAudit(t, all, up.requests())
	checkOutcomes(t, all, up.requests())
}

func streamStock(t *testing.T, client openai.Client) {
	q := question("Tell me about the sea.")
	q.StreamOptions.IncludeUsage = openai.Bool(true)
	stream := client.Chat.Completions.NewStreaming(t.Context(), q)
	defer stream.Close()
	var text strings.Builder
	var usage openai.CompletionUsage
	finish, pieces := "", 0
	for stream.Next() {
		event := stream.Current()
		if event.Usage.TotalTokens > 0 {
			usage = event.Usage
		}
		for _, choice := range event.Choices {
			if choice.Delta.Content != "" {
				pieces++
			}
			text.WriteString(choice.Delta.Content)
			finish += choice.FinishReason
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if pieces < 2 || finish == "" {
		t.Errorf("%d pieces, finish reason %q", pieces, finish)
	}
	checkAnswer(t, text.String(), "Tell me about the sea.", usage)
}

// checkAnswer counts the tokens once more.
func checkAnswer(t *testing.T, text, prompt string, usage openai.CompletionUsage) {
	t.Helper()
	in, out := int64(len(dev.Tokens(prompt))), int64(len(dev.Tokens(text)))
	if out == 0 || usage.PromptTokens != in || usage.CompletionTokens != out || usage.TotalTokens != in+out {
		t.Errorf("usage = %d + %d = %d for %d and %d tokens: %q", usage.PromptTokens, usage.CompletionTokens, usage.TotalTokens, in, out, text)
	}
}

// checkOutcomes looks at what was written of requests that all went well.
func checkOutcomes(t *testing.T, all []audit.Event, seen []seenRequest) {
	t.Helper()
	found := histories(all)
	for _, q := range seen {
		h := found[q.id()]
		if h == nil || len(h.outcomes) != 1 {
			t.Errorf("%s %s: history %+v", q.method, q.path, h)
			continue
		}
		d, o := h.decision, h.outcomes[0]
		if d.Principal != "dev/alice" || d.Resource != "phi3" || d.Grant != "engineers" || d.Session == "" || d.Path != q.path || d.Method != q.method {
			t.Errorf("decision %+v", d)
		}
		if o.Ended != "completed" || o.Status != 200 || o.BytesOut == 0 || o.Agent == "" {
			t.Errorf("outcome %+v", o)
		}
	}
}

func TestOllamaAPIPassesPlainAndStreamed(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	web := newCaller(t, s.loggedIn("alice").connect("phi3").url())

	if tags := web.ask("GET", "/api/tags", ""); tags.status != 200 || !strings.Contains(tags.body, `"demo:latest"`) {
		t.Errorf("tags = %+v", tags)
	}
	if v := web.ask("GET", "/api/version", ""); v.status != 200 || !strings.Contains(v.body, "version") {
		t.Errorf("version = %+v", v)
	}
	body := `{"model":"demo","options":{"num_predict":8},"messages":[{"role":"user","content":"Hello there"}]`
	streamed := web.ask("POST", "/api/chat", body+`}`)
	lines := strings.Split(strings.TrimSpace(streamed.body), "\n")
	var last struct {
		Done  bool
		Count int `json:"eval_count"`
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || !last.Done || last.Count == 0 || len(lines) < 3 {
		t.Errorf("streamed chat = %d lines, %+v, %v", len(lines), last, err)
	}
	if kind := streamed.header.Get("Content-Type"); !strings.HasPrefix(kind, "application/x-ndjson") {
		t.Errorf("content type %q", kind)
	}
	whole := web.ask("POST", "/api/chat", body+`,"stream":false}`)
	if err := json.Unmarshal([]byte(whole.body), &last); err != nil || !last.Done || strings.Count(whole.body, "\n") > 1 {
		t.Errorf("whole chat = %s, %v", whole.body, err)
	}
	if gone := web.ask("POST", "/api/nothing", `{}`); gone.status != 404 || gone.code() != "unknown_route" {
		t.Errorf("unknown route = %+v", gone)
	}
	checkAudit(t, s.awaitSettled(), up.requests())
}

func TestUpstreamLearnsWhoCallsAndNobodyCanLieToIt(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{})
	up := startScripted(t, false, map[string]trick{"m": func(w http.ResponseWriter, _ <-chan struct{}) {
		answerJSON(w, `{"id":"c","object":"chat.completion","choices":[]}`)
	}})
	app := startUpstream(t, echoApp())
	s.startAgent(map[string]string{"phi3=model": up.url, "app=http": app.url})
	c := s.loggedIn("alice").connectAll("phi3", "app")
	lies := []string{
		"X-IAP-Principal: dev/mallory", "X-Iap-Email: mallory@example.test", "x_iap_principal: dev/mallory", "X_IAP_Groups: admins",
		"X-IAP-Groups: admins", "X-IAP-Assertion: e30.e30.", "X-Request-Id: chosen", "X-Forwarded-User: mallory",
	}
	for i, path := range []string{"/v1/chat/completions", "/any"} {
		web := newCaller(t, c.report.Connections[i].URL)
		if got := web.ask("POST", path, chatBody("m", "who am I", false, 1), lies...); got.status != 200 {
			t.Fatalf("%s: %+v", path, got)
		}
	}
	for _, seen := range append(up.requests(), app.requests()...) {
		checkIdentity(t, seen)
	}
	checkAudit(t, s.awaitSettled(), append(up.requests(), app.requests()...))
}

func checkIdentity(t *testing.T, q seenRequest) {
	t.Helper()
	for name, want := range map[string]string{
		"X-Iap-Principal": "dev/alice", "X-Iap-Email": "alice@example.test", "X-Iap-Groups": "ml-eng,llm-users",
	} {
		if got := q.header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %s = %q, want %q", q.path, name, got, want)
		}
	}
	if got := q.header.Values("X-Iap-Assertion"); len(got) != 1 || strings.Count(got[0], ".") != 2 || len(got[0]) < 100 {
		t.Errorf("%s: assertion = %q", q.path, got)
	}
	if q.id() == "chosen" {
		t.Errorf("%s: the caller chose the request's id", q.path)
	}
	for name, values := range q.header {
		if strings.Contains(name, "_") || strings.Contains(strings.Join(values, " "), "mallory") {
			t.Errorf("%s: %s: %q reached the upstream", q.path, name, values)
		}
	}
}
