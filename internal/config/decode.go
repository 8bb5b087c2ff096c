package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
)

// maxFileBytes bounds a configuration file: far above any real one, far below
// what a mistaken path (a device, a log) could make the process read.
const maxFileBytes = 1 << 20

// Error is a mistake in a configuration file. Line is 0 when the mistake has
// no single place.
type Error struct {
	File string
	Line int
	Text string
	Hint string // what to do about it; may be empty
}

func (e *Error) Error() string {
	place := e.File
	if e.Line > 0 {
		place = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Hint == "" {
		return place + ": " + e.Text
	}
	return place + ": " + e.Text + " (" + e.Hint + ")"
}

// Load reads file and decodes it into v as Decode does.
func Load(file string, v any) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return &Error{File: file, Text: "no such file"}
	}
	if err != nil {
		return &Error{File: file, Text: reason(err)}
	}
	defer f.Close()
	var data bytes.Buffer
	if n, err := data.ReadFrom(limited(f)); err != nil {
		return &Error{File: file, Text: reason(err)}
	} else if n > maxFileBytes {
		return &Error{File: file, Text: fmt.Sprintf("larger than %d bytes", maxFileBytes)}
	}
	return Decode(file, data.Bytes(), v)
}

// Decode fills v, a pointer to a struct with yaml tags, from data. Unknown
// keys, duplicate keys and values of the wrong type are errors of type *Error.
// An empty document is an error as well: a truncated file must never read as
// "everything at its default".
func Decode(file string, data []byte, v any) error {
	if len(bytes.TrimSpace(data)) == 0 {
		return &Error{File: file, Text: "the file is empty"}
	}
	err := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict()).Decode(v)
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) { // from a value of ours, such as Duration
		e.File = file
		return e
	}
	e = &Error{File: file, Text: err.Error()}
	var yamlErr yaml.Error
	if errors.As(err, &yamlErr) {
		e.Text = yamlErr.GetMessage()
		if token := yamlErr.GetToken(); token != nil && token.Position != nil {
			e.Line = token.Position.Line
		}
	}
	if m := unknownField.FindStringSubmatch(e.Text); m != nil {
		e.Text = fmt.Sprintf("unknown key %q", m[1])
		if near := Nearest(m[1], keysOf(reflect.TypeOf(v), map[reflect.Type]bool{})); near != "" {
			e.Hint = fmt.Sprintf("did you mean %q?", near)
		}
	}
	if m := wrongType.FindStringSubmatch(e.Text); m != nil {
		e.Text = fmt.Sprintf("%s stands where %s belongs", kindWord(m[1]), kindWord(m[2]))
	}
	return e
}

var wrongType = regexp.MustCompile(`^cannot unmarshal (.+) into Go (?:struct field|value)(?: \S+)? of type (.+)$`)

// kindWord says in words what the decoder says in Go's types.
func kindWord(kind string) string {
	switch {
	case strings.HasPrefix(kind, "[]"):
		return "a list"
	case strings.HasPrefix(kind, "map["), strings.Contains(kind, "."):
		return "a mapping"
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"), strings.HasPrefix(kind, "float"):
		return "a number"
	case kind == "bool":
		return "true or false"
	case kind == "string":
		return "a text"
	}
	return kind
}

var unknownField = regexp.MustCompile(`^unknown field "([^"]+)"`)

// keysOf collects every yaml key below t.
func keysOf(t reflect.Type, seen map[reflect.Type]bool) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return nil
	}
	seen[t] = true
	var keys []string
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if name != "" && name != "-" {
			keys = append(keys, name)
		}
		keys = append(keys, keysOf(t.Field(i).Type, seen)...)
	}
	return keys
}

// Nearest returns the candidate closest to word by edit distance, or "" when
// none is close enough to be what was meant.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", max(2, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(word, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the Levenshtein distance of two short words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
