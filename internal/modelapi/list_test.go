package modelapi

import (
	"strings"
	"testing"
)

func TestListsTellOnlyWhatTheCallerMayUse(t *testing.T) {
	only := func(names ...string) func(string, bool) bool {
		return func(model string, egress bool) bool {
			for _, name := range names {
				if name == model && !egress {
					return true
				}
			}
			return false
		}
	}
	for _, try := range []struct {
		in         Input
		body, want string
	}{
		{
			Input{Server: "openai", Method: "GET", Path: "/v1/models"},
			`{"object":"list","data":[{"id":"a","object":"model","root":"/srv/a","permission":[]},{"id":"b"}]}`,
			`{"object":"list","data":[{"id":"a","object":"model"}]}`,
		},
		{
			Input{Server: "ollama", Method: "GET", Path: "/api/tags"},
			`{"models":[{"name":"Phi3:latest","model":"phi3:latest","size":1},{"name":"x:latest"},{"name":"phi3","model":"x"}]}`,
			`{"models":[{"name":"Phi3:latest","model":"phi3:latest","size":1}]}`,
		},
		{
			Input{Server: "ollama", Method: "GET", Path: "/api/tags"},
			`{"models":[{"name":"phi3","remote_host":"https://ollama.com"},{"name":"phi3:cloud"}]}`,
			`{"models":[]}`,
		},
		{
			Input{Server: "llama.cpp", Method: "GET", Path: "/models"},
			`{"models":[{"name":"a","details":{"x":1}}],"object":"list","data":[{"id":"a","status":{"args":["--secret"]}},{"id":"b"}],"extra":{"b":1}}`,
			`{"models":[{"name":"a","details":{"x":1}}],"object":"list","data":[{"id":"a"}]}`,
		},
		{
			Input{Server: "llama.cpp", Method: "GET", Path: "/v1/models", Only: "a"},
			`{"data":[{"id":"/srv/models/x.gguf","meta":{"n_ctx":1}},{"id":"/srv/y"}]}`,
			`{"data":[{"id":"a","meta":{"n_ctx":1}}]}`,
		},
		{ // an alias stands beside its model, of several names the one that is no model stays hidden
			Input{Server: "ollama", Method: "GET", Path: "/api/tags", Aliases: map[string]string{"default": "Phi3", "other": "x"}},
			`{"models":[{"name":"phi3:latest","model":"phi3:latest","size":1},{"name":"x:latest"}]}`,
			`{"models":[{"name":"phi3:latest","model":"phi3:latest","size":1},{"name":"default","model":"default","size":1}]}`,
		},
		{ // a name for people, as llama-swap has it, is no model
			Input{Server: "llama-swap", Method: "GET", Path: "/v1/models", Aliases: map[string]string{"b": "secret"}},
			`{"object":"list","data":[{"id":"a","name":"The good one","owned_by":"llama-swap"},{"id":"secret","name":"a"}]}`,
			`{"object":"list","data":[{"id":"a","owned_by":"llama-swap"}]}`,
		},
		{ // vLLM's adapters are models by name
			Input{Server: "vllm", Method: "GET", Path: "/v1/models"},
			`{"data":[{"id":"secret","root":"/srv/x","parent":null},{"id":"a","root":"/srv/a","parent":"secret"}]}`, `{"data":[{"id":"a"}]}`,
		},
		{ // SGLang's are part of its one model's name
			Input{Server: "sglang", Method: "GET", Path: "/v1/models", Only: "a"},
			`{"data":[{"id":"org/a"},{"id":"legal","parent":"org/a"},{"id":"secret","parent":"org/a"}]}`, `{"data":[{"id":"a"},{"id":"a:legal"}]}`,
		},
		{
			Input{Server: "tgi", Method: "GET", Path: "/v1/models", Only: "a"},
			`{"object":"list","data":[{"id":"org/a","object":"model","created":0,"owned_by":"org/a"}]}`,
			`{"object":"list","data":[{"id":"a","object":"model","created":0,"owned_by":"org/a"}]}`,
		},
		{ // what other servers behind the resource have, each once, and no other server's secret
			Input{Server: "vllm", Method: "GET", Path: "/v1/models", Also: []string{"b", "a", "secret", "a"}, Aliases: map[string]string{"default": "a"}},
			`{"object":"list","data":[{"id":"x"}]}`,
			`{"object":"list","data":[{"id":"a","object":"model","created":0,"owned_by":""},{"id":"default","object":"model","created":0,"owned_by":""}]}`,
		},
		{
			Input{Server: "ollama", Method: "GET", Path: "/api/tags", Also: []string{"Phi3", "a:legal", "a"}},
			`{"models":[{"name":"phi3:latest","model":"phi3:latest","size":1}]}`,
			`{"models":[{"name":"phi3:latest","model":"phi3:latest","size":1},{"name":"a:legal","model":"a:legal","modified_at":"0001-01-01T00:00:00Z","size":0,"digest":"","details":{}}]}`,
		},
		{Input{Server: "ollama", Method: "GET", Path: "/api/ps", Also: []string{"phi3"}}, `{"models":[]}`, `{"models":[]}`},
		{Input{Server: "tgi", Method: "GET", Path: "/v1/models", Only: "a", Also: []string{"b", "a"}}, `{"data":[{"id":"org/a"}]}`, `{"data":[{"id":"a"}]}`},
		{Input{Server: "openai", Method: "GET", Path: "/v1/models"}, `{"data":[1,"a",["a"],{},{"name":null},{"id":7}]}`, `{"data":[]}`},
		{Input{Server: "openai", Method: "GET", Path: "/v1/models"}, `{"models":{"a":{"id":"b"}}}`, `{}`},
	} {
		got, err := Default().FilterModels(try.in, []byte(try.body), only("a", "phi3:latest", "a:legal"))
		if err != nil || string(got) != try.want {
			t.Errorf("%s\ngot  %s\nwant %s\n%v", try.body, got, try.want, err)
		}
	}
}

func TestListsThatCannotBeReadAreNotPassedOn(t *testing.T) {
	for _, body := range []string{"", "[]", "null", `{"data":[{"id":"a","id":"b"}]}`, "<html>", `{"data":[`, strings.Repeat("[", 99), `{"data":[` + strings.Repeat("{},", maxListed) + `{}]}`} {
		_, err := Default().FilterModels(Input{Server: "openai", Method: "GET", Path: "/v1/models"}, []byte(body),
			func(string, bool) bool { return true })
		if code(err) != "upstream_invalid" {
			t.Errorf("%q: %v", body, err)
		}
	}
}
