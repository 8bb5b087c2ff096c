package modelapi

import (
	"cmp"
	"slices"
)

const (
	// MaxList bounds an answer that lists models.
	MaxList = 4 << 20
	// maxListed bounds the models in one: each is decided on.
	maxListed = 8192
)

// FilterModels rewrites a successful answer of the action [ListModels]: of the models in it only those stay for which
// allowed says so, asked with the canonical name. What a list may tell is itself a list: the known arrays of models, of
// each model the known fields, and plain values beside them; a server's paths and start-up arguments stay at home.
// With in.Only set, the one model goes by that name. An alias of in.Aliases stands beside the model it means. What is
// allowed of in.Also and lacks is added, with as much as a list of that kind must have.
func (t *Table) FilterModels(in Input, body []byte, allowed func(model string, egress bool) bool) ([]byte, error) {
	doc, err := parseJSON(body)
	if err != nil || !doc.object {
		return nil, &Error{502, "upstream_invalid", "the model server's list of models cannot be read"}
	}
	f := filter{only: in.Only, aliases: in.Aliases, allowed: allowed}
	shapes := map[string]func(string) []byte{}
	if in.Only == "" && len(in.Also) > 0 {
		f.also, shapes = in.Also, shapesOf(in.Path)
	}
	if rs := t.routesOf(in.Server); rs != nil {
		if r, _ := rs.find(in.routeMethod(), in.Path); r != nil {
			f.ollamaNames, f.ignoresName = r.ollamaNames, r.ignoresName
		}
	}
	out := []byte{'{'}
	for _, m := range doc.members {
		raw := doc.data[m.start:m.end]
		switch {
		case isListName(m.name) && raw[0] == '[':
			told := f.list(raw, shapes[m.name])
			if told == nil {
				return nil, &Error{502, "upstream_invalid", "the model server lists more than 8,192 models"}
			}
			out = appendMember(out, m.name, told)
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
	aliases     map[string]string
	ollamaNames bool
	ignoresName bool
	allowed     func(model string, egress bool) bool
	also        []string
}

// shapesOf are what an added model looks like, by the array that it is added to. Lists of what runs just now, or is
// recommended, are added to by nobody.
func shapesOf(path string) map[string]func(string) []byte {
	switch path {
	case "/v1/models", "/models":
		return map[string]func(string) []byte{"data": listedOpenAI, "models": listedOllama} // llama.cpp has both
	case "/api/tags":
		return map[string]func(string) []byte{"models": listedOllama}
	}
	return nil
}

// listedOpenAI has what the API of OpenAI requires of a listed model.
func listedOpenAI(name string) []byte {
	doc := objectOf([]byte(`{"id":"","object":"model","created":0,"owned_by":""}`))
	doc.setString("id", name)
	return doc.data
}

// listedOllama has what clients of Ollama read; a time has to be one.
func listedOllama(name string) []byte {
	doc := objectOf([]byte(`{"name":"","model":"","modified_at":"0001-01-01T00:00:00Z","size":0,"digest":"","details":{}}`))
	doc.setString("name", name)
	doc.setString("model", name)
	return doc.data
}

// list keeps the elements of a canonical array that are objects and allowed, each once, and adds those of f.also in the
// given shape; nil if there are too many.
func (f *filter) list(raw []byte, shape func(string) []byte) []byte {
	var names []string
	var kept [][]byte
	known, n := map[string]bool{}, 0
	for element := range elementsOf(raw) {
		if n++; n > maxListed {
			return nil
		}
		name, told := f.element(element)
		if name == "" || known[name] {
			continue
		}
		known[name] = true
		names, kept = append(names, name), append(kept, told)
	}
	for _, one := range f.also {
		name, egress, err := canonicalModel(f.ollamaNames, one)
		if shape == nil || err != nil || known[name] || !f.allowed(name, egress) {
			continue
		}
		if n++; n > maxListed {
			return nil
		}
		known[name] = true
		names, kept = append(names, name), append(kept, shape(name))
	}
	out := []byte{'['}
	for i, told := range kept {
		out = appendElement(out, told)
		for _, alias := range f.aliasesOf(names[i]) {
			if !known[alias] {
				out = appendElement(out, renamed(told, alias))
			}
		}
	}
	return append(out, ']')
}

func appendElement(out, element []byte) []byte {
	if len(out) > 1 {
		out = append(out, ',')
	}
	return append(out, element...)
}

// element returns a model's name and what may be told of it; "" if nothing.
func (f *filter) element(raw []byte) (name string, told []byte) {
	if raw[0] != '{' {
		return "", nil
	}
	doc := objectOf(raw)
	if name = f.nameOf(doc); name == "" {
		return "", nil
	}
	told = []byte{'{'}
	for _, m := range doc.members {
		value := doc.data[m.start:m.end]
		if isListField(m.name) && (!isNameField(m.name) || f.tellsName(doc, value)) {
			told = appendMember(told, m.name, value)
		}
	}
	return name, append(told, '}')
}

func isNameField(name string) bool { return name == "id" || name == "name" || name == "model" }

// nameOf is the canonical name of a listed model that may be told of. It goes by its id, or else by each name it has.
func (f *filter) nameOf(doc *document) string {
	adapter, isAdapter := "", false
	if parent, ok := stringValue(doc.lookup("parent")); ok && parent != "" && f.ignoresName {
		adapter, isAdapter = stringValue(doc.lookup("id"))
	}
	found := ""
	for _, field := range []string{"id", "name", "model"} {
		value, ok := stringValue(doc.lookup(field))
		if !ok {
			continue
		}
		switch {
		case f.only != "" && isAdapter:
			value = f.only + ":" + adapter
		case f.only != "":
			value = f.only
		}
		if f.only != "" {
			doc.setString(field, value)
		}
		if found != "" && doc.lookup("id") != nil {
			continue // a name beside the id is for people to read
		}
		name, egress, err := canonicalModel(f.ollamaNames, value)
		if err != nil || !f.allowed(name, egress || isElsewhere(doc)) {
			return ""
		}
		found = cmp.Or(found, name)
	}
	return found
}

// isElsewhere says whether a listed model is served by another host.
func isElsewhere(doc *document) bool {
	return !isAbsent(doc.lookup("remote_host"))
}

// tellsName says whether a name beside the id may be told: if it were a model, it would have to be allowed.
func (f *filter) tellsName(doc *document, raw []byte) bool {
	value, ok := stringValue(raw)
	if !ok {
		return false
	}
	name, egress, err := canonicalModel(f.ollamaNames, value)
	return err == nil && f.allowed(name, egress || isElsewhere(doc))
}

// aliasesOf lists the aliases that mean a model, in order.
func (f *filter) aliasesOf(name string) []string {
	var all []string
	for alias, meant := range f.aliases {
		real, _, err := canonicalModel(f.ollamaNames, meant)
		if err == nil && (real == name || f.only == name && !f.ignoresName) {
			all = append(all, alias)
		}
	}
	slices.Sort(all)
	return all
}

// renamed is what is told of a model under another name.
func renamed(told []byte, name string) []byte {
	doc := objectOf(told)
	for _, field := range []string{"id", "name", "model"} {
		doc.setString(field, name)
	}
	return doc.data
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
