package modelapi

import (
	"slices"
	"strings"
	"testing"
)

// chat is a chat whose one message has this content.
func chat(content string) string {
	return `{"model":"m","messages":[{"role":"user","content":` + content + `}]}`
}

const png = `"data:image/png;base64,iVBORw0KGgo="`

func TestMediaPassInlineAndAreNamed(t *testing.T) {
	for _, try := range []struct{ server, path, body, kinds string }{
		{"openai", "/v1/chat/completions", chat(`"hello http://x/y.png"`), ""},
		{"openai", "/v1/chat/completions", chat(`[{"type":"text","text":"https://x"}]`), ""},
		{"openai", "/v1/chat/completions", chat(`[{"type":"image_url","image_url":{"url":` + png + `,"detail":"low"}}]`), "image"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"image_url","image_url":` + png + `}]`), "image"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"image_url","image_url":{"url":"data:audio/wav;base64,AA=="}}]`), "audio image"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"input_audio","input_audio":{"data":"UklGRg==","format":"wav"}}]`), "audio"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AA=="}}]`), "video"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,AA=="}}]`), "file"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"image","url":` + png + `}]`), "image"},
		{"openai", "/v1/responses", `{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":` + png + `}]}]}`, "image"},
		{"openai", "/v1/responses", `{"model":"m","input":[{"type":"computer_call_output","call_id":"c","output":{"type":"computer_screenshot","image_url":` + png + `}}]}`, "image"},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBORw0KGgo="}}]}]}`, "image"},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"JVBERg=="}}]}]}`, "file"},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{"role":"user","content":[{"type":"document","source":{"type":"text","media_type":"text/plain","data":"http://x is text"}}]}]}`, ""},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"iVBO"}}]}]}]}`, "image"},
		{"ollama", "/api/chat", `{"model":"m:x","messages":[{"role":"user","content":"c","images":["iVBORw0KGgo="]}]}`, "image"},
		{"ollama", "/api/generate", `{"model":"m:x","prompt":"p","images":["iVBORw0KGgo="]}`, "image"},
		{"ollama", "/api/generate", `{"model":"m:x","prompt":"p","images":null}`, ""},
		{"ollama", "/api/generate", `{"model":"m:x","prompt":"p","images":[]}`, ""},
		{"llama.cpp", "/completion", `{"prompt":{"prompt_string":"p","multimodal_data":["iVBORw0KGgo="]}}`, "audio image"},
		{"llama.cpp", "/completion", `{"prompt":"p","image_data":[{"data":"iVBORw0KGgo=","id":12}]}`, "image"},
		{"llama.cpp", "/v1/embeddings", `{"input":[{"content":[{"type":"image_url","image_url":{"url":` + png + `}}]}]}`, "image"},
		{"sglang", "/generate", `{"text":"t","image_data":[` + png + `]}`, "image"},
		{"sglang", "/v1/embeddings", `{"model":"m","input":[{"text":"t","image":` + png + `}]}`, "image"},
		{"tgi", "/generate", `{"inputs":"what is ![](data:image/png;base64,AA)"}`, "image"},
		{"openai", "/v1/chat/completions", chat(`"see ![](http://x/y.png)"`), ""}, // only TGI reads Markdown
	} {
		c, err := Default().Classify(ask(try.server, try.path, try.body))
		if err != nil || strings.Join(c.Media, " ") != try.kinds || !slices.IsSorted(c.Media) {
			t.Errorf("%s %s %s: got %q, %v; want %q", try.server, try.path, try.body, c.Media, err, try.kinds)
		}
	}
}

