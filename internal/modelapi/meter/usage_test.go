package meter

import (
	"net/http"
	"strings"
	"testing"

	"iap/internal/modelapi"
)

// form is one way in which a server reports what an answer cost.
type form struct {
	name   string
	class  modelapi.Class
	header http.Header
	body   string
	cut    bool
	want   Usage
	failed bool
}

var (
	chatStream  = modelapi.Class{Action: modelapi.Chat, Framing: modelapi.SSE}
	chatPlain   = modelapi.Class{Action: modelapi.Chat, Framing: modelapi.JSON}
	chatLines   = modelapi.Class{Action: modelapi.Chat, Framing: modelapi.NDJSON}
	textStream  = modelapi.Class{Action: modelapi.Complete, Framing: modelapi.SSE}
	textPlain   = modelapi.Class{Action: modelapi.Complete, Framing: modelapi.JSON}
	textLines   = modelapi.Class{Action: modelapi.Complete, Framing: modelapi.NDJSON}
	embedPlain  = modelapi.Class{Action: modelapi.Embed, Framing: modelapi.JSON}
	rerankPlain = modelapi.Class{Action: modelapi.Rerank, Framing: modelapi.JSON}
	audioPlain  = modelapi.Class{Action: modelapi.Transcribe, Framing: modelapi.JSON}
	audioStream = modelapi.Class{Action: modelapi.Transcribe, Framing: modelapi.SSE}
)

