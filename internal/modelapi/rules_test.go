package modelapi

import (
	"slices"
	"strings"
	"testing"
)

// A body rule by example: what becomes of a body that the relay classifies and rewrites with testObligations. want is
// the body that goes upstream, or the code of the refusal.
type ruleCase struct{ field, server, path, body, want string }

// ruleCases has at least one for each row of the data.
var ruleCases = []ruleCase{
	{"model", "ollama", "/api/embed", `{"model":"Phi3"}`, `{"model":"phi3:latest"}`},
	{"model", "ollama", "/api/embed", `{"Model":"Phi3"}`, "json_name_case"},
	{"name", "ollama", "/api/show", `{"name":"Phi3"}`, `{"name":"phi3:latest"}`},
	{"source", "ollama", "/api/copy", `{"source":"A","destination":"B"}`, `{"source":"a:latest","destination":"b:latest"}`},
	{"destination", "ollama", "/api/copy", `{"source":"A","destination":""}`, "model_missing"},
	{"from", "ollama", "/api/create", `{"model":"m","from":"Base"}`, `{"model":"m:latest","from":"base:latest"}`},

	{"lora_name", "sglang", "/v1/chat/completions", `{"model":"m","messages":[],"lora_name":"a"}`, "field_denied"},
	{"lora_id", "sglang", "/generate", `{"text":"t","lora_id":"a"}`, "field_denied"},
	{"lora_request", "sglang", "/generate", `{"text":"t","lora_request":{"lora_path":"a"}}`, "field_denied"},

	{"max_tokens", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":101,"user":"u"}`, `{"model":"m","prompt":"p","max_tokens":100,"user":"sub"}`},
	{"max_tokens", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":100.0}`, "field_invalid"},
	{"max_tokens", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":1e3}`, "field_invalid"},
	{"max_tokens", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":"5"}`, "field_invalid"},
	{"max_tokens", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":99999999999999999999}`, "field_invalid"},
	{"max_completion_tokens", "tgi", "/v1/chat/completions", `{"messages":[],"max_completion_tokens":null}`, `{"messages":[],"max_completion_tokens":100,"user":"sub"}`},
	{"max_output_tokens", "ollama", "/v1/responses", `{"model":"m:x","input":"i","max_output_tokens":-1}`, `{"model":"m:x","input":"i","max_output_tokens":100,"user":"sub"}`},
	{"n_predict", "llama.cpp", "/infill", `{"input_prefix":"p","n_predict":-2}`, `{"input_prefix":"p","n_predict":100}`},
	{"max_new_tokens", "tgi", "/generate_stream", `{"inputs":"i","parameters":{"max_new_tokens":1000000000}}`, `{"inputs":"i","parameters":{"max_new_tokens":100}}`},
	{"max_new_tokens", "tgi", "/generate", `{"inputs":"i","parameters":{"Max_New_Tokens":1}}`, "json_name_case"},
	{"num_predict", "ollama", "/api/chat", `{"model":"m:x","messages":[{}],"options":{"num_predict":5}}`, `{"model":"m:x","messages":[{}],"options":{"num_predict":5}}`},
	{"min_tokens", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":9,"min_tokens":500,"user":"sub"}`, `{"model":"m","prompt":"p","max_tokens":9,"min_tokens":100,"user":"sub"}`},
	{"min_new_tokens", "sglang", "/generate", `{"text":"t","sampling_params":{"min_new_tokens":500,"max_new_tokens":2}}`, `{"text":"t","sampling_params":{"min_new_tokens":100,"max_new_tokens":2},"cache_salt":"salt"}`},

	{"n", "openai", "/v1/completions", `{"model":"m","prompt":"p","n":0}`, "field_invalid"},
	{"n", "openai", "/v1/completions", `{"model":"m","prompt":"p","n":-1}`, "field_invalid"},
	{"n", "openai", "/v1/completions", `{"model":"m","prompt":"p","n":1.0}`, "field_invalid"},
	{"n", "openai", "/v1/completions", `{"model":"m","prompt":"p","n":129}`, "too_many_choices"},
	{"n_cmpl", "llama.cpp", "/v1/responses", `{"input":"i","n_cmpl":8,"n":8,"max_output_tokens":1,"user":"sub"}`, `{"input":"i","max_output_tokens":1,"user":"sub"}`},
	{"n_cmpl", "llama.cpp", "/v1/messages", `{"messages":[],"n_cmpl":8,"max_tokens":1,"metadata":{"user_id":"sub"}}`, `{"messages":[],"max_tokens":1,"metadata":{"user_id":"sub"}}`},
	{"n_cmpl", "llama.cpp", "/completion", `{"prompt":["p","q"],"n_cmpl":65}`, "too_many_choices"},
	{"best_of", "tgi", "/generate", `{"inputs":"i","parameters":{"best_of":9223372036854775807}}`, "too_many_choices"},
	{"parallel_sample_num", "sglang", "/generate", `{"text":"t","parallel_sample_num":129}`, "too_many_choices"},
	{"prompt", "openai", "/v1/completions", `{"model":"m","prompt":[` + strings.Repeat(`"p",`, 128) + `"p"]}`, "too_many_choices"},
	{"text", "sglang", "/generate", `{"text":[` + strings.Repeat(`"p",`, 128) + `"p"]}`, "too_many_choices"},
	{"input_ids", "sglang", "/generate", `{"input_ids":[` + strings.Repeat(`[1],`, 128) + `[1]]}`, "too_many_choices"},
	{"inputs", "tgi", "/generate", `{"inputs":[` + strings.Repeat(`"p",`, 128) + `"p"]}`, "too_many_choices"},
	{"messages", "openai", "/v1/chat/completions", `{"model":"m","messages":[` + strings.Repeat(`[{}],`, 128) + `[{}]]}`, "too_many_choices"},
	{"instances", "llama.cpp", "/completion", `{"prompt":"p","instances":[{}]}`, "field_denied"},

	{"stream_options", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":1,"user":"sub","stream":true}`, `{"model":"m","prompt":"p","max_tokens":1,"user":"sub","stream":true,"stream_options":{"include_usage":true}}`},
	{"stream_options", "openai", "/v1/completions", `{"model":"m","prompt":"p","stream_options":5}`, "field_invalid"},
	{"stream_options", "openai", "/v1/completions", `{"model":"m","prompt":"p","stream_options":{"Include_Usage":true}}`, "json_name_case"},
	{"response_fields", "llama.cpp", "/completion", `{"prompt":"p","n_predict":1,"response_fields":["content"]}`, `{"prompt":"p","n_predict":1}`},
	{"stream_interval", "llama.cpp", "/completion", `{"stream_interval":4096,"prompt":"p","n_predict":1}`, `{"prompt":"p","n_predict":1}`},
	{"stream_interval", "sglang", "/generate", `{"text":"t","cache_salt":"salt","sampling_params":{"max_new_tokens":1,"stream_interval":4096}}`, `{"text":"t","cache_salt":"salt","sampling_params":{"max_new_tokens":1}}`},
	{"stream_reasoning", "llama.cpp", "/completion", `{"stream_reasoning":false,"prompt":"p","n_predict":1}`, `{"prompt":"p","n_predict":1}`},
	{"include_reasoning", "llama.cpp", "/completion", `{"include_reasoning":false,"prompt":"p","n_predict":1}`, `{"prompt":"p","n_predict":1}`},
	{"timings_per_token", "llama.cpp", "/completion", `{"timings_per_token":true,"prompt":"p","n_predict":1}`, `{"prompt":"p","n_predict":1}`},

	{"user", "openai", "/v1/embeddings", `{"user":"root","model":"m"}`, `{"user":"sub","model":"m"}`},
	{"user", "openai", "/v1/embeddings", `{"model":"m"}`, `{"model":"m","user":"sub"}`},
	{"safety_identifier", "llama.cpp", "/tokenize", `{"safety_identifier":"root"}`, `{"safety_identifier":"sub"}`},
	{"metadata", "llama.cpp", "/tokenize", `{"metadata":{"user_id":"root","a":"b"}}`, `{"metadata":{"user_id":"sub","a":"b"}}`},
	{"metadata", "llama.cpp", "/tokenize", `{"metadata":{"a":"b"}}`, `{"metadata":{"a":"b"}}`},
	{"user_id", "ollama", "/v1/messages", `{"model":"m:x","messages":[{}],"metadata":{"User_ID":"root"}}`, "json_name_case"},
	{"metadata", "llama.cpp", "/tokenize", `{"metadata":null}`, `{"metadata":null}`},
	{"metadata", "llama.cpp", "/v1/messages", `{"messages":[],"max_tokens":1}`, `{"messages":[],"max_tokens":1,"metadata":{"user_id":"sub"}}`},
	{"metadata", "llama.cpp", "/v1/messages", `{"messages":[],"max_tokens":1,"metadata":{}}`, `{"messages":[],"max_tokens":1,"metadata":{"user_id":"sub"}}`},
	{"prompt_cache_key", "llama.cpp", "/tokenize", `{"prompt_cache_key":"k"}`, `{"prompt_cache_key":"salt"}`},
	{"cache_salt", "sglang", "/generate", `{"text":"t","cache_salt":["mine"],"sampling_params":{"max_new_tokens":1}}`, `{"text":"t","cache_salt":"salt","sampling_params":{"max_new_tokens":1}}`},
	{"extra_key", "llama.cpp", "/tokenize", `{"extra_key":"k"}`, `{"extra_key":"salt"}`},
	{"priority", "sglang", "/v1/tokenize", `{"model":"m","priority":99}`, `{"model":"m","priority":7}`},
	{"priority", "llama.cpp", "/tokenize", `{"priority":99}`, `{}`},
	{"session_id", "llama.cpp", "/tokenize", `{"session_id":"s","content":"c"}`, `{"content":"c"}`},
	{"conversation_id", "llama.cpp", "/tokenize", `{"conversation_id":"s","content":"c"}`, `{"content":"c"}`},
	{"rid", "llama.cpp", "/tokenize", `{"content":"c","rid":["s"]}`, `{"content":"c"}`},
	{"request_id", "llama.cpp", "/tokenize", `{"request_id":"s"}`, `{}`},
	{"id_slot", "llama.cpp", "/completion", `{"id_slot":3,"prompt":"p","n_predict":1}`, `{"prompt":"p","n_predict":1}`},
	{"slot_id", "llama.cpp", "/tokenize", `{"slot_id":3}`, `{}`},
	{"background", "openai", "/v1/responses", `{"model":"m","input":"i","max_output_tokens":1,"background":true,"store":true,"user":"sub"}`, `{"model":"m","input":"i","max_output_tokens":1,"store":true,"user":"sub"}`},
	{"store", "llama.cpp", "/tokenize", `{"store":true}`, `{"store":true}`},
	{"ngram_corpus_id", "llama.cpp", "/tokenize", `{"ngram_corpus_id":"x"}`, `{}`},
	{"custom_labels", "llama.cpp", "/tokenize", `{"custom_labels":{"a":"b"}}`, `{}`},
	{"no_logs", "llama.cpp", "/tokenize", `{"no_logs":true}`, `{}`},
	{"log_metrics", "llama.cpp", "/tokenize", `{"log_metrics":false}`, `{}`},
	{"external_trace_header", "llama.cpp", "/tokenize", `{"external_trace_header":{}}`, `{}`},
	{"received_time", "llama.cpp", "/tokenize", `{"received_time":1}`, `{}`},
	{"routing_key", "llama.cpp", "/tokenize", `{"routing_key":"k"}`, `{}`},

	{"cache_salt", "vllm", "/v1/chat/completions", `{"model":"m","messages":[],"max_tokens":1,"user":"sub"}`, `{"model":"m","messages":[],"max_tokens":1,"user":"sub","cache_salt":"salt"}`},
	{"cache_salt", "vllm", "/v1/responses", `{"model":"m","input":"i","max_output_tokens":1,"user":"sub","cache_salt":""}`, `{"model":"m","input":"i","max_output_tokens":1,"user":"sub","cache_salt":"salt"}`},
	{"cache_salt", "vllm", "/v1/messages", `{"model":"m","messages":[],"max_tokens":1,"metadata":{"user_id":"sub"}}`, `{"model":"m","messages":[],"max_tokens":1,"metadata":{"user_id":"sub"}}`},
	{
		"priority", "vllm", "/v1/completions", // its least number is served first
		`{"model":"m","prompt":"p","max_tokens":1,"user":"sub","cache_salt":"salt","priority":-1000}`,
		`{"model":"m","prompt":"p","max_tokens":1,"user":"sub","cache_salt":"salt","priority":-7}`,
	},
	{
		"max_tokens", "vllm", "/inference/v1/generate",
		`{"model":"m","token_ids":[1],"sampling_params":{"temperature":0,"n":2},"cache_salt":"salt"}`,
		`{"model":"m","token_ids":[1],"sampling_params":{"temperature":0,"n":2,"max_tokens":100},"cache_salt":"salt"}`,
	},
	{"extra_args", "vllm", "/inference/v1/generate", `{"model":"m","token_ids":[1],"sampling_params":{"extra_args":{"kv_transfer_params":{}}}}`, "field_denied"},
	{"features", "vllm", "/inference/v1/generate", `{"model":"m","token_ids":[1],"sampling_params":{},"features":{"kwargs_data":{}}}`, "field_denied"},

	{"custom_params", "sglang", "/generate", `{"text":"t","cache_salt":"salt","sampling_params":{"max_new_tokens":1,"custom_params":{}}}`, `{"text":"t","cache_salt":"salt","sampling_params":{"max_new_tokens":1}}`},
	{"extra_args", "sglang", "/generate", `{"text":"t","sampling_params":{"extra_args":{"kv_transfer_params":{}}}}`, "field_denied"},
	{"prompt_embeds", "openai", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"type":"prompt_embeds","data":"AAAA"}]}]}`, "field_denied"},
	{"prompt_embeds", "vllm", "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":[{"prompt_embeds":null,"data":"AAAA"}]}]}`, "field_denied"},
	{"prompt_embeds", "openai", "/v1/completions", `{"model":"m","prompt":"p","max_tokens":1,"user":"sub","prompt_embeds":null}`, `{"model":"m","prompt":"p","max_tokens":1,"user":"sub"}`},
	{"return_hidden_states", "sglang", "/generate", `{"text":"t","cache_salt":"salt","return_hidden_states":false,"sampling_params":{"max_new_tokens":1}}`, `{"text":"t","cache_salt":"salt","sampling_params":{"max_new_tokens":1}}`},
	{"routed_dp_rank", "sglang", "/generate", `{"text":"t","routed_dp_rank":0}`, "field_denied"},

	{"media_io_kwargs", "llama.cpp", "/tokenize", `{"media_io_kwargs":{"video":{"num_frames":-1}}}`, `{}`},
	{"mm_processor_kwargs", "llama.cpp", "/tokenize", `{"mm_processor_kwargs":{"size":9}}`, `{}`},

	{"keep_alive", "ollama", "/api/embed", `{"model":"m:x","keep_alive":-1,"input":"i"}`, `{"model":"m:x","input":"i"}`},
	{"shift", "ollama", "/api/chat", `{"model":"m:x","messages":[{}],"shift":false,"options":{"num_predict":1}}`, `{"model":"m:x","messages":[{}],"options":{"num_predict":1}}`},
	{"_debug_render_only", "llama.cpp", "/tokenize", `{"_debug_render_only":true}`, `{}`},
	{"raw", "ollama", "/api/generate", `{"model":"m:x","prompt":"p","raw":true,"options":{"num_predict":1}}`, `{"model":"m:x","prompt":"p","raw":true,"options":{"num_predict":1}}`},
	{"system", "ollama", "/api/generate", `{"model":"m:x","prompt":"p","system":"s","options":{"num_predict":1}}`, `{"model":"m:x","prompt":"p","system":"s","options":{"num_predict":1}}`},
	{"template", "ollama", "/api/generate", `{"model":"m:x","prompt":"p","template":"{{.}}"}`, "field_denied"},
	{"template", "ollama", "/api/generate", `{"model":"m:x","prompt":"p","template":"","options":{"num_predict":1}}`, `{"model":"m:x","prompt":"p","options":{"num_predict":1}}`},
	{"chat_template", "llama.cpp", "/apply-template", `{"messages":[],"chat_template":"{{1}}"}`, "field_denied"},
	{
		"chat_template_kwargs", "llama.cpp", "/apply-template",
		`{"chat_template_kwargs":{"enable_thinking":false,"chat_template":"x","tokenize":true,"thinking":{"a":1}}}`,
		`{"chat_template_kwargs":{"enable_thinking":false}}`,
	},
	{
		"chat_template_kwargs", "llama.cpp", "/apply-template", // a template would put it before the messages, uncounted
		`{"chat_template_kwargs":{"reasoning_effort":"high","thinking_mode":"` + strings.Repeat("x", 64) + `"}}`,
		`{"chat_template_kwargs":{"reasoning_effort":"high"}}`,
	},
	{"n_discard", "llama.cpp", "/completion", `{"prompt":"p","n_discard":-1,"n_predict":1}`, `{"prompt":"p","n_predict":1}`},
	{"guided_decoding_backend", "llama.cpp", "/tokenize", `{"guided_decoding_backend":"outlines"}`, `{}`},
}

// exampleCases makes the cases of the rows that are alike: a field that is denied wherever it says something, the
// options that load a model anew, media that would be fetched.
func exampleCases() []ruleCase {
	var all []ruleCase
	for _, r := range rules().rows {
		switch {
		case r.Verb == deny && slices.Contains(r.In, "top"):
			all = append(all,
				ruleCase{r.Field, "llama.cpp", "/tokenize", `{"` + r.Field + `":1}`, "field_denied"},
				ruleCase{r.Field, "llama.cpp", "/tokenize", `{"` + r.Field + `":null,"content":"c"}`, `{"content":"c"}`},
				ruleCase{r.Field, "llama.cpp", "/tokenize", `{"` + strings.ToUpper(r.Field) + `":1}`, "json_name_case"})
		case r.Verb == deny:
			all = append(all, ruleCase{r.Field, "openai", "/v1/chat/completions", `{"model":"m","messages":[{"content":[{"` + r.Field + `":"x"}]}]}`, "field_denied"})
		case r.Verb == strip && slices.Contains(r.In, "params"):
			all = append(all, ruleCase{
				r.Field, "ollama", "/api/chat", `{"model":"m:x","messages":[{}],"options":{"num_predict":1,"` + r.Field + `":4}}`,
				`{"model":"m:x","messages":[{}],"options":{"num_predict":1}}`,
			})
		case r.Verb == inputs:
			all = append(all,
				ruleCase{r.Field, "openai", "/v1/embeddings", `{"model":"m","` + r.Field + `":[` + strings.Repeat(`"p",`, MaxInputs) + `"p"]}`, "too_many_inputs"},
				ruleCase{
					r.Field, "openai", "/v1/embeddings", `{"model":"m","user":"sub","` + r.Field + `":[` + strings.Repeat(`1,`, MaxInputs) + `2]}`,
					`{"model":"m","user":"sub","` + r.Field + `":[` + strings.Repeat(`1,`, MaxInputs) + `2]}`,
				})
		case r.Verb == dataURI && r.Field != "source":
			for _, address := range []string{"http://10.0.0.1/x", "https://x/y.png", "file:///etc/passwd", "/etc/passwd.png", "ftp://x", " data:x", "DATA:image/png;base64,AA", "httpd/admin"} {
				all = append(all,
					ruleCase{r.Field, "openai", "/v1/chat/completions", `{"model":"m","messages":[{"content":[{"` + r.Field + `":"` + address + `"}]}]}`, "media_remote"},
					ruleCase{r.Field, "openai", "/v1/chat/completions", `{"model":"m","messages":[{"content":[{"` + r.Field + `":{"url":"` + address + `"}}]}]}`, "media_remote"})
			}
		}
	}
	return all
}

func TestPO13EachBodyRuleHolds(t *testing.T) {
	for _, try := range append(exampleCases(), ruleCases...) {
		c, err := forward(t, ask(try.server, try.path, try.body), testObligations())
		switch {
		case !strings.HasPrefix(try.want, "{"):
			if code(err) != try.want {
				t.Errorf("%s %s %s: got %s, %v; want %s", try.server, try.path, shorten(try.body), c.Body, err, try.want)
			} else if !strings.Contains(err.Error(), `"`+strings.TrimSuffix(try.field, "s")) && !strings.HasPrefix(try.want, "too_many") && try.want != "media_remote" && try.field != "stream_options" {
				t.Errorf("%s: the refusal %q does not name the field", try.field, err)
			}
		case err != nil || plain(c, try.body) != try.want:
			t.Errorf("%s %s %s: got %s, %v; want %s", try.server, try.path, shorten(try.body), c.Body, err, try.want)
		}
	}
}

func shorten(s string) string { return s[:min(len(s), 200)] }

func TestEachRowOfTheBodyRulesHasACase(t *testing.T) {
	// Adapters have tests of their own.
	tried := map[string]bool{"lora": true, "lora_path": true, "adapter_id": true, "source": true}
	for _, try := range append(exampleCases(), ruleCases...) {
		tried[try.field] = true
	}
	for _, try := range toolCases {
		tried[try.field] = true
	}
	for _, r := range rules().rows {
		if !tried[r.Field] && r.Verb != owner { // whose ids they are, is read elsewhere
			t.Errorf("the rule for %q is not tried", r.Field)
		}
	}
}

// The fields that the review of the servers' APIs names as security decisions, in its order.
func TestEachFieldNamedAsASecurityDecisionHasARule(t *testing.T) {
	book := rules()
	for _, field := range strings.Fields(`model name source destination from lora lora_path lora_name
		max_tokens max_completion_tokens max_output_tokens n_predict num_predict max_new_tokens n n_cmpl best_of prompt input instances
		stream_options response_fields timings_per_token user metadata priority cache_salt session_id session_params rid request_id id_slot
		previous_response_id conversation kv_transfer_params ec_transfer_params bootstrap_host bootstrap_port bootstrap_room routed_dp_rank
		vllm_xargs custom_logit_processor prompt_embeds input_embeds return_hidden_states image_url video_url audio_url input_audio tools
		keep_alive num_ctx num_gpu main_gpu num_thread _debug_render_only raw template system n_discard chat_template chat_template_kwargs`) {
		if book.top[field] == nil && book.content[field] == nil {
			t.Errorf("%q has no rule", field)
		}
		if !isKnownName(field) {
			t.Errorf("%q in another letter case would pass", field)
		}
	}
	for _, field := range []string{"num_predict", "max_new_tokens", "num_ctx", "num_gpu", "main_gpu", "num_thread", "n", "best_of", "cache_salt", "priority"} {
		if book.params[field] == nil {
			t.Errorf("%q has no rule inside options, parameters and sampling_params", field)
		}
	}
}

func TestRulesHoldForInferenceOnly(t *testing.T) {
	for _, try := range []struct{ path, body string }{
		{"/api/create", `{"model":"m:x","from":"b:x","template":"t","system":"s"}`},
		{"/api/generate", `{"model":"m:x","keep_alive":-1,"options":{"num_ctx":8192}}`}, // loads: manage-model
	} {
		c, err := forward(t, post("ollama", try.path, try.body), testObligations())
		if err != nil || c.Action != ManageModel || string(c.Body) != try.body {
			t.Errorf("%s: got %s %s, %v", try.path, c.Action, c.Body, err)
		}
	}
}

func TestABrokenRuleTableIsRefused(t *testing.T) {
	for _, data := range []string{
		`{`, `{"other":[]}`,
		`{"fields":[{"field":"a","in":["top"],"rule":"burn","servers":["all"],"why":"w","source":"s"}]}`,
		`{"fields":[{"field":"a","in":["top"],"rule":"strip","servers":["all"],"source":"s"}]}`,
		`{"fields":[{"field":"a","in":["roof"],"rule":"strip","servers":["all"],"why":"w","source":"s"}]}`,
		`{"fields":[{"field":"a","in":["top","top"],"rule":"strip","servers":["all"],"why":"w","source":"s"}]}`,
		`{"fields":[{"field":"a","in":["content"],"rule":"data-uri","media":["smell"],"servers":["all"],"why":"w","source":"s"}]}`,
	} {
		if _, err := parseRules([]byte(data)); err == nil {
			t.Errorf("%s was taken", data)
		}
	}
}