func TestNothingIsFetchedForACaller(t *testing.T) {
	const remote = `"http://169.254.169.254/latest"`
	for _, try := range []struct{ server, path, body, code string }{
		{"openai", "/v1/chat/completions", chat(`[{"type":"image","url":` + remote + `}]`), "media_remote"},
		{"openai", "/v1/chat/completions", chat(`[{"url":` + remote + `,"type":"video"}]`), "media_remote"},
		{"openai", "/v1/chat/completions", chat(`[{"image_url":[` + png + `,` + remote + `]}]`), "media_remote"},
		{"openai", "/v1/chat/completions", chat(`[{"image_url":{"url":5}}]`), "media_remote"},
		{"openai", "/v1/chat/completions", chat(`[{"image_url":{"url":{"url":` + remote + `}}}]`), "media_remote"},
		{"openai", "/v1/chat/completions", chat(`[{"Image_URL":{"url":` + remote + `}}]`), "json_name_case"},
		{"openai", "/v1/chat/completions", chat(`[{"image_url":{"URL":` + remote + `}}]`), "json_name_case"},
		{"openai", "/v1/chat/completions", chat(`[{"image_\u0075rl":{"url":` + remote + `}}]`), "media_remote"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"input_audio","input_audio":{"data":` + remote + `}}]`), "media_remote"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"file","file":{"file_id":"file-1"}}]`), "media_stored"},
		{"openai", "/v1/chat/completions", chat(`[{"type":"image_url","image_url":null,"uuid":"another's"}]`), "media_stored"},
		{"openai", "/v1/responses", `{"model":"m","input":[{"content":[{"type":"input_image","file_id":"f"}]}]}`, "media_stored"},
		{"openai", "/v1/responses", `{"model":"m","input":[{"content":[{"type":"input_file","file_url":` + remote + `}]}]}`, "media_remote"},
		{"openai", "/v1/responses", `{"model":"m","input":[{"type":"item_reference","id":"msg_1"}]}`, "media_stored"},
		{"openai", "/v1/responses", `{"model":"m","input":[{"role":"user","content":"c"},{"id":"msg_1"}]}`, "media_stored"},
		{"openai", "/v1/responses", `{"model":"m","input":[{"id":"msg_1","type":null}]}`, "media_stored"},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{"content":[{"type":"image","source":{"type":"url","url":` + remote + `}}]}]}`, "media_remote"},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{"content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]}`, "media_stored"},
		{"ollama", "/v1/messages", `{"model":"m:x","messages":[{}],"system":[{"type":"image","source":{"url":` + remote + `}}]}`, "media_remote"},
		{"ollama", "/api/chat", `{"model":"m:x","messages":[{"images":[` + remote + `]}]}`, "media_remote"},
		{"ollama", "/api/chat", `{"model":"m:x","messages":[{"Images":["iVBO"]}]}`, "json_name_case"},
		{"sglang", "/generate", `{"text":"t","image_data":"/srv/secret/png"}`, "media_remote"},
		{"sglang", "/generate", `{"text":"t","image_data":[[` + remote + `]]}`, "media_remote"},
		{"sglang", "/generate", `{"text":"t","image_data":[{"format":"processor_output","pixel_values":[[0.5]]}]}`, "field_denied"},
		{"sglang", "/generate", `{"text":"t","image_data":{"feature":[[0.5]],"format":"precomputed_embedding"}}`, "field_denied"},
		{"vllm", "/pooling", `{"model":"m","task":"plugin","data":{"data":` + remote + `,"data_format":"url"}}`, "field_denied"},
		{"sglang", "/generate", `{"text":"t","audio_data":{"url":` + remote + `}}`, "media_remote"},
		{"sglang", "/v1/rerank", `{"model":"m","query":[{"type":"image_url","image_url":{"url":` + remote + `}}],"documents":["d"]}`, "media_remote"},
		{"sglang", "/v1/rerank", `{"model":"m","query":"q","documents":[[{"type":"video_url","video_url":{"url":` + remote + `}}]]}`, "media_remote"},
		{"llama.cpp", "/apply-template", `{"messages":[{"content":[{"image_url":{"url":` + remote + `}}]}]}`, "media_remote"},
		{"tgi", "/generate", `{"inputs":"![](http://x)"}`, "media_remote"},
		{"tgi", "/v1/chat/completions", `{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":"{\"a\":\"![](http://x)\"}"}}]}]}`, "media_remote"},
		{"tgi", "/v1/chat/completions", `{"messages":[],"tools":[{"type":"function","function":{"name":"f","description":"![](http://x)"}}]}`, "media_remote"},
		{"tgi", "/v1/chat/completions", chat(`[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA)![](http://x"}}]`), "media_remote"},
		{"tgi", "/v1/chat/completions", `{"messages":[{"role":"user","content":"![](https://x)"}]}`, "media_remote"},
		{"tgi", "/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":"a ![]("},{"type":"text","x":"junk","text":"ht"},{"type":"text","text":"tp://x)"}]}]}`, "media_remote"},
	} {
		if _, err := Default().Classify(ask(try.server, try.path, try.body)); code(err) != try.code {
			t.Errorf("%s %s %s: got %v, want %s", try.server, try.path, try.body, err, try.code)
		}
	}
}

func TestWordsThatMerelyLookLikeMediaPass(t *testing.T) {
	for _, try := range []struct{ path, body string }{
		{"/v1/chat/completions", `{"model":"m","messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"image_url":{"type":"string","default":"http://x"},"source":{"url":"http://x"}}}}}]}`},
		{"/v1/chat/completions", `{"model":"m","messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"properties":{"image_url":"http://x"}}}}}`},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"image_url":"http://x"}}}]}]}`},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"assistant","audio":{"id":"audio_1"}}],"audio":{"voice":"v","format":"wav"}}`},
		{"/v1/chat/completions", `{"model":"m","messages":[],"metadata":{"image_url":"http://x"},"functions":[{"name":"f","parameters":{"image_url":"http://x"}}]}`},
		{"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"c","uuid":"u1"}]}`},
		{"/v1/responses", `{"model":"m","input":[{"type":"message","content":[{"type":"output_text","text":"t","annotations":[{"type":"url_citation","url":"http://x"},{"type":"file_citation","file_id":"f"}]}]}],"text":{"format":{"type":"json_schema","schema":{"image_url":"http://x"}}}}`},
		{"/v1/responses", `{"model":"m","conversation":{"id":"conv_1"},"input":[{"id":"msg_1","role":"assistant","content":"c"},{"type":"computer_call_output","acknowledged_safety_checks":[{"id":"s"}]}]}`},
		{"/v1/responses", `{"model":"m","input":[{"type":"web_search_call","action":{"type":"open_page","url":"http://x"}},{"type":"function_call","arguments":"{\"image_url\":\"http://x\"}"}]}`},
	} {
		if c, err := Default().Classify(ask("openai", try.path, try.body)); err != nil || c.Media != nil {
			t.Errorf("%s: got %q, %v", try.body, c.Media, err)
		}
	}
	body := `{"model":"m:x","messages":[{"role":"assistant","content":[{"input":{"image_url":"http://x"},"type":"tool_use"},{"type":"search_result","source":"http://x","title":"t","content":[]}]}]}`
	if c, err := Default().Classify(post("ollama", "/v1/messages", body)); err != nil || c.Media != nil {
		t.Errorf("%s: got %q, %v", body, c.Media, err)
	}
}

