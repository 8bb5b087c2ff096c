package sink

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// parsed is a message of RFC 5424.
type parsed struct {
	priority                                 int
	time, host, app, process, id, text, mark string
	data                                     map[string]map[string]string
}

// Section 6: the header's fields are printing ASCII of bounded length, or a dash.
var syslogHeader = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 (-|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?(?:Z|[+-][0-9]{2}:[0-9]{2})) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)

var syslogName = regexp.MustCompile(`^[!#-<>-\\^-~]{1,32}`)

// parseSyslog reads a message as strictly as the grammar says, and stricter: no character is one that could end a line.
func parseSyslog(message string) (p parsed, err error) {
	m := syslogHeader.FindStringSubmatch(message)
	if m == nil {
		return p, fmt.Errorf("header: %q", message)
	}
	p = parsed{time: m[2], host: m[3], app: m[4], process: m[5], id: m[6], data: map[string]map[string]string{}}
	if p.priority, err = strconv.Atoi(m[1]); err != nil || p.priority > 191 {
		return p, fmt.Errorf("priority %s", m[1])
	}
	rest := message[len(m[0]):]
	if !utf8.ValidString(rest) || strings.ContainsFunc(rest, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return p, fmt.Errorf("characters: %q", rest)
	}
	for strings.HasPrefix(rest, "[") {
		if rest, err = p.element(rest[1:]); err != nil {
			return p, err
		}
	}
	if len(p.data) == 0 {
		return p, fmt.Errorf("no structured data: %q", rest)
	}
	if rest == "" {
		return p, nil
	}
	text, ok := strings.CutPrefix(rest, " ")
	if !ok {
		return p, fmt.Errorf("behind the structured data: %q", rest)
	}
	if p.text, ok = strings.CutPrefix(text, byteOrder); ok {
		p.mark = byteOrder
	} else if !isASCII([]byte(text)) {
		return p, fmt.Errorf("more than ASCII, and no mark: %q", text)
	}
	return p, nil
}

// element reads an element of structured data behind its bracket, and returns what follows.
func (p *parsed) element(rest string) (string, error) {
	id := syslogName.FindString(rest)
	if id == "" || p.data[id] != nil || !strings.Contains(id, "@") && id != "meta" && id != "origin" && id != "timeQuality" {
		return "", fmt.Errorf("element %q", rest)
	}
	p.data[id] = map[string]string{}
	for rest = rest[len(id):]; strings.HasPrefix(rest, " "); {
		name := syslogName.FindString(rest[1:])
		value, ok := strings.CutPrefix(rest[1+len(name):], `="`)
		if name == "" || !ok {
			return "", fmt.Errorf("parameter %q", rest)
		}
		var b strings.Builder
		for value != "" && value[0] != '"' {
			if value[0] == ']' {
				return "", fmt.Errorf("%s has a bracket: %q", name, value)
			}
			if value[0] == '\\' && len(value) > 1 && strings.IndexByte(`"\]`, value[1]) >= 0 {
				value = value[1:]
			}
			b.WriteByte(value[0])
			value = value[1:]
		}
		if value == "" {
			return "", fmt.Errorf("%s does not end", name)
		}
		p.data[id][name], rest = b.String(), value[1:]
	}
	after, ok := strings.CutPrefix(rest, "]")
	if !ok {
		return "", fmt.Errorf("element %s ends in %q", id, rest)
	}
	return after, nil
}
