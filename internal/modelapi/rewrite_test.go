package modelapi

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// obligations are those the tests write.
func testObligations() Obligations {
	return Obligations{Subject: "sub", CacheSalt: "salt", Priority: 7, MaxOutput: 100}
}

// ask is a request to a server that runs one model, where it need not be named. Ollama has many.
func ask(server, path, body string) Input {
	in := post(server, path, body)
	if server != ServerOllama && server != Auto {
		in.Only = "m"
	}
	return in
}

// plain is a forwarded body without the model that was written into it because the caller named none.
func plain(c Class, body string) string {
	got := string(c.Body)
	if strings.Contains(body, `"model"`) {
		return got
	}
	for _, name := range []string{"m", spellingTGI} {
		if rest, ok := strings.CutPrefix(got, `{"model":"`+name+`"`); ok {
			return "{" + strings.TrimPrefix(rest, ",")
		}
	}
	return got
}

// forward classifies, rewrites and verifies, as relay and agent do one after the other.
func forward(t fataler, in Input, o Obligations) (Class, error) {
	table := Default()
	c, err := table.Classify(in)
	if err != nil {
		return c, err
	}
	canonical := in
	canonical.Path, canonical.Query, _ = strings.Cut(c.Target, "?")
	canonical.Body, canonical.Aliases = c.Body, nil
	r, err := table.Rewrite(canonical, c, o)
	if err != nil {
		return r, err
	}
	canonical.Body = r.Body
	v, err := table.Verify(canonical)
	if err != nil {
		t.Fatalf("%s %s: rewritten as %s: %v", in.Path, in.Body, r.Body, err)
	}
	if v.Action != r.Action || v.SubAction != r.SubAction || v.Model != r.Model || !slices.Equal(v.Models, r.Models) || v.Stream != r.Stream ||
		v.MaxOutput != r.MaxOutput || v.Choices != r.Choices || !slices.Equal(v.Also, r.Also) || !slices.Equal(v.Media, r.Media) {
		t.Fatalf("%s %s: rewritten as %s\n%+v\n%+v", in.Path, in.Body, r.Body, r, v)
	}
	again, err := table.Rewrite(canonical, v, o)
	if err != nil || string(again.Body) != string(r.Body) {
		t.Fatalf("%s: rewritten %s, and again %s, %v", in.Path, r.Body, again.Body, err)
	}
	return r, nil
}

