package configure

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
)

// setYAMLItem puts a mapping into the list that stands under key at the top. An item of the same first field is replaced.
func setYAMLItem(text, key string, fields [][2]string) (string, error) {
	var before map[string]any
	if err := yaml.Unmarshal([]byte(text), &before); err != nil {
		return "", errors.New("the file is not YAML as we read it")
	}
	if strings.ContainsRune(text, '\t') || strings.HasPrefix(strings.TrimSpace(text), "{") {
		return "", errors.New("the file is not written in lines of YAML: add the entry by hand")
	}
	lines := strings.SplitAfter(text, "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	} else {
		lines[last] += "\n"
	}
	out, err := putItem(lines, key, fields)
	if err != nil {
		return "", err
	}
	return out, checkItem(before, out, key, fields)
}

// putItem finds the list's lines by their indentation.
func putItem(lines []string, key string, fields [][2]string) (string, error) {
	head := -1
	for i, l := range lines {
		if strings.HasPrefix(l, key+":") {
			head = i
		}
	}
	if head < 0 {
		return strings.Join(lines, "") + key + ":\n" + yamlItem("  ", fields), nil
	}
	if rest, _, _ := strings.Cut(strings.TrimPrefix(lines[head], key+":"), "#"); strings.TrimSpace(rest) == "[]" {
		lines[head] = key + ":\n"
	} else if strings.TrimSpace(rest) != "" {
		return "", fmt.Errorf("%s is not written as a list of lines: add the entry by hand", key)
	}
	indent, end, at, until := "  ", head+1, -1, -1 // end is behind the list's last line
	seen := false
	for i := head + 1; i < len(lines); i++ {
		bare := strings.TrimLeft(lines[i], " ")
		margin := lines[i][:len(lines[i])-len(bare)]
		if strings.TrimSpace(bare) == "" || bare[0] == '#' {
			continue
		}
		isItem := strings.HasPrefix(bare, "- ") || strings.TrimSpace(bare) == "-"
		if margin == "" && !isItem {
			break // the next key of the file
		}
		if !seen && isItem {
			indent, seen = margin, true
		}
		if isItem && margin == indent {
			if at >= 0 && until < 0 {
				until = i
			}
			if isNamed(bare, fields[0]) {
				at = i
			}
		}
		end = i + 1
	}
	if at < 0 {
		return strings.Join(lines[:end], "") + yamlItem(indent, fields) + strings.Join(lines[end:], ""), nil
	}
	if until < 0 {
		until = end
	}
	return strings.Join(lines[:at], "") + yamlItem(indent, fields) + strings.Join(lines[until:], ""), nil
}

// isNamed reports whether a list's item begins with this field.
func isNamed(item string, field [2]string) bool {
	var one []map[string]any
	return yaml.Unmarshal([]byte(item), &one) == nil && len(one) == 1 && one[0][field[0]] == field[1]
}

func yamlItem(indent string, fields [][2]string) string {
	var b strings.Builder
	lead := indent + "- "
	for _, f := range fields {
		b.WriteString(lead + f[0] + ": " + quoteJSON(f[1]) + "\n") // a JSON string is one of YAML
		lead = indent + "  "
	}
	return b.String()
}

// checkItem reads the result back: all else must mean what it meant before.
func checkItem(before map[string]any, text, key string, fields [][2]string) error {
	var after map[string]any
	if err := yaml.Unmarshal([]byte(text), &after); err != nil {
		return errors.New("the file is written in a way we do not edit: add the entry by hand")
	}
	want := map[string]any{}
	for _, f := range fields {
		want[f[0]] = f[1]
	}
	named := func(item any) bool {
		m, ok := item.(map[string]any)
		return ok && m[fields[0][0]] == fields[0][1]
	}
	var others, kept []any
	old, _ := before[key].([]any)
	now, _ := after[key].([]any)
	found := 0
	for _, item := range old {
		if !named(item) {
			others = append(others, item)
		}
	}
	for _, item := range now {
		switch {
		case named(item) && reflect.DeepEqual(item, any(want)):
			found++
		default:
			kept = append(kept, item)
		}
	}
	delete(before, key)
	delete(after, key)
	if found != 1 || !reflect.DeepEqual(others, kept) || !reflect.DeepEqual(before, after) && len(before)+len(after) > 0 {
		return errors.New("the file is written in a way we do not edit: add the entry by hand")
	}
	return nil
}