const (
	done  = "data: [DONE]\n\n"
	piece = `data: {"id":"c1","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n"
)

// openAIForms are the shapes of the OpenAI API, with what vLLM, SGLang and llama.cpp add to them.
var openAIForms = []form{
	{
		name: "chat, plain", class: chatPlain,
		body: `{"id":"c1","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],` +
			`"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":4},` +
			`"completion_tokens_details":{"reasoning_tokens":5}}}`,
		want: Usage{9, 12, 4, 5, Provider},
	},
	{
		name: "chat, plain, thoughts beside the completion, in the total alone", class: chatPlain,
		body: `{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":212,"completion_tokens_details":{"reasoning_tokens":200}}}`,
		want: Usage{9, 203, -1, 200, Provider},
	},
	{
		name: "chat, plain, details null", class: chatPlain,
		body: `{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":null}}`,
		want: Usage{9, 12, -1, -1, Provider},
	},
	{
		name: "chat, plain, without usage", class: chatPlain,
		body: `{"choices":[{"message":{"content":"twelve bytes"}}]}`,
		want: Usage{-1, 3, -1, -1, Estimate},
	},
	{
		name: "chat, plain, tool calls without usage", class: chatPlain,
		body: `{"choices":[{"message":{"content":null,"tool_calls":[{"f":"abcdef"}]}}]}`,
		want: Usage{-1, 4, -1, -1, Estimate},
	},
	{
		name: "chat, plain, cut", class: chatPlain, cut: true,
		body: `{"choices":[{"message":{"content":"twelve bytes"}}],"usage":{"prompt_tokens":9,"completion_tokens":12`,
		want: Usage{9, 3, -1, -1, Estimate},
	},
	{
		name: "chat, stream", class: chatStream,
		body: piece + piece + `data: {"id":"c1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}` + "\n\n" + done,
		want: Usage{9, 3, -1, -1, Provider},
	},
	{
		name: "chat, stream, cut behind its usage", class: chatStream, cut: true,
		body: piece + piece + `data: {"id":"c1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12}}` + "\n\n",
		want: Usage{9, 3, -1, -1, Provider},
	},
	{name: "chat, stream, without usage", class: chatStream, body: piece + piece + done, want: Usage{-1, 2, -1, -1, Deltas}},
	{name: "chat, stream, cut", class: chatStream, cut: true, body: piece + piece + piece[:20], want: Usage{-1, 2, -1, -1, Deltas}},
	{
		name: "chat, stream, an empty answer", class: chatStream,
		body: `data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}` + "\n\n" + done,
		want: Usage{-1, 0, -1, -1, Deltas},
	},
	{
		name: "chat, stream, thoughts and tool calls are pieces", class: chatStream,
		body: `data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}` + "\n\n" + `data: {"choices":[{"delta":{"reasoning":"hm"}}]}` + "\n\n" +
			`data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}` + "\n\n" +
			`data: {"choices":[{"delta":{"tool_calls":[]}}]}` + "\n\n" + piece + done,
		want: Usage{-1, 4, -1, -1, Deltas},
	},
	{
		name: "chat, stream, n=2 interleaved, running usage, cut", class: chatStream, cut: true,
		body: `data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}` + "\n\n" +
			`data: {"choices":[{"index":1,"delta":{"content":"b"}}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}` + "\n\n" +
			`data: {"choices":[{"index":0,"delta":{"content":"c"}}],"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12}}` + "\n\n",
		want: Usage{-1, 8, -1, -1, Running},
	},
	{
		name: "chat, stream, running usage, cut", class: chatStream, cut: true,
		body: `data: {"choices":[{"index":0,"delta":{"content":""}}],"usage":{"prompt_tokens":7,"completion_tokens":0,"total_tokens":7}}` + "\n\n" +
			`data: {"choices":[{"index":0,"delta":{"content":"a b c"}}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}` + "\n\n",
		want: Usage{7, 3, -1, -1, Running},
	},
	{
		name: "chat, stream, running usage then its sum", class: chatStream,
		body: `data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}` + "\n\n" +
			`data: {"choices":[{"index":1,"delta":{"content":"b"}}],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}` + "\n\n" +
			`data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":4,"total_tokens":11}}` + "\n\n" + done,
		want: Usage{7, 4, -1, -1, Provider},
	},
	{
		name: "chat, stream, running figure and pieces behind it", class: chatStream, cut: true,
		body: `data: {"choices":[{"index":0,"delta":{"content":"a"}}],"usage":{"prompt_tokens":7,"completion_tokens":10,"total_tokens":17}}` + "\n\n" + piece + piece,
		want: Usage{7, 12, -1, -1, Deltas},
	},
	{
		name: "completions, stream, zeros before the last chunk, cut", class: textStream, cut: true,
		body: `data: {"choices":[{"index":0,"text":"a"}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}` + "\n\n" +
			`data: {"choices":[{"index":0,"text":"b"}],"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}` + "\n\n",
		want: Usage{-1, 2, -1, -1, Deltas},
	},
	{
		name: "completions, plain", class: textPlain,
		body: `{"choices":[{"text":"hi","index":0}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6}}`,
		want: Usage{4, 2, -1, -1, Provider},
	},
	{
		name: "completions, stream, llama.cpp's last chunk", class: textStream,
		body: `data: {"choices":[{"text":" a","index":0,"finish_reason":null}]}` + "\n\n" +
			`data: {"choices":[{"text":"","index":0,"finish_reason":"stop"}],"usage":{"completion_tokens":1,"prompt_tokens":4,"total_tokens":5},"timings":{"prompt_n":4,"predicted_n":1}}` + "\n\n" + done,
		want: Usage{4, 1, -1, -1, Provider},
	},
	{
		name: "chat, stream, llama.cpp's timings", class: chatStream,
		body: piece + `data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"timings":{"cache_n":236,"prompt_n":1,"prompt_ms":30.958,"predicted_n":35}}` + "\n\n" + done,
		want: Usage{237, 35, 236, -1, Provider},
	},
	{
		name: "chat, plain, llama.cpp's first of three", class: threeOf(chatPlain),
		body: `{"choices":[{"message":{"content":"hi"}},{"message":{"content":"ho"}},{"message":{"content":"hu"}}],` +
			`"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21},"timings":{"cache_n":0,"prompt_n":9,"predicted_n":12}}`,
		want: Usage{-1, 36, -1, -1, Provider},
	},
	{
		name: "chat, stream, llama.cpp's three, each with a chunk of usage", class: threeOf(chatStream),
		body: piece + llamaUsage("12") + piece + llamaUsage("3") + piece + llamaUsage("4") + done,
		want: Usage{-1, 19, -1, -1, Provider},
	},
	{
		name: "chat, stream, llama.cpp's three, cut behind the first", class: threeOf(chatStream), cut: true,
		body: strings.Repeat(piece, 9) + llamaUsage("2") + piece,
		want: Usage{9, 10, -1, -1, Deltas},
	},
	{
		name: "chat, stream, three in one chunk of usage", class: threeOf(chatStream),
		body: piece + piece + `data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":19,"total_tokens":28}}` + "\n\n" + done,
		want: Usage{9, 19, -1, -1, Provider},
	},
	{
		name: "chat, stream, timings for each token, cut", class: chatStream, cut: true,
		body: `data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"a"}}],"timings":{"cache_n":0,"prompt_n":5,"predicted_n":2}}` + "\n\n",
		want: Usage{5, 2, 0, -1, Running},
	},
	{
		name: "chat, stream, many tokens in one piece, cut", class: chatStream, cut: true,
		body: piece + `data: {"choices":[{"delta":{"content":"` + strings.Repeat("word", 100) + `"}}]}` + "\n\n" + piece,
		want: Usage{-1, 102, -1, -1, Deltas},
	},
	{
		name: "chat, stream, a tool call in one piece, cut", class: chatStream, cut: true,
		body: `data: {"choices":[{"delta":{"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"` + strings.Repeat("word", 100) + `"}}]}}]}` + "\n\n",
		want: Usage{-1, 118, -1, -1, Deltas},
	},
	{
		name: "token ids, stream", class: textStream,
		body: `data: {"choices":[{"index":0,"token_ids":[5]}]}` + "\n\n" + `data: {"choices":[{"index":0,"token_ids":[]}]}` + "\n\n" + done,
		want: Usage{-1, 1, -1, -1, Deltas},
	},
	{
		name: "token ids, plain, vLLM's answer without usage", class: textPlain,
		body: `{"request_id":"r","choices":[{"index":0,"token_ids":[` + strings.Repeat("12345,", 99) + `12345]}]}`, want: Usage{-1, 101, -1, -1, Estimate},
	},
	{
		name: "token ids beside their text", class: chatStream,
		body: `data: {"choices":[{"delta":{"content":"a"},"token_ids":[1,2,3,4,5,6]}]}` + "\n\n" + done, want: Usage{-1, 1, -1, -1, Deltas},
	},
	{
		name: "error in a stream", class: chatStream, failed: true,
		body: piece + `data: {"error":{"message":"out of memory","code":500}}` + "\n\n" + done,
		want: Usage{-1, 1, -1, -1, Deltas},
	},
	{
		name: "nothing but an error", class: chatStream, failed: true,
		body: `data: {"error":{"message":"out of memory","code":500}}` + "\n\n",
		want: Usage{-1, -1, -1, -1, Unset},
	},
	{
		name: "a shape nobody knows", class: chatStream, body: `data: {"words":"twelve"}` + "\n\n", want: Usage{-1, 5, -1, -1, Estimate},
	},
}

