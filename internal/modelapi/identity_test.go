package modelapi

import (
	"slices"
	"testing"
)

// on returns a request to a server with one model.
func on(only string, in Input) Input {
	in.Only = only
	return in
}

func TestAnAdapterIsPartOfTheModel(t *testing.T) {
	for _, try := range []struct {
		name      string
		in        Input
		models    []string
		want      string
		forwarded string
	}{
		{
			"sglang, in the name", on("qwen", post("sglang", "/v1/chat/completions", `{"model":"any:legal","messages":[]}`)),
			[]string{"qwen:legal", "qwen"},
			"", `{"model":"qwen:legal","messages":[]}`,
		},
		{
			"sglang, beside the name", on("qwen", post("sglang", "/v1/chat/completions", `{"model":"qwen","lora_path":"legal","messages":[]}`)),
			[]string{"qwen:legal", "qwen"},
			"", "",
		},
		{
			"sglang, both", on("qwen", post("sglang", "/v1/chat/completions", `{"model":"qwen:a","lora_path":"b","messages":[]}`)),
			[]string{"qwen:b", "qwen:a", "qwen"},
			"", "",
		},
		{
			"sglang, native, one for each prompt", on("qwen", post("sglang", "/generate", `{"text":["a","b","c"],"lora_path":["x",null,"y"]}`)),
			[]string{"qwen:y", "qwen:x", "qwen"},
			"", "",
		},
		{"sglang, none", on("qwen", post("sglang", "/generate", `{"text":"a","lora_path":null}`)), []string{"qwen"}, "", ""},
		{"sglang, by an object", on("qwen", post("sglang", "/generate", `{"text":"a","lora_path":{"x":1}}`)), nil, "field_invalid", ""},
		{"sglang, by its number", on("qwen", post("sglang", "/generate", `{"text":"a","lora_id":"77"}`)), nil, "field_denied", ""},
		{"sglang, a base with a colon", on("qwen:7b", post("sglang", "/v1/completions", `{"model":"qwen:legal","prompt":"p"}`)), []string{"qwen:7b"}, "", `{"model":"qwen:7b","prompt":"p"}`},
		{
			"llama.cpp", on("phi", post("llama.cpp", "/completion", `{"prompt":"p","lora":[{"id":0,"scale":0.5},{"id":2,"scale":0}]}`)),
			[]string{"phi:lora-2", "phi:lora-0", "phi"},
			"", "",
		},
		{"llama.cpp, all taken off", on("phi", post("llama.cpp", "/completion", `{"prompt":"p","lora":[]}`)), []string{"phi:lora-none", "phi"}, "", ""},
		{"llama.cpp, by a name", on("phi", post("llama.cpp", "/completion", `{"prompt":"p","lora":[{"id":"x"}]}`)), nil, "field_invalid", ""},
		{"llama.cpp, no list", on("phi", post("llama.cpp", "/completion", `{"prompt":"p","lora":{"id":0}}`)), nil, "field_invalid", ""},
		{"llama.cpp router", post("llama.cpp", "/completion", `{"model":"m","prompt":"p","lora":[{"id":1}]}`), []string{"m:lora-1", "m"}, "", ""},
		{
			"tgi", on("falcon", post("tgi", "/generate", `{"inputs":"i","parameters":{"adapter_id":"legal"}}`)),
			[]string{"falcon:legal", "falcon"},
			"", "",
		},
		{
			"tgi, whose model field means an adapter", on("falcon", post("tgi", "/v1/chat/completions", `{"model":"legal","messages":[]}`)),
			[]string{"falcon"},
			"", `{"model":"tgi","messages":[]}`,
		},
		{"vllm, by its own name", post("vllm", "/v1/completions", `{"model":"legal","prompt":"p"}`), []string{"legal"}, "", ""},
		{"vllm, load", on("base", post("vllm", "/v1/load_lora_adapter", `{"lora_name":"legal","lora_path":"org/legal"}`)), []string{"legal"}, "", ""},
		{"vllm, load nothing", post("vllm", "/v1/load_lora_adapter", `{"lora_path":"org/legal"}`), nil, "model_missing", ""},
		{"sglang, load", on("qwen", post("sglang", "/load_lora_adapter", `{"lora_name":"legal","lora_path":"org/legal"}`)), []string{"qwen:legal"}, "", ""},
		{"llama-swap", post("llama-swap", "/v1/completions", `{"model":"m","prompt":"p","lora_path":"x"}`), []string{"m:x", "m"}, "", ""},
	} {
		c, err := Default().Classify(try.in)
		if code(err) != try.want || try.want == "" && !slices.Equal(c.Models, try.models) {
			t.Errorf("%s: got %q, %v; want %q, %s", try.name, c.Models, err, try.models, try.want)
			continue
		}
		if try.want == "" && c.Model != try.models[0] {
			t.Errorf("%s: decided on %q", try.name, c.Model)
		}
		if try.forwarded != "" && string(c.Body) != try.forwarded {
			t.Errorf("%s: forwarded %s", try.name, c.Body)
		}
		checkFixpoint(t, try.in)
	}
}