func TestThePromptIsCountedWithoutTheWeightOfItsMedia(t *testing.T) {
	for _, try := range []struct {
		server, path, body string
		want               int64
	}{
		{"llama.cpp", "/completion", `{"prompt":"12345"}`, 5},
		{"llama.cpp", "/completion", `{"prompt":[1,22,333]}`, 3 * tokenBytes},
		{"llama.cpp", "/completion", `{"prompt":["12","345"],"grammar":"root ::= x","temperature":0.5}`, 5},
		{"openai", "/v1/chat/completions", chat(`"12345"`), 5 + 4}, // the role counts
		{"openai", "/v1/chat/completions", chat(`[{"type":"image_url","image_url":{"url":"data:image/png;base64,` + strings.Repeat("A", 1<<20) + `"}}]`), imageBytes + 4},
		{"openai", "/v1/chat/completions", `{"model":"m","messages":[],"tools":[{"name":"t"}]}`, int64(len(`[{"name":"t"}]`))},
		{"openai", "/v1/embeddings", `{"model":"m","input":["ab","cd"]}`, 4},
		{"ollama", "/api/generate", `{"model":"m:x","prompt":"12","system":"345"}`, 5},
		{"ollama", "/v1/responses", `{"model":"m:x","input":"12","instructions":"345"}`, 5},
	} {
		c, err := Default().Classify(ask(try.server, try.path, try.body))
		if err != nil || c.PromptBytes != try.want {
			t.Errorf("%s: got %d, %v; want %d", shorten(try.body), c.PromptBytes, err, try.want)
		}
	}
}

func TestWhatIsNestedDeepIsReadAsStrictly(t *testing.T) {
	for _, try := range []struct{ open, inside, end, code string }{
		{`{"input":`, `{"image_url":"http://x"}`, `}`, "media_remote"},
		{`{"image_url":`, `{"url":"http://x"}`, `}`, "media_remote"},
		{`{"source":`, `{"type":"text","data":"http://x"}`, `}`, "media_remote"}, // no document stands as deep
		{`{"content":`, `[{"type":"image","source":{"type":"url","url":"http://x"}}]`, `}`, "media_remote"},
	} {
		for _, depth := range []int{1, 3, 5, 20} {
			body := chat(`[` + strings.Repeat(try.open, depth) + try.inside + strings.Repeat(try.end, depth) + `]`)
			_, err := Default().Classify(ask("openai", "/v1/chat/completions", body))
			if shallow := strings.Contains(try.inside, "text") && depth < 5; code(err) != try.code && !shallow {
				t.Errorf("%s: got %v", body, err)
			}
		}
	}
	tools := chat(`"c"`)
	tools = tools[:len(tools)-1] + `,"tools":[` + strings.Repeat(`{"type":"namespace","tools":[`, 9) + `{"type":"function"}` + strings.Repeat(`]}`, 9) + `]}`
	if c, err := Default().Classify(ask("openai", "/v1/chat/completions", tools)); err != nil || !slices.Contains(c.Also, Tool) {
		t.Errorf("deep tools: got %q, %v", c.Also, err)
	}
}
