package e2e

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/anthropics/anthropic-sdk-go"
	anthropicoption "github.com/anthropics/anthropic-sdk-go/option"
	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/openai/openai-go/v3/responses"
)

// place is where a stock client is pointed: a base URL and a key, and nothing else.
type place struct {
	base, key string
	http      *http.Client
}

// TestStockClientsNeedABaseURLAndAKeyAndNothingElse runs the requests that clients of three APIs make, at the front door with a
// program's key and through a listener of `iapctl connect`.
func TestStockClientsNeedABaseURLAndAKeyAndNothingElse(t *testing.T) {
	t.Parallel()
	s := newSystem(t, options{grants: keyGrants})
	up, _ := startDemo(t, 500)
	s.startAgent(map[string]string{"phi3=model": up.url})
	alice := s.loggedIn("alice")
	var k createdKey
	alice.ok(&k, "keys", "create", "--name", "stock", "--resource", "phi3", "--actions", "chat,list-models")
	local := alice.connect("phi3")
	plain := &http.Transport{}
	t.Cleanup(plain.CloseIdleConnections)
	for name, p := range map[string]place{
		"front door": {k.URL + "phi3", k.Key, s.https},
		"connect":    {local.url(), "iap-no-key-needed", &http.Client{Transport: plain}},
	} {
		t.Run(name+"/openai", p.openAI)
		t.Run(name+"/anthropic", p.anthropic)
		t.Run(name+"/ollama", p.ollama)
	}
}

func (p place) openAI(t *testing.T) {
	client := openai.NewClient(option.WithBaseURL(p.base+"/v1"), option.WithAPIKey(p.key), option.WithMaxRetries(0), option.WithHTTPClient(p.http))
	streamStock(t, client)
	models, err := client.Models.List(t.Context())
	if err != nil || len(models.Data) == 0 {
		t.Errorf("models: %+v %v", models, err)
	}
	answer, err := client.Responses.New(t.Context(), responses.ResponseNewParams{
		Model: "demo", Input: responses.ResponseNewParamsInputUnion{OfString: openai.String("Tell me about the sea.")}, MaxOutputTokens: openai.Int(8),
	})
	if err != nil || answer.OutputText() == "" || answer.Usage.OutputTokens == 0 {
		t.Errorf("responses: %+v %v", answer, err)
	}
}

// send makes a request with the headers that the client of an API sets.
func (p place) send(t *testing.T, method, path, body string, header map[string]string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, p.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	answer, err := p.http.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	if answer.StatusCode != http.StatusOK {
		t.Errorf("%s %s: %s %v", method, path, answer.Status, answer.Header)
	}
	return answer
}

func (p place) anthropic(t *testing.T) {
	client := anthropic.NewClient(anthropicoption.WithBaseURL(p.base), anthropicoption.WithAPIKey(p.key), anthropicoption.WithMaxRetries(0), anthropicoption.WithHTTPClient(p.http))
	ask := anthropic.MessageNewParams{
		Model: "demo", MaxTokens: 12, Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("Tell me about the sea."))},
	}
	whole, err := client.Messages.New(t.Context(), ask)
	if err != nil || len(whole.Content) == 0 || whole.Content[0].Text == "" || whole.Usage.OutputTokens == 0 {
		t.Errorf("messages: %+v %v", whole, err)
	}
	var streamed anthropic.Message
	events := client.Messages.NewStreaming(t.Context(), ask)
	for events.Next() {
		if err := streamed.Accumulate(events.Current()); err != nil {
			t.Fatal(err)
		}
	}
	if err := events.Err(); err != nil || len(streamed.Content) == 0 || streamed.Content[0].Text == "" || streamed.StopReason == "" {
		t.Errorf("streamed messages: %+v %v", streamed, err)
	}
}

// ollama sends what Ollama's own client sends: a heartbeat, the list, a chat that streams by itself.
func (p place) ollama(t *testing.T) {
	header := map[string]string{"User-Agent": "ollama/0.17.1 (amd64 linux) Go/go1.26.0", "Accept": "application/json", "Authorization": "Bearer " + p.key}
	p.send(t, "HEAD", "/", "", header)
	p.send(t, "GET", "/api/version", "", header)
	var tags struct{ Models []struct{ Name string } }
	if err := json.NewDecoder(p.send(t, "GET", "/api/tags", "", header).Body).Decode(&tags); err != nil || len(tags.Models) == 0 {
		t.Errorf("%+v %v", tags, err)
	}
	header["Accept"] = "application/x-ndjson"
	var done bool
	pieces := 0
	body := `{"model":"demo","messages":[{"role":"user","content":"Tell me about the sea."}],"options":{"num_predict":12}}`
	for lines := bufio.NewScanner(p.send(t, "POST", "/api/chat", body, header).Body); lines.Scan(); {
		var one struct{ Done bool }
		if err := json.Unmarshal(lines.Bytes(), &one); err != nil {
			t.Errorf("%s: %v", lines.Text(), err)
		}
		done = one.Done
		pieces++
	}
	if !done || pieces < 2 {
		t.Errorf("%d pieces, done: %t", pieces, done)
	}
}
