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
	if c.SubAction == "upload-blob" || q.route.place == inMultipart {
		return &Error{415, "body_unsupported", "file and form uploads do not pass here; this route takes no JSON"}
	}
	if len(in.Body) == 0 && !q.wantsBody() {
		return nil
	}
	if err := checkContentType(in.ContentType); err != nil {
		return err
	}
	doc, err := parseJSON(in.Body)
	if err != nil {
		return err
	}
	q.doc = doc
	if !doc.object {
		if q.route.place != inArray {
			return &Error{400, "json_not_object", "the body must be a JSON object"}
		}
		c.Body = doc.data
		return nil
	}
	if err := q.readObject(); err != nil {
		return err
	}
	c.Body = doc.data
	return nil
}

// wantsBody says whether the route does nothing useful without a body.
func (q *request) wantsBody() bool {
	switch q.route.place {
	case inModel, inModelName, inCreate, inCopy:
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

func (q *request) readModels() error {
	switch q.route.place {
	case inModel:
		return q.readModel("model", q.route.needsModel || q.route.action == ManageModel)
	case inModelName, inCreate:
		return q.readModelOrName()
	case inCopy:
		if err := q.readModel("source", true); err != nil {
			return err
		}
		return q.readModel("destination", true)
	}
	return nil
}

// readModel canonicalises the model in one field, in the body too.
func (q *request) readModel(field string, required bool) error {
	raw := q.doc.lookup(field)
	if raw == nil && !required {
		return nil
	}
	value, ok := stringValue(raw)
	if raw != nil && !ok {
		return &Error{400, "model_invalid", "the body's field \"" + field + "\" must be a string"}
	}
	if value == "" {
		if !required && q.only == "" {
			return &Error{400, "model_invalid", "the body's field \"" + field + "\" is empty; leave it out or name a model"}
		}
		if q.only == "" {
			return &Error{400, "model_missing", "the body's field \"" + field + "\" names no model"}
		}
	}
	name, err := q.name(value)
	if err != nil {
		return err
	}
	q.doc.setString(field, name)
	return nil
}

// readModelOrName reads the routes on which "name" is an older word for "model". Given both, they must agree.
func (q *request) readModelOrName() error {
	model, name := q.doc.lookup("model"), q.doc.lookup("name")
	field := "model"
	if model == nil || string(model) == `""` {
		field = "name"
	}
	if model == nil && name == nil {
		field = "model"
	}
	if err := q.readModel(field, true); err != nil {
		return err
	}
	if field == "model" && name != nil && string(name) != `""` {
		if err := q.readModel("name", true); err != nil {
			return err
		}
		if q.class.Models[0] != q.class.Models[len(q.class.Models)-1] {
			return &Error{400, "model_ambiguous", "the body's fields \"model\" and \"name\" name different models"}
		}
		q.class.Models = q.class.Models[:1]
	}
	if q.route.place == inCreate {
		return q.readSources()
	}
	return nil
}

// readSources reads what a new model is made of: another model, or one on another host.
func (q *request) readSources() error {
	if remote := q.doc.lookup("remote_host"); remote != nil && string(remote) != `""` {
		q.class.Egress = true
	}
	if from := q.doc.lookup("from"); from == nil || string(from) == `""` {
		return nil
	}
	return q.readModel("from", true)
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
