package modelapi

import (
	"strconv"
	"strings"
)

// An adapter changes what a model says, so whoever may use the model may not use its adapters: a request with one names
// both "base:adapter" and the base, and a decision must hold for each. Which field a server obeys is not asked: in any of
// them a name counts. vLLM's adapters are models of their own, by name.

// maxAdapters bounds the adapters of one request: each is decided on.
const maxAdapters = 32

// readAdapters finds the adapters that fields beside the model's name ask for, at the top and among the parameters.
func (q *request) readAdapters() error {
	if q.route.place == inLoRA || !q.class.Action.UsesModel() {
		return nil
	}
	if err := q.adaptersOf(q.doc); err != nil {
		return err
	}
	for _, field := range parameterFields {
		raw := q.doc.lookup(field)
		if len(raw) == 0 || raw[0] != '{' && raw[0] != '[' {
			continue
		}
		all, err := oneOrMany(field, raw)
		if err != nil {
			return err
		}
		for _, one := range all {
			if one[0] != '{' {
				continue // refused by the rules for bodies
			}
			if err := q.adaptersOf(objectOf(one)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *request) adaptersOf(doc *document) error {
	for i := range doc.members {
		m := &doc.members[i]
		var err error
		switch m.name {
		case "lora":
			err = q.adapterScales(doc.data[m.start:m.end])
		case "lora_path", "adapter_id":
			err = q.adapterNames(m.name, doc.data[m.start:m.end])
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// adapterNames reads a name, or a list of names, one for each prompt; null is the base.
func (q *request) adapterNames(field string, raw []byte) error {
	if isAbsent(raw) {
		return nil
	}
	all, err := oneOrMany(field, raw)
	if err != nil {
		return err
	}
	for _, one := range all {
		if isAbsent(one) {
			continue
		}
		name, ok := stringValue(one)
		if !ok || !validExactName(name) {
			return &Error{400, "field_invalid", "the body's field \"" + field + "\" must be the name of an adapter"}
		}
		if err := q.addAdapter(name); err != nil {
			return err
		}
	}
	return nil
}

// adapterScales reads llama.cpp's "lora": adapters by number, with how much of each. An empty list takes off those that
// the server was started with.
func (q *request) adapterScales(raw []byte) error {
	if isAbsent(raw) {
		return nil
	}
	wrong := &Error{400, "field_invalid", "the body's field \"lora\" must be a list of objects, each with a whole number as \"id\""}
	if raw[0] != '[' {
		return wrong
	}
	all, err := oneOrMany("lora", raw)
	if err != nil {
		return err
	}
	for _, one := range all {
		if one[0] != '{' {
			return wrong
		}
		id, err := strconv.ParseUint(string(memberOf(one, "id")), 10, 16)
		if err != nil {
			return wrong
		}
		if err := q.addAdapter("lora-" + strconv.FormatUint(id, 10)); err != nil {
			return err
		}
	}
	if len(all) == 0 {
		return q.addAdapter("lora-none")
	}
	return nil
}

// addAdapter notes an adapter of the request's model, before the model itself.
func (q *request) addAdapter(name string) error {
	c := q.class
	base := q.only
	if n := len(c.Models); n > 0 {
		base = c.Models[n-1] // the base is last
	}
	if base == "" {
		return nil // the request is refused for naming no model
	}
	full := base + ":" + name
	for _, known := range c.Models {
		if known == full {
			return nil
		}
	}
	if len(c.Models) > maxAdapters {
		return &Error{400, "too_many_adapters", "one request may name 32 adapters at most; send it in parts"}
	}
	if len(c.Models) == 0 {
		c.Models = []string{base}
	}
	c.Models = append([]string{full}, c.Models...)
	return nil
}

// splitAdapter cuts SGLang's "base:adapter". What the base is called does not matter: the server has one. A base with a
// colon in its name leaves no way to say which is which.
func (q *request) splitAdapter(name string) string {
	if q.in.Server != ServerSGLang || name == q.only || strings.Contains(q.only, ":") {
		return ""
	}
	_, adapter, _ := strings.Cut(name, ":")
	return strings.TrimSpace(adapter)
}

// oneOrMany is a canonical value that may stand alone or in a list, one for each input.
func oneOrMany(field string, raw []byte) ([][]byte, error) {
	if raw[0] != '[' {
		return [][]byte{raw}, nil
	}
	var all [][]byte
	for one := range elementsOf(raw) {
		if len(all) == MaxInputs {
			return nil, errManyInputs(field)
		}
		all = append(all, one)
	}
	return all, nil
}
