package modelapi

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// allowedOutput reads a forwarded body in the way the servers do, without this package: the most tokens that its route
// on its server may answer with; -1 is without bound.
func allowedOutput(t fataler, server, path string, body []byte) int64 {
	var top map[string]any
	if err := json.Unmarshal(body, &top); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	within := func(name string) []map[string]any {
		switch v := top[name].(type) {
		case map[string]any:
			return []map[string]any{v}
		case []any:
			var all []map[string]any
			for _, one := range v {
				all = append(all, one.(map[string]any))
			}
			return all
		}
		return nil
	}
	here := []map[string]any{top}
	switch {
	case strings.HasPrefix(path, "/api/"):
		return firstOf(within("options"), "num_predict")
	case path == "/generate" && server == ServerSGLang:
		return firstOf(within("sampling_params"), "max_new_tokens")
	case path == "/generate":
		return firstOf(within("parameters"), "max_new_tokens")
	case path == "/v1/responses":
		return firstOf(here, "max_output_tokens")
	case path == "/completion":
		return firstOf(here, "n_predict", "max_completion_tokens", "max_tokens")
	case path == "/v1/messages":
		return firstOf(here, "max_tokens")
	case server == ServerOllama:
		return firstOf(here, "max_tokens")
	case server == ServerLlamaCPP:
		return firstOf(here, "n_predict", "max_completion_tokens", "max_tokens")
	}
	return firstOf(here, "max_completion_tokens", "max_tokens")
}

// firstOf is the largest over the objects of the first name that counts in each.
func firstOf(objects []map[string]any, names ...string) int64 {
	if len(objects) == 0 {
		return -1
	}
	most := int64(0)
	for _, o := range objects {
		value := int64(-1)
		for _, name := range names {
			if n, ok := o[name].(float64); ok {
				value = int64(n)
				break
			}
		}
		if value < 0 {
			return -1
		}
		most = max(most, value)
	}
	return most
}

// fataler is what rapid and testing have in common.
type fataler interface {
	Fatalf(format string, args ...any)
}

// propertyRoutes are a route of each API and of each server that reads it in its own way.
var propertyRoutes = []struct{ server, path string }{
	{"ollama", "/api/chat"},
	{"ollama", "/api/generate"},
	{"ollama", "/v1/chat/completions"},
	{"ollama", "/v1/responses"},
	{"ollama", "/v1/messages"},
	{"llama.cpp", "/completion"},
	{"llama.cpp", "/v1/chat/completions"},
	{"llama.cpp", "/v1/completions"},
	{"vllm", "/v1/chat/completions"},
	{"vllm", "/v1/completions"},
	{"vllm", "/v1/messages"},
	{"sglang", "/generate"},
	{"sglang", "/v1/chat/completions"},
	{"tgi", "/generate"},
	{"tgi", "/v1/chat/completions"},
	{"openai", "/v1/chat/completions"},
	{"llama-swap", "/completion"},
}

