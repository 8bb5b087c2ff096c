package modelapi

import (
	"strings"
	"unicode/utf8"
)

// MaxName bounds a model's name: Ollama allows 350 bytes of host and three parts of 80.
const MaxName = 600

// What Ollama fills in where a name says nothing.
const (
	defaultHost      = "registry.ollama.ai"
	defaultNamespace = "library"
	defaultTag       = "latest"
)

// canonicalModel brings a model's name to the spelling that decisions, records and upstream see, by the rules of
// server, and says whether that name sends the prompt to a service outside.
func canonicalModel(ollamaRules bool, name string) (canonical string, egress bool, err error) {
	if ollamaRules {
		return ollamaModel(name)
	}
	if !validExactName(name) {
		return "", false, errModelName()
	}
	return name, isCloudName(name), nil
}

func errModelName() error {
	return &Error{400, "model_invalid", "the model's name is not one this server could mean"}
}

// validExactName refuses what a log or a lenient parser could show as another name.
func validExactName(name string) bool {
	if name == "" || len(name) > MaxName || !utf8.ValidString(name) || strings.TrimSpace(name) != name {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || 0x7f <= r && r < 0xa0 || r == 0xfeff })
}

// ollamaModel follows Ollama's own reading: spaces around it do not count, a scheme may stand before the host, host,
// namespace and tag have defaults, letter case does not tell names apart, ":local" asks for what is meant anyway.
func ollamaModel(name string) (canonical string, egress bool, err error) {
	if len(name) > MaxName {
		return "", false, errModelName()
	}
	name = strings.TrimSpace(name)
	if !isASCII(name) { // before folding: the Kelvin sign is a k to it
		return "", false, errModelName()
	}
	name = strings.ToLower(name)
	for _, scheme := range []string{"https://", "http://"} {
		if rest, ok := strings.CutPrefix(name, scheme); ok {
			name = rest
			break
		}
	}
	if rest, ok := strings.CutSuffix(name, ":local"); ok {
		name = strings.TrimSpace(rest)
		// Two sources in one name: which one wins is the server's secret.
		if strings.HasSuffix(name, ":local") || isCloudName(name) {
			return "", false, errModelName()
		}
	}
	host, namespace, model, tag := splitOllama(name)
	if !validPart(host, true) || !validPart(namespace, false) || !validPart(model, false) || !validTag(tag) {
		return "", false, errModelName()
	}
	out := model + ":" + tag
	if namespace != defaultNamespace || host != defaultHost {
		out = namespace + "/" + out
	}
	if host != defaultHost {
		out = host + "/" + out
	}
	return out, isCloudName(out), nil
}

func splitOllama(name string) (host, namespace, model, tag string) {
	host, namespace, tag = defaultHost, defaultNamespace, defaultTag
	model = name
	if i := strings.LastIndexByte(model, '/'); i >= 0 {
		namespace, model = model[:i], model[i+1:]
		if j := strings.LastIndexByte(namespace, '/'); j >= 0 {
			host, namespace = namespace[:j], namespace[j+1:]
		}
	}
	if i := strings.IndexByte(model, ':'); i >= 0 {
		model, tag = model[:i], model[i+1:]
	}
	return host, namespace, model, tag
}

// validTag is a part that may carry the explicit source "120b:cloud".
func validTag(tag string) bool {
	return validPart(strings.TrimSuffix(tag, ":cloud"), false)
}

func validPart(part string, host bool) bool {
	if part == "" || strings.Trim(part, ".") == "" || host && len(part) > 350 || !host && len(part) > 80 {
		return false
	}
	for i := range len(part) {
		c := part[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_':
		case i > 0 && (c == '-' || c == '.' || host && c == ':'):
		default:
			return false
		}
	}
	return true
}

// isCloudName is generous: a name that merely looks like one of a hosted model counts as one.
func isCloudName(name string) bool {
	name = strings.ToLower(strings.TrimSpace(name))
	name = strings.TrimSuffix(name, ":"+defaultTag)
	return strings.HasSuffix(name, ":cloud") || strings.HasSuffix(name, "-cloud")
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