func TestNamesInRequestsThatManageModelsAreMeantAsWritten(t *testing.T) {
	for _, in := range []Input{
		on("one", post("llama.cpp", "/models", `{"model":"org/new"}`)),
		on("one", post("llama.cpp", "/models/unload", `{"model":"org/new"}`)),
		on("one", Input{Server: "llama.cpp", Method: "DELETE", Path: "/models", Query: "model=org/new"}),
		on("one", Input{Server: "llama-swap", Method: "POST", Path: "/api/models/unload/org/new"}),
	} {
		in.Aliases = map[string]string{"org/new": "one"}
		if c, err := Default().Classify(in); err != nil || c.Model != "org/new" || c.Action != ManageModel || c.Alias != "" {
			t.Errorf("%s %s: got %s of %q, %v", in.Method, in.Path, c.Action, c.Model, err)
		}
	}
}

func TestAnAliasIsItsModelBeforeAnythingIsDecided(t *testing.T) {
	aliases := map[string]string{"default": "Phi4:14b", "away": "gpt-oss:120b-cloud", "legal": "qwen:legal", "phi3": "phi4:14b"}
	for _, try := range []struct {
		in                   Input
		model, alias, target string
		forwarded            string
		egress               bool
	}{
		{post("ollama", "/api/chat", `{"model":"default","messages":[{"role":"user"}]}`), "phi4:14b", "default", "/api/chat", `{"model":"phi4:14b","messages":[{"role":"user"}]}`, false},
		{post("ollama", "/api/embed", `{"model":"library/Default:latest","input":"i"}`), "phi4:14b", "default", "/api/embed", `{"model":"phi4:14b","input":"i"}`, false},
		{post("ollama", "/api/embed", `{"model":"phi3","input":"i"}`), "phi4:14b", "phi3", "/api/embed", `{"model":"phi4:14b","input":"i"}`, false},
		{post("ollama", "/api/embed", `{"model":"away","input":"i"}`), "gpt-oss:120b-cloud", "away", "/api/embed", `{"model":"gpt-oss:120b-cloud","input":"i"}`, true},
		{post("ollama", "/api/embed", `{"model":"phi5","input":"i"}`), "phi5:latest", "", "/api/embed", `{"model":"phi5:latest","input":"i"}`, false},
		{Input{Server: "ollama", Method: "GET", Path: "/v1/models/default"}, "phi4:14b", "default", "/v1/models/phi4:14b", "", false},
		{Input{Server: "llama.cpp", Method: "GET", Path: "/props", Query: "model=default"}, "Phi4:14b", "default", "/props?model=Phi4%3A14b", "", false},
		{on("qwen", post("sglang", "/v1/completions", `{"model":"legal","prompt":"p"}`)), "qwen:legal", "legal", "/v1/completions", `{"model":"qwen:legal","prompt":"p"}`, false},
		{on("qwen", post("vllm", "/v1/embeddings", `{"model":"default","input":"i"}`)), "qwen", "default", "/v1/embeddings", `{"model":"qwen","input":"i"}`, false},
	} {
		try.in.Aliases = aliases
		c, err := Default().Classify(try.in)
		if err != nil || c.Model != try.model || c.Alias != try.alias || c.Target != try.target || string(c.Body) != try.forwarded || c.Egress != try.egress {
			t.Errorf("%s %s: got %q alias %q egress %v, %s %s, %v", try.in.Path, try.in.Body, c.Model, c.Alias, c.Egress, c.Target, c.Body, err)
		}
		checkFixpoint(t, try.in)
	}
	in := formInput("vllm", formKind, testForm("x", textPart("model", "default"), soundPart))
	in.Aliases = aliases
	if c, err := Default().Classify(in); err != nil || c.Model != "Phi4:14b" || c.Alias != "default" {
		t.Errorf("a form: %q, %v", c.Model, err)
	}
}

