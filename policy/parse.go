package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// The keys of a grants file, by the place where they stand.
func keysOfFile() []string { return []string{"version", "grants", "admins"} }

func keysOfGrant() []string {
	return []string{"name", "to", "resources", "models", "actions", "media", "require", "limits", "keys", "priority", "egress", "record"}
}
func keysOfRequire() []string { return []string{"mfa", "acr", "max_auth_age", "binding", "claims"} }
func keysOfKeys() []string    { return []string{"max_ttl"} }
func keysOfLimits() []string {
	return []string{"requests", "tokens", "concurrent", "max_output_tokens", "per", "mode", "contact"}
}

// Bounds of values, so that a slip of the finger is a mistake and no rule.
const (
	fileVersion     = 1
	maxPriority     = 1000
	maxConcurrent   = 1_000_000
	maxOutputTokens = 1_000_000_000
	maxContact      = 200
	maxLimits       = 16
	maxACR          = 256
	maxKeyTTL       = 366 * day                 // a key for longer is a password
	maxAuthAge      = 10 * 366 * 24 * time.Hour // keeps a sum with a clock within 64 bits of nanoseconds
)

// grantNameForm keeps names readable in audit records and safe in headers.
func grantNameForm() *regexp.Regexp { return regexp.MustCompile(`\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\z`) }

// ParseGrants reads a grants file strictly. Every mistake is found in one go:
// the error joins *ParseError values with line and column. issuers are the
// aliases of the configured identity providers.
func ParseGrants(file string, data []byte, issuers []string) (*Grants, error) {
	if len(issuers) == 0 {
		return nil, fmt.Errorf("%s: no identity provider is configured, so no grant can name anybody", file)
	}
	p := &grantsParser{reader: reader{file: file, empty: "without grants nobody may do anything, which is hardly meant"}, issuers: issuers, nameForm: grantNameForm()}
	root := p.document(data)
	if root == nil {
		return nil, p.err()
	}
	grants := p.file(root)
	if err := p.err(); err != nil {
		return nil, err
	}
	return grants, nil
}

type grantsParser struct {
	reader
	issuers  []string
	nameForm *regexp.Regexp
}

func (p *grantsParser) file(root ast.Node) *Grants {
	top := p.mapping(root, "the grants file", keysOfFile())
	g := &Grants{File: p.reader.file}
	if n := top["version"]; n != nil {
		p.integer(n, "version", fileVersion, fileVersion)
	}
	if n := top["grants"]; n != nil {
		lines := map[string]int{}
		for _, entry := range p.list(n, "grants") { // [] takes everything from everybody, which must always work
			g.List = append(g.List, p.grant(entry, lines))
		}
	} else if top != nil {
		p.fail(root, `key "grants" is missing: without grants nobody may do anything`)
	}
	if n := top["admins"]; n != nil {
		g.Admins = p.admins(n)
	}
	return g
}

func (p *grantsParser) grant(n ast.Node, lines map[string]int) Grant {
	var g Grant
	g.Line, _ = position(n)
	values := p.mapping(n, "a grant", keysOfGrant())
	if values == nil {
		return g
	}
	g.Name = p.grantName(n, values["name"], &g.Line, lines)
	what := "grant " + g.Name
	for _, key := range []string{"to", "resources", "actions"} {
		if values[key] == nil {
			p.fail(n, "%s: key %q is missing", what, key)
		}
	}
	if v := values["to"]; v != nil {
		g.To = p.selectors(v, what+": to")
	}
	if v := values["resources"]; v != nil {
		g.Resources = eachText(p, v, what+": resources", parseResourcePattern)
	}
	if v := values["models"]; v != nil {
		g.Models = eachText(p, v, what+": models", parseModelPattern)
	}
	if v := values["actions"]; v != nil {
		g.Actions = eachText(p, v, what+": actions", parseAction)
	}
	p.conditions(&g, values, what)
	return g
}

// conditions reads the keys of a grant that narrow it or say how much.
func (p *grantsParser) conditions(g *Grant, values map[string]ast.Node, what string) {
	if v := values["media"]; v != nil {
		g.Media = p.media(v, what+": media")
	}
	if v := values["require"]; v != nil {
		g.Require = p.require(v, what)
	}
	if v := values["limits"]; v != nil {
		g.Limits = p.allLimits(v, what)
	}
	if v := values["keys"]; v != nil {
		g.Keys = p.keys(v, what)
	}
	if v := values["priority"]; v != nil {
		g.Priority = p.integer(v, what+": priority", 0, maxPriority)
	}
	if v := values["egress"]; v != nil {
		g.Egress = p.boolean(v, what+": egress")
	}
	if v := values["record"]; v != nil {
		g.Record = p.boolean(v, what+": record")
		if g.Record && slices.Contains(g.Actions, ActionConnect) {
			p.fail(v, "%s: record: what passes under connect is not read, so it cannot be recorded; give connect in a grant of its own", what)
		}
	}
}

// grantName reads the name and sees to it that it stands once in the file.
func (p *grantsParser) grantName(grant, n ast.Node, line *int, lines map[string]int) string {
	if n == nil {
		p.fail(grant, `a grant needs a "name"`)
		return "without name"
	}
	name, ok := p.text(n, "name")
	if !ok {
		return "without name"
	}
	*line, _ = position(n)
	if !p.nameForm.MatchString(name) {
		p.fail(n, "name %q: use up to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit", name)
	}
	if first, taken := lines[name]; taken {
		p.fail(n, "a grant named %q stands on line %d already", name, first)
	} else {
		lines[name] = *line
	}
	return name
}

// eachText reads a list of texts, each by the same rule; a repeated entry is a
// mistake, since one of the two was probably meant to be something else.
func eachText[T any](p *grantsParser, n ast.Node, what string, parse func(string) (T, error)) []T {
	var out []T
	seen := map[string]bool{}
	for _, entry := range p.sequence(n, what) {
		text, ok := p.text(entry, what)
		if !ok {
			continue
		}
		v, err := parse(text)
		switch {
		case err != nil:
			p.fail(entry, "%s: %v", what, err)
		case seen[text]:
			p.fail(entry, "%s: %q stands twice", what, text)
		default:
			seen[text] = true
			out = append(out, v)
		}
	}
	return out
}

func (p *grantsParser) selectors(n ast.Node, what string) []Selector {
	return eachText(p, n, what, func(text string) (Selector, error) { return ParseSelector(text, p.issuers) })
}

func parseAction(name string) (string, error) {
	switch {
	case IsAction(name):
		return name, nil
	case name == ActionAny:
		return "", errors.New(`"*" is no action: list those that are meant`)
	}
	return "", fmt.Errorf("unknown action %q%s; there are %s", name, hint(name, Actions()), strings.Join(Actions(), ", "))
}
