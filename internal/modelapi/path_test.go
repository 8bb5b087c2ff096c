package modelapi

import "testing"

// Each of these reads as an allowed route to some decoder.
func TestPathsThatCanBeReadInTwoWaysAreRefused(t *testing.T) {
	for _, path := range []string{
		"", "*", "v1/models", "http://host/v1/models", "//v1/models", "/v1//models", "/v1/./models", "/v1/../v1/models",
		"/..", "/.", "/v1/models/..", "/v1/models/../../api/pull",
		"/v1%2Fchat%2fcompletions", "/%6dodels/load", "/api/%70ull", "/v1/chat/completions%2f", "/v1/%2e%2e/models",
		"/health#/../x", "/v1/models#", "/api/chat;x=1", "/v1/models;", `/api\chat`, `/api/..\pull`,
		"/api/chat%00", "/api/chat\x00", "/api/chat\n", "/api/\tchat", "/api/chat ", "/api/chät", "/v1/models/%",
		"/v1/models/%zz", "/v1/models/a%5cb", "/v1/models/a%2f..%2fb", "/v1/models/%2e%2e", "/v1/models/a%252fb",
		"/v1/models/a%00", "/v1/models/a%23b", "/v1/models/a%3fb", "/v1/models/a%20b", "/v1/models/'a'", "/v1/models/a?b",
	} {
		for _, method := range []string{"GET", "POST"} {
			for _, server := range append(Servers(), Auto) {
				c, err := Default().Classify(Input{Server: server, Method: method, Path: path, ContentType: "application/json"})
				if err == nil || c.Action != Unknown {
					t.Errorf("%s %q on %s: got %s, %v; want a refusal", method, path, server, c.Action, err)
				}
			}
		}
	}
}

func TestPathsBesideARouteAreUnknown(t *testing.T) {
	for _, try := range []struct{ server, method, path string }{
		{"ollama", "POST", "/api/chat/"},
		{"ollama", "POST", "/API/chat"},
		{"ollama", "POST", "/v1/chat/completions/"},
		{"ollama", "PUT", "/api/chat"},
		{"ollama", "GET", "/api/chat"},
		{"ollama", "HEAD", "/v1/models"},
		{"ollama", "OPTIONS", "/api/chat"},
		{"ollama", "POST", "/api/chat/completions"},
		{"ollama", "POST", "/completion"},
		{"ollama", "GET", "/v1/models/a/b"},
		{"llama.cpp", "HEAD", "/models"},
		{"llama.cpp", "PUT", "/completion"},
		{"llama.cpp", "GET", "/slots/list"},
		{"llama.cpp", "POST", "/save"},
		{"llama.cpp", "POST", "/api/chat"},
		{"openai", "POST", "/completions"},
		{"openai", "POST", "/invocations"},
		{"openai", "WEBSOCKET", "/v1/realtime"},
	} {
		c, err := Default().Classify(Input{Server: try.server, Method: try.method, Path: try.path})
		if err != nil || c.Action != Unknown || c.Target != "" {
			t.Errorf("%v: got %s %q, %v; want unknown", try, c.Action, c.Target, err)
		}
	}
}

func TestQueriesNeverReachInferenceRoutes(t *testing.T) {
	for _, query := range []string{"model=other", "beta=true", "reload=1", "autoload=1&model=x", ";", "%zz"} {
		c, err := Default().Classify(Input{
			Server: "ollama", Method: "POST", Path: "/v1/chat/completions", Query: query, ContentType: "application/json",
			Body: []byte(`{"model":"phi3","messages":[{"role":"user","content":"hi"}]}`),
		})
		if err != nil || c.Target != "/v1/chat/completions" || c.Model != "phi3:latest" {
			t.Errorf("%q: got %q of %q, %v", query, c.Target, c.Model, err)
		}
	}
}

func TestOnlyTheQueryKeyOfARouteIsKept(t *testing.T) {
	for _, try := range []struct{ method, path, query, target, model string }{
		{"GET", "/models", "reload=1", "/models", ""},
		{"GET", "/props", "model=phi3&autoload=1", "/props?model=phi3", "phi3"},
		{"GET", "/metrics", "autoload=1", "/metrics", ""},
		{"GET", "/props", "model=a%2Fb%26c", "/props?model=a%2Fb%26c", "a/b&c"},
		{"DELETE", "/models", "model=phi3", "/models?model=phi3", "phi3"},
		{"POST", "/slots/1", "action=save&x=y", "/slots/1?action=save", ""},
	} {
		c, err := Default().Classify(Input{Server: "llama.cpp", Method: try.method, Path: try.path, Query: try.query})
		if err != nil || c.Target != try.target || c.Model != try.model {
			t.Errorf("%v: got %q of %q, %v", try, c.Target, c.Model, err)
		}
	}
	for _, query := range []string{"model=a&model=b", "model=a;model=b", "model=%zz"} {
		if _, err := Default().Classify(Input{Server: "llama.cpp", Method: "GET", Path: "/props", Query: query}); err == nil {
			t.Errorf("%q was read", query)
		}
	}
}

func TestAModelInThePathIsWrittenPlainly(t *testing.T) {
	for _, try := range []struct{ server, path, target, model string }{
		{"ollama", "/v1/models/Llama3", "/v1/models/llama3:latest", "llama3:latest"},
		{"ollama", "/v1/models/llama3%3Alatest", "/v1/models/llama3:latest", "llama3:latest"},
		{"ollama", "/v1/models/%6clama3", "/v1/models/llama3:latest", "llama3:latest"},
		{"openai", "/v1/models/org/name", "/v1/models/org/name", "org/name"},
		{"openai", "/v1/models/org%2Fname", "/v1/models/org/name", "org/name"},
	} {
		c, err := Default().Classify(Input{Server: try.server, Method: "GET", Path: try.path})
		if err != nil || c.Target != try.target || c.Model != try.model || c.Action != InspectModel {
			t.Errorf("%v: got %q of %q, %v", try, c.Target, c.Model, err)
		}
	}
}

func TestANameThatNoPathCanHoldIsNotWrittenIntoOne(t *testing.T) {
	for _, name := range []string{"a b", "a?b", "a#b", "a%2fb", "ä", "a//b", "../b", "a\\b", "a;b"} {
		in := Input{Server: "sglang", Method: "GET", Path: "/v1/models/m", Only: name}
		if c, err := Default().Classify(in); code(err) != "model_not_found" {
			t.Errorf("the only model %q: %q, %v", name, c.Target, err)
		}
		in = Input{Server: "openai", Method: "GET", Path: "/v1/models/m", Aliases: map[string]string{"m": name}}
		if c, err := Default().Classify(in); code(err) != "model_not_found" {
			t.Errorf("an alias of %q: %q, %v", name, c.Target, err)
		}
	}
}
