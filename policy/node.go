package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Bounds of a grants file. The file is the operator's own, so they guard
// against accidents (a log file in its place), not against an attacker.
const (
	maxGrantsFile  = 4 << 20 // some 20,000 grants
	maxParseErrors = 20      // more would scroll the first one away
	maxNesting     = 200     // a grants file needs five levels; comments may hold stray brackets
)

// ParseError is a mistake in a grants file and where it stands.
type ParseError struct {
	File      string
	Line, Col int // from 1; 0: the file as a whole
	Message   string
}

func (e *ParseError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Message)
}

// reader walks YAML nodes and gathers every mistake with its position.
type reader struct {
	file  string
	empty string // what an empty file would mean
	errs  []error
}

// document parses the file into its root node. Anchors, aliases, tags and merge
// keys have no use in a list of rights and hide what it says; they are refused.
func (r *reader) document(data []byte) (root ast.Node) {
	// The YAML parser has panicked on malformed input before. A broken file must
	// never end the process that watches it.
	defer func() {
		if p := recover(); p != nil {
			root = nil
			r.errs = append(r.errs, &ParseError{File: r.file, Message: fmt.Sprintf("malformed YAML (%v)", p)})
		}
	}()
	if len(data) > maxGrantsFile {
		r.errs = append(r.errs, &ParseError{File: r.file, Message: fmt.Sprintf("%d bytes are more than %d", len(data), maxGrantsFile)})
		return nil
	}
	if deeplyNested(data) {
		r.errs = append(r.errs, &ParseError{File: r.file, Message: "nested too deeply to be a grants file"})
		return nil
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		r.syntax(err)
		return nil
	}
	var bodies []ast.Node
	for _, doc := range file.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.NullType && doc.Body.Type() != ast.CommentType {
			bodies = append(bodies, doc.Body)
		}
	}
	switch {
	case len(bodies) == 0:
		r.errs = append(r.errs, &ParseError{File: r.file, Message: "the file is empty: " + r.empty})
		return nil
	case len(bodies) > 1:
		r.fail(bodies[1], "a second YAML document: put all grants into one")
		return nil
	}
	return bodies[0]
}

// deeplyNested looks for brackets and block indicators beyond any sensible depth,
// because the parser's time grows with the square of it.
func deeplyNested(data []byte) bool {
	depth, indicators := 0, 0
	for i, b := range data {
		switch b {
		case '[', '{':
			depth++
		case ']', '}':
			depth = max(0, depth-1)
		case '\n':
			indicators = 0
		case '-', '?', ':':
			if i+1 < len(data) && (data[i+1] == ' ' || data[i+1] == '\t') {
				indicators++
			}
		}
		if depth > maxNesting || indicators > maxNesting {
			return true
		}
	}
	return false
}

// syntax takes line, column and message out of the parser's error.
func (r *reader) syntax(err error) {
	out := &ParseError{File: r.file, Message: strings.TrimSpace(err.Error())}
	var located yaml.Error
	if errors.As(err, &located) {
		out.Message = located.GetMessage()
		if t := located.GetToken(); t != nil && t.Position != nil {
			out.Line, out.Col = t.Position.Line, t.Position.Column
		}
	}
	r.errs = append(r.errs, out)
}

func (r *reader) fail(n ast.Node, format string, args ...any) {
	e := &ParseError{File: r.file, Message: fmt.Sprintf(format, args...)}
	e.Line, e.Col = position(n)
	r.errs = append(r.errs, e)
}

