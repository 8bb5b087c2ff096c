package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/goccy/go-yaml/ast"
)

func (p *grantsParser) require(n ast.Node, grant string) Require {
	var r Require
	values := p.mapping(n, grant+": require", keysOfRequire())
	if v := values["mfa"]; v != nil {
		r.MFA = p.mfa(v, grant)
	}
	if v := values["acr"]; v != nil {
		r.ACR = eachText(p, v, grant+": acr", parseACR)
	}
	if v := values["max_auth_age"]; v != nil {
		if text, ok := p.text(v, grant+": max_auth_age"); ok {
			age, err := ParseDuration(text)
			if err != nil || age <= 0 || age > maxAuthAge {
				p.fail(v, "%s: max_auth_age %q must be a time such as 12h, 30m or 7d", grant, text)
			}
			r.MaxAuthAge = age
		}
	}
	if v := values["binding"]; v != nil {
		if text, ok := p.text(v, grant+": binding"); ok {
			if text != BindingNonce {
				p.fail(v, "%s: binding %q: only %q can be demanded", grant, text, BindingNonce)
			}
			r.Binding = text
		}
	}
	if v := values["claims"]; v != nil {
		r.Claims = p.requiredClaims(v, grant)
	}
	if values != nil && len(values) == 0 {
		p.fail(n, "%s: require must not be empty", grant)
	}
	return r
}

func (p *grantsParser) mfa(n ast.Node, grant string) string {
	if b, isBool := n.(*ast.BoolNode); isBool && b.Value {
		return MFARequired
	}
	if s, isText := n.(*ast.StringNode); isText && s.Value == MFAAsserted {
		return MFAAsserted
	}
	p.fail(n, "%s: mfa must be true or asserted; leave it out where no second factor is needed", grant)
	return ""
}

// parseACR keeps a class in one piece: a login asks for several with spaces between.
func parseACR(text string) (string, error) {
	if text == "" || len(text) > maxACR || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return "", fmt.Errorf("%q is no value of an acr claim", text)
	}
	return text, nil
}

// media reads the kinds of input; [] is text alone.
func (p *grantsParser) media(n ast.Node, what string) []string {
	if isEmptyList(n) {
		return []string{}
	}
	return eachText(p, n, what, func(text string) (string, error) {
		if slices.Contains(Media(), text) {
			return text, nil
		}
		return "", fmt.Errorf("unknown kind %q%s; there are %s", text, hint(text, Media()), strings.Join(Media(), ", "))
	})
}

func (p *grantsParser) keys(n ast.Node, grant string) KeyRule {
	var rule KeyRule
	values := p.mapping(n, grant+": keys", keysOfKeys())
	v := values["max_ttl"]
	if v == nil {
		if values != nil {
			p.fail(n, `%s: keys needs "max_ttl", such as 90d; leave keys out where none are allowed`, grant)
		}
		return rule
	}
	if text, ok := p.text(v, grant+": max_ttl"); ok {
		ttl, err := ParseDuration(text)
		if err != nil || ttl <= 0 || ttl > maxKeyTTL {
			p.fail(v, "%s: max_ttl %q must be a time of up to 366d, such as 90d", grant, text)
		}
		rule.MaxTTL = ttl
	}
	return rule
}

// allLimits reads one mapping or a list of them, all of which hold at once.
func (p *grantsParser) allLimits(n ast.Node, grant string) []Limits {
	if _, isList := n.(*ast.SequenceNode); !isList {
		return []Limits{p.limits(n, grant)}
	}
	entries := p.sequence(n, grant+": limits")
	if len(entries) > maxLimits {
		p.fail(n, "%s: %d limits are more than %d", grant, len(entries), maxLimits)
	}
	var all []Limits
	for _, entry := range entries {
		all = append(all, p.limits(entry, grant))
	}
	return all
}

func (p *grantsParser) limits(n ast.Node, grant string) Limits {
	l := Limits{Per: PerPrincipal, Mode: ModeEnforce}
	values := p.mapping(n, grant+": limits", keysOfLimits())
	if v := values["requests"]; v != nil {
		l.Requests = p.rates(v, grant+": requests")
	}
	if v := values["tokens"]; v != nil {
		l.Tokens = p.rates(v, grant+": tokens")
	}
	if v := values["concurrent"]; v != nil {
		l.Concurrent = p.integer(v, grant+": concurrent", 1, maxConcurrent)
	}
	if v := values["max_output_tokens"]; v != nil {
		l.MaxOutputTokens = p.integer(v, grant+": max_output_tokens", 1, maxOutputTokens)
	}
	if v := values["per"]; v != nil {
		l.Per = p.oneOf(v, grant+": per", PerPrincipal, PerGroup, PerGrant)
	}
	if v := values["mode"]; v != nil {
		l.Mode = p.oneOf(v, grant+": mode", ModeEnforce, ModeWarn)
	}
	if v := values["contact"]; v != nil {
		l.Contact = p.contact(v, grant)
	}
	if values != nil && values["requests"] == nil && values["tokens"] == nil && values["concurrent"] == nil && values["max_output_tokens"] == nil {
		p.fail(n, "%s: limits must not be empty: they need one of requests, tokens, concurrent, max_output_tokens", grant)
	}
	return l
}

func (p *grantsParser) contact(n ast.Node, grant string) string {
	text, ok := p.text(n, grant+": contact")
	if ok && (text == "" || len(text) > maxContact || strings.ContainsFunc(text, unicode.IsControl)) {
		p.fail(n, "%s: contact must be one line of up to %d bytes", grant, maxContact)
	}
	return text
}

// rates reads one rate or a list of them, all of which hold at once.
func (p *grantsParser) rates(n ast.Node, what string) []Rate {
	if _, isList := n.(*ast.SequenceNode); isList {
		return eachText(p, n, what, ParseRate)
	}
	text, ok := p.text(n, what)
	if !ok {
		return nil
	}
	rate, err := ParseRate(text)
	if err != nil {
		p.fail(n, "%s: %v", what, err)
		return nil
	}
	return []Rate{rate}
}
