package relay

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unicode/utf16"

	"iap/internal/admin"
	"iap/internal/audit"
	"iap/tunnel"
)

// The sample cases of policy that need a whole relay and a model server that remembers. The ids are those of the threat model.

const policyCaseGrants = `version: 1
grants:
  - name: one-model
    to: ["group:corp/ml-eng"]
    resources: [phi3]
    models: [phi3]
    actions: [chat, complete, list-models]
    limits: {max_output_tokens: 100}
  - name: metered
    to: ["group:corp/ml-eng"]
    resources: [metered]
    actions: [chat]
    limits: {tokens: 1000/24h, max_output_tokens: 20}
`

// policyCases is the fixture of them all.
type policyCases struct {
	*system
	alice *http.Client

	mu   sync.Mutex
	seen []*http.Request // what reached phi3, the body read into it; guarded by mu

	generated atomic.Int64 // tokens that metered has sent
}

func newPolicyCases(t *testing.T) *policyCases {
	t.Helper()
	c := &policyCases{}
	recording := newModelServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		c.mu.Lock()
		c.seen = append(c.seen, r)
		c.mu.Unlock()
		completion(w, "hello")
	})
	c.system = newSystem(t, policyCaseGrants)
	c.startAgent(served{"phi3", "model", recording.URL}, served{"metered", "model", newModelServer(t, c.generate).URL})
	c.alice = client(t, c.user(nil).open(tunnel.Interactive), tunnel.Header{Resource: "phi3"})
	return c
}

// generate streams as many tokens as it is asked for, and says of its use what the prompt wants it to say.
func (c *policyCases) generate(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Max      int `json:"max_tokens"`
		Messages []struct{ Content string }
	}
	body, _ := io.ReadAll(r.Body)
	if json.Unmarshal(body, &q) != nil || q.Max <= 0 || len(q.Messages) != 1 {
		http.Error(w, "no cap", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for range q.Max {
		c.generated.Add(1)
		fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"word \"}}]}\n\n")
	}
	if _, usage, says := strings.Cut(q.Messages[0].Content, "usage:"); says {
		fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":%s}\n\n", usage)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

// send posts a body as it is and returns the status and what the model server saw of it, nil if nothing.
func (c *policyCases) send(path string, body io.Reader, headers map[string]string) (int, *http.Request) {
	c.t.Helper()
	c.mu.Lock()
	c.seen = nil
	c.mu.Unlock()
	q, err := http.NewRequest(http.MethodPost, "http://phi3"+path, body)
	must(c.t, err)
	q.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		q.Header.Set(name, value)
	}
	r, err := c.alice.Do(q)
	must(c.t, err)
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.seen) > 1 {
		c.t.Errorf("%d requests of one", len(c.seen))
	}
	if len(c.seen) == 0 {
		return r.StatusCode, nil
	}
	return r.StatusCode, c.seen[0]
}

func TestPolicyCases(t *testing.T) {
	c := newPolicyCases(t)
	if status, seen := c.send("/v1/chat/completions", strings.NewReader(chatBody("phi3", false)), nil); status != 200 || seen == nil {
		t.Fatalf("nothing works: %d", status)
	}
	c.subtest("PO-09 the model that is decided on is the model that is asked", c.oneModel)
	c.subtest("PO-11 no header changes what is decided on", c.deafToHeaders)
	c.subtest("PO-13 no upstream sees a parameter beyond its bounds", c.bounds)
	c.subtest("PO-15 a hundred at once overspend nothing", c.overspend)
	c.subtest("PO-15 what is generated is charged, whatever the server says", c.liars)
}

