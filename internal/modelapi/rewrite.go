package modelapi

import "slices"

// Obligations are what a decision demands of the body it allows.
type Obligations struct {
	Subject   string // replaces "user" and its like, where the server knows such a field
	CacheSalt string // replaces "cache_salt", where the server knows it
	Priority  int    // replaces "priority", where the server knows it
	// MaxOutput is the most tokens each answer may have: written where the body says none, or more. 0: no bound.
	MaxOutput int64
}

// Rewrite writes the obligations into a classified body: in is the request in its canonical form, c its class. What it
// returns classifies as before: Verify takes it. What the caller says of himself never stays: without a Subject or a
// CacheSalt those fields are taken out.
func (t *Table) Rewrite(in Input, c Class, o Obligations) (Class, error) {
	if len(c.Body) == 0 || c.Body[0] != '{' || !c.Action.UsesModel() {
		return c, nil
	}
	w := rewriting{book: rules(), server: in.Server, class: &c, to: o, draft: draftAt(c.Body, 0)}
	w.api = w.book.api(in.Server, c.Route)
	if w.api == nil && c.Action.Generates() && o.MaxOutput > 0 {
		return c, &Error{403, "output_unbounded", "how long an answer of this route becomes cannot be bounded, and a limit asks for that; use another route"}
	}
	w.present()
	w.absent()
	if w.draft.changed() {
		c.Body = w.draft.appendTo(make([]byte, 0, len(c.Body)+w.growth()))
	}
	if o.MaxOutput > 0 && c.Action.Generates() {
		c.MaxOutput = w.most
	}
	return c, nil
}

// rewriting is one body under Rewrite.
type rewriting struct {
	book   *ruleBook
	api    *answerAPI // nil: the table knows of none for the route
	server string
	class  *Class
	to     Obligations
	draft  *draft
	most   int64 // the largest cap that stands in the body now
}

// growth is about what the body gains.
func (w *rewriting) growth() int { return 256 + len(w.to.Subject) + len(w.to.CacheSalt) }

// present brings the fields that are there to what they must be.
func (w *rewriting) present() {
	d := w.draft
	for i := range d.members {
		if isParameters(d.members[i].name) {
			w.parameters(i)
			continue
		}
		w.member(d, i, w.book.top[d.members[i].name])
	}
}

// parameters goes through an object of parameters, or each of a list, and adds the cap where the server looks for it.
func (w *rewriting) parameters(i int) {
	d := w.draft
	raw := d.raw(i)
	switch raw[0] {
	case '{':
		if inner := w.object(raw, d.members[i].name); inner.changed() {
			d.set(i, inner.appendTo(nil))
		}
	case '[':
		out, changed := []byte{'['}, false
		for element := range elementsOf(raw) {
			inner := w.object(element, d.members[i].name)
			if len(out) > 1 {
				out = append(out, ',')
			}
			out, changed = inner.appendTo(out), changed || inner.changed()
		}
		if changed {
			d.set(i, append(out, ']'))
		}
	}
}

func (w *rewriting) object(raw []byte, within string) *draft {
	d := draftAt(raw, 0)
	for i := range d.members {
		w.member(d, i, w.book.params[d.members[i].name])
	}
	if w.api != nil && w.api.Within == within {
		w.addCap(d)
	}
	return d
}

// member brings one field to what it must be.
func (w *rewriting) member(d *draft, i int, r *bodyRule) {
	if r == nil {
		return
	}
	switch r.Verb {
	case capped:
		w.cap(d, i)
	case lower:
		if n, err := wholeNumber(r.Field, d.raw(i)); err == nil && w.to.MaxOutput > 0 && n > w.to.MaxOutput {
			d.set(i, number(w.to.MaxOutput))
		}
	case overwrite:
		w.overwrite(d, i, r)
	}
}

// cap bounds a field that asks for output tokens. One that says nothing, or without bound, says the bound.
func (w *rewriting) cap(d *draft, i int) {
	if w.to.MaxOutput <= 0 || !w.class.Action.Generates() {
		return
	}
	n, err := wholeNumber(d.members[i].name, d.raw(i))
	switch {
	case err == nil && n == 0 && w.server == ServerLlamaCPP && string(d.raw(i)) == "0":
		return // it reads the prompt into its cache and answers nothing
	case err != nil || n <= 0:
		n = w.fill()
	}
	n = min(n, w.to.MaxOutput)
	w.most = max(w.most, n)
	d.set(i, number(n))
}

