package dev

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

type ollamaRecord struct {
	Model      string
	Message    struct{ Role, Content string }
	Response   string
	Done       bool
	DoneReason string `json:"done_reason"`
	Prompt     int    `json:"prompt_eval_count"`
	Eval       int    `json:"eval_count"`
}

func records(t *testing.T, target, body string) []ollamaRecord {
	t.Helper()
	status, b := call(t, target, body)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	var list []ollamaRecord
	for line := range strings.Lines(string(b)) {
		var r ollamaRecord
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, r)
	}
	return list
}

func TestOllamaStreamsByDefault(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	request := `{"model":"demo","messages":[{"role":"user","content":"a clock"}],"options":{"seed":3,"num_predict":12}`
	list := records(t, base+"/api/chat", request+`}`)
	text := ""
	for i, r := range list {
		text += r.Message.Content
		if r.Done != (i == len(list)-1) || r.Message.Role != "assistant" || r.Model != "demo" {
			t.Errorf("record %d = %+v", i, r)
		}
	}
	last := list[len(list)-1]
	if last.Prompt != 2 || last.Eval != len(Tokens(text)) || last.DoneReason == "" {
		t.Errorf("last = %+v for %q", last, text)
	}
	whole := records(t, base+"/api/chat", request+`,"stream":false}`)
	if len(whole) != 1 || whole[0].Message.Content != text || !whole[0].Done {
		t.Errorf("plain = %+v, streamed %q", whole, text)
	}
	generated := records(t, base+"/api/generate", `{"model":"demo:latest","prompt":"bread","options":{"num_predict":5,"stop":"zzz"}}`)
	if last := generated[len(generated)-1]; last.Eval != 5 || last.DoneReason != "length" || generated[0].Response == "" {
		t.Errorf("generate = %+v", generated)
	}
	if loaded := records(t, base+"/api/chat", `{"model":"demo","messages":[]}`); len(loaded) != 1 || loaded[0].DoneReason != "load" {
		t.Errorf("load = %+v", loaded)
	}
}
