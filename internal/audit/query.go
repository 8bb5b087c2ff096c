package audit

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Query selects records: those for which every field holds that is not zero.
type Query struct {
	Kind, Request, Session, Principal, Agent, Resource, Action, Model, Decision, Reason string

	// Principals: about any of these, beside Principal: the names that one person has
	// been recorded under. None is no condition.
	Principals []string

	Since time.Time // not before this
	Until time.Time // before this
	Text  string    // stands somewhere in the record, whatever its case
}

// Check refuses a query for what no record can have: it would find nothing, which
// would be read as: it never happened.
func (q Query) Check() error {
	switch {
	case q.Kind != "" && !slices.Contains(Kinds(), q.Kind):
		return fmt.Errorf("kind: %q is none of %s", q.Kind, strings.Join(Kinds(), ", "))
	case q.Decision != "" && q.Decision != Allow && q.Decision != Deny:
		return fmt.Errorf("decision: %q is neither allow nor deny", q.Decision)
	}
	return nil
}

// matcher is a Query made ready for many lines.
type matcher struct {
	query  Query
	fields []field
	names  []field // of principals, of which one must stand there
	text   []byte  // in lower case
	lower  []byte  // reused
}

// field is one text that a record must have, as it would be written.
type field struct {
	written []byte // ,"name":"value"
	value   []byte // "value"
	of      func(*Event) string
}

func newMatcher(q Query) *matcher {
	m := &matcher{query: q, text: []byte(strings.ToLower(q.Text))}
	for _, f := range []struct {
		name, value string
		of          func(*Event) string
	}{
		{"kind", q.Kind, func(e *Event) string { return e.Kind }},
		{"request", q.Request, func(e *Event) string { return e.Request }},
		{"session", q.Session, func(e *Event) string { return e.Session }},
		{"principal", q.Principal, func(e *Event) string { return e.Principal }},
		{"agent", q.Agent, func(e *Event) string { return e.Agent }},
		{"resource", q.Resource, func(e *Event) string { return e.Resource }},
		{"action", q.Action, func(e *Event) string { return e.Action }},
		{"model", q.Model, func(e *Event) string { return e.Model }},
		{"decision", q.Decision, func(e *Event) string { return e.Decision }},
		{"reason", q.Reason, func(e *Event) string { return e.Reason }},
	} {
		if f.value != "" {
			m.fields = append(m.fields, fieldOf(f.name, f.value, f.of))
		}
	}
	for _, name := range q.Principals {
		m.names = append(m.names, fieldOf("principal", name, func(e *Event) string { return e.Principal }))
	}
	return m
}

func fieldOf(name, text string, of func(*Event) string) field {
	value := appendText(nil, text, shortText)
	return field{append([]byte(`,"`+name+`":`), value...), value, of}
}

// matches says whether the line is a record that the query selects. Most lines are
// turned down without being parsed.
func (m *matcher) matches(text []byte, at time.Time) (bool, error) {
	if !m.query.Since.IsZero() && at.Before(m.query.Since) || !m.query.Until.IsZero() && !at.Before(m.query.Until) {
		return false, nil
	}
	for _, f := range m.fields {
		if !bytes.Contains(text, f.written) {
			return false, nil
		}
	}
	if len(m.names) > 0 && !slices.ContainsFunc(m.names, func(f field) bool { return bytes.Contains(text, f.written) }) {
		return false, nil
	}
	if len(m.text) > 0 && !m.contains(text) {
		return false, nil
	}
	e, err := parse(text)
	if err != nil {
		return false, err
	}
	for _, f := range m.fields { // a detail of the same name may have passed for it
		if !f.holds(&e) {
			return false, nil
		}
	}
	return len(m.names) == 0 || slices.ContainsFunc(m.names, func(f field) bool { return f.holds(&e) }), nil
}

func (f field) holds(e *Event) bool { return bytes.Equal(appendText(nil, f.of(e), shortText), f.value) }

func (m *matcher) contains(text []byte) bool {
	m.lower = m.lower[:0]
	for _, c := range text {
		if c >= 0x80 { // letters outside ASCII take the slow way
			return bytes.Contains(bytes.ToLower(text), m.text)
		}
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		m.lower = append(m.lower, c)
	}
	return bytes.Contains(m.lower, m.text)
}

// head reads number and time off the front of a line.
func head(text []byte) (seq uint64, at time.Time, err error) {
	const before, between = `{"v":1,"seq":`, `,"time":"`
	rest, ok := bytes.CutPrefix(text, []byte(before))
	digits := 0
	for digits < len(rest) && digits < 19 && rest[digits] >= '0' && rest[digits] <= '9' {
		seq = seq*10 + uint64(rest[digits]-'0')
		digits++
	}
	stamp, found := bytes.CutPrefix(rest[digits:], []byte(between))
	end := bytes.IndexByte(stamp, '"')
	if ok && digits > 0 && found && end > 0 {
		if at, err = time.Parse(time.RFC3339Nano, string(stamp[:end])); err == nil {
			return seq, at, nil
		}
	}
	e, err := parse(text) // written by something else, perhaps
	return e.Seq, e.Time, err
}

// Quote is a name or an id as it stands in a line, with its quotes: cut, and with what does not print escaped.
func Quote(name string) []byte { return appendText(nil, name, shortText) }
