package modelapi

import "strings"

// spellingTGI is what the one model of a TGI server is called in a body: it takes any other name for an adapter's.
const spellingTGI = "tgi"

// readModels reads what the body's object says of models, and writes the names in it in canonical form.
func (q *request) readModels() error {
	switch q.route.place {
	case inModel:
		return q.readModel("model")
	case inModelName, inCreate:
		return q.readModelOrName()
	case inLoRA:
		return q.readLoRA()
	case inCopy:
		if err := q.readModel("source"); err != nil {
			return err
		}
		return q.readModel("destination")
	}
	return nil
}

// readModel canonicalises the model in one field, in the body too. A body that names none is one for the server's only
// model: where it has several it would choose one itself, and nobody could say which was decided on.
func (q *request) readModel(field string) error {
	raw := q.doc.lookup(field)
	value, ok := stringValue(raw)
	if raw != nil && !ok {
		return &Error{400, "model_invalid", "the body's field \"" + field + "\" must be a string"}
	}
	if value == "" && q.only == "" {
		return &Error{400, "model_missing", "the body's field \"" + field + "\" names no model"}
	}
	name, err := q.name(value)
	if err != nil {
		return err
	}
	if q.only != "" && q.in.Server == ServerTGI {
		name = spellingTGI
	}
	if raw == nil {
		q.doc.addString(field, name)
	} else {
		q.doc.setString(field, name)
	}
	return nil
}

// readLoRA reads the name of an adapter that is loaded or unloaded: it is the model it makes.
func (q *request) readLoRA() error {
	if err := q.readModel("lora_name"); err != nil {
		return err
	}
	if q.route.ignoresName && q.in.Only != "" {
		q.class.Models[0] = q.in.Only + ":" + q.class.Models[0]
	}
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
	if err := q.readModel(field); err != nil {
		return err
	}
	if field == "model" && name != nil && string(name) != `""` {
		if err := q.readModel("name"); err != nil {
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
	return q.readModel("from")
}

// name brings a model's name to canonical form and notes it. On a server that has one model that is the one, whatever
// the caller wrote.
func (q *request) name(raw string) (string, error) {
	raw = q.realName(raw)
	if q.only != "" {
		if len(q.class.Models) == 0 {
			q.class.Models = []string{q.only}
			q.class.Egress = isCloudName(q.only)
		}
		if adapter := q.splitAdapter(raw); adapter != "" {
			if !validExactName(adapter) {
				return "", errModelName()
			}
			return q.only + ":" + adapter, q.addAdapter(adapter)
		}
		return q.only, nil
	}
	name, egress, err := canonicalModel(q.route.ollamaNames, raw)
	if err != nil {
		return "", err
	}
	q.class.Models = append(q.class.Models, name)
	q.class.Egress = q.class.Egress || egress
	return name, nil
}

// realName resolves an alias. Whoever manages models means what it writes.
func (q *request) realName(raw string) string {
	if len(q.in.Aliases) == 0 || raw == "" || q.route.action == ManageModel {
		return raw
	}
	real, alias := aliasedModel(q.route.ollamaNames, q.in.Aliases, raw)
	if alias != "" {
		q.class.Alias = alias
	}
	return real
}

// aliasedModel is the model behind a name, and the alias it was found by; the name itself and "" if it is none.
func aliasedModel(ollamaRules bool, aliases map[string]string, raw string) (model, alias string) {
	alias = raw
	real, ok := aliases[alias]
	if !ok && ollamaRules {
		name, _, err := ollamaModel(raw)
		if err != nil {
			return raw, ""
		}
		if alias = name; aliases[alias] == "" {
			alias = strings.TrimSuffix(name, ":"+defaultTag)
		}
		real, ok = aliases[alias]
	}
	if !ok || real == "" {
		return raw, ""
	}
	return real, alias
}

// settleModel fills in the one model of a server for a request that names none, and refuses what would make a model
// work that nobody can name.
func (q *request) settleModel() error {
	c := q.class
	if len(c.Models) == 0 && q.in.Only != "" && c.Action != ListModels && c.Action != Health {
		c.Models = []string{q.in.Only}
		c.Egress = isCloudName(q.in.Only)
	}
	if len(c.Models) > 0 {
		c.Model = c.Models[0]
	}
	if !c.Action.UsesModel() || q.in.Only != "" {
		return nil
	}
	switch {
	case q.route.ignoresName:
		return &Error{503, "model_unknown", "which model this server runs is not known yet; try again shortly"}
	case c.Model == "" && q.route.place == inMessages:
		return &Error{400, "model_missing", "this route names its model in messages that are not read: it is open only where a server has one model"}
	case c.Model == "":
		return &Error{400, "model_missing", "the request names no model, and the server would choose one itself"}
	}
	return nil
}
