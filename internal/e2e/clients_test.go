package e2e

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

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

// anthropic sends what Anthropic's Go and TypeScript clients send: the key as X-Api-Key.
func (p place) anthropic(t *testing.T) {
	header := map[string]string{
		"X-Api-Key": p.key, "Anthropic-Version": "2023-06-01", "User-Agent": "Anthropic/Go 1.20.0", "X-Stainless-Lang": "go",
		"X-Stainless-Retry-Count": "0", "X-Stainless-Timeout": "600", "Accept": "application/json",
	}
	body := `{"model":"demo","max_tokens":12,"messages":[{"role":"user","content":"Tell me about the sea."}]`
	var whole struct {
		Content []struct{ Text string }
		Usage   struct {
			Output int `json:"output_tokens"`
		}
	}
	if err := json.NewDecoder(p.send(t, "POST", "/v1/messages", body+"}", header).Body).Decode(&whole); err != nil || len(whole.Content) == 0 || whole.Usage.Output == 0 {
		t.Errorf("%+v %v", whole, err)
	}
	var events []string
	for lines := bufio.NewScanner(p.send(t, "POST", "/v1/messages", body+`,"stream":true}`, header).Body); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			events = append(events, name)
		}
	}
	if n := len(events); n < 4 || events[0] != "message_start" || events[n-1] != "message_stop" {
		t.Errorf("events %v", events)
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
