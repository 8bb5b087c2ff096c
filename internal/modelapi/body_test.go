package modelapi

import (
	"strings"
	"testing"
)

func post(server, path, body string) Input {
	return Input{Server: server, Method: "POST", Path: path, ContentType: "application/json", Body: []byte(body)}
}

// code is the stable code of an error, "" for none.
func code(err error) string {
	if e, ok := err.(*Error); ok {
		return e.Code
	}
	if err != nil {
		return "not an Error: " + err.Error()
	}
	return ""
}

func TestPO09BodiesThatTwoParsersReadDifferentlyAreRefused(t *testing.T) {
	const messages = `"messages":[{"role":"user","content":"hi"}]`
	for _, try := range []struct{ body, want string }{
		{`{"model":"ok","model":"secret",` + messages + `}`, "json_duplicate_name"},
		{`{"model":"ok","MODEL":"secret",` + messages + `}`, "json_duplicate_name"},
		{`{"model":"ok","\u006dodel":"secret",` + messages + `}`, "json_duplicate_name"},
		{`{"model":"ok","Model":"secret",` + messages + `}`, "json_duplicate_name"},
		{`{"MODEL":"secret",` + messages + `}`, "json_name_case"},
		{`{"model":"ok","me\u017f\u017fages":[],"max_to\u212aens":1}`, "json_name_case"},
		{`{"model":"ok",` + messages + `,"meſſages":[]}`, "json_duplicate_name"},
		{`{"model":"ok",` + messages + `,"options":{"Num_predict":1}}`, "json_name_case"},
		{`{"model":"ok",` + messages + `,"x":{"a":1,"A":2}}`, "json_duplicate_name"},
		{"\xef\xbb\xbf" + `{"model":"ok",` + messages + `}`, "json_invalid"},
		{"\xff\xfe{\x00}\x00", "json_invalid"},
		{`{"model":"o` + "\xff" + `k",` + messages + `}`, "json_invalid"},
		{`{"model":"\ud800",` + messages + `}`, "json_invalid"},
		{`{"model":"ok",` + messages + `}{"model":"secret"}`, "json_invalid"},
		{`{"model":"ok",` + messages + `} x`, "json_invalid"},
		{`{"model":"ok",` + messages + `,"temperature":NaN}`, "json_invalid"},
		{`{"model":"ok",` + messages + `,"temperature":1e999}`, "json_number"},
		{`{"model":"ok",` + messages + `,"temperature":-1E+400}`, "json_number"},
		{`{"model":"ok",` + messages + `,"top_p":[0,[1` + strings.Repeat("0", 309) + `]]}`, "json_number"},
		{`{"model":"ok",` + messages + `,}`, "json_invalid"},
		{`{'model':'ok'}`, "json_invalid"},
		{`{"model":"ok"/**/}`, "json_invalid"},
		{`{"model":"ok","n":01}`, "json_invalid"},
		{`[{"model":"ok"}]`, "json_not_object"},
		{`"model"`, "json_not_object"},
		{``, "body_missing"},
		{`{"model":["ok"],` + messages + `}`, "model_invalid"},
		{`{"model":null,` + messages + `}`, "model_invalid"},
		{`{"model":1,` + messages + `}`, "model_invalid"},
		{`{"model":"ok",` + messages + `,"stream":"true"}`, "field_invalid"},
		{`{"model":"ok",` + messages + `,"stream":1}`, "field_invalid"},
		{`{"model":"ok",` + messages + `,"max_tokens":"9"}`, "field_invalid"},
		{`{"model":"ok",` + messages + `,"max_tokens":1e9}`, "field_invalid"},
		{`{"model":"ok",` + messages + `,"max_tokens":99999999999999999999}`, "field_invalid"},
	} {
		for _, server := range []string{"ollama", "llama.cpp", "openai", Auto} {
			c, err := Default().Classify(post(server, "/v1/chat/completions", try.body))
			if code(err) != try.want || c.Body != nil {
				t.Errorf("%s %q: got %v, want %s", server, try.body, err, try.want)
			}
		}
	}
}

