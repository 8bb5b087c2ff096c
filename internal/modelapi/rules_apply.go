package modelapi

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
)

// Bounds on what one request may ask for.
const (
	MaxChoices = 128  // as the OpenAI API bounds n; here with the prompts multiplied in
	MaxInputs  = 2048 // inputs of one embeddings request, as the OpenAI API bounds them
)

// applyRules holds the body against the table: it takes out what does not belong, refuses what is dangerous, and notes
// what the class must say. What a decision is needed for is left to Rewrite.
func (q *request) applyRules() error {
	if !q.class.Action.UsesModel() {
		return nil
	}
	b := ruling{book: rules(), class: q.class, choices: 1, prompts: 1}
	d := &draft{data: q.doc.data, members: q.doc.members}
	for i := range d.members {
		name := d.members[i].name
		if isParameters(name) {
			if err := b.parameters(d, i); err != nil {
				return err
			}
			continue
		}
		if err := b.member(d, i, b.book.top[name]); err != nil {
			return err
		}
	}
	if err := b.finish(); err != nil {
		return err
	}
	if err := q.readContent(b.book, d); err != nil {
		return err
	}
	if d.changed() {
		*q.doc = *d.document() // in place: the caller holds it
	}
	return nil
}

func isParameters(name string) bool { return slices.Contains(parameterFields[:], name) }

// ruling is one reading of a body by the table.
type ruling struct {
	book    *ruleBook
	class   *Class
	choices int64 // the largest n
	prompts int64 // the longest list of prompts
}

// parameters reads an object of parameters, or a list of them, one for each prompt.
func (b *ruling) parameters(d *draft, i int) error {
	m := d.members[i]
	switch d.data[m.start] {
	case '{':
		inner := draftAt(d.data, m.start)
		if err := b.object(inner); err != nil {
			return err
		}
		if inner.changed() {
			d.set(i, inner.appendTo(nil))
		}
		return nil
	case '[':
		return b.parameterList(d, i)
	}
	if string(d.raw(i)) != "null" {
		return errField(m.name, "must be an object")
	}
	return nil
}

func (b *ruling) parameterList(d *draft, i int) error {
	out, changed, n := []byte{'['}, false, int64(0)
	for raw := range elementsOf(d.raw(i)) {
		if raw[0] != '{' {
			return errField(d.members[i].name, "must be an object, or a list of objects")
		}
		inner := draftAt(raw, 0)
		if err := b.object(inner); err != nil {
			return err
		}
		if n++; n > MaxInputs {
			return errManyInputs(d.members[i].name)
		}
		if n > 1 {
			out = append(out, ',')
		}
		out, changed = inner.appendTo(out), changed || inner.changed()
	}
	b.prompts = max(b.prompts, n)
	if changed {
		d.set(i, append(out, ']'))
	}
	return nil
}

func (b *ruling) object(d *draft) error {
	if err := checkNames(&document{members: d.members}); err != nil {
		return err
	}
	for i := range d.members {
		if err := b.member(d, i, b.book.params[d.members[i].name]); err != nil {
			return err
		}
	}
	return nil
}

// member does to one member what its rule says.
func (b *ruling) member(d *draft, i int, r *bodyRule) error {
	if r == nil {
		return nil
	}
	raw := d.raw(i)
	switch r.Verb {
	case strip:
		d.drop(i)
	case deny:
		if !saysNothing(raw) {
			return errDenied(r)
		}
		d.drop(i)
	case keep:
		return b.keep(d, i, r)
	case capped:
		return b.noteOutput(r.Field, raw)
	case lower:
		_, err := wholeNumber(r.Field, raw)
		return err
	case count:
		if givesOne(b.class.Route) {
			d.drop(i)
			return nil
		}
		return b.noteChoices(r.Field, raw)
	case batch:
		b.prompts = max(b.prompts, lengthOf(raw, r.With == "lists"))
		if r.With == "raw" && b.class.Action == Chat && !saysNothing(raw) {
			b.class.also(Complete)
		}
	case inputs:
		if !b.class.Action.Generates() && lengthOf(raw, false) > MaxInputs {
			return errManyInputs(r.Field)
		}
	case usage:
		return b.noteUsage(raw)
	case overwrite:
		if r.With == "user_id" && raw[0] == '{' {
			return checkNames(&document{members: draftAt(raw, 0).members})
		}
	case tooled:
		if r.Field != "tools" && !saysNothing(raw) {
			b.class.also(Tool)
		}
	}
	return nil
}

