package configure

import (
	"errors"
	"fmt"
	"strings"
)

// quoteTOML writes a basic string. TOML's escapes are JSON's.
func quoteTOML(s string) string { return quoteJSON(s) }

// tomlLine is one line, as far as its place matters.
type tomlLine struct {
	text   string
	inside bool   // of a value that began on a line before
	table  string // the header that stands on it, without brackets and spaces; "" if none
	key    string // the key that it sets, without spaces; "" if none
}

// readTOML finds headers and keys, and what is merely the rest of a value.
func readTOML(text string) ([]tomlLine, error) {
	var lines []tomlLine
	v := tomlValue{}
	for _, raw := range strings.SplitAfter(text, "\n") {
		if raw == "" {
			continue
		}
		l := tomlLine{text: raw, inside: v.open()}
		bare := strings.TrimSpace(raw)
		switch {
		case l.inside:
			v.read(raw)
		case bare == "" || bare[0] == '#':
		case bare[0] == '[':
			header, _, _ := strings.Cut(bare, "#")
			l.table = strings.Map(dropSpace, strings.Trim(header, "[] \t\r"))
		default:
			key, value, ok := strings.Cut(bare, "=")
			if !ok {
				return nil, errors.New("the file is not TOML as we read it")
			}
			l.key = strings.Map(dropSpace, key)
			v.read(value)
		}
		lines = append(lines, l)
	}
	if v.open() {
		return nil, errors.New("the file ends within a value")
	}
	return lines, nil
}

func dropSpace(r rune) rune {
	if r == ' ' || r == '\t' || r == '"' || r == '\'' {
		return -1 // quoted keys of ours need no quotes
	}
	return r
}

// tomlValue follows a value over lines.
type tomlValue struct {
	quote string // that ends the string of several lines we are in
	depth int    // of brackets
}

func (v *tomlValue) open() bool { return v.quote != "" || v.depth > 0 }

func (v *tomlValue) read(line string) {
	for i := 0; i < len(line); {
		rest := line[i:]
		switch {
		case v.quote != "":
			if v.quote[0] == '"' && rest[0] == '\\' {
				i += 2
				continue
			}
			if strings.HasPrefix(rest, v.quote) {
				i += len(v.quote)
				v.quote = ""
				continue
			}
		case strings.HasPrefix(rest, `"""`) || strings.HasPrefix(rest, `'''`):
			v.quote = rest[:3]
			i += 3
			continue
		case rest[0] == '"' || rest[0] == '\'':
			v.quote = rest[:1]
		case rest[0] == '#':
			return
		case rest[0] == '[' || rest[0] == '{':
			v.depth++
		case rest[0] == ']' || rest[0] == '}':
			v.depth--
		}
		i++
	}
	if len(v.quote) == 1 {
		v.quote = "" // such a string ends with its line
	}
}

func joinTOML(lines []tomlLine) string {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(l.text)
	}
	return b.String()
}

// setTOMLKey sets a key that stands before the first table.
func setTOMLKey(text, key, value string) (string, error) {
	lines, err := readTOML(text)
	if err != nil {
		return "", err
	}
	want := tomlLine{text: key + " = " + value + "\n"}
	last := 0 // behind the last key
	for i, l := range lines {
		if l.table != "" {
			break
		}
		if l.key == key {
			end := i + 1
			for end < len(lines) && lines[end].inside {
				end++
			}
			return joinTOML(lines[:i]) + want.text + joinTOML(lines[end:]), nil
		}
		if l.key != "" || l.inside {
			last = i + 1
		}
	}
	before, after := joinTOML(lines[:last]), joinTOML(lines[last:])
	if before != "" && !strings.HasSuffix(before, "\n") {
		before += "\n"
	}
	if before == "" && after != "" && !strings.HasPrefix(after, "\n") {
		after = "\n" + after
	}
	return before + want.text + after, nil
}

// setTOMLTable writes a table that is ours alone.
func setTOMLTable(text string, path []string, body []string) (string, error) {
	lines, err := readTOML(text)
	if err != nil {
		return "", err
	}
	name := strings.Join(path, ".")
	table := "[" + name + "]\n" + strings.Join(body, "\n") + "\n"
	at := ""
	for i, l := range lines {
		if at == "" && (l.key == path[0] || strings.HasPrefix(l.key, path[0]+".")) || at == path[0] && (l.key == path[1] || strings.HasPrefix(l.key, path[1]+".")) {
			return "", fmt.Errorf("%s is not written as tables of its own: add [%s] by hand", path[0], name)
		}
		if l.table == "" {
			continue
		}
		if at = l.table; l.table != name {
			continue
		}
		end := i + 1
		for end < len(lines) && lines[end].table == "" && (lines[end].key != "" || lines[end].inside) {
			end++
		}
		return joinTOML(lines[:i]) + table + joinTOML(lines[end:]), nil
	}
	text = joinTOML(lines)
	if text != "" {
		text = strings.TrimRight(text, "\n") + "\n\n"
	}
	return text + table, nil
}