func TestIdsOfARequestAreNamed(t *testing.T) {
	get := func(server, method, path, query string) Input {
		return Input{Server: server, Method: method, Path: path, Query: query}
	}
	for _, try := range []struct {
		in     Input
		ids    []ID
		hands  string
		action Action
		want   string
	}{
		{post("vllm", "/v1/responses", `{"model":"m","input":"i"}`), nil, IDResponse, Chat, ""},
		{post("openai", "/v1/responses", `{"model":"m","input":"i","previous_response_id":"resp_1","conversation":{"id":"conv_1"}}`), []ID{{IDResponse, "resp_1"}, {IDConversation, "conv_1"}}, IDResponse, Chat, ""},
		{post("openai", "/v1/responses", `{"model":"m","input":"i","conversation":"conv_1"}`), []ID{{IDConversation, "conv_1"}}, IDResponse, Chat, ""},
		{post("openai", "/v1/responses", `{"model":"m","input":"i","previous_response_id":null}`), nil, IDResponse, Chat, ""},
		{post("openai", "/v1/responses", `{"model":"m","input":"i","previous_response_id":["resp_1"]}`), nil, "", Chat, "id_invalid"},
		{post("openai", "/v1/responses", `{"model":"m","input":"i","conversation":{}}`), nil, "", Chat, "id_invalid"},
		{post("ollama", "/v1/responses", `{"model":"m","input":"i"}`), nil, "", Chat, ""},
		{get("vllm", "GET", "/v1/responses/resp_1", "stream=true"), []ID{{IDResponse, "resp_1"}}, "", Session, ""},
		{get("sglang", "POST", "/v1/responses/resp_1/cancel", ""), []ID{{IDResponse, "resp_1"}}, "", Session, ""},
		{on("q", post("sglang", "/open_session", `{"capacity_of_str_len":100}`)), nil, IDSession, Session, ""},
		{on("q", post("sglang", "/open_session", `{"capacity_of_str_len":100,"session_id":"mine"}`)), nil, "", Session, "field_denied"},
		{on("q", post("sglang", "/close_session", `{"session_id":"s"}`)), []ID{{IDSession, "s"}}, "", Session, ""},
		{on("q", post("sglang", "/close_session", `{}`)), nil, "", Session, "id_missing"},
		{on("q", get("sglang", "GET", "/close_session", "")), nil, "", Session, "id_missing"},
		{on("q", post("sglang", "/generate", `{"text":"t","session_params":{"id":"s","rid":"r"}}`)), []ID{{IDSession, "s"}}, "", Complete, ""},
		{on("q", post("sglang", "/generate", `{"text":["t","u"],"session_params":[{"id":"s"},{"id":"z"}]}`)), []ID{{IDSession, "s"}, {IDSession, "z"}}, "", Complete, ""},
		{on("q", post("sglang", "/generate", `{"text":"t","session_params":{"rid":"r"}}`)), nil, "", Complete, "id_invalid"},
		{on("q", post("sglang", "/abort_request", `{"rid":"r"}`)), []ID{{IDRequest, "r"}}, "", Session, ""},
		{on("q", post("sglang", "/abort_request", `{"rid":""}`)), nil, "", Session, "id_missing"},
		{on("q", post("sglang", "/abort_request", `{"rid":"r","abort_all":true}`)), nil, "", ServerAdmin, ""},
		{on("q", post("sglang", "/abort_request", `{"rid":"r","abort_all":1}`)), nil, "", ServerAdmin, ""},
		{post("llama.cpp", "/v1/chat/completions/control", `{"id":"c","model":"m"}`), []ID{{IDRequest, "c"}}, "", Session, ""},
		{post("llama.cpp", "/v1/chat/completions/control", `{"model":"m"}`), nil, "", Session, "id_missing"},
		{post("llama.cpp", "/v1/chat/completions/control", `{"id":"c"}`), nil, "", Session, "model_missing"},
		{get("llama.cpp", "GET", "/v1/stream/c1::phi3", ""), []ID{{IDStream, "c1::phi3"}}, "", Session, ""},
		{get("llama.cpp", "DELETE", "/v1/stream", "conv_id=c1&x=y"), []ID{{IDStream, "c1"}}, "", Session, ""},
		{get("llama.cpp", "GET", "/v1/stream", ""), nil, "", Session, "id_missing"},
		{get("llama.cpp", "GET", "/v1/streams", ""), nil, "", Observe, ""},
		{post("llama.cpp", "/v1/streams/lookup", `{"conv_ids":["c1"]}`), nil, "", Observe, ""},
		{get("llama-swap", "POST", "/api/inflight/7/cancel", ""), []ID{{IDRequest, "7"}}, "", Session, ""},
	} {
		c, err := Default().Classify(try.in)
		if code(err) != try.want || c.Action != try.action || try.want == "" && (!slices.Equal(c.IDs, try.ids) || c.Hands != try.hands) {
			t.Errorf("%s %s %s: got %s %v hands %q, %v; want %s %v %q %s", try.in.Method, try.in.Path, try.in.Body, c.Action, c.IDs, c.Hands, err, try.action, try.ids, try.hands, try.want)
		}
		checkFixpoint(t, try.in)
	}
}