// maxKept is the longest string that is a setting and no text.
const maxKept = 64

// keep leaves of an object what is named and plain.
func (b *ruling) keep(d *draft, i int, r *bodyRule) error {
	raw := d.raw(i)
	if raw[0] != '{' {
		d.drop(i)
		return nil
	}
	inner := draftAt(d.data, d.members[i].start)
	for j := range inner.members {
		value := inner.raw(j)
		if value[0] == '{' || value[0] == '[' || len(value) > maxKept || !slices.Contains(r.Keep, inner.members[j].name) {
			inner.drop(j)
		}
	}
	if inner.changed() {
		d.set(i, inner.appendTo(nil))
	}
	return nil
}

// noteOutput keeps the largest number of tokens asked for by any name. Zero is nothing said: some servers take it for
// no bound.
func (b *ruling) noteOutput(field string, raw []byte) error {
	if !b.class.Action.Generates() {
		return nil
	}
	n, err := wholeNumber(field, raw)
	if err != nil {
		return err
	}
	switch c := b.class; {
	case n < 0:
		c.MaxOutput = -1
	case c.MaxOutput >= 0:
		c.MaxOutput = max(c.MaxOutput, n)
	}
	return nil
}

// givesOne says which APIs have one answer and no word for more. llama.cpp takes the word there too, and tells the cost
// of the last.
func givesOne(route string) bool {
	return strings.HasSuffix(route, "/messages") || strings.HasSuffix(route, "/responses")
}

func (b *ruling) noteChoices(field string, raw []byte) error {
	if string(raw) == "null" || !b.class.Action.Generates() {
		return nil
	}
	n, err := wholeNumber(field, raw)
	if err != nil {
		return err
	}
	if n < 1 {
		return errField(field, "must be 1 or more")
	}
	b.choices = max(b.choices, n)
	return nil
}

func (b *ruling) noteUsage(raw []byte) error {
	if raw[0] != '{' {
		if string(raw) != "null" {
			return errField("stream_options", "must be an object")
		}
		return nil
	}
	inner := draftAt(raw, 0)
	if i := inner.index("include_usage"); i >= 0 && b.class.Stream {
		b.class.WantsUsage = string(inner.raw(i)) == "true"
	}
	return checkNames(&document{members: inner.members})
}

// finish multiplies, saturating, and bounds the product.
func (b *ruling) finish() error {
	if !b.class.Action.Generates() {
		return nil
	}
	if b.choices > MaxChoices || b.prompts > MaxChoices || b.choices*b.prompts > MaxChoices {
		return &Error{400, "too_many_choices", "one request may ask for 128 answers at most, prompts times choices; send it in parts"}
	}
	b.class.Choices = b.choices * b.prompts
	return nil
}

// also notes an action that the body asks for besides the route's.
func (c *Class) also(a Action) {
	if !slices.Contains(c.Also, a) {
		c.Also = append(c.Also, a)
	}
}

// lengthOf is the number of prompts in a value: of a list the elements that are no numbers, since a list of numbers is
// one prompt of tokens; at least 1. With lists only those elements count that are lists themselves.
func lengthOf(raw []byte, lists bool) int64 {
	if raw[0] != '[' {
		return 1
	}
	n := int64(0)
	for element := range elementsOf(raw) {
		c := element[0]
		if c == '[' || !lists && c != '-' && (c < '0' || c > '9') {
			n++
		}
	}
	return max(n, 1)
}

// wholeNumber reads a number that must be whole and written so; null is 0. What one server rounds and another refuses
// is refused here.
func wholeNumber(field string, raw []byte) (int64, error) {
	if bytes.Equal(raw, []byte("null")) {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil {
		return 0, errField(field, "must be a whole number, written without point or exponent")
	}
	return n, nil
}

func errField(field, what string) error {
	return &Error{400, "field_invalid", "the body's field \"" + field + "\" " + what}
}

func errManyInputs(field string) error {
	return &Error{400, "too_many_inputs", "the body's field \"" + field + "\" is a list of more than 2,048; send it in parts"}
}

func errDenied(r *bodyRule) error {
	return &Error{400, "field_denied", "the body's field \"" + r.Field + "\" is not allowed, leave it out: " + r.Why}
}
