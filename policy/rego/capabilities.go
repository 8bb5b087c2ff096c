package rego

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// allowedBuiltins names what a policy may call: functions of their arguments
// alone, and the clock. Whatever OPA adds later is refused until it stands
// here. Names that end in a dot stand for a family.
//
// Not among them, with reasons: http.send, net.*, json.*_schema, graphql.* and
// providers.* reach or may reach the network; opa.runtime shows the process's
// environment; rego.* parses policies at run time; io.jwt.* and crypto.* invite
// policies that verify tokens a second time and differently; rand and uuid make
// answers that cannot be repeated; trace is for debugging.
func allowedBuiltins() []string {
	return []string{
		"eq", "assign", "gt", "gte", "lt", "lte", "neq", "equal",
		"plus", "minus", "mul", "div", "round", "ceil", "floor", "abs", "rem", "bits.",
		"and", "or", "intersection", "union", "count", "sum", "product", "max", "min", "sort",
		"array.", "object.", "to_number", "format_int", "numbers.range", "units.",
		"regex.", "glob.", "strings.", "concat", "indexof", "indexof_n", "substring", "contains",
		"startswith", "endswith", "lower", "upper", "split", "replace", "sprintf",
		"trim", "trim_left", "trim_prefix", "trim_right", "trim_suffix", "trim_space",
		"json.filter", "json.remove", "json.patch", "json.marshal", "json.marshal_with_options",
		"json.unmarshal", "json.is_valid", "yaml.", "base64.", "base64url.", "hex.",
		"urlquery.", "uri.", "semver.", "time.", "walk",
		"is_number", "is_string", "is_boolean", "is_array", "is_set", "is_object", "is_null", "type_name",
		"print", "internal.",
	}
}

func isAllowedBuiltin(name string, allowed []string) bool {
	for _, a := range allowed {
		if name == a || strings.HasSuffix(a, ".") && strings.HasPrefix(name, a) {
			return true
		}
	}
	return false
}

// restricted returns OPA's capabilities cut down to allowedBuiltins, without any
// host to fetch from, and the names of the builtins that were cut.
func restricted() (*ast.Capabilities, map[string]bool) {
	allowed := allowedBuiltins()
	c := ast.CapabilitiesForThisVersion(ast.CapabilitiesRegoVersion(ast.RegoV1))
	kept, refused := make([]*ast.Builtin, 0, len(c.Builtins)), map[string]bool{}
	for _, b := range c.Builtins {
		if isAllowedBuiltin(b.Name, allowed) && !b.Deprecated {
			kept = append(kept, b)
		} else {
			refused[b.Name] = true
		}
	}
	c.Builtins = kept
	c.AllowNet = []string{}
	return c, refused
}

// clockBuiltin is the one builtin whose answer changes by itself.
const clockBuiltin = "time.now_ns"

// audit looks through a module for refused builtins, also where they are only
// replaced by a mock, and for the clock.
func audit(m *ast.Module, refused map[string]bool) (readsClock bool, err error) {
	ast.WalkRefs(m, func(ref ast.Ref) bool {
		name := ref.String()
		switch {
		case refused[name] && err == nil:
			err = fmt.Errorf("%s: policies may not use %s", ref[0].Location, name)
		case name == clockBuiltin:
			readsClock = true
		}
		return false
	})
	return readsClock, err
}
