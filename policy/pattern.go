package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

// maxPattern bounds a name or pattern; model servers' own names stay far below.
const maxPattern = 512

// ResourcePattern names resources by name, by glob or by one label.
type ResourcePattern struct {
	Name       string // a name, or a glob of * and ?
	LabelKey   string // with LabelValue instead of Name
	LabelValue string
}

// ModelPattern names models by canonical name or by a glob of * and ?, without
// regard to case. A pattern without a tag also names the tag latest, as the
// model servers themselves read it: phi3 is phi3:latest, and phi3 alone.
type ModelPattern string

// String writes the pattern as it stands in the file.
func (p ResourcePattern) String() string {
	if p.LabelKey != "" {
		return labelPrefix + p.LabelKey + "=" + p.LabelValue
	}
	return p.Name
}

// String is the pattern as it stands in the file.
func (p ModelPattern) String() string { return string(p) }

// Matches reports whether the pattern names the resource. It serves lists of what concerns a resource; decisions are the
// engine's.
func (p ResourcePattern) Matches(r Resource) bool {
	switch {
	case p.LabelKey != "":
		value, found := r.Labels[p.LabelKey]
		return found && value == p.LabelValue
	case !IsGlob(p.Name):
		return p.Name == r.Name
	}
	matched, err := regexp.MatchString(GlobExpression(p.Name), r.Name)
	return err == nil && matched
}

const labelPrefix = "label:"

func parseResourcePattern(text string) (ResourcePattern, error) {
	if err := checkPattern(text); err != nil {
		return ResourcePattern{}, err
	}
	label, isLabel := strings.CutPrefix(text, labelPrefix)
	if !isLabel {
		if strings.Contains(text, ":") {
			return ResourcePattern{}, fmt.Errorf("%q: a resource is a name, a glob or label:KEY=VALUE", text)
		}
		return ResourcePattern{Name: text}, nil
	}
	key, value, found := strings.Cut(label, "=")
	if !found || key == "" || value == "" || IsGlob(label) {
		return ResourcePattern{}, fmt.Errorf("%q: a label is written label:KEY=VALUE and matches exactly", text)
	}
	return ResourcePattern{LabelKey: key, LabelValue: value}, nil
}

func parseModelPattern(text string) (ModelPattern, error) {
	return ModelPattern(text), checkPattern(text)
}

func checkPattern(text string) error {
	switch {
	case text == "":
		return errors.New("a name must not be empty")
	case len(text) > maxPattern:
		return fmt.Errorf("name of %d bytes is longer than %d", len(text), maxPattern)
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }):
		return fmt.Errorf("%q contains a space or control character", text)
	case strings.ContainsAny(text, `[]{}\`):
		return fmt.Errorf("%q: only * and ? are wildcards", text)
	}
	return nil
}

// IsGlob reports whether a name has wildcards.
func IsGlob(name string) bool { return strings.ContainsAny(name, "*?") }

// GlobExpression is a glob as an anchored regular expression: * is any run of
// characters, '/' and ':' included, ? is exactly one.
func GlobExpression(glob string) string {
	var b strings.Builder
	b.WriteString(`\A(?s:`)
	for _, r := range glob {
		switch r {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteByte('.')
		default:
			b.WriteString(regexp.QuoteMeta(string(r)))
		}
	}
	b.WriteString(`)\z`)
	return b.String()
}

// Names returns the lower-case spellings that the pattern stands for: itself,
// and itself with the tag latest where it has no tag.
func (p ModelPattern) Names() []string {
	name := strings.ToLower(string(p))
	if strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") {
		return []string{name}
	}
	return []string{name, name + ":latest"}
}
