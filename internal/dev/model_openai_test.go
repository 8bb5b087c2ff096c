package dev

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

type openAIAnswer struct {
	Object, Model string
	Choices       []struct {
		Message struct{ Role, Content string }
		Delta   map[string]string
		Text    string
		Finish  *string `json:"finish_reason"`
	}
	Usage *openAIUsage
}

func chat(t *testing.T, target, body string) openAIAnswer {
	t.Helper()
	status, b := call(t, target, body)
	var a openAIAnswer
	if err := json.Unmarshal(b, &a); err != nil || status != http.StatusOK || len(a.Choices) != 1 {
		t.Fatalf("%d %s: %v", status, b, err)
	}
	return a
}

func TestChatAnswersWithExactUsage(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	a := chat(t, base+"/v1/chat/completions", `{"model":"demo","messages":[
		{"role":"system","content":"Be brief."},
		{"role":"user","content":[{"type":"text","text":"What's in a tunnel, then?"}]}]}`)
	text := a.Choices[0].Message.Content
	if a.Object != "chat.completion" || a.Choices[0].Message.Role != "assistant" || *a.Choices[0].Finish != "stop" {
		t.Errorf("answer = %+v", a)
	}
	// Be brief . | What's in a tunnel , then ?
	if want := (openAIUsage{Prompt: 10, Completion: len(Tokens(text)), Total: 10 + len(Tokens(text))}); *a.Usage != want {
		t.Errorf("usage = %+v, want %+v for %q", *a.Usage, want, text)
	}
}

func TestMaxTokensEndsWithLength(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	for _, field := range []string{"max_tokens", "max_completion_tokens"} {
		a := chat(t, base+"/v1/chat/completions", `{"model":"demo:latest","messages":[{"role":"user","content":"sea"}],"`+field+`":4}`)
		if *a.Choices[0].Finish != "length" || a.Usage.Completion != 4 || len(Tokens(a.Choices[0].Message.Content)) != 4 {
			t.Errorf("%s: %+v", field, a)
		}
	}
	a := chat(t, base+"/v1/completions", `{"model":"demo","prompt":"The sea","max_tokens":500,"ignore_eos":true}`)
	if a.Usage.Completion != 500 || a.Object != "text_completion" || len(Tokens(a.Choices[0].Text)) != 500 {
		t.Errorf("ignore_eos: %+v", a)
	}
}

func TestTemperatureZeroAndSeedsRepeat(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	ask := func(extra string) string {
		return chat(t, base+"/v1/chat/completions", `{"model":"demo","messages":[{"role":"user","content":"garden"}],`+extra+`}`).Choices[0].Message.Content
	}
	if a, b := ask(`"temperature":0`), ask(`"temperature":0`); a != b {
		t.Errorf("temperature 0: %q, %q", a, b)
	}
	if a, b := ask(`"temperature":1,"seed":7`), ask(`"temperature":1,"seed":7`); a != b {
		t.Errorf("same seed: %q, %q", a, b)
	}
	if a, b := ask(`"temperature":1,"seed":7`), ask(`"temperature":1,"seed":8`); a == b {
		t.Errorf("other seed, same text: %q", a)
	}
}

func TestAnswerIsAboutThePrompt(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	for _, subject := range []string{"sea", "garden", "tunnel", "bread"} {
		a := chat(t, base+"/v1/chat/completions", `{"model":"demo","temperature":0,"messages":[{"role":"user","content":"Tell me about the `+subject+`."}]}`)
		if !slices.Contains(Tokens(strings.ToLower(a.Choices[0].Message.Content)), subject) {
			t.Errorf("asked for %s: %q", subject, a.Choices[0].Message.Content)
		}
	}
}

// events posts and returns the data of each server-sent event.
func events(t *testing.T, target, body string) []string {
	t.Helper()
	status, b := call(t, target, body)
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, b)
	}
	var data []string
	for _, event := range strings.Split(strings.TrimSuffix(string(b), "\n\n"), "\n\n") {
		payload, ok := strings.CutPrefix(event, "data: ")
		if !ok {
			t.Fatalf("event %q", event)
		}
		data = append(data, payload)
	}
	return data
}

