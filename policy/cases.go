package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Case is one expected decision of a table that an operator keeps beside the
// grants file.
type Case struct {
	Name   string
	Line   int
	Input  Input // Now is zero where the table names no time
	Allow  bool
	Grant  string   // that must decide; "": whichever
	Reason string   // "": whichever
	Limits []Limits // nil: whichever
}

func keysOfTable() []string { return []string{"version", "people", "cases"} }

func keysOfCase() []string {
	return []string{"name", "who", "resource", "action", "model", "egress", "media", "via", "at", "want", "grant", "reason", "limits"}
}

func keysOfPerson() []string {
	return []string{"user", "groups", "groups_unknown", "claims", "mfa", "acr", "auth_age", "binding", "workload"}
}
func keysOfResource() []string { return []string{"name", "kind", "labels"} }

// maxCases bounds a table; a policy with more expectations wants several.
const maxCases = 10_000

// ParseCases reads a table of expected decisions as strictly as ParseGrants reads
// grants:
//
//	people:
//	  ann: {user: corp/8a7f3c, groups: [ml-eng], mfa: true, auth_age: 1h}
//	cases:
//	  - name: engineers chat
//	    who: ann                  # or the mapping itself
//	    resource: phi3            # or {name: phi3, kind: model, labels: {env: prod}}
//	    action: chat
//	    model: phi3:latest
//	    want: allow
//	    grant: engineers-chat
//
// A case about a verb of the administration has it as its action, and no resource:
//
//   - {name: the desk ends sessions, who: ann, action: "iap:sessions.kill", want: allow}
//
// What is left out is as with most requests: no second factor, a login of which
// nobody says when it was, binding first-use, a resource of kind model, no media,
// via tunnel, now. grant, reason and limits are compared where they are given.
func ParseCases(file string, data []byte, issuers []string) ([]Case, error) {
	if len(issuers) == 0 {
		return nil, fmt.Errorf("%s: no identity provider is configured, so no case can name anybody", file)
	}
	p := &caseParser{grantsParser: grantsParser{reader: reader{file: file, empty: "a table without cases shows nothing"}, issuers: issuers}, people: map[string]person{}}
	root := p.document(data)
	if root == nil {
		return nil, p.err()
	}
	cases := p.table(root)
	if err := p.err(); err != nil {
		return nil, err
	}
	return cases, nil
}

type caseParser struct {
	grantsParser
	people map[string]person
}

// person is who asks: a principal whose login is told by its age.
type person struct {
	Principal
	authAge time.Duration
	dated   bool
}

func (p *caseParser) table(root ast.Node) []Case {
	top := p.mapping(root, "the table", keysOfTable())
	if n := top["version"]; n != nil {
		p.integer(n, "version", fileVersion, fileVersion)
	}
	if n := top["people"]; n != nil {
		for name, value := range p.entries(n, "people") {
			p.people[name] = p.person(value, "person "+name)
		}
	}
	if top["cases"] == nil {
		if top != nil {
			p.fail(root, `key "cases" is missing`)
		}
		return nil
	}
	var cases []Case
	for _, entry := range p.sequence(top["cases"], "cases") {
		cases = append(cases, p.oneCase(entry))
	}
	if len(cases) > maxCases {
		p.fail(root, "%d cases are more than %d", len(cases), maxCases)
	}
	return cases
}

func (p *caseParser) oneCase(n ast.Node) Case {
	var c Case
	c.Line, _ = position(n)
	values := p.mapping(n, "a case", keysOfCase())
	if values == nil {
		return c
	}
	what := "a case"
	if v := values["name"]; v != nil {
		if c.Name, _ = p.text(v, "name"); c.Name != "" {
			what = "case " + c.Name
		}
	}
	for _, key := range []string{"name", "who", "resource", "action", "want"} {
		if values[key] == nil && !(key == "resource" && isVerbNode(values["action"])) {
			p.fail(n, "%s: key %q is missing", what, key)
		}
	}
	c.Input = p.input(values, what)
	if v := values["want"]; v != nil {
		c.Allow = p.oneOf(v, what+": want", "allow", "deny") == "allow"
	}
	if v := values["grant"]; v != nil {
		c.Grant, _ = p.text(v, what+": grant")
	}
	if v := values["reason"]; v != nil {
		c.Reason, _ = p.text(v, what+": reason")
	}
	if v := values["limits"]; v != nil {
		c.Limits = p.allLimits(v, what)
	}
	return c
}

// isVerbNode reports whether a case is about a verb of the administration, which
// is about no resource.
func isVerbNode(n ast.Node) bool {
	text, isText := n.(*ast.StringNode)
	return isText && IsVerb(text.Value)
}

func (p *caseParser) input(values map[string]ast.Node, what string) Input {
	in := Input{Via: ViaTunnel}
	if v := values["at"]; v != nil {
		if text, ok := p.text(v, what+": at"); ok {
			var err error
			if in.Now, err = time.Parse(time.RFC3339, text); err != nil {
				p.fail(v, "%s: at %q is no time such as 2026-11-23T12:00:00Z", what, text)
			}
		}
	}
	if v := values["who"]; v != nil {
		in.Principal = p.who(v, what).at(in.Now)
	}
	if v := values["resource"]; v != nil {
		in.Resource = p.resource(v, what+": resource")
	}
	if v := values["action"]; v != nil {
		in.Action = p.action(v, what)
	}
	if v := values["model"]; v != nil {
		in.Model, _ = p.text(v, what+": model")
	}
	if v := values["egress"]; v != nil {
		in.Egress = p.boolean(v, what+": egress")
	}
	if v := values["media"]; v != nil {
		in.Media = p.media(v, what+": media")
	}
	if v := values["via"]; v != nil {
		in.Via = p.oneOf(v, what+": via", ViaTunnel, ViaBearer, ViaKey, ViaLocal)
	}
	return in
}

