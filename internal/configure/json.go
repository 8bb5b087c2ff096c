package configure

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

var errJSON = errors.New("the file is not JSON as we read it")

const (
	maxDepth   = 64
	indentUnit = "  "
)

func quoteJSON(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return `""` // a string always encodes
	}
	return strings.TrimSpace(b.String())
}

// setJSON sets the value at path, making the objects on the way. Comments, order and spacing of all else stay.
func setJSON(text string, path []string, value string) (string, error) {
	if strings.TrimSpace(text) == "" {
		text = "{}\n"
	}
	s := &jsonScanner{text: text}
	s.space()
	start := s.at
	if err := s.value(0); err != nil {
		return "", err
	}
	if s.space(); s.at != len(text) {
		return "", errJSON
	}
	for depth, name := range path {
		o, err := readObject(text, start)
		if err != nil {
			return "", fmt.Errorf("%s: %w", strings.Join(path[:depth], "."), err)
		}
		found, err := o.find(name)
		if err != nil {
			return "", err
		}
		if found == nil {
			return o.insert(path[depth:], value, depth+1), nil
		}
		if depth == len(path)-1 {
			return text[:found.start] + value + text[found.end:], nil
		}
		start = found.start
	}
	return text, nil
}

// hasJSON reports whether the document has a member of this name. The text is one that setJSON returned.
func hasJSON(text, name string) bool {
	s := &jsonScanner{text: text}
	s.space()
	o, err := readObject(text, s.at)
	if err != nil {
		return false
	}
	found, err := o.find(name)
	return err == nil && found != nil
}

// jsonMember is one member of an object: its name, and where its value stands.
type jsonMember struct {
	name       string
	start, end int
}

// jsonObject is an object in its text.
type jsonObject struct {
	text       string
	start, end int // of the braces; end is behind the closing one
	members    []jsonMember
	comma      bool // behind the last member
}

func (o *jsonObject) find(name string) (*jsonMember, error) {
	var found *jsonMember
	for i := range o.members {
		if o.members[i].name != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%q stands twice in the file", name)
		}
		found = &o.members[i]
	}
	return found, nil
}

// insert adds the last member of an object, as the others are written: each on a line of its own, or all on one.
func (o *jsonObject) insert(path []string, value string, depth int) string {
	inner := o.text[o.start+1 : o.end-1]
	oneLine := len(o.members) > 0 && !strings.Contains(inner, "\n")
	member := quoteJSON(path[0]) + ": " + nest(path[1:], value, depth, oneLine)
	if len(o.members) == 0 && strings.TrimSpace(inner) == "" {
		return o.text[:o.start] + "{\n" + strings.Repeat(indentUnit, depth) + member + "\n" + strings.Repeat(indentUnit, depth-1) + "}" + o.text[o.end:]
	}
	at, before := o.start+1, ""
	if n := len(o.members); n > 0 {
		at = o.members[n-1].end
		if before = ","; o.comma {
			s := &jsonScanner{text: o.text, at: at}
			s.space()
			at, before = s.at+1, "" // behind the comma that is there
		}
	}
	if oneLine {
		return o.text[:at] + before + " " + member + o.text[at:]
	}
	return o.text[:at] + before + "\n" + o.indent(depth) + member + o.text[at:]
}

// indent is how the object's members are indented.
func (o *jsonObject) indent(depth int) string {
	if len(o.members) == 0 {
		return strings.Repeat(indentUnit, depth)
	}
	at := o.members[0].start
	line := o.text[strings.LastIndexByte(o.text[:at], '\n')+1 : at]
	return line[:len(line)-len(strings.TrimLeft(line, " \t"))]
}

// nest is the value within the objects of path.
func nest(path []string, value string, depth int, oneLine bool) string {
	if len(path) == 0 {
		return value
	}
	inner := quoteJSON(path[0]) + ": " + nest(path[1:], value, depth+1, oneLine)
	if oneLine {
		return "{ " + inner + " }"
	}
	return "{\n" + strings.Repeat(indentUnit, depth+1) + inner + "\n" + strings.Repeat(indentUnit, depth) + "}"
}

// jsonScanner walks over JSON with comments and trailing commas.
type jsonScanner struct {
	text string
	at   int
}

func (s *jsonScanner) peek() byte {
	if s.at < len(s.text) {
		return s.text[s.at]
	}
	return 0
}

// space skips white space and comments.
func (s *jsonScanner) space() {
	for s.at < len(s.text) {
		rest := s.text[s.at:]
		switch {
		case strings.ContainsRune(" \t\r\n", rune(rest[0])):
			s.at++
		case strings.HasPrefix(rest, "\ufeff"):
			s.at += len("\ufeff")
		case strings.HasPrefix(rest, "//"):
			if end := strings.IndexByte(rest, '\n'); end >= 0 {
				s.at += end
			} else {
				s.at = len(s.text)
			}
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest, "*/")
			if end < 0 {
				return // what follows is no value
			}
			s.at += end + 2
		default:
			return
		}
	}
}

// text of a string literal, unquoted.
func (s *jsonScanner) str() (string, error) {
	start := s.at
	if s.peek() != '"' {
		return "", errJSON
	}
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			s.at++
			var out string
			if json.Unmarshal([]byte(s.text[start:s.at]), &out) != nil {
				return "", errJSON
			}
			return out, nil
		}
	}
	return "", errJSON
}

// value skips one value.
func (s *jsonScanner) value(depth int) error {
	if depth > maxDepth {
		return errJSON
	}
	switch s.peek() {
	case '"':
		_, err := s.str()
		return err
	case '{', '[':
		return s.members(depth, s.peek() == '{', func(jsonMember) {}, func() {})
	}
	start := s.at
	for s.at < len(s.text) && !strings.ContainsRune(",]} \t\r\n/", rune(s.text[s.at])) {
		s.at++
	}
	if !json.Valid([]byte(s.text[start:s.at])) {
		return errJSON
	}
	return nil
}

// members walks over an object's or array's members.
func (s *jsonScanner) members(depth int, named bool, each func(jsonMember), trailing func()) error {
	closing := byte(']')
	if named {
		closing = '}'
	}
	s.at++
	for first := true; ; first = false {
		s.space()
		if s.peek() == closing {
			if !first {
				trailing()
			}
			s.at++
			return nil
		}
		var m jsonMember
		if named {
			var err error
			if m.name, err = s.str(); err != nil {
				return err
			}
			if s.space(); s.peek() != ':' {
				return errJSON
			}
			s.at++
			s.space()
		}
		m.start = s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		m.end = s.at
		each(m)
		s.space()
		switch s.peek() {
		case ',':
			s.at++
		case closing:
			s.at++
			return nil
		default:
			return errJSON
		}
	}
}

func readObject(text string, start int) (*jsonObject, error) {
	s := &jsonScanner{text: text, at: start}
	if s.peek() != '{' {
		return nil, errors.New("what stands there is no object")
	}
	o := &jsonObject{text: text, start: start}
	if err := s.members(0, true, func(m jsonMember) { o.members = append(o.members, m) }, func() { o.comma = true }); err != nil {
		return nil, err
	}
	o.end = s.at
	return o, nil
}