func threeOf(c modelapi.Class) modelapi.Class {
	c.Choices = 3
	return c
}

func llamaUsage(n string) string {
	return `data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":` + n + `},"timings":{"cache_n":0,"prompt_n":9,"predicted_n":` + n + "}}\n\n"
}

// otherForms are the shapes of the other chat protocols.
var otherForms = []form{
	{
		name: "responses, plain", class: chatPlain,
		body: `{"id":"resp_1","error":null,"output":[{"type":"message","content":[{"type":"output_text","text":"hi"}]}],` +
			`"usage":{"input_tokens":8,"input_tokens_details":{"cached_tokens":1},"output_tokens":6,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":14}}`,
		want: Usage{8, 6, 1, 2, Provider},
	},
	{name: "responses, plain, cut", class: chatPlain, cut: true, body: `{"output":[{"content":[{"text":"four"}]}`, want: Usage{-1, 1, -1, -1, Estimate}},
	{name: "responses, stream", class: chatStream, body: responsesBegin + responsesEnd("completed"), want: Usage{8, 6, -1, -1, Provider}},
	{name: "responses, stream, incomplete", class: chatStream, cut: true, body: responsesBegin + responsesEnd("incomplete"), want: Usage{8, 6, -1, -1, Provider}},
	{name: "responses, stream, failed", class: chatStream, body: responsesBegin + responsesEnd("failed"), want: Usage{8, 6, -1, -1, Provider}, failed: true},
	{name: "responses, stream, cut", class: chatStream, cut: true, body: responsesBegin, want: Usage{-1, 2, -1, -1, Deltas}},
	{
		name: "responses, error event", class: chatStream, failed: true,
		body: responsesBegin + "event: error\n" + `data: {"type":"error","code":"x","message":"y"}` + "\n\n", want: Usage{-1, 2, -1, -1, Deltas},
	},
	{
		name: "messages, plain", class: chatPlain,
		body: `{"type":"message","content":[{"type":"text","text":"hi"}],"usage":{"input_tokens":10,"cache_read_input_tokens":3,"cache_creation_input_tokens":2,"output_tokens":4}}`,
		want: Usage{15, 4, 3, -1, Provider},
	},
	{
		name: "messages, plain, tool without usage", class: chatPlain,
		body: `{"type":"message","content":[{"type":"tool_use","input":{"a":"b"}}]}`,
		want: Usage{-1, 3, -1, -1, Estimate},
	},
	{name: "messages, stream, output alone at the end", class: chatStream, body: messagesBegin + messagesEnd(`{"output_tokens":7}`), want: Usage{25, 7, -1, -1, Provider}},
	{
		name: "messages, stream, the estimate is replaced", class: chatStream,
		body: messagesBegin + messagesEnd(`{"input_tokens":21,"output_tokens":7}`), want: Usage{21, 7, -1, -1, Provider},
	},
	{
		name: "messages, stream, the last one wins", class: chatStream,
		body: messagesBegin + `data: {"type":"message_delta","delta":{},"usage":{"output_tokens":5}}` + "\n\n" + messagesEnd(`{"output_tokens":9}`),
		want: Usage{25, 9, -1, -1, Provider},
	},
	{name: "messages, stream, cut", class: chatStream, cut: true, body: messagesBegin, want: Usage{25, 4, -1, -1, Deltas}},
	{
		name: "messages, stream, error event", class: chatStream, failed: true,
		body: messagesBegin + "event: error\n" + `data: {"type":"error","error":{"type":"overloaded_error"}}` + "\n\n", want: Usage{25, 4, -1, -1, Deltas},
	},
	{
		name: "Cohere chat, stream", class: chatStream,
		body: `data: {"type":"content-delta","delta":{"message":{"content":{"text":"hi"}}}}` + "\n\n" +
			`data: {"type":"message-end","delta":{"finish_reason":"COMPLETE","usage":{"billed_units":{"input_tokens":5,"output_tokens":2},"tokens":{"input_tokens":71,"output_tokens":3}}}}` + "\n\n",
		want: Usage{71, 3, -1, -1, Provider},
	},
	{
		name: "Cohere chat, plain", class: chatPlain,
		body: `{"message":{"content":[{"type":"text","text":"hi"}]},"usage":{"billed_units":{"input_tokens":5,"output_tokens":2}}}`,
		want: Usage{5, 2, -1, -1, Provider},
	},
}

