package modelapi

import (
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestErrorsSpeakTheCallersDialect(t *testing.T) {
	e := &Error{Status: 403, Code: "model_not_granted", Message: `no "x"`}
	for protocol, want := range map[Protocol]string{
		OpenAI:    `{"error":{"message":"no \"x\"","type":"permission_error","param":null,"code":"model_not_granted"}}`,
		Anthropic: `{"type":"error","error":{"type":"permission_error","message":"no \"x\"","code":"model_not_granted"}}`,
		Ollama:    `{"error":"no \"x\"","code":"model_not_granted"}`,
		TGI:       `{"error":"no \"x\"","error_type":"validation","code":"model_not_granted"}`,
		LlamaCPP:  `{"error":{"code":403,"message":"no \"x\"","type":"permission_error","reason":"model_not_granted"}}`,
	} {
		if got := string(e.Body(protocol)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", protocol, got, want)
		}
	}
}

func TestErrorTypesFollowTheStatus(t *testing.T) {
	for status, want := range map[int][2]string{
		400: {"invalid_request_error", "invalid_request_error"}, 401: {"authentication_error", "authentication_error"},
		403: {"permission_error", "permission_error"}, 404: {"not_found_error", "not_found_error"},
		413: {"invalid_request_error", "request_too_large"}, 429: {"rate_limit_error", "rate_limit_error"},
		502: {"server_error", "api_error"}, 503: {"server_error", "overloaded_error"},
	} {
		if got := [2]string{openAIType(status), anthropicType(status)}; got != want {
			t.Errorf("%d: got %v, want %v", status, got, want)
		}
	}
}

func TestErrorEventsFitTheFraming(t *testing.T) {
	e := &Error{Status: 403, Code: "revoked", Message: "ended"}
	for _, try := range []struct {
		class Class
		atop  bool
		want  string
	}{
		{Class{Protocol: OpenAI, Framing: SSE}, true, `data: {"error":{"message":"ended","type":"permission_error","param":null,"code":"revoked"}}` + "\n\n"},
		{Class{Protocol: OpenAI, Framing: SSE}, false, "\n\n" + `data: {"error":{"message":"ended","type":"permission_error","param":null,"code":"revoked"}}` + "\n\n"},
		{Class{Protocol: OpenAI, Framing: SSE, Route: "/v1/responses"}, true, "event: error\n" + `data: {"type":"error","code":"revoked","message":"ended","param":null}` + "\n\n"},
		{Class{Protocol: Anthropic, Framing: SSE}, true, "event: error\n" + `data: {"type":"error","error":{"type":"permission_error","message":"ended","code":"revoked"}}` + "\n\n"},
		{Class{Protocol: TGI, Framing: SSE}, true, `data: {"error":"ended","error_type":"validation","code":"revoked"}` + "\n\n"},
		{Class{Protocol: LlamaCPP, Framing: SSE}, true, `data: {"error":{"code":403,"message":"ended","type":"permission_error","reason":"revoked"}}` + "\n\n"},
		{Class{Protocol: Ollama, Framing: NDJSON}, true, `{"error":"ended","code":"revoked"}` + "\n"},
		{Class{Protocol: Ollama, Framing: NDJSON}, false, "\n" + `{"error":"ended","code":"revoked"}` + "\n"},
		{Class{Protocol: OpenAI, Framing: JSON}, true, ""},
		{Class{Protocol: OpenAI, Framing: None}, true, ""},
	} {
		if got := string(StreamError(try.class, e, try.atop)); got != try.want {
			t.Errorf("%s %s:\ngot  %q\nwant %q", try.class.Protocol, try.class.Framing, got, try.want)
		}
	}
}

func TestErrorBodiesAreJSONWhateverTheMessage(t *testing.T) {
	e := &Error{Status: 502, Code: "x", Message: "a\xff\x00\n\"\u2028"}
	for _, protocol := range []Protocol{OpenAI, Anthropic, Ollama, LlamaCPP, TGI} {
		if body := jsontext.Value(e.Body(protocol)); !body.IsValid() {
			t.Errorf("%s: %q", protocol, body)
		}
	}
}

func TestEachServerIsAnsweredInItsOwnDialect(t *testing.T) {
	for _, try := range []struct {
		server, path string
		protocol     Protocol
	}{
		{"ollama", "/api/chat", Ollama},
		{"ollama", "/v1/chat/completions", OpenAI},
		{"ollama", "/v1/messages", Anthropic},
		{"llama.cpp", "/completion", LlamaCPP},
		{"llama.cpp", "/v1/messages", Anthropic},
		{"vllm", "/v1/chat/completions", OpenAI},
		{"vllm", "/score", OpenAI},
		{"sglang", "/generate", OpenAI},
		{"sglang", "/api/chat", Ollama},
		{"tgi", "/generate", TGI},
		{"tgi", "/generate_stream", TGI},
		{"tgi", "/v1/chat/completions", OpenAI},
		{"llama-swap", "/infill", LlamaCPP},
		{"llama-swap", "/v1/messages", Anthropic},
	} {
		if c, _ := Default().Classify(post(try.server, try.path, "{}")); c.Protocol != try.protocol {
			t.Errorf("%s %s: got %s", try.server, try.path, c.Protocol)
		}
	}
}