func TestTheCapIsWrittenIntoTheFieldThatTheServerObeys(t *testing.T) {
	for _, try := range []struct{ server, path, body, want string }{
		{"ollama", "/v1/chat/completions", `{"model":"m:x","messages":[{}]}`, `{"model":"m:x","messages":[{}],"max_tokens":100}`},
		{"ollama", "/v1/chat/completions", `{"model":"m:x","messages":[{}],"max_completion_tokens":5000}`, `{"model":"m:x","messages":[{}],"max_completion_tokens":100,"max_tokens":100}`},
		{"ollama", "/v1/chat/completions", `{"model":"m:x","messages":[{}],"max_completion_tokens":5}`, `{"model":"m:x","messages":[{}],"max_completion_tokens":5,"max_tokens":5}`},
		{"ollama", "/api/chat", `{"model":"m:x","messages":[{}]}`, `{"model":"m:x","messages":[{}],"options":{"num_predict":100}}`},
		{"ollama", "/api/chat", `{"model":"m:x","messages":[{}],"options":null}`, `{"model":"m:x","messages":[{}],"options":{"num_predict":100}}`},
		{"ollama", "/api/chat", `{"model":"m:x","messages":[{}],"options":{"temperature":0.50}}`, `{"model":"m:x","messages":[{}],"options":{"temperature":0.50,"num_predict":100}}`},
		{"ollama", "/api/generate", `{"model":"m:x","options":{"num_predict":-2},"prompt":"p"}`, `{"model":"m:x","options":{"num_predict":100},"prompt":"p"}`},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{}],"max_tokens":4096}`, `{"model":"m:x","messages":[{}],"max_tokens":100}`},
		{"ollama", "/v1/responses", `{"model":"m:x","input":"i"}`, `{"model":"m:x","input":"i","max_output_tokens":100}`},
		{"llama.cpp", "/completion", `{"model":"m","prompt":"p"}`, `{"model":"m","prompt":"p","n_predict":100}`},
		{"llama.cpp", "/completion", `{"model":"m","prompt":"p","max_tokens":7}`, `{"model":"m","prompt":"p","max_tokens":7,"n_predict":7}`},
		{"llama.cpp", "/completion", `{"model":"m","prompt":"p","n_predict":-1}`, `{"model":"m","prompt":"p","n_predict":100}`},
		{"llama.cpp", "/completion", `{"model":"m","prompt":"p","n_predict":0}`, `{"model":"m","prompt":"p","n_predict":0}`},
		{"llama.cpp", "/v1/chat/completions", `{"model":"m","n_predict":900,"messages":[]}`, `{"model":"m","n_predict":100,"messages":[]}`},
		{"llama.cpp", "/v1/chat/completions", `{"model":"m","max_tokens":30,"max_completion_tokens":null,"messages":[]}`, `{"model":"m","max_tokens":30,"max_completion_tokens":30,"messages":[]}`},
		{"sglang", "/generate", `{"text":"t"}`, `{"text":"t","sampling_params":{"max_new_tokens":100}}`},
		{"sglang", "/generate", `{"text":["t","u"],"sampling_params":[{"max_new_tokens":1000},{}]}`, `{"text":["t","u"],"sampling_params":[{"max_new_tokens":100},{"max_new_tokens":100}]}`},
		{"sglang", "/generate", `{"text":"t","sampling_params":[]}`, `{"text":"t","sampling_params":{"max_new_tokens":100}}`},
		{"sglang", "/v1/completions", `{"model":"m","prompt":"p"}`, `{"model":"m","prompt":"p","max_tokens":16}`},
		{"sglang", "/v1/chat/completions", `{"model":"m","messages":[],"min_tokens":500}`, `{"model":"m","messages":[],"min_tokens":100,"max_tokens":100}`},
		{"tgi", "/generate", `{"inputs":"i"}`, `{"inputs":"i","parameters":{"max_new_tokens":100}}`},
		{"tgi", "/generate", `{"inputs":"i","parameters":{"max_new_tokens":101}}`, `{"inputs":"i","parameters":{"max_new_tokens":100}}`},
		{"tgi", "/v1/chat/completions", `{"messages":[],"max_completion_tokens":200}`, `{"messages":[],"max_completion_tokens":100}`},
		{"openai", "/v1/embeddings", `{"model":"m","input":"i"}`, `{"model":"m","input":"i"}`},
		{"openai", "/v1/chat/completions", `{"model":"m","messages":[],"max_tokens":9223372036854775807}`, `{"model":"m","messages":[],"max_tokens":100}`},
	} {
		c, err := forward(t, ask(try.server, try.path, try.body), Obligations{MaxOutput: 100})
		if err != nil || plain(c, try.body) != try.want {
			t.Errorf("%s %s: got %s, %v\nwant %s", try.server, try.path, c.Body, err, try.want)
		}
	}
}

func TestNoGeneratingRouteGoesWithoutACap(t *testing.T) {
	seen := 0
	for _, name := range append(Servers(), Auto) {
		routes := Default().routesOf(name)
		for _, r := range slices.Concat(slices.Collect(maps.Values(routes.literal)), routes.patterns) {
			if !r.action.Generates() || r.method == methodWebSocket || r.sub == SubSpeech { // sounds and images
				continue
			}
			seen++
			in := ask(name, concrete(r.path), `{"model":"m:x","prompt":"p","messages":[{}],"input":"i","text":"t","inputs":"i"}`)
			in.Method = r.method
			c, err := forward(t, in, Obligations{MaxOutput: 100})
			if code(err) == "model_unknown" && name == Auto {
				continue
			}
			if err != nil || c.MaxOutput <= 0 || c.MaxOutput > 100 {
				t.Errorf("%s %s %s: at most %d, %v", name, r.method, r.path, c.MaxOutput, err)
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d routes were tried", seen)
	}
}

func TestARouteWhoseCapIsNotKnownIsRefusedUnderACap(t *testing.T) {
	in := post("openai", "/v1/chat/completions", `{"model":"m","messages":[]}`)
	c, err := Default().Classify(in)
	if err != nil {
		t.Fatal(err)
	}
	c.Route, in.Body = "/v9/chat", c.Body
	if _, err := Default().Rewrite(in, c, Obligations{MaxOutput: 1}); code(err) != "output_unbounded" {
		t.Errorf("with a cap: %v", err)
	}
	if _, err := Default().Rewrite(in, c, Obligations{}); err != nil {
		t.Errorf("without: %v", err)
	}
}

func TestAStreamTellsItsCostAndHidesWhatWasNotAskedFor(t *testing.T) {
	const head = `{"model":"m","messages":[],"stream":true,"user":"sub"`
	for _, try := range []struct {
		path, options, want string
		wants, hides        bool
	}{
		{"/v1/chat/completions", ``, `{"include_usage":true}`, false, true},
		{"/v1/chat/completions", `null`, `{"include_usage":true}`, false, true},
		{"/v1/chat/completions", `{}`, `{"include_usage":true}`, false, true},
		{"/v1/chat/completions", `{"include_usage":false,"include_obfuscation":false}`, `{"include_usage":true,"include_obfuscation":false}`, false, true},
		{"/v1/chat/completions", `{"continuous_usage_stats":true}`, `{"include_usage":true}`, false, true},
		{"/v1/chat/completions", `{"include_usage":true}`, `{"include_usage":true}`, true, false},
		{"/v1/chat/completions", `{"include_usage":true,"continuous_usage_stats":true}`, `{"include_usage":true,"continuous_usage_stats":true}`, true, false},
		{"/v1/chat/completions", `{"include_usage":true,"continuous_usage_stats":false}`, `{"include_usage":true}`, true, false},
		{"/v1/messages", ``, ``, false, false}, // says it anyway
		{"/v1/responses", `{"include_obfuscation":true}`, `{"include_obfuscation":true}`, false, false},
	} {
		body, want := head, head
		if try.options != "" {
			body += `,"stream_options":` + try.options
		}
		if try.want != "" {
			want += `,"stream_options":` + try.want
		}
		c, err := forward(t, ask("vllm", try.path, body+"}"), Obligations{Subject: "sub"})
		got := strings.Replace(string(c.Body), `,"metadata":{"user_id":"sub"}`, "", 1)
		if err != nil || got != want+"}" || c.WantsUsage != try.wants || c.HidesUsage != try.hides {
			t.Errorf("%s %s: got %s, wants %v, hides %v, %v", try.path, try.options, got, c.WantsUsage, c.HidesUsage, err)
		}
	}
	plain := `{"model":"m","messages":[],"stream":false,"user":"sub"}`
	if c, err := forward(t, ask("vllm", "/v1/chat/completions", plain), Obligations{Subject: "sub"}); err != nil || string(c.Body) != plain || c.HidesUsage {
		t.Errorf("no stream: got %s, %v", c.Body, err)
	}
}

func TestWhatACallerSaysOfHimselfNeverStays(t *testing.T) {
	body := `{"model":"m","messages":[],"user":"root","safety_identifier":"root","metadata":{"user_id":"root","a":1},"cache_salt":"mine","priority":-5,"prompt_cache_key":"k"}`
	c, err := forward(t, ask("vllm", "/v1/chat/completions", body), Obligations{})
	if want := `{"model":"m","messages":[],"metadata":{"a":1},"priority":0}`; err != nil || string(c.Body) != want {
		t.Errorf("got %s, %v", c.Body, err)
	}
	c, err = forward(t, ask("vllm", "/v1/chat/completions", body), Obligations{Subject: "quo\"te\u2028", CacheSalt: "salt", Priority: 3})
	want := `{"model":"m","messages":[],"user":"quo\"te` + "\u2028" + `","safety_identifier":"quo\"te` + "\u2028" + `","metadata":{"user_id":"quo\"te` + "\u2028" + `","a":1},"cache_salt":"salt","priority":-3,"prompt_cache_key":"salt"}`
	if err != nil || string(c.Body) != want {
		t.Errorf("got %s, %v\nwant %s", c.Body, err, want)
	}
}

func TestFieldsThatAreSomebodysAreRead(t *testing.T) {
	for _, r := range rules().rows {
		if r.Verb != owner {
			continue
		}
		read := 0
		for _, value := range []string{`"id-1"`, `{"id":"id-1"}`} {
			in := ask("sglang", "/v1/responses", `{"model":"m","input":"i","`+r.Field+`":`+value+`}`)
			c, err := Default().Classify(in)
			if err != nil {
				continue // the other form is the field's
			}
			if read++; len(c.IDs) != 1 || c.IDs[0].Value != "id-1" {
				t.Errorf("%s %s: got ids %v", r.Field, value, c.IDs)
			}
		}
		if read == 0 {
			t.Errorf("%s: no form of it is taken", r.Field)
		}
	}
}
