package modelapi

import (
	"slices"
	"strings"
	"testing"
)

// Bodies as stock clients write them, whole. Nothing of what they meant may be lost: what is taken out and what is
// added stands beside each.
var clientBodies = []struct {
	client, server, path, body string
	gone, added                []string
	also                       bool
}{
	{
		client: "OpenAI SDK, stream with tools", server: "vllm", path: "/v1/chat/completions",
		body:  `{"messages":[{"content":"You help.","role":"developer"},{"content":[{"text":"What is this?","type":"text"},{"image_url":{"url":"data:image/png;base64,iVBORw0KGgo=","detail":"auto"},"type":"image_url"}],"role":"user"},{"role":"assistant","content":null,"tool_calls":[{"id":"call_1","type":"function","function":{"name":"look","arguments":"{\"image_url\":\"http://x\"}"}}]},{"role":"tool","tool_call_id":"call_1","content":"{}"}],"model":"m","frequency_penalty":0,"logit_bias":{"50256":-100},"logprobs":false,"max_completion_tokens":50,"metadata":{"trace":"1"},"modalities":["text"],"n":1,"parallel_tool_calls":true,"presence_penalty":0,"response_format":{"type":"json_schema","json_schema":{"name":"s","strict":true,"schema":{"type":"object","properties":{"image_url":{"type":"string"}}}}},"seed":7,"service_tier":"auto","stop":["x"],"store":false,"stream":true,"stream_options":{"include_usage":true},"temperature":0.2,"tool_choice":"auto","tools":[{"type":"function","function":{"name":"look","parameters":{"type":"object","properties":{"image_url":{"type":"string"}}}}}],"top_p":1,"user":"me"}`,
		gone:  []string{`"user":"me"`},
		added: []string{`"user":"sub"`, `"max_tokens":50`, `"cache_salt":"salt"`},
	},
	{
		client: "Ollama's own, generate", server: "ollama", path: "/api/generate",
		body: `{"model":"m:x","prompt":"p","suffix":"","system":"","template":"","context":[1,2],"stream":true,"raw":false,"format":"json","keep_alive":"5m0s","images":[],"options":{"num_ctx":8192,"temperature":0.5,"stop":["x"]},"think":false}`,
		gone: []string{`"template":""`, `"keep_alive":"5m0s"`, `"num_ctx":8192`}, added: []string{`"num_predict":100`},
	},
	{
		client: "Ollama's own, chat", server: "ollama", path: "/api/chat",
		body:  `{"model":"m:x","messages":[{"role":"user","content":"c","images":["iVBORw0KGgo="]},{"role":"assistant","content":"","tool_calls":[{"function":{"name":"f","arguments":{"url":"http://x","image":"http://x"}}}]}],"stream":true,"format":{"type":"object","properties":{"image":{"type":"string"}}},"keep_alive":-1,"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","required":[],"properties":{"source":{"type":"string","description":"http://x"}}}}}],"options":{}}`,
		gone:  []string{`"keep_alive":-1`},
		added: []string{`"num_predict":100`},
	},
	{
		client: "Claude Code", server: "llama.cpp", path: "/v1/messages",
		body:  `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]},{"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"s"},{"type":"tool_use","id":"t1","name":"Fetch","input":{"url":"https://x/y.png","source":{"url":"http://x"}}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"see https://x"}],"is_error":false}]}],"system":[{"type":"text","text":"You help.","cache_control":{"type":"ephemeral"}}],"tools":[{"name":"Fetch","description":"d","input_schema":{"type":"object","properties":{"url":{"type":"string","format":"uri"}}}}],"metadata":{"user_id":"user_1"},"max_tokens":32000,"thinking":{"type":"enabled","budget_tokens":31999},"stream":true}`,
		gone:  []string{`"user_id":"user_1"`, `"max_tokens":32000`},
		added: []string{`"user_id":"sub"`, `"max_tokens":100`},
	},
	{
		client: "Codex", server: "ollama", path: "/v1/responses",
		body:  `{"model":"m:x","instructions":"You code.","input":[{"type":"message","role":"user","content":[{"type":"input_text","text":"t"}]},{"type":"reasoning","summary":[],"encrypted_content":"e"},{"type":"function_call","name":"shell","arguments":"{}","call_id":"c"},{"type":"function_call_output","call_id":"c","output":"http://x"}],"tools":[{"type":"function","name":"shell","strict":false,"parameters":{"type":"object"}},{"type":"custom","name":"apply_patch","format":{"type":"grammar","syntax":"lark","definition":"start: x"}}],"tool_choice":"auto","parallel_tool_calls":false,"reasoning":{"effort":"medium"},"store":false,"stream":true,"include":["reasoning.encrypted_content"],"prompt_cache_key":"conversation"}`,
		gone:  []string{`"prompt_cache_key":"conversation"`},
		added: []string{`"prompt_cache_key":"salt"`, `"max_output_tokens":100`, `"user":"sub"`},
	},
	{
		client: "Codex with a search of the server's", server: "ollama", path: "/v1/responses", also: true,
		body:  `{"model":"m:x","input":"i","tools":[{"type":"web_search"}],"stream":true}`,
		added: []string{`"max_output_tokens":100`, `"user":"sub"`},
	},
	{
		client: "llama.cpp's own page", server: "llama.cpp", path: "/v1/chat/completions",
		body:  `{"model":"m","messages":[{"role":"user","content":"c"}],"stream":true,"reasoning_format":"auto","temperature":0.8,"max_tokens":-1,"samplers":["top_k"],"cache_prompt":true,"return_progress":true,"timings_per_token":true,"chat_template_kwargs":{"enable_thinking":true}}`,
		gone:  []string{`"timings_per_token":true`, `"max_tokens":-1`},
		added: []string{`"max_tokens":100`, `"user":"sub"`, `"stream_options":{"include_usage":true}`},
	},
	{
		client: "LangChain against SGLang", server: "sglang", path: "/v1/chat/completions",
		body:  `{"model":"m","messages":[{"role":"user","content":"c"}],"stream":false,"n":1,"temperature":0.7,"max_tokens":null,"chat_template_kwargs":{"enable_thinking":false},"rid":null}`,
		gone:  []string{`"max_tokens":null`, `"rid":null`},
		added: []string{`"max_tokens":100`, `"user":"sub"`, `"cache_salt":"salt"`},
	},
}

func TestStockClientsLoseNothingOfWhatTheyMean(t *testing.T) {
	for _, try := range clientBodies {
		c, err := forward(t, ask(try.server, try.path, try.body), testObligations())
		if err != nil {
			t.Errorf("%s: %v", try.client, err)
			continue
		}
		got := string(c.Body)
		for _, text := range try.gone {
			if strings.Contains(got, text) {
				t.Errorf("%s: %s is still there: %s", try.client, text, got)
			}
		}
		for _, text := range try.added {
			if strings.Count(got, text) != 1 {
				t.Errorf("%s: %s is not there once: %s", try.client, text, got)
			}
		}
		for _, m := range draftAt([]byte(try.body), 0).members {
			piece := try.body[m.start-len(m.name)-3 : m.end]
			touched := slices.ContainsFunc(slices.Concat(try.gone, try.added), func(text string) bool {
				return strings.Contains(text, `"`+m.name+`"`) || strings.Contains(piece, text)
			})
			if !touched && m.name != "options" && !strings.Contains(got, piece) {
				t.Errorf("%s: lost %s in %s", try.client, piece, got)
			}
		}
		if slices.Contains(c.Also, Tool) != try.also {
			t.Errorf("%s: also %q", try.client, c.Also)
		}
	}
}
