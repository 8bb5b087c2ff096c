package modelapi

// MaxList bounds an answer that lists models.
const MaxList = 4 << 20

// FilterModels rewrites a successful answer of the action [ListModels]: of the models in it only those stay for which
// allowed says so, asked with the canonical name. What a list may tell is itself a list: the known arrays of models, of
// each model the known fields, and plain values beside them; a server's paths and start-up arguments stay at home.
// With in.Only set, the one model goes by that name.
func (t *Table) FilterModels(in Input, body []byte, allowed func(model string, egress bool) bool) ([]byte, error) {
	doc, err := parseJSON(body)
	if err != nil || !doc.object {
		return nil, &Error{502, "upstream_invalid", "the model server's list of models cannot be read"}
	}
	f := filter{only: in.Only, allowed: allowed}
	if rs := t.routesOf(in.Server); rs != nil {
		if r, _ := rs.find(in.routeMethod(), in.Path); r != nil {
			f.ollamaNames = r.ollamaNames
		}
	}
	out := []byte{'{'}
	for _, m := range doc.members {
		raw := doc.data[m.start:m.end]
		switch {
		case isListName(m.name) && raw[0] == '[':
			out = appendMember(out, m.name, f.list(raw))
		case raw[0] != '[' && raw[0] != '{':
			out = appendMember(out, m.name, raw)
		}
	}
	return append(out, '}'), nil
}

// isListName says under which names servers list their models.
func isListName(name string) bool {
	return name == "data" || name == "models" || name == "recommendations"
}

// isListField says which of a model's fields a list may tell.
func isListField(name string) bool {
	switch name {
	case "id", "name", "model", "object", "created", "owned_by", "display_name", "description", "type", "tags",
		"modified_at", "created_at", "size", "digest", "details", "capabilities", "meta", "parameters",
		"max_model_len", "context_length":
		return true
	}
	return false
}

type filter struct {
	only        string
	ollamaNames bool
	allowed     func(model string, egress bool) bool
}

// list keeps the elements of a canonical array that are objects and allowed.
func (f *filter) list(raw []byte) []byte {
	out := []byte{'['}
	for _, element := range elements(raw) {
		kept := f.element(element)
		if kept == nil {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, kept...)
		if f.only != "" {
			break // whatever the server calls itself, and however often
		}
	}
	return append(out, ']')
}

// element returns what may be told of one model, nil if nothing.
func (f *filter) element(raw []byte) []byte {
	if raw[0] != '{' {
		return nil
	}
	doc := &document{data: raw, object: true}
	w := walker{data: raw, members: &doc.members}
	if w.value(1) != nil || !f.keeps(doc) {
		return nil
	}
	out := []byte{'{'}
	for _, m := range doc.members {
		if isListField(m.name) {
			out = appendMember(out, m.name, doc.data[m.start:m.end])
		}
	}
	return append(out, '}')
}

// keeps says whether a model may be told of. It goes by up to three fields; each must be allowed.
func (f *filter) keeps(doc *document) bool {
	remote := doc.lookup("remote_host")
	elsewhere := remote != nil && string(remote) != `""` && string(remote) != "null"
	named := false
	for _, field := range []string{"id", "name", "model"} {
		value, ok := stringValue(doc.lookup(field))
		if !ok {
			continue
		}
		named = true
		if f.only != "" {
			doc.setString(field, f.only)
			value = f.only
		}
		name, egress, err := canonicalModel(f.ollamaNames, value)
		if err != nil || !f.allowed(name, egress || elsewhere) {
			return false
		}
	}
	return named
}

// elements cuts a canonical array into its elements.
func elements(raw []byte) [][]byte {
	var out [][]byte
	w := walker{data: raw, pos: 1}
	for w.data[w.pos] != ']' {
		start := w.pos
		if w.value(1) != nil {
			return nil // cannot happen: the whole was walked before
		}
		out = append(out, raw[start:w.pos])
		if w.data[w.pos] == ',' {
			w.pos++
		}
	}
	return out
}

// appendMember adds a member to an open object. name is as it stands between the quotes of canonical JSON.
func appendMember(out []byte, name string, value []byte) []byte {
	if len(out) > 1 {
		out = append(out, ',')
	}
	out = append(append(out, '"'), name...)
	out = append(append(out, '"', ':'), value...)
	return out
}
