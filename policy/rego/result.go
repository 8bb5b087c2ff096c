package rego

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/open-policy-agent/opa/v1/ast"

	"iap/policy"
)

// Keys of the decision document.
const (
	limitRequests        = "requests"
	limitTokens          = "tokens"
	limitConcurrent      = "concurrent"
	limitMaxOutputTokens = "max_output_tokens"
	limitPer             = "per"
	limitMode            = "mode"
	limitContact         = "contact"
	keysMaxTTL           = "max_ttl"
)

// Bounds of a decision document, so that a module cannot put a book into every
// audit record.
const (
	maxReason      = 64
	maxMessage     = 1024
	maxGrantName   = 64
	maxGroup       = 1024
	maxContact     = 200
	maxRates       = 16
	maxLimits      = 16
	maxLimitNumber = 1_000_000_000
	maxPriority    = 1000
)

// readDecision turns the policy's answer into a Decision. Only the documented
// shape is one: everything else is an error, and an error denies.
func readDecision(v ast.Value, now time.Time) (policy.Decision, error) {
	var d policy.Decision
	object, isObject := v.(ast.Object)
	if !isObject {
		return d, fmt.Errorf("the decision is %s, not an object", typeName(v))
	}
	decided := false
	err := object.Iter(func(key, value *ast.Term) error {
		if key.Equal(ast.InternedTerm("allow")) {
			decided = true
		}
		return readField(&d, key.Value, value.Value)
	})
	switch {
	case err != nil:
		return policy.Decision{}, err
	case !decided:
		return policy.Decision{}, errors.New("the decision has no allow")
	}
	return checkDecision(d, now)
}

// checkDecision holds a decision's fields against each other.
func checkDecision(d policy.Decision, now time.Time) (policy.Decision, error) {
	switch {
	case d.Reason == "" && d.Allow:
		d.Reason = policy.ReasonAllowed
	case d.Reason == "":
		d.Reason = policy.ReasonDeniedByRule
	case d.Allow != (d.Reason == policy.ReasonAllowed):
		return policy.Decision{}, fmt.Errorf("the decision contradicts itself: allow is %t, reason is %q", d.Allow, d.Reason)
	}
	if !d.Until.IsZero() && !now.Before(d.Until) {
		return policy.Decision{}, errors.New("the decision's until has passed already")
	}
	return d, nil
}

func readField(d *policy.Decision, key, v ast.Value) (err error) {
	name, _ := key.(ast.String)
	switch name {
	case "allow":
		d.Allow, err = readBoolean("allow", v)
	case "reason":
		d.Reason, err = readReason(v)
	case "message":
		d.Message, err = readText("message", v, maxMessage)
	case "grant":
		d.Grant, err = readText("grant", v, maxGrantName)
	case "group":
		d.Group, err = readText("group", v, maxGroup)
	case "limits":
		d.Limits, err = readAllLimits(v)
	case "keys":
		d.Keys, err = readKeys(v)
	case "step_up":
		d.StepUp, err = readStepUp(v)
	case "priority":
		d.Priority, err = readInteger("priority", v, maxPriority)
	case "record":
		d.Record, err = readBoolean("record", v)
	case "until":
		d.Until, err = readUntil(v)
	default:
		return fmt.Errorf("the decision has an unknown key %v", key)
	}
	return err
}

func readBoolean(what string, v ast.Value) (bool, error) {
	b, isBool := v.(ast.Boolean)
	if !isBool {
		return false, fmt.Errorf("%s is %s, not a boolean", what, typeName(v))
	}
	return bool(b), nil
}

func readText(what string, v ast.Value, limit int) (string, error) {
	s, isText := v.(ast.String)
	if !isText {
		return "", fmt.Errorf("%s is %s, not a string", what, typeName(v))
	}
	if len(s) > limit || strings.ContainsFunc(string(s), unicode.IsControl) {
		return "", fmt.Errorf("%s is longer than %d bytes or has control characters", what, limit)
	}
	return string(s), nil
}

// readReason accepts codes only: lower-case words joined by underscores.
func readReason(v ast.Value) (string, error) {
	s, err := readText("reason", v, maxReason)
	if err != nil {
		return "", err
	}
	for i, r := range s {
		if letter := r >= 'a' && r <= 'z'; !letter && (i == 0 || r != '_' && (r < '0' || r > '9')) {
			return "", fmt.Errorf("reason %q is no code such as resource_not_granted", s)
		}
	}
	if s == "" {
		return "", errors.New("reason is empty")
	}
	return s, nil
}

func readInteger(what string, v ast.Value, limit int) (int, error) {
	n, isNumber := v.(ast.Number)
	if !isNumber {
		return 0, fmt.Errorf("%s is %s, not a number", what, typeName(v))
	}
	i, isWhole := n.Int()
	if !isWhole || i < 0 || i > limit {
		return 0, fmt.Errorf("%s is not a whole number from 0 to %d", what, limit)
	}
	return i, nil
}

// readUntil accepts null and nanoseconds since 1970, as time.now_ns counts them.
func readUntil(v ast.Value) (time.Time, error) {
	if _, isNull := v.(ast.Null); isNull {
		return time.Time{}, nil
	}
	n, isNumber := v.(ast.Number)
	if !isNumber {
		return time.Time{}, fmt.Errorf("until is %s, not nanoseconds or null", typeName(v))
	}
	ns, isWhole := n.Int64()
	if !isWhole || ns <= 0 {
		return time.Time{}, fmt.Errorf("until %v is no time in nanoseconds", n)
	}
	return time.Unix(0, ns).UTC(), nil
}

// typeName is the value's type with its article.
func typeName(v ast.Value) string {
	name := ast.ValueName(v)
	if strings.ContainsRune("aeiou", rune(name[0])) {
		return "an " + name
	}
	return "a " + name
}