// action is one of a request, or a verb of the administration.
func (p *caseParser) action(n ast.Node, what string) string {
	name, _ := p.text(n, what+": action")
	parse := parseAction
	switch {
	case name == ActionAny || name == ActionUnknown:
		return name
	case strings.HasPrefix(name, "iap:"):
		parse = parseVerb
	}
	if _, err := parse(name); err != nil {
		p.fail(n, "%s: %v", what, err)
	}
	return name
}

// who is a name among the people or a person written out.
func (p *caseParser) who(n ast.Node, what string) person {
	name, isName := n.(*ast.StringNode)
	if !isName {
		return p.person(n, what+": who")
	}
	found, known := p.people[name.Value]
	if !known {
		names := make([]string, 0, len(p.people))
		for name := range p.people {
			names = append(names, name)
		}
		p.fail(n, "%s: nobody among the people is called %q%s", what, name.Value, hint(name.Value, names))
	}
	return found
}

// at gives the login its time. Without a clock the age counts from now.
func (who person) at(now time.Time) Principal {
	if who.dated {
		if now.IsZero() {
			now = time.Now()
		}
		who.AuthTime = now.Add(-who.authAge)
	}
	return who.Principal
}

func (p *caseParser) person(n ast.Node, what string) person {
	var who person
	who.Binding = "first-use"
	values := p.mapping(n, what, keysOfPerson())
	if values["user"] == nil {
		if values != nil {
			p.fail(n, `%s: key "user" is missing`, what)
		}
		return who
	}
	if text, ok := p.text(values["user"], what+": user"); ok {
		var err error
		if who.Issuer, who.Subject, err = splitIssuer(text, text, p.issuers); err != nil {
			p.fail(values["user"], "%s: %v", what, err)
		}
	}
	if v := values["groups"]; v != nil && !isEmptyList(v) {
		who.Groups = eachText(&p.grantsParser, v, what+": groups", func(text string) (string, error) {
			return strings.TrimPrefix(text, who.Issuer+"/"), nil
		})
	}
	if v := values["groups_unknown"]; v != nil {
		who.GroupsUnknown = p.boolean(v, what+": groups_unknown")
	}
	if v := values["claims"]; v != nil {
		who.Claims = p.claims(v, what+": claims")
	}
	p.login(&who, values, what)
	return who
}

// login reads what a person's token says about the login.
func (p *caseParser) login(who *person, values map[string]ast.Node, what string) {
	if v := values["mfa"]; v != nil {
		who.MFA, who.MFASource = p.mfaHeld(v, what+": mfa")
	}
	if v := values["acr"]; v != nil {
		who.ACR, _ = p.text(v, what+": acr")
	}
	if v := values["auth_age"]; v != nil {
		if text, ok := p.text(v, what+": auth_age"); ok {
			var err error
			who.dated = true
			if who.authAge, err = ParseDuration(text); err != nil || who.authAge > maxAuthAge {
				p.fail(v, "%s: auth_age %q is no time such as 30m, 12h or 7d", what, text)
			}
		}
	}
	if v := values["binding"]; v != nil {
		who.Binding = p.oneOf(v, what+": binding", BindingNonce, "first-use", "none")
	}
	if v := values["workload"]; v != nil {
		who.Workload = p.boolean(v, what+": workload")
	}
}

func (p *caseParser) mfaHeld(n ast.Node, what string) (held bool, source string) {
	if b, isBool := n.(*ast.BoolNode); isBool {
		if !b.Value {
			return false, ""
		}
		return true, MFASourceAMR
	}
	if s, isText := n.(*ast.StringNode); isText && s.Value == "by-provider" {
		return true, MFASourceIssuerPolicy
	}
	p.fail(n, "%s must be true, false or by-provider", what)
	return false, ""
}

func (p *caseParser) claims(n ast.Node, what string) map[string][]string {
	claims := map[string][]string{}
	for name, value := range p.entries(n, what) {
		if _, isList := value.(*ast.SequenceNode); isList {
			claims[name] = eachText(&p.grantsParser, value, what+": "+name, func(text string) (string, error) { return text, nil })
		} else if text, ok := p.text(value, what+": "+name); ok {
			claims[name] = []string{text}
		}
	}
	return claims
}

func (p *caseParser) resource(n ast.Node, what string) Resource {
	r := Resource{Kind: "model"}
	if name, isName := n.(*ast.StringNode); isName {
		r.Name = name.Value
		return r
	}
	values := p.mapping(n, what, keysOfResource())
	if v := values["name"]; v != nil {
		r.Name, _ = p.text(v, what+": name")
	} else if values != nil {
		p.fail(n, `%s: key "name" is missing`, what)
	}
	if v := values["kind"]; v != nil {
		r.Kind = p.oneOf(v, what+": kind", "model", "http", "tcp")
	}
	if v := values["labels"]; v != nil {
		r.Labels = map[string]string{}
		for key, value := range p.entries(v, what+": labels") {
			r.Labels[key], _ = p.text(value, what+": labels: "+key)
		}
	}
	return r
}