const responsesBegin = "event: response.created\n" + `data: {"type":"response.created","response":{"id":"resp_1","error":null,"usage":null}}` + "\n\n" +
	"event: response.output_text.delta\n" + `data: {"type":"response.output_text.delta","item_id":"m","delta":"hello"}` + "\n\n" +
	"event: response.function_call_arguments.delta\n" + `data: {"type":"response.function_call_arguments.delta","delta":"{\"a\":"}` + "\n\n" +
	"event: response.output_text.done\n" + `data: {"type":"response.output_text.done","text":"hello"}` + "\n\n"

func responsesEnd(status string) string {
	return "event: response." + status + "\n" + `data: {"type":"response.` + status +
		`","response":{"id":"resp_1","output":[{"content":[{"text":"hello"}]}],"usage":{"input_tokens":8,"output_tokens":6,"total_tokens":14}}}` + "\n\n"
}

const messagesBegin = "event: message_start\n" + `data: {"type":"message_start","message":{"id":"msg_1","content":[],"usage":{"input_tokens":25,"output_tokens":1}}}` + "\n\n" +
	"event: content_block_start\n" + `data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}` + "\n\n" +
	"event: ping\n" + `data: {"type":"ping"}` + "\n\n" +
	"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Hm"}}` + "\n\n" +
	"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}` + "\n\n" +
	"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{"}}` + "\n\n"

func messagesEnd(usage string) string {
	return "event: message_delta\n" + `data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":` + usage + "}\n\n" +
		"event: message_stop\n" + `data: {"type":"message_stop"}` + "\n\n"
}