func (c *policyCases) oneModel(t *testing.T) {
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	text := func(s string) io.Reader { return strings.NewReader(s) }
	zipped := func(s string) io.Reader {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, s) // neither fails in memory
		_ = w.Close()
		return &b
	}
	wide := func(s string) io.Reader {
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(s)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return bytes.NewReader(b)
	}
	ok, secret := `{"model":"phi3",`+messages+`}`, `{"model":"llama3",`+messages+`}`
	for name, one := range map[string]struct {
		body    io.Reader
		headers map[string]string
		passes  bool
	}{
		"the granted model":               {text(ok), nil, true},
		"its name in escapes":             {text(`{"model":"\u0070hi3",` + messages + `}`), nil, true},
		"the key in escapes":              {text(`{"\u006dodel":"phi3",` + messages + `}`), nil, true},
		"another":                         {text(secret), nil, false},
		"another, the key in escapes":     {text(`{"\u006dodel":"llama3",` + messages + `}`), nil, false},
		"two":                             {text(`{"model":"phi3","model":"llama3",` + messages + `}`), nil, false},
		"two, one in escapes":             {text(`{"model":"phi3","\u006dodel":"llama3",` + messages + `}`), nil, false},
		"two that differ in case":         {text(`{"model":"phi3","Model":"llama3",` + messages + `}`), nil, false},
		"in another case alone":           {text(`{"MODEL":"llama3",` + messages + `}`), nil, false},
		"behind a byte order mark":        {text("\ufeff" + ok), nil, false},
		"in UTF-16":                       {wide(secret), nil, false},
		"in UTF-16, said so":              {wide(secret), map[string]string{"Content-Type": "application/json; charset=utf-16"}, false},
		"a second document":               {text(ok + secret), nil, false},
		"a list of two":                   {text(`[` + ok + `,` + secret + `]`), nil, false},
		"the model no text":               {text(`{"model":["phi3","llama3"],` + messages + `}`), nil, false},
		"none":                            {text(`{` + messages + `}`), nil, false},
		"gzip":                            {zipped(ok), map[string]string{"Content-Encoding": "gzip"}, true},
		"gzip of another":                 {zipped(secret), map[string]string{"Content-Encoding": "gzip"}, false},
		"gzip that is not said":           {zipped(ok), nil, false},
		"gzip that is none":               {text(ok), map[string]string{"Content-Encoding": "gzip"}, false},
		"gzip twice":                      {zipped(ok), map[string]string{"Content-Encoding": "gzip, gzip"}, false},
		"multipart":                       {text("--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nllama3\r\n--x--\r\n"), map[string]string{"Content-Type": "multipart/form-data; boundary=x"}, false},
		"a form":                          {text("model=llama3"), map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, false},
		"text that is JSON":               {text(secret), map[string]string{"Content-Type": "text/plain"}, false},
		"in the last chunk":               {io.MultiReader(text(`{`+messages+`,`), text(`"model":"phi3"}`)), nil, true},
		"another in the last chunk":       {io.MultiReader(text(`{"model":"phi3",`+messages), text(`,"model":"llama3"}`)), nil, false},
		"more than is read":               {text(`{"model":"phi3","x":"` + strings.Repeat("x", 33<<20) + `",` + messages + `}`), nil, false},
		"behind what nobody reads so far": {text(`{"x":"` + strings.Repeat("x", 1<<20) + `","model":"llama3",` + messages + `}`), nil, false},
	} {
		before := len(c.allowed())
		status, seen := c.send("/v1/chat/completions", one.body, one.headers)
		if !one.passes {
			if status < 400 || seen != nil || len(c.allowed()) != before {
				t.Errorf("%s: %d, seen %t", name, status, seen != nil)
			}
			continue
		}
		if status != 200 || seen == nil {
			t.Errorf("%s: %d, seen %t", name, status, seen != nil)
			continue
		}
		body, _ := io.ReadAll(seen.Body)
		decisions := c.allowed()
		if len(decisions) != before+1 || strings.Count(string(body), `"model":"phi3"`) != 1 || strings.Contains(string(body), "llama3") || decisions[before].Model != "phi3" {
			t.Errorf("%s: %d decisions, the last of %+v; the model server saw %s", name, len(decisions)-before, decisions[len(decisions)-1], body)
		}
		if seen.Header.Get("Content-Encoding") != "" || seen.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: sent on with %v", name, seen.Header)
		}
	}
}

// allowed are the decisions to let a request to phi3 through.
func (c *policyCases) allowed() []audit.Event {
	return c.events(func(e audit.Event) bool {
		return e.Kind == audit.KindDecision && e.Decision == audit.Allow && e.Resource == "phi3" && e.Request != "" && e.Action == "chat"
	})
}

