package modelapi

import "testing"

func TestAQuestionMeansTheModelThatARequestWould(t *testing.T) {
	aliases := map[string]string{"default": "Phi4:14b", "away": "gpt-oss:120b-cloud", "legal": "qwen:legal"}
	for _, try := range []struct {
		server, only, name, model string
		egress                    bool
	}{
		{"ollama", "", "Phi3", "phi3:latest", false},
		{"ollama", "", "library/Default:latest", "phi4:14b", false},
		{"ollama", "", "away", "gpt-oss:120b-cloud", true},
		{"llama.cpp", "", "Phi3", "Phi3", false},
		{"llama.cpp", "", "default", "Phi4:14b", false},
		{"vllm", "qwen", "gpt-4", "qwen", false},
		{"sglang", "qwen", "legal", "qwen:legal", false},
	} {
		model, egress, err := MeantModel(try.server, try.only, aliases, try.name)
		if err != nil || model != try.model || egress != try.egress {
			t.Errorf("%s: %q means %q, egress %v, %v", try.server, try.name, model, egress, err)
		}
		c, err := Default().Classify(Input{
			Server: try.server, Only: try.only, Aliases: aliases, Method: "POST", Path: "/v1/chat/completions",
			ContentType: "application/json", Body: []byte(`{"model":"` + try.name + `","messages":[{"role":"user","content":"q"}]}`),
		})
		if err != nil || c.Model != model || c.Egress != egress {
			t.Errorf("%s: a request for %q is for %q, egress %v, %v", try.server, try.name, c.Model, c.Egress, err)
		}
	}
	if _, _, err := MeantModel("ollama", "", nil, "a b"); err == nil {
		t.Error("a name that is none means a model")
	}
}