// nativeForms are the shapes of the servers' own APIs.
var nativeForms = []form{
	{
		name: "Ollama chat, plain", class: chatPlain,
		body: `{"model":"m","message":{"role":"assistant","content":"hi"},"done":true,"prompt_eval_count":26,"prompt_eval_cached_count":20,"eval_count":298}`,
		want: Usage{26, 298, 20, -1, Provider},
	},
	{
		name: "Ollama chat, lines", class: chatLines,
		body: ollamaPieces + `{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":5}` + "\n",
		want: Usage{26, 5, -1, -1, Provider},
	},
	{
		name: "Ollama chat, lines, no newline at the end", class: chatLines,
		body: ollamaPieces + `{"model":"m","message":{"role":"assistant","content":""},"done":true,"prompt_eval_count":26,"eval_count":5}`,
		want: Usage{26, 5, -1, -1, Provider},
	},
	{
		name: "Ollama chat, lines, the prompt was cached", class: chatLines,
		body: ollamaPieces + `{"model":"m","message":{"content":""},"done":true,"eval_count":5}` + "\n",
		want: Usage{-1, 5, -1, -1, Provider},
	},
	{name: "Ollama chat, lines, no figures", class: chatLines, body: ollamaPieces + `{"message":{"content":""},"done":true}` + "\n", want: Usage{-1, 3, -1, -1, Deltas}},
	{name: "Ollama chat, lines, cut", class: chatLines, cut: true, body: ollamaPieces, want: Usage{-1, 3, -1, -1, Deltas}},
	{
		name: "Ollama chat, lines, error", class: chatLines, failed: true,
		body: ollamaPieces + `{"error":"an error was encountered while running the model"}` + "\n", want: Usage{-1, 3, -1, -1, Deltas},
	},
	{
		name: "Ollama generate, lines", class: textLines,
		body: `{"response":"a","done":false}` + "\n" + `{"response":"","thinking":"b","done":false}` + "\n" + `{"response":"","done":true,"prompt_eval_count":4,"eval_count":2}` + "\n",
		want: Usage{4, 2, -1, -1, Provider},
	},
	{name: "Ollama generate, lines, cut", class: textLines, cut: true, body: `{"response":"a","done":false}` + "\n", want: Usage{-1, 1, -1, -1, Deltas}},
	{
		name: "llama.cpp completion, plain", class: textPlain,
		body: `{"index":0,"content":"hi","tokens":[1,2],"stop":true,"tokens_predicted":2,"tokens_evaluated":9,"tokens_cached":10,"timings":{"cache_n":3,"prompt_n":6,"predicted_n":2}}`,
		want: Usage{9, 2, 3, -1, Provider},
	},
	{
		name: "llama.cpp completion, a batch", class: textPlain,
		body: `[{"index":0,"content":"hi","tokens_predicted":2,"tokens_evaluated":9},{"index":1,"content":"ho","tokens_predicted":3,"tokens_evaluated":8}]`,
		want: Usage{17, 5, -1, -1, Provider},
	},
	{
		name: "llama.cpp completion, stream", class: textStream,
		body: llamaPieces + `data: {"index":0,"content":"","stop":true,"tokens_predicted":3,"tokens_evaluated":9,"timings":{"cache_n":0,"prompt_n":9,"predicted_n":3}}` + "\n\n",
		want: Usage{9, 3, 0, -1, Provider},
	},
	{name: "llama.cpp completion, stream, cut", class: textStream, cut: true, body: llamaPieces, want: Usage{9, 2, -1, -1, Running}},
	{
		name: "llama.cpp completion, stream of a batch, cut", class: textStream, cut: true,
		body: llamaPieces + `data: {"index":1,"content":"x","stop":false,"tokens_predicted":5,"tokens_evaluated":4}` + "\n\n", want: Usage{13, 7, -1, -1, Running},
	},
	{
		name: "SGLang generate, plain", class: textPlain,
		body: `{"text":"hi","meta_info":{"id":"r","finish_reason":{"type":"stop"},"prompt_tokens":6,"completion_tokens":8,"cached_tokens":1,"e2e_latency":0.5}}`,
		want: Usage{6, 8, 1, -1, Provider},
	},
	{
		name: "SGLang generate, a batch", class: textPlain,
		body: `[{"text":"hi","meta_info":{"prompt_tokens":6,"completion_tokens":8,"cached_tokens":1}},{"text":"ho","meta_info":{"prompt_tokens":5,"completion_tokens":2,"cached_tokens":0}}]`,
		want: Usage{11, 10, 1, -1, Provider},
	},
	{
		name: "SGLang generate, stream", class: textStream, body: sglangPieces + done, want: Usage{6, 2, 0, -1, Provider},
	},
	{
		name: "SGLang generate, stream of a batch, cut", class: textStream, cut: true,
		body: sglangPieces + `data: {"text":"x","index":1,"meta_info":{"prompt_tokens":5,"completion_tokens":4,"cached_tokens":2,"finish_reason":null}}` + "\n\n",
		want: Usage{11, 6, 2, -1, Running},
	},
	{
		name: "TGI, plain, by its head", class: textPlain, header: http.Header{"X-Prompt-Tokens": {"7"}, "X-Generated-Tokens": {"20"}},
		body: `{"generated_text":"hi"}`, want: Usage{7, 20, -1, -1, Provider},
	},
	{
		name: "TGI, plain, the best of three", header: http.Header{"X-Prompt-Tokens": {"7"}, "X-Generated-Tokens": {"20"}},
		class: modelapi.Class{Action: modelapi.Complete, Framing: modelapi.JSON, Protocol: modelapi.TGI, Choices: 3},
		body:  `{"generated_text":"hi","details":{"generated_tokens":20,"best_of_sequences":[{"generated_text":"ho","generated_tokens":19}]}}`,
		want:  Usage{7, 60, -1, -1, Provider},
	},
	{
		name: "TGI, plain, details", class: textPlain,
		body: `{"generated_text":"hi","details":{"finish_reason":"length","generated_tokens":20,"seed":null,"prefill":[],"tokens":[{"id":1,"text":"h"}]}}`,
		want: Usage{-1, 20, -1, -1, Provider},
	},
	{name: "TGI, plain, nothing said", class: textPlain, body: `[{"generated_text":"twelve bytes"}]`, want: Usage{-1, 3, -1, -1, Estimate}},
	{
		name: "TGI, stream", class: textStream,
		body: tgiPieces + `data:{"index":3,"token":{"id":3,"text":"!"},"generated_text":"hi !","details":{"finish_reason":"length","generated_tokens":3,"seed":null,"input_length":5}}` + "\n\n",
		want: Usage{5, 3, -1, -1, Provider},
	},
	{name: "TGI, stream, cut", class: textStream, cut: true, body: tgiPieces, want: Usage{-1, 2, -1, -1, Deltas}},
	{
		name: "TGI, stream, error", class: textStream, failed: true,
		body: tgiPieces + `data:{"error":"Request failed during generation","error_type":"generation"}` + "\n\n", want: Usage{-1, 2, -1, -1, Deltas},
	},
}

