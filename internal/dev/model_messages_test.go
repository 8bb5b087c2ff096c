package dev

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// eventsOf cuts an answer into its named events and checks that each names itself.
func eventsOf(t *testing.T, body []byte) (names []string, data []map[string]any) {
	t.Helper()
	for _, block := range bytes.Split(bytes.TrimSpace(body), []byte("\n\n")) {
		head, rest, ok := strings.Cut(string(block), "\ndata: ")
		name, named := strings.CutPrefix(head, "event: ")
		var v map[string]any
		if !ok || !named || json.Unmarshal([]byte(rest), &v) != nil || v["type"] != name {
			t.Fatalf("no event: %s", block)
		}
		names, data = append(names, name), append(data, v)
	}
	return names, data
}

// at walks into nested JSON.
func at(v any, path ...string) any {
	for _, key := range path {
		object, _ := v.(map[string]any)
		v = object[key]
	}
	return v
}

func TestResponsesTellTheSamePlainAndStreamed(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	body := `{"model":"demo","instructions":"Be brief.","input":[{"role":"user","content":[{"type":"input_text","text":"Hello there"}]}],"max_output_tokens":12,"ignore_eos":true%s}`
	status, plain := call(t, base+"/v1/responses", strings.Replace(body, "%s", "", 1))
	var whole map[string]any
	if json.Unmarshal(plain, &whole) != nil || status != http.StatusOK || whole["status"] != "incomplete" || at(whole, "usage", "input_tokens") != 5.0 || at(whole, "usage", "output_tokens") != 12.0 {
		t.Fatalf("%d %s", status, plain)
	}
	_, streamed := call(t, base+"/v1/responses", strings.Replace(body, "%s", `,"stream":true`, 1))
	names, data := eventsOf(t, streamed)
	if names[0] != "response.created" || names[len(names)-1] != "response.incomplete" {
		t.Fatalf("%v", names)
	}
	var text strings.Builder
	for i, name := range names {
		if data[i]["sequence_number"] != float64(i) {
			t.Errorf("event %d is number %v", i, data[i]["sequence_number"])
		}
		if name == "response.output_text.delta" {
			text.WriteString(data[i]["delta"].(string))
		}
	}
	last := data[len(data)-1]
	output, _ := at(last, "response", "output").([]any)
	content, _ := at(output[0], "content").([]any)
	if at(content[0], "text") != text.String() || len(Tokens(text.String())) != 12 || at(last, "response", "usage", "total_tokens") != 17.0 {
		t.Errorf("%v of %q", last, text.String())
	}
	for _, bad := range []string{`{"model":"none","input":"x"}`, `{"model":"demo","input":[]}`, `{"model":"demo","input":"x","max_output_tokens":0}`} {
		if status, _ := call(t, base+"/v1/responses", bad); status < 400 {
			t.Errorf("%s: %d", bad, status)
		}
	}
}

func TestMessagesTellTheSamePlainAndStreamed(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	body := `{"model":"demo","system":[{"type":"text","text":"Be brief."}],"messages":[{"role":"user","content":"Hello there"}],"max_tokens":9,"ignore_eos":true%s}`
	status, plain := call(t, base+"/v1/messages", strings.Replace(body, "%s", "", 1))
	var whole map[string]any
	if json.Unmarshal(plain, &whole) != nil || status != http.StatusOK || whole["stop_reason"] != "max_tokens" || at(whole, "usage", "input_tokens") != 5.0 || at(whole, "usage", "output_tokens") != 9.0 {
		t.Fatalf("%d %s", status, plain)
	}
	_, streamed := call(t, base+"/v1/messages", strings.Replace(body, "%s", `,"stream":true`, 1))
	names, data := eventsOf(t, streamed)
	var text strings.Builder
	for i, name := range names {
		if name == "content_block_delta" {
			text.WriteString(at(data[i], "delta", "text").(string))
		}
	}
	n := len(names)
	if names[0] != "message_start" || names[n-1] != "message_stop" || names[n-2] != "message_delta" || at(data[n-2], "usage", "output_tokens") != 9.0 ||
		at(data[n-2], "delta", "stop_reason") != "max_tokens" || len(Tokens(text.String())) != 9 {
		t.Errorf("%v: %q, %v", names, text.String(), data[n-2])
	}
	for bad, want := range map[string]string{
		`{"model":"none","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`: "not_found_error",
		`{"model":"demo","messages":[{"role":"user","content":"x"}]}`:                "invalid_request_error",
		`{"model":"demo","max_tokens":1,"messages":[]}`:                              "invalid_request_error",
	} {
		_, answer := call(t, base+"/v1/messages", bad)
		var e map[string]any
		if json.Unmarshal(answer, &e) != nil || e["type"] != "error" || at(e, "error", "type") != want {
			t.Errorf("%s: %s", bad, answer)
		}
	}
}

func TestEmptyPromptLoadsAndUnloads(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	for body, want := range map[string]string{`{"model":"demo"}`: "load", `{"model":"demo","keep_alive":0}`: "unload"} {
		if _, answer := call(t, base+"/api/generate", body); !bytes.Contains(answer, []byte(`"done_reason":"`+want+`"`)) {
			t.Errorf("%s: %s", body, answer)
		}
	}
}
