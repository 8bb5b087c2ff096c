package modelapi

import (
	"iter"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Here are single values of canonical JSON, read where they stand and written anew.

// skipValue returns where the value that begins at pos of canonical JSON ends.
func skipValue(data []byte, pos int) int {
	w := walker{data: data, pos: pos}
	for depth := 0; ; {
		switch data[w.pos] {
		case '{', '[':
			depth++
			w.pos++
		case '}', ']':
			depth--
			w.pos++
		case '"':
			w.skipString()
		case ',', ':':
			w.pos++
		default:
			_ = w.value(1) // a number or a literal
		}
		if depth == 0 {
			return w.pos
		}
	}
}

// elementsOf goes through the elements of a canonical array.
func elementsOf(raw []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for pos := 1; raw[pos] != ']'; {
			end := skipValue(raw, pos)
			if !yield(raw[pos:end]) {
				return
			}
			if pos = end; raw[pos] == ',' {
				pos++
			}
		}
	}
}

// objectOf reads a canonical object.
func objectOf(raw []byte) *document {
	doc := &document{data: raw, object: true}
	w := walker{data: raw, members: &doc.members}
	_ = w.value(1) // it was walked before
	return doc
}

// memberOf finds a value in a canonical object; nil if it is not there.
func memberOf(raw []byte, name string) []byte { return objectOf(raw).lookup(name) }

// stringValue unquotes a raw JSON string; ok is false for any other kind of value.
func stringValue(raw []byte) (value string, ok bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	out, err := jsontext.AppendUnquote(nil, raw)
	return string(out), err == nil
}

// isAbsent says whether a raw value that may name something names nothing: it is not there, null or an empty text.
func isAbsent(raw []byte) bool {
	return len(raw) == 0 || string(raw) == "null" || string(raw) == `""`
}

// saysNothing says whether a value is one that clients generated from a schema send for "not set".
func saysNothing(raw []byte) bool {
	switch string(raw) {
	case "null", "false", `""`, "{}", "[]":
		return true
	}
	return false
}

// isObject says whether a value holds something by name: an object, or a list of them.
func isObject(raw []byte) bool { return raw[0] == '{' || raw[0] == '[' && len(raw) > 2 }

// object joins names and values that are JSON already.
func object(pairs ...string) []byte {
	out := []byte{'{'}
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, quote(pairs[i])...), ':'), pairs[i+1]...)
	}
	return append(out, '}')
}

func quote(s string) string {
	out, err := jsontext.AppendQuote(nil, strings.ToValidUTF8(s, "\ufffd"))
	if err != nil {
		return `""`
	}
	return string(out)
}

// text is a JSON string; nil for an empty one.
func text(s string) []byte {
	if s == "" {
		return nil
	}
	return []byte(quote(s))
}

func number(n int64) []byte { return strconv.AppendInt(nil, n, 10) }