const (
	ollamaPieces = `{"message":{"role":"assistant","content":"a"},"done":false}` + "\n" + `{"message":{"content":"","thinking":"b"},"done":false}` + "\n" +
		`{"message":{"content":"","tool_calls":[{"function":{"name":"f"}}]},"done":false}` + "\n"
	llamaPieces = `data: {"index":0,"content":"a","stop":false,"tokens_predicted":1,"tokens_evaluated":9}` + "\n\n" +
		`data: {"index":0,"content":"b","stop":false,"tokens_predicted":2,"tokens_evaluated":9}` + "\n\n"
	sglangPieces = `data: {"text":"a","index":0,"meta_info":{"prompt_tokens":6,"completion_tokens":1,"cached_tokens":0,"finish_reason":null}}` + "\n\n" +
		`data: {"text":"a b","index":0,"meta_info":{"prompt_tokens":6,"completion_tokens":2,"cached_tokens":0,"finish_reason":null}}` + "\n\n"
	tgiPieces = `data:{"index":1,"token":{"id":1,"text":"hi"},"generated_text":null,"details":null}` + "\n\n" +
		`data:{"index":2,"token":{"id":2,"text":" "},"generated_text":null,"details":null}` + "\n\n"
)

// quietForms are answers that hold no text of a model's.
var quietForms = []form{
	{
		name: "embeddings", class: embedPlain,
		body: `{"object":"list","data":[{"embedding":[0.1,-0.2],"index":0}],"usage":{"prompt_tokens":8,"total_tokens":8}}`, want: Usage{8, 0, -1, -1, Provider},
	},
	{
		name: "an image", class: modelapi.Class{Action: modelapi.Complete, SubAction: modelapi.SubSpeech, Framing: modelapi.JSON},
		body: `{"created":1,"data":[{"b64_json":"` + strings.Repeat("A", 1<<12) + `"}]}`, want: Usage{-1, -1, -1, -1, Unset},
	},
	{name: "Ollama embed", class: embedPlain, body: `{"embeddings":[[0.1]],"prompt_eval_count":8}`, want: Usage{8, 0, -1, -1, Provider}},
	{name: "Ollama embeddings", class: embedPlain, body: `{"embedding":[0.1]}`, want: Usage{-1, -1, -1, -1, Unset}},
	{name: "llama.cpp embedding", class: embedPlain, body: `[{"index":0,"embedding":[[0.1]]}]`, want: Usage{-1, -1, -1, -1, Unset}},
	{name: "Cohere embed", class: embedPlain, body: `{"embeddings":{"float":[[0.1]]},"meta":{"billed_units":{"input_tokens":6}}}`, want: Usage{6, 0, -1, -1, Provider}},
	{
		name: "SGLang encode", class: embedPlain,
		body: `[{"embedding":[0.1],"meta_info":{"prompt_tokens":3}},{"embedding":[0.1],"meta_info":{"prompt_tokens":4}}]`, want: Usage{7, 0, -1, -1, Provider},
	},
	{name: "rerank", class: rerankPlain, body: `{"results":[{"index":0,"relevance_score":0.9}],"usage":{"total_tokens":31}}`, want: Usage{31, 0, -1, -1, Provider}},
	{name: "rerank, units of search", class: rerankPlain, body: `{"results":[],"meta":{"billed_units":{"search_units":1}}}`, want: Usage{-1, -1, -1, -1, Unset}},
	{name: "audio by its length", class: audioPlain, body: `{"text":"hello","usage":{"type":"duration","seconds":3}}`, want: Usage{-1, -1, -1, -1, Unset}},
	{name: "audio in tokens", class: audioPlain, body: `{"text":"hello","usage":{"type":"tokens","input_tokens":14,"output_tokens":3,"total_tokens":17}}`, want: Usage{14, 3, -1, -1, Provider}},
	{name: "audio, nothing said", class: audioPlain, body: `{"text":"hello"}`, want: Usage{-1, 2, -1, -1, Estimate}},
	{
		name: "audio, stream", class: audioStream,
		body: `data: {"type":"transcript.text.delta","delta":"hello"}` + "\n\n" + `data: {"type":"transcript.text.done","text":"hello"}` + "\n\n", want: Usage{-1, 1, -1, -1, Deltas},
	},
	{
		name: "a stored answer read again", class: modelapi.Class{Action: modelapi.Session, Framing: modelapi.JSON},
		body: `{"id":"r","usage":{"input_tokens":14,"output_tokens":3,"total_tokens":17}}`, want: Usage{-1, -1, -1, -1, Unset},
	},
	{
		name: "a list of models", class: modelapi.Class{Action: modelapi.ListModels, Framing: modelapi.JSON},
		body: `{"data":[{"id":"m"}]}`, want: Usage{-1, -1, -1, -1, Unset},
	},
	{
		name: "a failing pull", class: modelapi.Class{Action: modelapi.ManageModel, Framing: modelapi.NDJSON}, failed: true,
		body: `{"status":"pulling manifest"}` + "\n" + `{"error":"pull model manifest: file does not exist"}` + "\n", want: Usage{-1, -1, -1, -1, Unset},
	},
}

func TestUsageIsFoundInEveryForm(t *testing.T) {
	for _, group := range [][]form{openAIForms, otherForms, nativeForms, quietForms} {
		for _, f := range group {
			t.Run(f.name, func(t *testing.T) {
				for _, step := range []int{len(f.body), 1, 7} {
					m := New(f.class, http.StatusOK, f.header)
					out := feed(m, f.body, step)
					if got := m.Finish(!f.cut); got != f.want {
						t.Errorf("pieces of %d: %+v, want %+v", step, got, f.want)
					}
					if m.Failed() != f.failed {
						t.Errorf("pieces of %d: failed is %v", step, m.Failed())
					}
					if out != f.body {
						t.Errorf("pieces of %d: the answer was changed to %q", step, out)
					}
				}
			})
		}
	}
}

// feed gives a meter body in pieces of at most step bytes and returns what it passed on.
func feed(m *Meter, body string, step int) string {
	var out []byte
	for len(body) > 0 {
		n := min(step, len(body))
		out = append(out, m.Feed([]byte(body[:n]))...)
		body = body[n:]
	}
	return string(append(out, m.Rest()...))
}
