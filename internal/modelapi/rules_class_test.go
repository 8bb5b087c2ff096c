package modelapi

import (
	"slices"
	"testing"
)

// toolCases say which tools want a grant of the action tool.
var toolCases = []struct {
	field, server, path, body string
	server_                   bool
}{
	{"tools", "openai", "/v1/chat/completions", `{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f"}}]}`, false},
	{"tools", "openai", "/v1/chat/completions", `{"model":"m","messages":[],"tools":null}`, false},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"custom","name":"c"},{"type":"local_shell"}]}`, false},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}]}`, false},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"namespace","name":"n","tools":[{"type":"web_search"}]}]}`, true},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"function","name":"f"},{"type":"web_search_preview"}]}`, true},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"code_interpreter","container":{"type":"auto"}}]}`, true},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"mcp","server_url":"http://x"}]}`, true},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"file_search"}]}`, true},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"computer_use_preview"}]}`, true},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":"image_generation"}]}`, true},
	{"tools", "openai", "/v1/responses", `{"model":"m","input":"i","tools":[{"type":["function"]}]}`, true},
	{"tools", "ollama", "/v1/messages", `{"model":"m:x","messages":[{}],"tools":[{"name":"f","input_schema":{}}]}`, false},
	{"tools", "ollama", "/v1/messages", `{"model":"m:x","messages":[{}],"tools":[{"type":"web_search_20250305","name":"web_search"}]}`, true},
	{"tools", "sglang", "/v1/chat/completions", `{"model":"m","messages":[{"role":"system","tools":[{"type":"code_interpreter"}]}]}`, true},
	{"web_search_options", "openai", "/v1/chat/completions", `{"model":"m","messages":[],"web_search_options":{"search_context_size":"low"}}`, true},
	{"web_search_options", "openai", "/v1/chat/completions", `{"model":"m","messages":[],"web_search_options":null}`, false},
	{"plugins", "openai", "/v1/chat/completions", `{"model":"m","messages":[],"plugins":[{"id":"web"}]}`, true},
	{"mcp_servers", "ollama", "/v1/messages", `{"model":"m:x","messages":[{}],"mcp_servers":[{"type":"url","url":"http://x"}]}`, true},
}

func TestToolsThatTheServerRunsWantTheirOwnGrant(t *testing.T) {
	for _, try := range toolCases {
		c, err := Default().Classify(ask(try.server, try.path, try.body))
		if err != nil || slices.Contains(c.Also, Tool) != try.server_ || len(c.Also) > 1 {
			t.Errorf("%s: got %q, %v", try.body, c.Also, err)
		}
	}
	body := `{"model":"m:x","messages":[{}],"tools":[{"Type":"web_search_20250305"}]}`
	if _, err := Default().Classify(post("ollama", "/v1/messages", body)); code(err) != "json_name_case" {
		t.Errorf("%s: %v", body, err)
	}
}

func TestTokensInPlaceOfMessagesWantTheGrantOfARawPrompt(t *testing.T) {
	for body, want := range map[string][]Action{
		`{"messages":[],"input_ids":[1,2]}`: {Complete},
		`{"messages":[],"input_ids":[]}`:    nil,
		`{"messages":[],"input_ids":null}`:  nil,
		`{"messages":[]}`:                   nil,
	} {
		c, err := Default().Classify(on("m", post("sglang", "/v1/chat/completions", body)))
		if err != nil || c.Action != Chat || !slices.Equal(c.Also, want) {
			t.Errorf("%s: got %s and %q, %v", body, c.Action, c.Also, err)
		}
	}
}

func TestAnswersAreCountedAsPromptsTimesChoices(t *testing.T) {
	for _, try := range []struct {
		server, path, body string
		want               int64
	}{
		{"openai", "/v1/chat/completions", `{"model":"m","messages":[{},{},{}]}`, 1},
		{"openai", "/v1/chat/completions", `{"model":"m","messages":[{}],"n":3}`, 3},
		{"openai", "/v1/chat/completions", `{"model":"m","messages":[{}],"n":null}`, 1},
		{"openai", "/v1/chat/completions", `{"model":"m","messages":[[{}],[{},{}]],"n":3}`, 6},
		{"openai", "/v1/completions", `{"model":"m","prompt":["a","b"],"n":2,"best_of":5}`, 10},
		{"openai", "/v1/completions", `{"model":"m","prompt":[1,2,3],"n":2}`, 2},
		{"openai", "/v1/completions", `{"model":"m","prompt":[[1],[2,3]]}`, 2},
		{"openai", "/v1/embeddings", `{"model":"m","input":["a","b"],"n":-5}`, 1},
		{"llama.cpp", "/completion", `{"prompt":"p","n":2,"n_cmpl":4}`, 4},
		{"llama.cpp", "/completion", `{"prompt":[{"prompt_string":"a"},"b"]}`, 2},
		{"sglang", "/generate", `{"text":["a","b","c"],"sampling_params":{"n":2}}`, 6},
		{"sglang", "/generate", `{"text":["a","b"],"sampling_params":[{"n":1},{"n":3}]}`, 6},
		{"tgi", "/generate", `{"inputs":"i","parameters":{"best_of":4}}`, 4},
	} {
		c, err := Default().Classify(ask(try.server, try.path, try.body))
		if err != nil || c.Choices != try.want {
			t.Errorf("%s: got %d, %v; want %d", try.body, c.Choices, err, try.want)
		}
	}
}