func TestAWebSocketIsARouteOfItsOwn(t *testing.T) {
	for _, try := range []struct {
		method, upgrade, only string
		action                Action
		want                  string
	}{
		{"GET", "websocket", "m", Transcribe, ""},
		{"GET", "WebSocket", "m", Transcribe, ""},
		{"GET", "websocket", "", Transcribe, "model_missing"},
		{"GET", "", "m", Unknown, ""},
		{"GET", "h2c", "m", Unknown, ""},
		{"GET", "websocket, h2c", "m", Unknown, ""},
		{"POST", "websocket", "m", Unknown, ""},
		{"WEBSOCKET", "", "m", Unknown, ""},
		{"WEBSOCKET", "websocket", "m", Unknown, ""},
	} {
		in := Input{Server: "vllm", Method: try.method, Path: "/v1/realtime", Query: "model=secret", Upgrade: try.upgrade, Only: try.only}
		c, err := Default().Classify(in)
		if c.Action != try.action || code(err) != try.want || c.Action == Transcribe && (!c.Upgrade || c.Target != "/v1/realtime") || try.want == "" && c.Action == Transcribe && c.Model != "m" {
			t.Errorf("%v: got %+v, %v", try, c, err)
		}
	}
	// What is no WebSocket is not reached as one.
	in := post("vllm", "/v1/chat/completions", `{"model":"m","messages":[]}`)
	in.Upgrade = "websocket"
	if c, err := Default().Classify(in); err != nil || c.Action != Unknown {
		t.Errorf("got %s, %v", c.Action, err)
	}
	if c, err := Default().Classify(Input{Server: "vllm", Method: "GET", Path: "/v1/models", Upgrade: "websocket"}); err != nil || c.Action != Unknown {
		t.Errorf("got %s, %v", c.Action, err)
	}
}