func TestDepthAndSizeAreBounded(t *testing.T) {
	nested := func(n int) string { return `{"model":"m","x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	if _, err := Default().Classify(post("openai", "/v1/embeddings", nested(MaxDepth-1))); err != nil {
		t.Errorf("depth %d: %v", MaxDepth, err)
	}
	for _, n := range []int{MaxDepth, 9_000} {
		if _, err := Default().Classify(post("openai", "/v1/embeddings", nested(n))); code(err) != "json_too_deep" {
			t.Errorf("depth %d: %v", n+1, err)
		}
	}
	if _, err := Default().Classify(post("openai", "/v1/embeddings", strings.Repeat("[", 5<<20))); code(err) != "json_invalid" {
		t.Errorf("five million brackets: %v", err)
	}
	big := `{"model":"m","input":"` + strings.Repeat("x", MaxBody) + `"}`
	if _, err := Default().Classify(post("openai", "/v1/embeddings", big)); code(err) != "body_too_large" {
		t.Errorf("too large: %v", err)
	}
}

func TestForwardedBytesAreTheCanonicalOnes(t *testing.T) {
	c, err := Default().Classify(post("ollama", "/v1/chat/completions",
		" {\"\\u006dodel\" : \" Registry.Ollama.AI/Library/Llama3 \",\n\"messages\":[{\"content\":\"a\\/b\\u00e9\",\"role\":\"user\"}], \"seed\":1.000e+3,\"big\":12345678901234567890123}\n"))
	want := `{"model":"llama3:latest","messages":[{"content":"a/bé","role":"user"}],"seed":1.000e+3,"big":12345678901234567890123}`
	if err != nil || string(c.Body) != want {
		t.Errorf("got  %s\nwant %s\n%v", c.Body, want, err)
	}
	if c.Model != "llama3:latest" || c.Action != Chat || c.Stream {
		t.Errorf("got %+v", c)
	}
}

func TestOnlyJSONCountsAsJSON(t *testing.T) {
	const body = `{"model":"m","messages":[{"role":"user"}]}`
	for _, kind := range []string{
		"", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json-seq",
		"application/json, text/plain", "application/json; charset=utf-16", "text/json",
	} {
		in := post("llama.cpp", "/v1/chat/completions", body)
		in.ContentType = kind
		if _, err := Default().Classify(in); code(err) != "content_type" {
			t.Errorf("%q: got %v", kind, err)
		}
	}
	for _, kind := range []string{"application/json", "Application/JSON; charset=UTF-8"} {
		in := post("llama.cpp", "/v1/chat/completions", body)
		in.ContentType = kind
		if _, err := Default().Classify(in); err != nil {
			t.Errorf("%q: got %v", kind, err)
		}
	}
}

func TestBodiesOfGETAreRefused(t *testing.T) {
	in := Input{Server: "ollama", Method: "GET", Path: "/api/tags", Body: []byte("{}"), ContentType: "application/json"}
	if _, err := Default().Classify(in); code(err) != "body_unexpected" {
		t.Errorf("got %v", err)
	}
}

func TestRequestsWithoutAPromptLoadOrUnload(t *testing.T) {
	for _, try := range []struct {
		server, path, body string
		action             Action
		sub                string
	}{
		{"ollama", "/api/generate", `{"model":"m","prompt":"x"}`, Complete, ""},
		{"ollama", "/api/generate", `{"model":"m"}`, ManageModel, "load"},
		{"ollama", "/api/generate", `{"model":"m","prompt":""}`, ManageModel, "load"},
		{"ollama", "/api/generate", `{"model":"m","prompt":null,"keep_alive":-1}`, ManageModel, "load"},
		{"ollama", "/api/generate", `{"model":"m","keep_alive":0}`, ManageModel, "unload"},
		{"ollama", "/api/generate", `{"model":"m","keep_alive":"0s"}`, ManageModel, "unload"},
		{"ollama", "/api/generate", `{"model":"m","messages":[{"role":"user"}]}`, ManageModel, "load"},
		{"ollama", "/api/chat", `{"model":"m","messages":[{"role":"user","content":"x"}]}`, Chat, ""},
		{"ollama", "/api/chat", `{"model":"m","messages":[]}`, ManageModel, "load"},
		{"ollama", "/api/chat", `{"model":"m","messages":[],"keep_alive":0.0}`, ManageModel, "unload"},
		{"ollama", "/api/chat", `{"model":"m","prompt":"x"}`, ManageModel, "load"},
		{"ollama", "/v1/completions", `{"model":"m","prompt":""}`, ManageModel, "load"},
		{"ollama", "/v1/chat/completions", `{"model":"m","messages":null}`, ManageModel, "load"},
		{"ollama", "/v1/messages", `{"model":"m","messages":[]}`, ManageModel, "load"},
		{"ollama", "/v1/responses", `{"model":"m","input":""}`, ManageModel, "load"},
		{"ollama", "/v1/responses", `{"model":"m","input":"x"}`, Chat, ""},
		{"auto", "/api/generate", `{"model":"m"}`, ManageModel, "load"},
		{"auto", "/v1/chat/completions", `{"model":"m"}`, ManageModel, "load"},
		{"llama.cpp", "/completion", `{"model":"m","prompt":""}`, Complete, ""},
	} {
		c, err := Default().Classify(post(try.server, try.path, try.body))
		if err != nil || c.Action != try.action || c.SubAction != try.sub {
			t.Errorf("%s %s %s: got %s %q, %v", try.server, try.path, try.body, c.Action, c.SubAction, err)
		}
	}
}

func TestModelAndNameMustAgree(t *testing.T) {
	for _, try := range []struct{ body, want, model, forwarded string }{
		{`{"model":"a"}`, "", "a:latest", `{"model":"a:latest"}`},
		{`{"name":"a"}`, "", "a:latest", `{"name":"a:latest"}`},
		{`{"model":"","name":"a"}`, "", "a:latest", `{"model":"","name":"a:latest"}`},
		{`{"model":"A","name":"library/a:latest"}`, "", "a:latest", `{"model":"a:latest","name":"a:latest"}`},
		{`{"model":"a","name":"b"}`, "model_ambiguous", "", ""},
		{`{}`, "model_missing", "", ""},
		{`{"name":""}`, "model_missing", "", ""},
	} {
		c, err := Default().Classify(post("ollama", "/api/show", try.body))
		if code(err) != try.want || try.want == "" && (c.Model != try.model || string(c.Body) != try.forwarded) {
			t.Errorf("%s: got %q %s, %v", try.body, c.Model, c.Body, err)
		}
	}
}

func TestEveryModelOfARequestIsNamed(t *testing.T) {
	c, err := Default().Classify(post("ollama", "/api/copy", `{"source":"Secret","destination":"ok"}`))
	if err != nil || len(c.Models) != 2 || c.Models[0] != "secret:latest" || c.Models[1] != "ok:latest" {
		t.Errorf("copy: %v, %v", c.Models, err)
	}
	c, err = Default().Classify(post("ollama", "/api/create", `{"model":"mine","from":"Secret","remote_host":"https://x"}`))
	if err != nil || len(c.Models) != 2 || c.Models[1] != "secret:latest" || !c.Egress {
		t.Errorf("create: %v %v, %v", c.Models, c.Egress, err)
	}
}

func TestServersThatChooseByNameNeedOne(t *testing.T) {
	const body = `{"messages":[{"role":"user"}],"prompt":"x","input":"x"}`
	for _, server := range []string{"ollama", "llama.cpp", "vllm", "llama-swap", "openai", Auto} {
		for _, path := range []string{"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"} {
			if _, err := Default().Classify(post(server, path, body)); code(err) != "model_missing" {
				t.Errorf("%s %s: %v", server, path, err)
			}
		}
	}
}

func TestServersThatIgnoreNamesAreDecidedOnByTheModelTheyRun(t *testing.T) {
	for _, server := range []string{"sglang", "tgi"} {
		for _, path := range []string{"/v1/chat/completions", "/generate"} {
			in := post(server, path, `{"model":"granted","messages":[{"role":"user"}],"inputs":"x","text":"x"}`)
			if _, err := Default().Classify(in); code(err) != "model_unknown" {
				t.Errorf("%s %s without a known model: %v", server, path, err)
			}
			in.Only = OnlyModel(server, []string{"secret", "adapter"})
			if c, err := Default().Classify(in); err != nil || c.Model != "secret" || len(c.Models) != 1 {
				t.Errorf("%s %s: %q, %v", server, path, c.Models, err)
			}
		}
	}
}

func TestTheOnlyModelOfAServerIsDecidedOnWhateverWasAsked(t *testing.T) {
	for _, body := range []string{`{"model":"gpt-4","prompt":"x"}`, `{"model":"","prompt":"x"}`, `{"prompt":"x"}`} {
		in := post("llama.cpp", "/completion", body)
		in.Only = "phi3"
		c, err := Default().Classify(in)
		if err != nil || c.Model != "phi3" || len(c.Models) != 1 || strings.Contains(string(c.Body), "gpt") {
			t.Errorf("%s: got %q %s, %v", body, c.Model, c.Body, err)
		}
	}
}

func TestTheLargestOutputAskedForCounts(t *testing.T) {
	for _, try := range []struct {
		body string
		want int64
	}{
		{`{"model":"m"}`, 0},
		{`{"model":"m","max_tokens":5,"max_completion_tokens":7}`, 7},
		{`{"model":"m","max_tokens":5,"options":{"num_predict":9}}`, 9},
		{`{"model":"m","n_predict":-1,"max_tokens":5}`, -1},
		{`{"model":"m","max_tokens":null,"parameters":{"max_new_tokens":3}}`, 3},
	} {
		c, err := Default().Classify(post("openai", "/v1/chat/completions", try.body))
		if err != nil || c.MaxOutput != try.want {
			t.Errorf("%s: got %d, %v", try.body, c.MaxOutput, err)
		}
	}
}

func TestFramingFollowsTheRequest(t *testing.T) {
	for _, try := range []struct {
		server, path, stream string
		framing              Framing
		protocol             Protocol
	}{
		{"ollama", "/api/chat", ``, NDJSON, Ollama},
		{"ollama", "/api/chat", `,"stream":false`, JSON, Ollama},
		{"ollama", "/v1/chat/completions", ``, JSON, OpenAI},
		{"ollama", "/v1/chat/completions", `,"stream":true`, SSE, OpenAI},
		{"ollama", "/v1/messages", `,"stream":true`, SSE, Anthropic},
		{"llama.cpp", "/completion", `,"stream":true`, SSE, LlamaCPP},
		{"openai", "/v1/embeddings", `,"stream":true`, JSON, OpenAI},
	} {
		c, err := Default().Classify(post(try.server, try.path, `{"model":"m","messages":[1],"prompt":"p"`+try.stream+`}`))
		if err != nil || c.Framing != try.framing || c.Protocol != try.protocol || c.Stream != (try.framing != JSON) {
			t.Errorf("%v: got %s %s %v, %v", try, c.Framing, c.Protocol, c.Stream, err)
		}
	}
}

func TestVerifyAcceptsOnlyTheCanonicalForm(t *testing.T) {
	in := post("ollama", "/api/chat", `{ "model":"Phi3", "messages":[{"role":"user"}]}`)
	if _, err := Default().Verify(in); code(err) != "not_canonical" {
		t.Errorf("loose body: %v", err)
	}
	c, err := Default().Classify(in)
	if err != nil {
		t.Fatal(err)
	}
	in.Body = c.Body
	if again, err := Default().Verify(in); err != nil || again.Model != c.Model {
		t.Errorf("canonical body: %v", err)
	}
	in.Query = "x=1"
	if _, err := Default().Verify(in); code(err) != "not_canonical" {
		t.Errorf("query: %v", err)
	}
}
