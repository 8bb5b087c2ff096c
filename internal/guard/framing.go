package guard

import (
	"net/http"
	"strings"
	"unicode/utf8"

	"iap/internal/modelapi"
)

// splitTarget takes path and query from the request line itself: URL parsers decode, and decoders differ.
func (x *exchange) splitTarget() *refusal {
	target, ok := strings.CutPrefix(x.r.RequestURI, x.caller.Prefix)
	if ok && (target == "" || target[0] == '?') && x.caller.Prefix != "" {
		target = "/" + target // the mount itself is the resource's root
	}
	x.path, x.query, _ = strings.Cut(target, "?")
	if !ok || !strings.HasPrefix(target, "/") {
		return &refusal{status: 400, code: "target_invalid", message: "the request target must be a plain path"}
	}
	return nil
}

// checkFraming refuses requests that are more, or less, than one HTTP request. net/http has by then refused two hosts,
// two lengths and broken chunks. Of a length beside a transfer encoding it keeps no trace: such a connection could
// carry a second request that somebody else sees as a body, so a chunked request is the last one of its connection.
func (x *exchange) checkFraming() *refusal {
	r := x.r
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		return &refusal{status: 405, code: "method_refused", message: "this method does not pass here"}
	}
	if len(r.Header["Upgrade"]) > 0 {
		if err := x.readUpgrade(); err != nil {
			return err
		}
	}
	if len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1) {
		x.endConnection()
	}
	if r.Host == "" && r.ProtoAtLeast(1, 1) {
		return &refusal{status: 400, code: "host_missing", message: "the request names no host"}
	}
	return nil
}

// endConnection makes the answer the last one of its connection. In HTTP/2 a request has a stream of its own, which ends
// with its answer, and the connection is others' too.
func (x *exchange) endConnection() {
	if x.r.ProtoMajor < 2 {
		x.w.Header().Set("Connection", "close")
	}
}

// checkOptions answers the question of a browser whether a page may ask, and refuses every other OPTIONS request to a
// model server: some of them skip their own checks for it.
func (x *exchange) checkOptions() *refusal {
	if x.r.Method != http.MethodOptions {
		return nil
	}
	preflight := x.r.Header.Get("Access-Control-Request-Method") != ""
	if preflight && x.origin != "" {
		x.answerPreflight()
		return nil
	}
	if preflight || x.resource.Kind == KindModel {
		return &refusal{status: 403, code: "preflight_refused", message: "pages of other sites may not send requests here"}
	}
	return nil
}

// answerPreflight allows a page of an allowed origin to ask. Nothing is sent upstream, nothing decided.
func (x *exchange) answerPreflight() {
	h := x.w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Api-Key, Anthropic-Version, Anthropic-Beta")
	h.Set("Access-Control-Max-Age", "600")
	if x.r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	x.answered = true
	x.w.WriteHeader(http.StatusNoContent)
}

// readOpaque checks the target of a request whose meaning only the upstream knows. It is passed on as it came.
func (x *exchange) readOpaque() *refusal {
	x.class = modelapi.Class{
		Action: modelapi.Connect, Protocol: modelapi.OpenAI, Framing: modelapi.None, Target: x.path,
	}
	if len(x.path)+len(x.query) > maxTarget {
		return &refusal{status: http.StatusRequestURITooLong, code: "target_too_long", message: "the path and query are longer than what passes here"}
	}
	if !utf8.ValidString(x.path) || !utf8.ValidString(x.query) || modelapi.AmbiguousPath(x.path) || modelapi.HasControl(x.query) {
		return &refusal{status: 400, code: "path_ambiguous", message: "the path can be read in two ways; write it plainly"}
	}
	if x.query != "" {
		x.class.Target += "?" + x.query
	}
	if x.r.ContentLength != 0 && x.r.Body != nil {
		x.counted = &countedBody{body: x.r.Body}
		// Without this net/http reads the body to its end before an answer begins, and a caller may wait for the answer
		// before it goes on.
		_ = http.NewResponseController(x.w).EnableFullDuplex() // not supported: answers wait for bodies, as ever
	}
	return nil
}
