package modelapi

import (
	"net/url"
	"strings"
)

// maxPath bounds the raw path of a request to a model server: its longest route plus its longest model name.
const maxPath = 1024

// checkPath refuses a raw path that two decoders could read differently. It cleans nothing.
func checkPath(path string) error {
	if len(path) == 0 || path[0] != '/' || len(path) > maxPath {
		return errPath()
	}
	for i := range len(path) {
		if !pathByte(path[i]) && path[i] != '/' && path[i] != '%' {
			return errPath()
		}
	}
	for i, segment := range strings.Split(path[1:], "/") {
		empty := segment == "" && i < strings.Count(path, "/")-1 // a trailing slash is merely another path
		if empty || segment == "." || segment == ".." {
			return errPath()
		}
	}
	return nil
}

func errPath() error {
	return &Error{400, "path_ambiguous", "the path can be read in two ways; write it plainly"}
}

// pathByte says which bytes stand for themselves in a segment, with every decoder: no ";", no backslash, no "#".
func pathByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return strings.IndexByte("-._~:@+", c) >= 0
}

// decodeParameter undoes percent-encoding where it may stand, in a path parameter. What comes out must be made of
// bytes that need none; slashes only if the parameter may have several segments.
func decodeParameter(raw string, slashes bool) (string, bool) {
	value := raw
	if strings.IndexByte(raw, '%') >= 0 {
		var err error
		if value, err = url.PathUnescape(raw); err != nil {
			return "", false
		}
	}
	return value, validParameter(value, slashes)
}

// validParameter says whether a path can have value in it as it is.
func validParameter(value string, slashes bool) bool {
	for i := range len(value) {
		if !pathByte(value[i]) && (value[i] != '/' || !slashes) {
			return false
		}
	}
	for segment := range strings.SplitSeq(value, "/") {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// pattern is a route's path with parameters: ":name", "{name}", "{name:path}", "{name...}" or a last "*".
type pattern struct {
	segments []segment
	open     bool // the last one takes what remains, slashes included
	wild     bool // it ends in "*": nobody has read what is below
}

// segment is a literal, or a parameter if name is set.
type segment struct {
	literal, name string
}

// parsePattern returns nil for a path without parameters.
func parsePattern(path string) *pattern {
	p := &pattern{}
	parameters := 0
	for part := range strings.SplitSeq(strings.TrimPrefix(path, "/"), "/") {
		s := segment{literal: part}
		switch {
		case part == "*":
			s, p.open, p.wild = segment{name: "rest"}, true, true
		case strings.HasPrefix(part, ":"):
			s = segment{name: part[1:]}
		case strings.HasPrefix(part, "{") && strings.HasSuffix(part, "}"):
			name, kind, _ := strings.Cut(part[1:len(part)-1], ":")
			name, rest := strings.CutSuffix(name, "...")
			s, p.open = segment{name: name}, kind == "path" || rest
		}
		if s.name != "" {
			parameters++
		}
		p.segments = append(p.segments, s)
	}
	if parameters == 0 {
		return nil
	}
	return p
}

// match returns the decoded parameters by name; ok is false if path is not of this pattern.
func (p *pattern) match(path string) (values map[string]string, ok bool) {
	limit := -1
	if p.open {
		limit = len(p.segments)
	}
	parts := strings.SplitN(path[1:], "/", limit)
	if len(parts) != len(p.segments) {
		return nil, false
	}
	values = make(map[string]string, 1)
	for i, s := range p.segments {
		if s.name == "" {
			if parts[i] != s.literal {
				return nil, false
			}
			continue
		}
		if values[s.name], ok = decodeParameter(parts[i], p.open && i == len(p.segments)-1); !ok {
			return nil, false
		}
	}
	return values, true
}

// build writes the canonical path for values. They are made of bytes that need no encoding.
func (p *pattern) build(values map[string]string) string {
	var b strings.Builder
	for _, s := range p.segments {
		b.WriteByte('/')
		b.WriteString(s.literal)
		b.WriteString(values[s.name])
	}
	return b.String()
}
