package modelapi

import (
	"bytes"
	"mime"
	"strconv"
	"strings"
)

// parameterFields are objects of the body that hold parameters.
var parameterFields = [...]string{"options", "parameters", "sampling_params"}

// readBody parses the body if the route has one, and notes all the class needs of it.
func (q *request) readBody() error {
	in, c := q.in, q.class
	if in.Method == "GET" || in.Method == "HEAD" {
		if len(in.Body) > 0 {
			return &Error{400, "body_unexpected", "a " + in.Method + " request has no body here"}
		}
		c.Stream = q.route.streams
		return nil
	}
	body, err := in.plainBody()
	if err != nil {
		return err
	}
	switch {
	case c.SubAction == "upload-blob":
		return &Error{415, "upload_unsupported", "files of models are not uploaded through here; put them on the server itself"}
	case q.route.place == inMultipart:
		return q.readForm(body)
	case len(body) == 0 && !q.wantsBody():
		return nil
	}
	if err := checkContentType(in.ContentType); err != nil {
		return err
	}
	return q.readJSON(body)
}

func (q *request) readJSON(body []byte) error {
	doc, err := parseJSON(body)
	if err != nil {
		return err
	}
	q.doc = doc
	switch {
	case doc.object:
		if err := q.readObject(); err != nil {
			return err
		}
	case q.route.place != inArray:
		return &Error{400, "json_not_object", "the body must be a JSON object"}
	}
	q.class.Body = q.doc.data
	return nil
}

// wantsBody says whether the route does nothing useful without a body.
func (q *request) wantsBody() bool {
	switch q.route.place {
	case inModel, inModelName, inCreate, inCopy, inLoRA:
		return true
	}
	return false
}

// checkContentType wants the one type under which a body is JSON: a page of a browser cannot send it to another site
// without asking first.
func checkContentType(header string) error {
	kind, parameters, err := mime.ParseMediaType(header)
	charset, given := parameters["charset"]
	if err == nil && kind == "application/json" && (!given || strings.EqualFold(charset, "utf-8")) {
		return nil
	}
	return &Error{415, "content_type", "this route takes a body of Content-Type: application/json only"}
}

func (q *request) readObject() error {
	if err := checkNames(q.doc); err != nil {
		return err
	}
	if err := q.readModels(); err != nil {
		return err
	}
	if err := q.readAdapters(); err != nil {
		return err
	}
	if err := q.readIDs(); err != nil {
		return err
	}
	if err := q.readStream(); err != nil {
		return err
	}
	if err := q.readLoad(); err != nil {
		return err
	}
	return q.applyRules()
}

// checkNames refuses a field that counts, spelled in another letter case.
func checkNames(doc *document) error {
	for _, m := range doc.members {
		if folded := foldName([]byte(m.name)); string(folded) != m.name && isKnownName(string(folded)) {
			return errNameCase(string(folded))
		}
	}
	return nil
}

func errNameCase(folded string) error {
	return &Error{400, "json_name_case", "the body's field " + strconv.Quote(folded) + " must be written in lower case"}
}

func (q *request) readStream() error {
	raw := q.doc.lookup("stream")
	q.class.Stream = q.route.streamByRule
	switch string(raw) {
	case "", "null":
	case "true":
		q.class.Stream = true
	case "false":
		q.class.Stream = false
	default: // some servers take "true" and 1 for true
		return &Error{400, "field_invalid", "the body's field \"stream\" must be true or false"}
	}
	q.class.Stream = q.class.Stream && q.route.streams
	return nil
}

// readLoad finds the requests without a prompt by which Ollama loads a model for everybody, or throws it out.
func (q *request) readLoad() error {
	if !q.route.emptyLoads || q.hasPrompt() {
		return nil
	}
	c := q.class
	c.Action, c.SubAction = ManageModel, "load"
	if keep := q.doc.lookup("keep_alive"); keep != nil && isZeroDuration(keep) {
		c.SubAction = "unload"
	}
	return nil
}

// hasPrompt says whether there is anything to answer in one of the fields that hold it.
func (q *request) hasPrompt() bool {
	fields := []string{"messages"}
	switch {
	case q.class.Action == Complete:
		fields = []string{"prompt"}
	case q.route.path == "/v1/responses":
		fields = []string{"input"}
	}
	for _, field := range fields {
		switch raw := q.doc.lookup(field); string(raw) {
		case "", "null", `""`, "[]", `[""]`, "{}":
		default:
			return true
		}
	}
	return false
}

// isZeroDuration reads 0, 0.0, "0", "0s" and the like. A value it does not understand counts as none.
func isZeroDuration(raw []byte) bool {
	digits := bytes.Trim(raw, `"`)
	digits = bytes.TrimRight(digits, "nuµmsh")
	n, err := strconv.ParseFloat(string(digits), 64)
	return err == nil && n == 0
}
