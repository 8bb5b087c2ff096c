package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"iap/internal/modelapi"
	"iap/tunnel"
)

// maxErrorBody is how much of an upstream's error is read for its message.
const (
	maxErrorBody = 64 << 10
	maxErrorText = 512
)

// comment tells a waiting client where it stands, in a line that every reader
// of events passes over. The first one begins the answer.
func (x *exchange) comment(position int, wait time.Duration) error {
	text := fmt.Sprintf(": queued position=%d", position)
	if wait > 0 {
		text += fmt.Sprintf(" estimate=%ds", int(wait.Seconds()))
	}
	text += "\n\n"
	if x.begun {
		return x.writeChunk(text)
	}
	x.begun = true
	head := "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
	return x.stream.WriteReply(tunnel.Reply{OK: true}, []byte(head+asChunk(text)))
}

func (x *exchange) writeChunk(text string) error {
	_, err := io.WriteString(x.stream, asChunk(text))
	return err
}

func asChunk(text string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(text), text) }

// endInBand ends an answer that has begun with the error event of its protocol,
// and tells the relay the code in the trailer, which no model server's reaches.
func (x *exchange) endInBand(no *refusal) error {
	e := &modelapi.Error{Status: statusOf(no.code), Code: no.code.String(), Message: no.message}
	_, err := io.WriteString(x.stream, asChunk(string(modelapi.StreamError(x.class, e, true)))+"0\r\n"+tunnel.EndedTrailer+": "+no.code.String()+"\r\n\r\n")
	return err
}

// statusOf is the status that the refusal would have been.
func statusOf(code tunnel.Code) int {
	switch code {
	case tunnel.CodeQueueFull:
		return http.StatusTooManyRequests
	case tunnel.CodeTimeout:
		return http.StatusGatewayTimeout
	case tunnel.CodeInternal:
		return http.StatusInternalServerError
	}
	return http.StatusBadGateway
}

// noStream says what is wrong with an upstream's answer whose client reads
// events already; nil if it is a stream of events.
func (x *exchange) noStream(response *http.Response, body io.Reader) *refusal {
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	no := &refusal{code: tunnel.CodeUpstreamReset}
	switch status := response.StatusCode; {
	case status == http.StatusOK && kind == "text/event-stream" && response.Header.Get("Content-Encoding") == "":
		return nil
	case status == http.StatusUnauthorized || status >= 300 && status < 400: // the agent's business, not the caller's
		no.message = fmt.Sprintf("the model server of %s answered %d, which does not pass here", x.upstream.cfg.Name, status)
	case status >= 400:
		no.message = fmt.Sprintf("the model server of %s answered %d", x.upstream.cfg.Name, status)
		if text := errorText(body); text != "" {
			no.message += ": " + text
		}
	default:
		no.message = fmt.Sprintf("the model server of %s did not answer with a stream", x.upstream.cfg.Name)
	}
	return no
}

// errorText is the message in an error of any of the protocols.
func errorText(body io.Reader) string {
	data, _ := io.ReadAll(io.LimitReader(body, maxErrorBody)) // what came is what there is to tell
	var e struct{ Error, Message, Detail json.RawMessage }
	if json.Unmarshal(data, &e) != nil {
		return ""
	}
	var inner struct{ Message json.RawMessage }
	_ = json.Unmarshal(e.Error, &inner) // it may be the text itself
	for _, raw := range []json.RawMessage{inner.Message, e.Error, e.Message, e.Detail} {
		var text string
		if json.Unmarshal(raw, &text) == nil && text != "" {
			return text[:min(len(text), maxErrorText)]
		}
	}
	return ""
}