// fill is what stands for no bound: what the caller asked for by another name, or the bound of the decision.
func (w *rewriting) fill() int64 {
	if asked := w.class.MaxOutput; asked > 0 {
		return min(asked, w.to.MaxOutput)
	}
	return w.to.MaxOutput
}

// addCap puts the cap into the field that the server obeys, if neither it nor one that excludes it is there.
func (w *rewriting) addCap(d *draft) {
	if w.to.MaxOutput <= 0 || !w.class.Action.Generates() || w.api.Field == "" || d.index(w.api.Field) >= 0 {
		return
	}
	for _, other := range w.api.Or {
		if d.index(other) >= 0 {
			return
		}
	}
	n := w.fill()
	if w.class.MaxOutput == 0 && w.api.Default > 0 {
		n = min(n, w.api.Default)
	}
	w.most = max(w.most, n)
	d.put(w.api.Field, number(n))
}

// overwrite replaces what the caller says by what is known.
func (w *rewriting) overwrite(d *draft, i int, r *bodyRule) {
	var value []byte
	switch r.With {
	case "subject":
		value = text(w.to.Subject)
	case "salt":
		value = text(w.to.CacheSalt)
	case "priority":
		value = w.priority()
	case "user_id":
		if raw := d.raw(i); raw[0] == '{' {
			w.userID(d, i)
			return
		}
		value = d.raw(i)
	}
	if value == nil {
		d.drop(i)
		return
	}
	d.set(i, value)
}

// userID replaces the caller's name inside metadata. Where it is that API's own place for it, it is added.
func (w *rewriting) userID(d *draft, i int) {
	inner := draftAt(d.raw(i), 0)
	j, value := inner.index("user_id"), text(w.to.Subject)
	switch {
	case j < 0 && (value == nil || w.api == nil || w.api.Subject != "metadata"):
		return
	case value == nil:
		inner.drop(j)
	default:
		inner.put("user_id", value)
	}
	if inner.changed() {
		d.set(i, inner.appendTo(nil))
	}
}

// priority is the caller's place in the server's own queue. It is only replaced, never added: a server that does not
// schedule by priority refuses every other than 0, and the agent's queue has put the callers in their order before.
// vLLM serves the least number first, SGLang the largest.
func (w *rewriting) priority() []byte {
	switch w.server {
	case ServerVLLM:
		return number(-int64(w.to.Priority))
	case ServerSGLang:
		return number(int64(w.to.Priority))
	}
	return nil
}

// absent adds what the server must be told and is not.
func (w *rewriting) absent() {
	a, d := w.api, w.draft
	if a == nil {
		return
	}
	if a.Within == "" {
		w.addCap(d)
	} else if i := d.index(a.Within); i < 0 || !isObject(d.raw(i)) {
		inner := draft{}
		if w.addCap(&inner); inner.changed() {
			d.put(a.Within, inner.appendTo(nil))
		}
	}
	if subject := text(w.to.Subject); subject != nil {
		switch i := d.index("metadata"); {
		case a.Subject == "user":
			d.put("user", subject)
		case a.Subject == "metadata" && (i < 0 || !isObject(d.raw(i))):
			d.put("metadata", object("user_id", string(subject)))
		}
	}
	if salt := text(w.to.CacheSalt); salt != nil && a.Salt && slices.Contains([]string{ServerVLLM, ServerSGLang}, w.server) {
		d.put("cache_salt", salt)
	}
	if a.Usage && w.class.Stream {
		w.usage()
	}
}

// usage makes a stream tell its cost. The chunk that does is hidden from a caller who had not asked for it, and so are
// the running counts in the others.
func (w *rewriting) usage() {
	d := w.draft
	inner := &draft{}
	i := d.index("stream_options")
	if i >= 0 && d.raw(i)[0] == '{' {
		inner = draftAt(d.raw(i), 0)
	}
	inner.put("include_usage", []byte("true"))
	if j := inner.index("continuous_usage_stats"); j >= 0 && (!w.class.WantsUsage || string(inner.raw(j)) != "true") {
		inner.drop(j)
	}
	if i < 0 || inner.changed() {
		d.put("stream_options", inner.appendTo(nil))
	}
	w.class.HidesUsage = !w.class.WantsUsage
}