func (c *policyCases) deafToHeaders(t *testing.T) {
	tricks := map[string]string{
		"X-HTTP-Method-Override": "GET", "X-HTTP-Method": "GET", "X-Method-Override": "GET",
		"X-Original-URL": "/health", "X-Rewrite-URL": "/health", "X-Original-URI": "/health", "X-Forwarded-Uri": "/health", "X-Forwarded-Prefix": "/health",
		"X-Forwarded-Method": "GET", "X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "Forwarded": "for=127.0.0.1;host=localhost",
		"X-Forwarded-User": "root", "X-Iap-Principal": "corp/root", "X_Iap_Principal": "corp/root", "X-Iap-Groups": "admins", "X-Auth-Request-User": "root",
		"User-Agent": "GoogleHC/1.0", "X-Envoy-Original-Path": "/health", "Authorization": "Bearer x", "Cookie": "session=root", "X-Api-Key": "sk-root",
	}
	// Granted: nothing of it reaches the model server, and the record says what was sent.
	before := len(c.allowed())
	status, seen := c.send("/v1/chat/completions", strings.NewReader(chatBody("phi3", false)), tricks)
	if status != 200 || seen == nil || seen.Method != http.MethodPost || seen.URL.Path != "/v1/chat/completions" {
		t.Fatalf("%d, the model server saw %v", status, seen)
	}
	for name, value := range tricks {
		if got := seen.Header.Get(name); got == value && name != "User-Agent" { // whose value is the caller's to choose
			t.Errorf("%s: %s reached the model server", name, got)
		}
	}
	if got := seen.Header.Get("X-Iap-Principal"); got != "corp/alice" {
		t.Errorf("the model server takes the caller for %q", got)
	}
	if all := c.allowed(); len(all) != before+1 || all[before].Path != "/v1/chat/completions" || all[before].Method != http.MethodPost {
		t.Errorf("recorded as %+v", all[len(all)-1])
	}
	// Not granted: none of it, alone or together, makes a difference.
	for name, value := range tricks {
		if status, seen := c.send("/v1/chat/completions", strings.NewReader(chatBody("llama3", false)), map[string]string{name: value}); status != http.StatusForbidden && status != http.StatusNotFound || seen != nil {
			t.Errorf("%s: %s: %d, seen %t", name, value, status, seen != nil)
		}
	}
	if status, seen := c.send("/v1/chat/completions", strings.NewReader(chatBody("llama3", false)), tricks); status < 400 || seen != nil {
		t.Errorf("all of them: %d, seen %t", status, seen != nil)
	}
}

func (c *policyCases) bounds(t *testing.T) {
	with := func(fields string) string {
		return `{"model":"phi3","messages":[{"role":"user","content":"hi"}],` + fields + `}`
	}
	prompts := strings.TrimSuffix(strings.Repeat(`"p",`, 100_000), ",")
	for name, one := range map[string]struct {
		path, body string
		gone       string // must not be in what the model server sees, if it sees anything
	}{
		"choices":              {"", with(`"n":1000000000`), "1000000000"},
		"no choices":           {"", with(`"n":0`), `"n":0`},
		"best of many":         {"", with(`"best_of":1000000000`), "1000000000"},
		"tokens":               {"", with(`"max_tokens":1000000000`), "1000000000"},
		"tokens, the newer":    {"", with(`"max_completion_tokens":1000000000`), "1000000000"},
		"tokens, both":         {"", with(`"max_tokens":5,"max_completion_tokens":1000000000`), "1000000000"},
		"tokens without end":   {"", with(`"max_tokens":-1`), "-1"},
		"tokens as a text":     {"", with(`"max_tokens":"1000000000"`), "1000000000"},
		"the least of tokens":  {"", with(`"min_tokens":1000000000`), "1000000000"},
		"what it discards":     {"", with(`"n_discard":-1`), "n_discard"},
		"a list of prompts":    {"/v1/completions", `{"model":"phi3","prompt":[` + prompts + `]}`, `"p"`},
		"an address to fetch":  {"", `{"model":"phi3","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/latest"}}]}]}`, "169.254"},
		"a template":           {"", with(`"chat_template":"{{ cycler.__init__ }}"`), "cycler"},
		"not a number":         {"", with(`"temperature":NaN`), "NaN"},
		"beyond every number":  {"", with(`"temperature":1e999`), "1e999"},
		"somebody else's salt": {"", with(`"cache_salt":"victim"`), "victim"},
		"a place in the queue": {"", with(`"priority":-1000000`), "-1000000"},
		"somebody else":        {"", with(`"user":"corp/root"`), "corp/root"},
	} {
		if one.path == "" {
			one.path = "/v1/chat/completions"
		}
		status, seen := c.send(one.path, strings.NewReader(one.body), nil)
		if seen == nil {
			if status < 400 || status >= 500 {
				t.Errorf("%s: %d", name, status)
			}
			continue
		}
		body, _ := io.ReadAll(seen.Body)
		if strings.Contains(string(body), one.gone) {
			t.Errorf("%s: the model server saw %.300s", name, body)
		}
		var sent struct {
			Max   *int `json:"max_tokens"`
			Newer *int `json:"max_completion_tokens"`
		}
		if err := json.Unmarshal(body, &sent); err != nil || sent.Max == nil && sent.Newer == nil || sent.Max != nil && *sent.Max > 100 || sent.Newer != nil && *sent.Newer > 100 {
			t.Errorf("%s: without a cap, or beyond it: %.300s %v", name, body, err)
		}
	}
}

