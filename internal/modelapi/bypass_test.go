package modelapi

import (
	"strings"
	"testing"
)

// Each row is a way past a list of paths and models that some server's own parser leaves open. It is refused with a
// code, is of an unknown route, or is read as what the server would do; what is forwarded then is as stated.
func TestBypassesOfTheServersOwnParsers(t *testing.T) {
	const chat = `{"model":"ok:x","messages":[{"role":"user","content":"hi"}]}`
	const forwarded = `{"model":"ok:x","messages":[{"role":"user","content":"hi"}]}`
	raw := func(server, method, target string, body string) Input {
		in := Input{Server: server, Method: method, Body: []byte(body)}
		in.Path, in.Query, _ = strings.Cut(target, "?")
		if body != "" {
			in.ContentType = "application/json"
		}
		return in
	}
	typed := func(in Input, kind string) Input { in.ContentType = kind; return in }
	encoded := func(in Input, encoding string) Input { in.ContentEncoding = encoding; return in }
	for _, try := range []struct {
		name   string
		in     Input
		want   string // a code, or "unknown", or "" for a request that passes
		action Action
		model  string
		target string
		body   string
	}{
		// 5.1: paths.
		{name: "an encoded slash, in any case", in: raw("llama.cpp", "POST", "/v1%2Fchat%2fcompletions", chat), want: "path_ambiguous"},
		{name: "an encoded letter", in: raw("llama.cpp", "POST", "/%6dodels/load", `{"model":"x"}`), want: "path_ambiguous"},
		{name: "an encoded letter of gin", in: raw("ollama", "POST", "/api/%70ull", `{"model":"x"}`), want: "path_ambiguous"},
		{name: "a fragment", in: raw("llama.cpp", "GET", "/health#/../x", ""), want: "path_ambiguous"},
		{name: "an encoded fragment", in: raw("ollama", "GET", "/v1/models/a%23b", ""), want: "path_ambiguous"},
		{name: "a slash behind", in: raw("ollama", "POST", "/api/chat/", chat), want: "unknown"},
		{name: "a slash behind, Starlette", in: raw("vllm", "POST", "/v1/chat/completions/", chat), want: "unknown"},
		{name: "two slashes before", in: raw("ollama", "GET", "//v1/models", ""), want: "path_ambiguous"},
		{name: "two slashes within", in: raw("vllm", "POST", "/v1//chat/completions", chat), want: "path_ambiguous"},
		{name: "dot segments", in: raw("ollama", "POST", "/v1/models/../../api/pull", `{"model":"x"}`), want: "path_ambiguous"},
		{name: "encoded dot segments", in: raw("ollama", "POST", "/v1/%2e%2e/api/pull", `{"model":"x"}`), want: "path_ambiguous"},
		{name: "a dot segment in a parameter", in: raw("openai", "GET", "/v1/models/a%2f..%2fb", ""), want: "path_ambiguous"},
		{name: "encoded twice", in: raw("openai", "GET", "/v1/models/a%252fb", ""), want: "path_ambiguous"},
		{name: "upper case", in: raw("ollama", "POST", "/API/chat", chat), want: "unknown"},
		{name: "parameters of a segment", in: raw("ollama", "POST", "/api/chat;x=1", chat), want: "path_ambiguous"},
		{name: "an encoded zero", in: raw("ollama", "POST", "/api/chat%00", chat), want: "path_ambiguous"},
		{name: "a backslash", in: raw("ollama", "POST", `/api\chat`, chat), want: "path_ambiguous"},
		{name: "absolute form", in: raw("ollama", "POST", "http://evil/api/chat", chat), want: "path_ambiguous"},
		{name: "asterisk form", in: raw("vllm", "OPTIONS", "*", ""), want: "path_ambiguous"},
		{name: "a model in the path, encoded", in: raw("ollama", "GET", "/v1/models/%4fk%3ax", ""), action: InspectModel, model: "ok:x", target: "/v1/models/ok:x"},
		{name: "a model in the path, with slashes", in: raw("sglang", "GET", "/v1/models/org%2Fm", ""), action: InspectModel, model: "org/m", target: "/v1/models/org/m"},

		// 5.1: methods.
		{name: "HEAD of httplib", in: raw("llama.cpp", "HEAD", "/props", ""), want: "unknown"},
		{name: "HEAD of a list", in: raw("ollama", "HEAD", "/v1/models", ""), want: "unknown"},
		{name: "HEAD that is there", in: raw("ollama", "HEAD", "/api/tags", ""), action: ListModels, target: "/api/tags"},
		{name: "PUT for POST", in: raw("vllm", "PUT", "/v1/chat/completions", chat), want: "unknown"},
		{name: "PUT that is there", in: on("m", raw("sglang", "PUT", "/generate", `{"text":"t"}`)), action: Complete, model: "m", target: "/generate", body: `{"text":"t"}`},
		{name: "GET that flushes", in: raw("sglang", "GET", "/flush_cache", ""), action: ServerAdmin, target: "/flush_cache"},
		{name: "GET that unloads", in: raw("llama-swap", "GET", "/unload", ""), action: ManageModel, target: "/unload"},
		{name: "GET that reloads", in: raw("llama.cpp", "GET", "/models?reload=1", ""), action: ListModels, target: "/models"},
		{name: "GET that loads", in: raw("llama.cpp", "GET", "/props?model=X&autoload=1", ""), action: InspectModel, model: "X", target: "/props?model=X"},
		{name: "one path, two meanings: GET", in: raw("tgi", "GET", "/", ""), action: Health, target: "/"},
		{name: "one path, two meanings: POST", in: on("m", raw("tgi", "POST", "/", `{"inputs":"i"}`)), action: Complete, model: "m", target: "/", body: `{"inputs":"i"}`},
		{name: "OPTIONS", in: raw("vllm", "OPTIONS", "/v1/chat/completions", ""), want: "unknown"},
		{name: "lower case", in: raw("ollama", "post", "/api/chat", chat), want: "unknown"},
		{name: "CONNECT", in: raw("llama-swap", "CONNECT", "/upstream/m/slots", ""), want: "unknown"},
		{name: "a WebSocket as GET", in: raw("sglang", "GET", "/v1/realtime", ""), want: "unknown"},

		// 5.1: routes that lead to other routes.
		{name: "llama.cpp /predict", in: raw("llama.cpp", "POST", "/predict", `{"instances":[{"@requestFormat":"chatCompletions"}]}`), want: "unknown"},
		{name: "vLLM /invocations", in: raw("vllm", "POST", "/invocations", chat), want: "unknown"},
		{name: "SGLang /invocations", in: on("m", raw("sglang", "POST", "/invocations", chat)), want: "unknown"},
		{name: "SGLang /vertex_generate", in: on("m", raw("sglang", "POST", "/vertex_generate", `{"instances":[{"text":"t"}]}`)), want: "unknown"},
		{name: "TGI /invocations", in: on("m", raw("tgi", "POST", "/invocations", `{"inputs":"i"}`)), want: "unknown"},
		{name: "TGI /vertex", in: on("m", raw("tgi", "POST", "/vertex", `{"instances":[{"inputs":"i"}]}`)), want: "unknown"},
		{name: "llama-swap /upstream", in: raw("llama-swap", "POST", "/upstream/m/v1/chat/completions", chat), want: "unknown"},
		{name: "llama-swap /comfyui", in: raw("llama-swap", "GET", "/comfyui/x", ""), want: "unknown"},
		{name: "llama-swap /sdapi", in: raw("llama-swap", "POST", "/sdapi/v1/txt2img", chat), want: "unknown"},
		{name: "a fork's own route", in: raw("llama.cpp", "POST", "/delete_prompt", `{}`), want: "unknown"},

		// 5.2: bodies.
		{name: "a key twice", in: raw("ollama", "POST", "/v1/chat/completions", `{"model":"ok:x","model":"secret","messages":[1]}`), want: "json_duplicate_name"},
		{name: "a key twice, by case", in: raw("ollama", "POST", "/v1/chat/completions", `{"model":"ok:x","MODEL":"secret","messages":[1]}`), want: "json_duplicate_name"},
		{name: "a key twice, by an escape", in: raw("vllm", "POST", "/v1/chat/completions", `{"model":"ok:x","\u006dodel":"secret","messages":[1]}`), want: "json_duplicate_name"},
		{name: "a key in another case alone", in: raw("ollama", "POST", "/v1/chat/completions", `{"Model":"secret","messages":[1]}`), want: "json_name_case"},
		{name: "a key with a long s", in: raw("ollama", "POST", "/api/chat", `{"model":"ok:x","meſſages":[1]}`), want: "json_name_case"},
		{name: "trailing data", in: raw("vllm", "POST", "/v1/chat/completions", chat+`{"model":"secret"}`), want: "json_invalid"},
		{name: "NaN", in: raw("vllm", "POST", "/v1/chat/completions", `{"model":"ok:x","messages":[1],"temperature":NaN}`), want: "json_invalid"},
		{name: "bad UTF-8", in: raw("vllm", "POST", "/v1/chat/completions", "{\"model\":\"ok\xff\",\"messages\":[1]}"), want: "json_invalid"},
		{name: "depth", in: raw("vllm", "POST", "/v1/chat/completions", `{"model":"ok:x","messages":`+strings.Repeat("[", 70)+strings.Repeat("]", 70)+`}`), want: "json_too_deep"},
		{name: "spaces and escapes", in: raw("vllm", "POST", "/v1/chat/completions", " {\"mod\\u0065l\" : \"ok:x\",\n\"messages\":[{\"role\":\"user\",\"content\":\"\\u0068i\"}] }"), action: Chat, model: "ok:x", target: "/v1/chat/completions", body: forwarded},
		{name: "no content type", in: typed(raw("ollama", "POST", "/api/chat", chat), ""), want: "content_type"},
		{name: "a simple content type", in: typed(raw("llama.cpp", "POST", "/v1/chat/completions", chat), "text/plain"), want: "content_type"},
		{name: "a form where JSON is due", in: typed(raw("llama.cpp", "POST", "/completion", string(testForm("x", textPart("model", "secret"), textPart("prompt", "p")))), formKind), want: "content_type"},
		{name: "JSON where a form is due", in: raw("ollama", "POST", "/v1/audio/transcriptions", `{"model":"secret","file":"x"}`), want: "content_type"},
		{name: "a query over a form", in: typed(raw("ollama", "POST", "/v1/audio/transcriptions?model=secret", string(testForm("x", textPart("model", "ok:x"), soundPart))), formKind), action: Transcribe, model: "ok:x", target: "/v1/audio/transcriptions"},
		{name: "a query over JSON", in: raw("ollama", "POST", "/v1/chat/completions?model=secret", chat), action: Chat, model: "ok:x", target: "/v1/chat/completions", body: forwarded},
		{name: "a query twice", in: raw("llama.cpp", "GET", "/props?model=a&model=b", ""), want: "query_ambiguous"},
		{name: "a query by semicolon", in: raw("llama.cpp", "GET", "/props?model=a;model=b", ""), want: "query_ambiguous"},
		{name: "a body compressed", in: encoded(raw("vllm", "POST", "/v1/chat/completions", string(gzipped(t, []byte(chat)))), "gzip"), action: Chat, model: "ok:x", target: "/v1/chat/completions", body: forwarded},
		{name: "a body compressed oddly", in: encoded(raw("vllm", "POST", "/v1/chat/completions", chat), "br"), want: "encoding_unsupported"},
		{name: "a body of GET", in: raw("tgi", "GET", "/chat_tokenize", chat), want: "body_unexpected"},
		{name: "no model", in: raw("vllm", "POST", "/v1/chat/completions", `{"messages":[]}`), want: "model_missing"},
		{name: "a model ignored", in: on("one", raw("llama.cpp", "POST", "/v1/chat/completions", chat)), action: Chat, model: "one", target: "/v1/chat/completions", body: strings.Replace(forwarded, "ok:x", "one", 1)},
		{name: "a load by no prompt", in: raw("ollama", "POST", "/api/generate", `{"model":"ok:x"}`), action: ManageModel, model: "ok:x", target: "/api/generate", body: `{"model":"ok:x"}`},
		{name: "an unload by no messages", in: raw("ollama", "POST", "/api/chat", `{"model":"ok:x","messages":[],"keep_alive":"0s"}`), action: ManageModel, model: "ok:x", target: "/api/chat", body: `{"model":"ok:x","messages":[],"keep_alive":"0s"}`},
		{name: "all aborted", in: on("m", raw("sglang", "POST", "/abort_request", `{"rid":"mine","abort_all":true}`)), action: ServerAdmin, model: "m", target: "/abort_request", body: `{"rid":"mine","abort_all":true}`},

		// 5.3: names.
		{name: "spellings of a name", in: raw("ollama", "POST", "/api/embed", `{"model":" HTTPS://registry.ollama.ai/library/OK:X:local ","input":"i"}`), action: Embed, model: "ok:x", target: "/api/embed", body: `{"model":"ok:x","input":"i"}`},
		{name: "a name of another host", in: raw("ollama", "POST", "/api/embed", `{"model":"evil.example/library/ok:x","input":"i"}`), action: Embed, model: "evil.example/library/ok:x", target: "/api/embed", body: `{"model":"evil.example/library/ok:x","input":"i"}`},
		{name: "two names that differ", in: raw("ollama", "POST", "/api/show", `{"model":"ok","name":"secret"}`), want: "model_ambiguous"},
		{name: "exact names", in: raw("vllm", "POST", "/v1/embeddings", `{"model":"OK:X","input":"i"}`), action: Embed, model: "OK:X", target: "/v1/embeddings", body: `{"model":"OK:X","input":"i"}`},
		{name: "an exact name with a space", in: raw("vllm", "POST", "/v1/embeddings", `{"model":"ok ","input":"i"}`), want: "model_invalid"},
	} {
		c, err := Default().Classify(try.in)
		switch {
		case try.want == "unknown":
			if err != nil || c.Action != Unknown || c.Target != "" || Default().HasRoute(try.in) {
				t.Errorf("%s: got %s %q, %v; want an unknown route", try.name, c.Action, c.Target, err)
			}
		case try.want != "":
			if code(err) != try.want || c.Body != nil {
				t.Errorf("%s: got %s, %v; want %s", try.name, c.Action, err, try.want)
			}
		case err != nil || c.Action != try.action || c.Model != try.model || c.Target != try.target || try.body != "" && string(c.Body) != try.body:
			t.Errorf("%s: got %s of %q, %s %s, %v", try.name, c.Action, c.Model, c.Target, c.Body, err)
		}
		checkFixpoint(t, try.in)
	}
}

func TestHostedModelsAreEgressOnEveryRoute(t *testing.T) {
	for _, name := range []string{"x:cloud", "X:Cloud ", "gpt-oss:120b-cloud", "registry.ollama.ai/library/x:480b:CLOUD", "x-cloud"} {
		for _, in := range []Input{
			post("ollama", "/api/chat", `{"model":"`+name+`","messages":[{"role":"user"}]}`),
			post("ollama", "/v1/responses", `{"model":"`+name+`","input":"i"}`),
			post("ollama", "/api/show", `{"name":"`+name+`"}`),
			post("ollama", "/api/pull", `{"model":"`+name+`"}`),
			formInput("ollama", formKind, testForm("x", textPart("model", name), soundPart)),
			post("vllm", "/v1/chat/completions", `{"model":"`+strings.TrimSpace(name)+`","messages":[]}`),
			on(strings.TrimSpace(name), post("vllm", "/v1/chat/completions", `{"model":"m","messages":[]}`)),
		} {
			if c, err := Default().Classify(in); err != nil || !c.Egress {
				t.Errorf("%s %s %q: egress %v, %v", in.Server, in.Path, name, c.Egress, err)
			}
		}
	}
}
