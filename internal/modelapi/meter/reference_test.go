package meter

import (
	"bytes"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"iap/internal/modelapi"
)

// The reference does the slow way what the meter does in passing: whole messages, a real JSON parser, no state.

// withoutUsage is what Feed must come to: an event whose data is an object with an empty list of choices and an object
// of usage, and no error, is gone from its first field line to its blank line.
func withoutUsage(stream string) string {
	var out strings.Builder
	for _, e := range eventsOf(stream) {
		out.WriteString(e.before)
		if !e.isUsage() {
			out.WriteString(e.lines)
		}
	}
	return out.String()
}

// sseEvent is one event of a stream, with what stands before it and is none.
type sseEvent struct {
	before, lines, data string
	failed              bool
}

func eventsOf(stream string) []sseEvent {
	var events []sseEvent
	var e sseEvent
	for line := range strings.SplitAfterSeq(stream, "\n") {
		field, whole := strings.CutSuffix(line, "\n")
		field = strings.TrimSuffix(field, "\r")
		switch {
		case e.lines == "" && (line == "" || strings.ContainsRune(":\r\n", rune(line[0]))):
			e.before += line
			continue
		case field == "" && whole:
			e.lines += line
			events = append(events, e)
			e = sseEvent{}
			continue
		}
		e.lines += line
		if value, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "data:"); ok {
			e.data += value + "\n"
		}
		e.failed = e.failed || whole && (field == "event: error" || field == "event:error")
	}
	return append(events, e)
}

func (e *sseEvent) isUsage() bool {
	if e.failed || !jsontext.Value(e.data).IsValid() {
		return false
	}
	members := membersOf([]byte(e.data))
	return string(compact(members["choices"])) == "[]" && strings.HasPrefix(string(members["usage"]), "{") && !isFailure(members["error"]) &&
		!isFailure(membersOf(members["response"])["error"])
}

func isFailure(value []byte) bool {
	return len(value) > 0 && strings.ContainsRune(`{["`, rune(value[0]))
}

func compact(value []byte) []byte {
	v := jsontext.Value(bytes.Clone(value))
	if v.Compact() != nil {
		return nil
	}
	return v
}

// membersOf gives the raw values of a valid object by their names, nil for anything else.
func membersOf(object []byte) map[string][]byte {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if d.PeekKind() != '{' {
		return nil
	}
	_, _ = d.ReadToken()
	members := map[string][]byte{}
	for d.PeekKind() != '}' {
		name, _ := d.ReadToken()
		key := name.String()
		value, err := d.ReadValue()
		if err != nil {
			return members
		}
		members[key] = bytes.Clone(value)
	}
	return members
}

// countsOf is what a valid plain answer must be counted as.
func countsOf(c modelapi.Class, answer []byte) counts {
	out := newCounts(&c, 200)
	out.bytes = int64(len(answer))
	var e event
	answer = bytes.TrimSpace(answer)
	e.begin(top, answer[0], 0)
	if answer[0] != '[' {
		e.describe(top, answer, 0)
	}
	for _, item := range elementsOf(answer) {
		e.begin(top, item[0], 1)
		e.describe(top, item, 1)
		if isContainer(item) {
			out.take(&e)
			e.nextItem()
		}
	}
	out.take(&e)
	return out
}

func isContainer(value []byte) bool { return value[0] == '{' || value[0] == '[' }

// describe notes what a value at n says, and the values in it.
func (e *event) describe(n node, value []byte, depth int) {
	goes := depth < maxDepth && (value[0] == '{' && traits[n]&isObject != 0 || value[0] == '[' && elements[n] != none)
	switch {
	case value[0] == '"':
		raw := value[1 : len(value)-1]
		if traits[n]&isKept != 0 && len(raw) <= maxKept {
			e.string(n, raw)
		}
		if traits[n]&isText != 0 && len(raw) > 0 {
			e.generated(n, int64(len(raw)))
		}
	case !isContainer(value):
		if n >= firstNumber {
			e.number(n, value)
		}
	case !goes:
		e.container(n, int64(len(value)))
	case value[0] == '[':
		for _, element := range elementsOf(value) {
			e.begin(elements[n], element[0], depth+1)
			e.describe(elements[n], element, depth+1)
		}
	default:
		for _, m := range orderedMembers(value) {
			inner := child(n, m.name)
			e.begin(inner, m.value[0], depth+1)
			e.describe(inner, m.value, depth+1)
		}
	}
}

func elementsOf(value []byte) [][]byte {
	if value[0] != '[' {
		return nil
	}
	d := jsontext.NewDecoder(bytes.NewReader(value), jsontext.AllowDuplicateNames(true))
	_, _ = d.ReadToken()
	var out [][]byte
	for d.PeekKind() != ']' {
		element, err := d.ReadValue()
		if err != nil {
			return out
		}
		out = append(out, bytes.Clone(element))
	}
	return out
}

type orderedMember struct{ name, value []byte }

// orderedMembers gives the members of a valid object as they stand, names raw.
func orderedMembers(object []byte) []orderedMember {
	d := jsontext.NewDecoder(bytes.NewReader(object), jsontext.AllowDuplicateNames(true))
	_, _ = d.ReadToken()
	var out []orderedMember
	for d.PeekKind() != '}' {
		name, err := d.ReadValue()
		if err != nil {
			return out
		}
		name = bytes.Clone(name[1 : len(name)-1])
		value, err := d.ReadValue()
		if err != nil {
			return out
		}
		out = append(out, orderedMember{name, bytes.Clone(value)})
	}
	return out
}
