package modelapi

import (
	"strconv"
	"strings"
)

// ContentType is that of every error body.
const ContentType = "application/json; charset=utf-8"

// Body writes the error as a client of p expects it in an answer that is no stream.
func (e *Error) Body(p Protocol) []byte {
	switch p {
	case Anthropic:
		return e.anthropic()
	case Ollama:
		return e.ollama()
	case LlamaCPP:
		return object("error", string(object(
			"code", strconv.Itoa(e.Status), "message", quote(e.Message), "type", quote(openAIType(e.Status)), "reason", quote(e.Code))))
	case TGI:
		return object("error", quote(e.Message), "error_type", quote(tgiType(e.Status)), "code", quote(e.Code))
	}
	return e.openAI()
}

// StreamError writes the error as an event inside a running answer of class c. Atop says that the bytes sent so far end
// at a message's boundary; if not, the broken message is ended first. An answer without messages takes no event: nil.
func StreamError(c Class, e *Error, atop bool) []byte {
	var out []byte
	switch c.Framing {
	case NDJSON:
		if !atop {
			out = append(out, '\n')
		}
		return append(append(out, e.ollama()...), '\n')
	case SSE:
		if !atop {
			out = append(out, "\n\n"...)
		}
		switch {
		case c.Protocol == Anthropic:
			out = append(append(out, "event: error\ndata: "...), e.anthropic()...)
		case strings.HasSuffix(c.Route, "/responses"):
			out = append(append(out, "event: error\ndata: "...), e.responses()...)
		default:
			out = append(append(out, "data: "...), e.Body(c.Protocol)...)
		}
		return append(out, "\n\n"...)
	}
	return nil
}

func (e *Error) openAI() []byte {
	return object("error", string(object(
		"message", quote(e.Message), "type", quote(openAIType(e.Status)), "param", "null", "code", quote(e.Code))))
}

func (e *Error) anthropic() []byte {
	return object("type", `"error"`, "error", string(object(
		"type", quote(anthropicType(e.Status)), "message", quote(e.Message), "code", quote(e.Code))))
}

func (e *Error) ollama() []byte {
	return object("error", quote(e.Message), "code", quote(e.Code))
}

// responses is the error event of the Responses API, which has no object around its fields.
func (e *Error) responses() []byte {
	return object("type", `"error"`, "code", quote(e.Code), "message", quote(e.Message), "param", "null")
}

func openAIType(status int) string {
	switch {
	case status == 401:
		return "authentication_error"
	case status == 403:
		return "permission_error"
	case status == 404:
		return "not_found_error"
	case status == 429:
		return "rate_limit_error"
	case status >= 500:
		return "server_error"
	}
	return "invalid_request_error"
}

func anthropicType(status int) string {
	switch {
	case status == 413:
		return "request_too_large"
	case status == 503 || status == 529:
		return "overloaded_error"
	case status >= 500:
		return "api_error"
	}
	return openAIType(status)
}

func tgiType(status int) string {
	switch {
	case status == 429 || status == 503:
		return "overloaded"
	case status >= 500:
		return "generation"
	}
	return "validation"
}