// position is where a node begins. A block mapping's own token is the colon
// behind its first key, so the key is asked instead.
func position(n ast.Node) (line, col int) {
	switch m := n.(type) {
	case *ast.MappingNode:
		if !m.IsFlowStyle && len(m.Values) > 0 {
			return position(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(m.Key)
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line, t.Position.Column
	}
	return 0, 0
}

// err joins what was found, the first twenty of it.
func (r *reader) err() error {
	if more := len(r.errs) - maxParseErrors; more > 0 {
		r.errs = append(r.errs[:maxParseErrors], fmt.Errorf("%s: and %d more", r.file, more))
	}
	return errors.Join(r.errs...)
}

// mapping returns the values of a mapping by key; a key that is not known or
// stands twice is a mistake.
func (r *reader) mapping(n ast.Node, what string, known []string) map[string]ast.Node {
	return r.keyed(n, what, func(key *ast.StringNode) bool {
		if slices.Contains(known, key.Value) {
			return true
		}
		r.fail(key, "unknown key %q in %s%s", key.Value, what, hint(key.Value, known))
		return false
	})
}

// entries is mapping for keys that are names of the operator's own.
func (r *reader) entries(n ast.Node, what string) map[string]ast.Node {
	return r.keyed(n, what, func(*ast.StringNode) bool { return true })
}

func (r *reader) keyed(n ast.Node, what string, known func(*ast.StringNode) bool) map[string]ast.Node {
	var entries []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		entries = m.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{m}
	default:
		r.fail(n, "%s must be a mapping, not a %s", what, kindOf(n))
		return nil
	}
	values := make(map[string]ast.Node, len(entries))
	for _, entry := range entries {
		key, isText := entry.Key.(*ast.StringNode)
		switch {
		case !isText:
			r.fail(entry.Key, "%s: a key must be a plain word, not a %s", what, kindOf(entry.Key))
		case !known(key):
		case values[key.Value] != nil:
			r.fail(key, "%s: key %q stands twice", what, key.Value)
		default:
			values[key.Value] = entry.Value
		}
	}
	return values
}

// isEmptyList recognises [], written out.
func isEmptyList(n ast.Node) bool {
	list, isList := n.(*ast.SequenceNode)
	return isList && len(list.Values) == 0
}

// list returns the entries of a list that may be empty.
func (r *reader) list(n ast.Node, what string) []ast.Node {
	if isEmptyList(n) {
		return nil
	}
	return r.sequence(n, what)
}

// sequence returns the entries of a list; an empty one is a mistake, because it
// reads like "none" to one person and like "any" to the next.
func (r *reader) sequence(n ast.Node, what string) []ast.Node {
	list, isList := n.(*ast.SequenceNode)
	if !isList {
		r.fail(n, "%s must be a list, not a %s", what, kindOf(n))
		return nil
	}
	if len(list.Values) == 0 {
		r.fail(n, "%s must not be empty", what)
	}
	return list.Values
}

// text returns a string. Numbers and booleans are not turned into one: 1.10
// would become 1.1 and yes would become true.
func (r *reader) text(n ast.Node, what string) (string, bool) {
	s, isText := n.(*ast.StringNode)
	if !isText {
		r.fail(n, "%s must be a text, not a %s: put it into quotes", what, kindOf(n))
		return "", false
	}
	return s.Value, true
}

// integer returns a whole number from low to high.
func (r *reader) integer(n ast.Node, what string, low, high int) int {
	number, isNumber := n.(*ast.IntegerNode)
	if !isNumber {
		r.fail(n, "%s must be a whole number, not a %s", what, kindOf(n))
		return 0
	}
	switch v := number.Value.(type) {
	case int64:
		if v >= int64(low) && v <= int64(high) {
			return int(v)
		}
	case uint64:
		if v >= uint64(low) && v <= uint64(high) {
			return int(v)
		}
	}
	r.fail(n, "%s must be from %d to %d", what, low, high)
	return 0
}

// oneOf returns a word of a closed list.
func (r *reader) oneOf(n ast.Node, what string, known ...string) string {
	word, ok := r.text(n, what)
	if ok && !slices.Contains(known, word) {
		r.fail(n, "%s: %q is not one of %s%s", what, word, strings.Join(known, ", "), hint(word, known))
	}
	return word
}

func (r *reader) boolean(n ast.Node, what string) bool {
	b, isBool := n.(*ast.BoolNode)
	if !isBool {
		r.fail(n, "%s must be true or false, not a %s", what, kindOf(n))
		return false
	}
	return b.Value
}

// kindOf names a node for a person.
func kindOf(n ast.Node) string {
	switch n.Type() {
	case ast.NullType:
		return "missing value"
	case ast.IntegerType, ast.FloatType, ast.InfinityType, ast.NanType:
		return "number"
	case ast.BoolType:
		return "true or false"
	case ast.MappingType, ast.MappingValueType:
		return "mapping"
	case ast.SequenceType:
		return "list"
	case ast.AliasType, ast.AnchorType:
		return "YAML alias or anchor"
	case ast.TagType:
		return "YAML tag"
	case ast.MergeKeyType:
		return "YAML merge key"
	case ast.LiteralType:
		return "block text"
	}
	return "text"
}
