package agent

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// Ollama makes a model of the cloud a local name: no name of its own says that it sends prompts out of the house.
func TestLocalNameOfARemoteModelIsNotServed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers := map[string]string{
			"/api/version": `{"version":"0.17.4"}`,
			"/api/tags":    `{"models":[{"name":"Mine:latest","remote_model":"gpt-oss:120b","remote_host":"https://ollama.com:443"},{"name":"phi3:latest"}]}`,
		}
		body, known := answers[r.URL.Path]
		if !known {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(body)) // a test's own connection
	}))
	defer server.Close()
	u := probing(t, ResourceConfig{Name: "r", Kind: modelapi.KindModel, Upstream: server.URL})
	found, err := u.probe(within(t))
	if err != nil {
		t.Fatal(err)
	}
	u.state = found
	const messages = `"messages":[{"content":"hi","role":"user"}]`
	for _, one := range []struct {
		action, method, path, model, body string
		served                            bool
	}{
		{"chat", "POST", "/api/chat", "phi3:latest", `{` + messages + `,"model":"phi3:latest"}`, true},
		{"chat", "POST", "/api/chat", "mine:latest", `{` + messages + `,"model":"mine:latest"}`, false},
		{"chat", "POST", "/v1/chat/completions", "mine:latest", `{` + messages + `,"model":"mine:latest"}`, false},
		{"embed", "POST", "/api/embed", "mine:latest", `{"input":"x","model":"mine:latest"}`, false},
		{"manage-model", "DELETE", "/api/delete", "mine:latest", `{"model":"mine:latest"}`, true}, // it can be taken away
	} {
		h := tunnel.Header{Resource: "r", Kind: modelapi.KindModel, Action: one.action, Model: one.model, Method: one.method, Path: one.path}
		_, err := u.checkRequest(modelapi.Default(), h, request{method: one.method, target: one.path, contentType: "application/json", body: []byte(one.body)})
		var no *refusal
		if errors.As(err, &no) == one.served || !one.served && no.code != tunnel.CodePolicyDenied {
			t.Errorf("%s %s of %s: %v", one.method, one.path, one.model, err)
		}
	}
}