// drawBody makes a body of fields that bodies have and of fields that they should not have.
func drawBody(t *rapid.T, server, path string) string {
	number := rapid.SampledFrom([]string{"null", "-1", "0", "1", "5", "99", "100", "101", "1000000000", "9223372036854775807", "1.5", `"7"`, "[]", "{}"})
	text := rapid.SampledFrom([]string{`"p"`, `["p","q"]`, `[1,2]`, `[[1],[2]]`})
	object := func(label string, fields []string) string {
		var members []string
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(fields), 0, 4, rapid.ID).Draw(t, label) {
			members = append(members, fmt.Sprintf("%q:%s", name, number.Draw(t, name)))
		}
		return "{" + strings.Join(members, ",") + "}"
	}
	caps := []string{"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict", "max_new_tokens", "num_predict"}
	inner := append(slices.Clone(caps), "n", "min_tokens", "num_ctx", "temperature", "best_of")
	values := map[string]func(name string) string{
		"messages": func(string) string {
			return rapid.SampledFrom([]string{`[{"role":"user","content":"c"}]`, `[[{}],[{}]]`}).Draw(t, "messages")
		},
		"prompt": func(string) string { return text.Draw(t, "prompt") },
		"text":   func(string) string { return text.Draw(t, "text") },
		"input":  func(string) string { return text.Draw(t, "input") },
		"inputs": func(string) string { return `"i"` },
		"stream": func(string) string { return rapid.SampledFrom([]string{"true", "false", "null"}).Draw(t, "stream") },
		"stream_options": func(string) string {
			return rapid.SampledFrom([]string{"null", "{}", `{"include_usage":true}`, `{"include_usage":false,"continuous_usage_stats":true}`, `{"include_usage":true,"continuous_usage_stats":false,"x":1}`}).Draw(t, "stream_options")
		},
		"options": func(n string) string { return object(n, inner) }, "parameters": func(n string) string { return object(n, inner) },
		"sampling_params": func(n string) string {
			if rapid.Bool().Draw(t, "list") {
				return "[" + object(n, inner) + "," + object(n, inner) + "]"
			}
			return object(n, inner)
		},
		"metadata": func(string) string {
			return rapid.SampledFrom([]string{"null", "{}", `{"user_id":"root"}`, `"x"`}).Draw(t, "metadata")
		},
		"user":       func(string) string { return `"root"` },
		"cache_salt": func(string) string { return `"mine"` },
		"keep_alive": func(string) string { return "-1" },
	}
	names := []string{"user", "cache_salt", "keep_alive", "metadata", "options", "parameters", "sampling_params", "stream", "stream_options", "priority", "rid", "n", "best_of", "min_tokens", "seed"}
	picked := rapid.SliceOfNDistinct(rapid.SampledFrom(append(names, caps...)), 0, 8, rapid.ID).Draw(t, "fields")
	members := []string{`"model":"m:x"`}
	for _, name := range append([]string{"messages", "prompt", "text", "input", "inputs"}, picked...) {
		value := number
		if make := values[name]; make != nil {
			members = append(members, fmt.Sprintf("%q:%s", name, make(name)))
			continue
		}
		members = append(members, fmt.Sprintf("%q:%s", name, value.Draw(t, name)))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func TestPO13NoUpstreamSeesMoreThanTheCap(t *testing.T) {
	forwarded := 0
	rapid.Check(t, func(rt *rapid.T) {
		route := rapid.SampledFrom(propertyRoutes).Draw(rt, "route")
		body := drawBody(rt, route.server, route.path)
		o := testObligations()
		c, err := forward(rt, ask(route.server, route.path, body), o)
		if err != nil {
			return // refused: nothing goes upstream
		}
		forwarded++
		if most := allowedOutput(rt, route.server, route.path, c.Body); most < 0 || most > o.MaxOutput || c.MaxOutput > o.MaxOutput {
			rt.Fatalf("%v %s\nforwarded %s\nmay answer %d tokens, class says %d", route, body, c.Body, most, c.MaxOutput)
		}
		for _, theirs := range []string{`"root"`, `"mine"`, `"rid"`, `"keep_alive"`, `"num_ctx"`} {
			if strings.Contains(string(c.Body), theirs) {
				rt.Fatalf("%v %s\nforwarded %s with %s", route, body, c.Body, theirs)
			}
		}
		if c.Choices < 1 || c.Choices > MaxChoices {
			rt.Fatalf("%s: %d choices", body, c.Choices)
		}
		if c.HidesUsage && !strings.Contains(string(c.Body), `"include_usage":true`) {
			rt.Fatalf("%s: hides what was not asked for: %s", body, c.Body)
		}
	})
	if forwarded == 0 {
		t.Error("all bodies were refused")
	}
}

func FuzzRewrite(f *testing.F) {
	for i := range propertyRoutes {
		f.Add(uint8(i), []byte(`{"model":"m:x","messages":[{"role":"user","content":"c"}],"prompt":"p","input":"i","text":"t","inputs":"i","stream":true}`))
	}
	for _, body := range []string{
		`{"model":"m:x","prompt":"p","n_predict":-1,"max_tokens":null,"n":3,"user":"u","metadata":{"user_id":1}}`,
		`{"model":"m:x","prompt":"p","messages":[{}],"metadata":{"useR_id":1}}`,
		`{"model":"m:x","text":["a"],"sampling_params":[{"max_new_tokens":5},{}],"cache_salt":"s","priority":1}`,
		`{"model":"m:x","messages":[{"content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}],"options":{"num_ctx":1}}`,
		`{"model":"m:x","messages":[{"content":[{"type":"tool_use","input":{"url":1}},{"source":{"type":"text","data":"x"}}]}],"tools":[{"type":"mcp"}]}`,
		`{"model":"m:x","messages":[[{}]],"stream":true,"stream_options":{"continuous_usage_stats":false},"chat_template_kwargs":{"thinking":true,"x":[]}}`,
	} {
		for i := range propertyRoutes {
			f.Add(uint8(i), []byte(body))
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, body []byte) {
		route := propertyRoutes[int(n)%len(propertyRoutes)]
		o := testObligations()
		c, err := forward(t, ask(route.server, route.path, string(body)), o)
		if err != nil || !c.Action.Generates() {
			return
		}
		if most := allowedOutput(t, route.server, route.path, c.Body); most < 0 || most > o.MaxOutput {
			t.Fatalf("%v %s\nforwarded %s\nmay answer %d tokens", route, body, c.Body, most)
		}
	})
}
