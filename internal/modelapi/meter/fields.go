package meter

// node is a place in a server's answer that says something about cost, found by its way from the top. The zero node is
// every other place.
type node uint8

const (
	none node = iota

	// Objects and lists that are gone into.
	top           // the message: an object, a list of them, or a string that names a session
	usage         // OpenAI, Anthropic, Responses, Cohere
	inputDetails  // usage.prompt_tokens_details
	outputDetails // usage.completion_tokens_details
	billed        // usage.billed_units, meta.billed_units
	tokens        // usage.tokens, meta.tokens
	meta          // Cohere
	metaInfo      // SGLang
	timings       // llama.cpp
	details       // TGI
	response      // Responses: what the event is about; Ollama: a piece of text
	message       // Anthropic: what began; Ollama, Cohere: what is said
	choices
	choice
	chatPiece // choices[].delta, choices[].message
	delta     // Anthropic: an object; Responses: a piece of text
	content   // text, or blocks of it
	output    // Responses, plain
	outputItem

	// What was generated.
	text  // a piece
	whole // a text that repeats the pieces of a stream
	ids   // tokens by number

	// Marks: how the value begins says enough.
	failure // non-null: an error
	finish  // non-null: the choice is complete
	last    // true: the answer is complete
	timed   // the server counts seconds, not tokens

	loose // of no interest, and another in each message

	// Strings that are read.
	topID
	responseID
	kind // the message's type

	// Whole numbers.
	inputTokens
	outputTokens
	totalTokens
	cachedTokens
	cacheRead
	cacheMade
	reasoningTokens
	billedInput
	billedOutput
	metaInput
	metaOutput
	metaCached
	metaReasoning
	promptN
	cacheN
	predictedN
	evaluated
	predicted
	promptEval
	promptEvalCached
	eval
	inputLength
	generatedTokens
	index
	nodes
)

const firstNumber = inputTokens

// What may be done with a value at a node.
const (
	isObject = 1 << iota // its members are looked at
	isText               // its bytes were generated
	isKept               // its string is read
)

// traits says what may be done at each node, elements which node the elements of a list are.
var (
	traits = [nodes]uint8{
		top: isObject | isKept, usage: isObject, inputDetails: isObject, outputDetails: isObject, billed: isObject, tokens: isObject,
		meta: isObject, metaInfo: isObject, timings: isObject, details: isObject, choice: isObject, chatPiece: isObject, outputItem: isObject,
		response: isObject | isText, message: isObject, delta: isObject | isText, content: isObject | isText,
		text: isText, whole: isText, ids: isText,
		topID: isKept, responseID: isKept, kind: isKept,
	}
	elements = [nodes]node{top: top, choices: choice, content: content, output: outputItem}
)

// child is the node of a member of an object at parent.
func child(parent node, name []byte) node {
	switch parent {
	case top:
		return childOfTop(name)
	case choice:
		return childOfChoice(name)
	case chatPiece, content, message, delta, outputItem:
		return childOfText(parent, name)
	case usage:
		return childOfUsage(name)
	default:
		return childOfFigures(parent, name)
	}
}

func childOfTop(name []byte) node {
	switch string(name) {
	case "choices":
		return choices
	case "usage":
		return usage
	case "id":
		return topID
	case "type":
		return kind
	case "index":
		return index
	case "delta":
		return delta
	case "message":
		return message
	case "response":
		return response
	case "content":
		return content
	case "thinking", "token":
		return text
	case "text", "generated_text":
		return whole
	case "output":
		return output
	case "error":
		return failure
	case "done", "stop":
		return last
	case "timings":
		return timings
	case "tokens_predicted":
		return predicted
	case "tokens_evaluated":
		return evaluated
	case "prompt_eval_count":
		return promptEval
	case "prompt_eval_cached_count":
		return promptEvalCached
	case "eval_count":
		return eval
	case "meta_info":
		return metaInfo
	case "meta":
		return meta
	case "details":
		return details
	case "created_at", "obfuscation", "sequence_number":
		return loose
	}
	return none
}

func childOfChoice(name []byte) node {
	switch string(name) {
	case "index":
		return index
	case "delta", "message":
		return chatPiece
	case "text":
		return text
	case "finish_reason":
		return finish
	case "token_ids":
		return ids
	}
	return none
}

// childOfText is for the objects that hold generated text.
func childOfText(parent node, name []byte) node {
	switch string(name) {
	case "content", "summary":
		if parent != content {
			return content
		}
	case "message":
		if parent == delta {
			return message
		}
	case "usage":
		if parent == message || parent == delta {
			return usage
		}
	case "input":
		if parent == content {
			return text
		}
	case "text", "thinking", "reasoning_content", "reasoning", "refusal", "tool_calls", "function_call", "partial_json", "arguments":
		return text
	}
	return none
}

func childOfUsage(name []byte) node {
	switch string(name) {
	case "prompt_tokens", "input_tokens":
		return inputTokens
	case "completion_tokens", "output_tokens":
		return outputTokens
	case "total_tokens":
		return totalTokens
	case "prompt_tokens_details", "input_tokens_details":
		return inputDetails
	case "completion_tokens_details", "output_tokens_details":
		return outputDetails
	case "reasoning_tokens":
		return reasoningTokens
	case "cache_read_input_tokens":
		return cacheRead
	case "cache_creation_input_tokens":
		return cacheMade
	case "billed_units":
		return billed
	case "tokens":
		return tokens
	case "seconds":
		return timed
	}
	return none
}

// childOfFigures is for the small objects of figures.
func childOfFigures(parent node, name []byte) node {
	for _, f := range figures {
		if f.parent == parent && f.name == string(name) {
			return f.node
		}
	}
	return none
}

var figures = []struct {
	parent node
	name   string
	node   node
}{
	{timings, "prompt_n", promptN},
	{timings, "cache_n", cacheN},
	{timings, "predicted_n", predictedN},
	{metaInfo, "prompt_tokens", metaInput},
	{metaInfo, "completion_tokens", metaOutput},
	{metaInfo, "cached_tokens", metaCached},
	{metaInfo, "reasoning_tokens", metaReasoning},
	{metaInfo, "finish_reason", finish},
	{response, "id", responseID},
	{response, "usage", usage},
	{response, "error", failure},
	{inputDetails, "cached_tokens", cachedTokens},
	{outputDetails, "reasoning_tokens", reasoningTokens},
	{details, "generated_tokens", generatedTokens},
	{details, "input_length", inputLength},
	{meta, "billed_units", billed},
	{meta, "tokens", tokens},
	{billed, "input_tokens", billedInput},
	{billed, "output_tokens", billedOutput},
	{tokens, "input_tokens", inputTokens},
	{tokens, "output_tokens", outputTokens},
}
