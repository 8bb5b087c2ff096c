package auth

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// claims are a payload's members in their JSON text. Names match exactly, case
// included; encoding/json would not insist on it.
type claims map[string]jsontext.Value

func (c claims) has(name string) bool { _, ok := c[name]; return ok }

// text returns a string claim; ok is false if it is missing or no string.
func (c claims) text(name string) (value string, ok bool) { return stringOf(c[name]) }

// texts returns a claim that is a list of strings, all of them.
func (c claims) texts(name string) (list []string, ok bool) { return stringsOf(c[name]) }

// time returns a NumericDate written as a plain integer. Strings, fractions,
// exponents, negative and absurd numbers are no times: deny on doubt.
func (c claims) time(name string) (t time.Time, present, ok bool) {
	v, present := c[name]
	if !present {
		return time.Time{}, false, true
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil || v.Kind() != '0' || n <= 0 || n > latestTime {
		return time.Time{}, true, false
	}
	return time.Unix(n, 0), true, true
}

// at follows an RFC 6901 pointer into the claims.
func (c claims) at(p jsontext.Pointer) (jsontext.Value, bool) {
	members := c
	var at jsontext.Value
	for token := range p.Tokens() {
		if members == nil {
			var ok bool
			if at, ok = element(at, token); !ok {
				return nil, false
			}
			continue
		}
		v, ok := members[token]
		if !ok {
			return nil, false
		}
		at, members = v, nil
	}
	return at, at != nil
}

// element returns the member or array element of v that one pointer token names.
func element(v jsontext.Value, token string) (jsontext.Value, bool) {
	switch v.Kind() {
	case '{':
		var members claims
		if json.Unmarshal(v, &members) != nil {
			return nil, false
		}
		e, ok := members[token]
		return e, ok
	case '[':
		list, ok := elements(v)
		i, err := strconv.ParseUint(token, 10, 31)
		if !ok || err != nil || i >= uint64(len(list)) || token != strconv.FormatUint(i, 10) {
			return nil, false
		}
		return list[i], true
	default:
		return nil, false
	}
}

// values returns a claim as policies match it: a string as it is, numbers and
// booleans as their JSON text, an array by its members. An object, or an array that
// holds one, matches nothing.
func values(v jsontext.Value) []string {
	if v.Kind() != '[' {
		if s, ok := scalar(v); ok {
			return []string{s}
		}
		return nil
	}
	list, ok := elements(v)
	if !ok {
		return nil
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		s, ok := scalar(e)
		if !ok {
			return nil
		}
		out = append(out, s)
	}
	return out
}

func scalar(v jsontext.Value) (string, bool) {
	switch v.Kind() {
	case '"':
		return stringOf(v)
	case '0', 't', 'f':
		return string(v), true
	default:
		return "", false
	}
}

func stringOf(v jsontext.Value) (string, bool) {
	if v.Kind() != '"' {
		return "", false
	}
	var s string
	err := json.Unmarshal(v, &s)
	return s, err == nil
}

func stringsOf(v jsontext.Value) ([]string, bool) {
	list, ok := elements(v)
	if !ok {
		return nil, false
	}
	out := make([]string, 0, len(list))
	for _, e := range list {
		s, ok := stringOf(e)
		if !ok {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
}

func elements(v jsontext.Value) ([]jsontext.Value, bool) {
	if v.Kind() != '[' {
		return nil, false
	}
	var list []jsontext.Value
	if json.Unmarshal(v, &list) != nil || len(list) > maxClaimValues {
		return nil, false
	}
	return list, true
}

// displayText makes a string from outside fit to show: no control, format or line
// separator characters, which move cursors and reverse text, and at most max bytes.
func displayText(s string, max int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsGraphic(r) {
			return -1
		}
		return r
	}, s)
	if len(s) <= max {
		return s
	}
	cut := max
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