func (c *policyCases) overspend(t *testing.T) {
	session := c.user(nil).open(tunnel.Interactive)
	metered := client(t, session, tunnel.Header{Resource: "metered"})
	c.generated.Store(0)
	statuses := map[int]int{}
	var mu sync.Mutex
	var callers sync.WaitGroup
	for range 100 {
		callers.Go(func() {
			r, err := metered.Post("http://metered/v1/chat/completions", "application/json", strings.NewReader(chatBody("phi3", true)))
			if err != nil {
				t.Errorf("ask: %v", err)
				return
			}
			defer r.Body.Close()
			_, _ = io.Copy(io.Discard, r.Body)
			mu.Lock()
			defer mu.Unlock()
			statuses[r.StatusCode]++
		})
	}
	callers.Wait()
	if statuses[200]+statuses[429] != 100 || statuses[200] < 10 || statuses[429] < 10 {
		t.Errorf("answered with %v", statuses)
	}
	if n := c.generated.Load(); n > 1000 {
		t.Errorf("%d tokens were generated on a budget of 1,000", n)
	}
	eventually(t, "what was used is charged", func() bool {
		b := c.tokens(session)
		return b.Held == 0 && b.Used >= c.generated.Load() && b.Used <= b.Limit
	})
}

// tokens is how the token budget of metered stands.
func (c *policyCases) tokens(session *tunnel.Session) admin.Budget {
	c.t.Helper()
	list, err := api(c.t, session).Budgets(within(c.t), admin.OwnBudgets{Resource: "metered"})
	must(c.t, err)
	for _, b := range list.Budgets {
		if b.Grant == "metered" && b.Kind == "tokens" {
			return b
		}
	}
	c.t.Fatalf("no token budget in %+v", list)
	return admin.Budget{}
}

func (c *policyCases) liars(t *testing.T) {
	for i, usage := range []string{
		"", `{"prompt_tokens":-5,"completion_tokens":-20,"total_tokens":-25}`, `{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}`,
		`{"prompt_tokens":10,"completion_tokens":1e18}`, `{"prompt_tokens":10,"completion_tokens":9223372036854775807,"total_tokens":9223372036854775817}`,
		`{"prompt_tokens":10,"completion_tokens":20,"prompt_tokens_details":{"cached_tokens":1000000}}`, `"free"`,
	} {
		session := c.user(map[string]any{"sub": fmt.Sprint("caller-", i)}).open(tunnel.Interactive)
		body := chatBody("phi3", true)
		if usage != "" {
			quoted, err := json.Marshal("usage:" + usage)
			must(t, err)
			body = strings.Replace(body, `"hello"`, string(quoted), 1)
		}
		r, err := client(t, session, tunnel.Header{Resource: "metered"}).Post("http://metered/v1/chat/completions", "application/json", strings.NewReader(body))
		must(t, err)
		_, _ = io.Copy(io.Discard, r.Body)
		r.Body.Close()
		eventually(t, "it is charged as generated: usage "+usage, func() bool {
			b := c.tokens(session)
			return b.Held == 0 && b.Used >= 20 && b.Used <= 200
		})
	}
}