func TestChatStreamsInOrder(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	request := `{"model":"demo","messages":[{"role":"user","content":"radio"}],"seed":1,"temperature":0.5`
	whole := chat(t, base+"/v1/chat/completions", request+`}`)
	data := events(t, base+"/v1/chat/completions", request+`,"stream":true,"stream_options":{"include_usage":true}}`)
	if data[len(data)-1] != "[DONE]" {
		t.Fatalf("last event = %q", data[len(data)-1])
	}
	var text strings.Builder
	var chunks []openAIAnswer
	for _, one := range data[:len(data)-1] {
		var c openAIAnswer
		if err := json.Unmarshal([]byte(one), &c); err != nil || c.Object != "chat.completion.chunk" {
			t.Fatalf("%s: %v", one, err)
		}
		chunks = append(chunks, c)
		if len(c.Choices) == 1 {
			text.WriteString(c.Choices[0].Delta["content"])
		}
	}
	if chunks[0].Choices[0].Delta["role"] != "assistant" {
		t.Errorf("first chunk = %+v", chunks[0])
	}
	final, closing := chunks[len(chunks)-1], chunks[len(chunks)-2]
	if closing.Choices[0].Finish == nil || *closing.Choices[0].Finish != "stop" || len(closing.Choices[0].Delta) != 0 {
		t.Errorf("closing chunk = %+v", closing)
	}
	if len(final.Choices) != 0 || final.Usage == nil || *final.Usage != *whole.Usage {
		t.Errorf("usage chunk = %+v, want %+v", final, whole.Usage)
	}
	if text.String() != whole.Choices[0].Message.Content {
		t.Errorf("streamed %q\nwhole    %q", text.String(), whole.Choices[0].Message.Content)
	}
	for _, one := range events(t, base+"/v1/chat/completions", request+`,"stream":true}`) {
		if strings.Contains(one, "usage") {
			t.Errorf("usage without being asked: %s", one)
		}
	}
}

func TestCompletionStreams(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	data := events(t, base+"/v1/completions", `{"model":"demo","prompt":["once"],"stream":true,"max_tokens":3}`)
	if len(data) != 5 || data[4] != "[DONE]" || !strings.Contains(data[3], `"finish_reason":"length"`) || !strings.Contains(data[0], `"text":`) {
		t.Errorf("events = %q", data)
	}
}

func TestStopTextIsNeverEmitted(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced, Sentences: 4})
	request := `{"model":"demo","messages":[{"role":"user","content":"train"}],"temperature":0`
	full := chat(t, base+"/v1/chat/completions", request+`}`).Choices[0].Message.Content
	for _, stop := range []string{full[10:13], full[20:41], full[len(full)-1:], full[:1]} {
		want, _, _ := strings.Cut(full, stop)
		quoted, _ := json.Marshal(stop)
		for _, form := range []string{string(quoted), `["never said",` + string(quoted) + `]`} {
			a := chat(t, base+"/v1/chat/completions", request+`,"stop":`+form+`}`)
			if got := a.Choices[0].Message.Content; got != want || *a.Choices[0].Finish != "stop" {
				t.Errorf("stop %s: %q, want %q", form, got, want)
			}
			data := events(t, base+"/v1/chat/completions", request+`,"stream":true,"stop":`+form+`}`)
			if strings.Contains(strings.Join(data, ""), stop+`"}`) && len(stop) > 1 {
				t.Errorf("stop %s streamed", form)
			}
		}
	}
}

func TestEmbeddingsAreUnitDeterministicAndNearForSharedWords(t *testing.T) {
	t.Parallel()
	_, base := startModel(t, ModelOptions{TokensPerSecond: unpaced})
	ask := func(format string) []json.RawMessage {
		_, b := call(t, base+"/v1/embeddings", `{"model":"demo","input":["the deep green sea","a deep green ocean","bread oven"]`+format+`}`)
		var a struct {
			Data  []struct{ Embedding json.RawMessage }
			Usage struct {
				Prompt int `json:"prompt_tokens"`
			}
		}
		if err := json.Unmarshal(b, &a); err != nil || a.Usage.Prompt != 10 {
			t.Fatalf("%s: %v", b, err)
		}
		var out []json.RawMessage
		for _, d := range a.Data {
			out = append(out, d.Embedding)
		}
		return out
	}
	var v [3][]float32
	for i, raw := range ask("") {
		if err := json.Unmarshal(raw, &v[i]); err != nil || len(v[i]) != defaultDimensions {
			t.Fatalf("%s: %v", raw, err)
		}
	}
	dot := func(a, b []float32) (sum float64) {
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return sum
	}
	if math.Abs(dot(v[0], v[0])-1) > 1e-5 || dot(v[0], v[1]) <= dot(v[0], v[2]) {
		t.Errorf("lengths and distances: %v %v %v", dot(v[0], v[0]), dot(v[0], v[1]), dot(v[0], v[2]))
	}
	if !reflect.DeepEqual(ask(""), ask("")) {
		t.Error("not deterministic")
	}
	var text string
	if err := json.Unmarshal(ask(`,"encoding_format":"base64"`)[0], &text); err != nil {
		t.Fatal(err)
	}
	if packed, err := base64.StdEncoding.DecodeString(text); err != nil || !bytes.Equal(packed, float32Bytes(v[0])) {
		t.Errorf("base64 = %q, %v", text, err)
	}
}
