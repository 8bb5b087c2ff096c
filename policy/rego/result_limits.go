package rego

import (
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"iap/policy"
)

// readAllLimits accepts one object or a list of them.
func readAllLimits(v ast.Value) ([]policy.Limits, error) {
	list, isList := v.(*ast.Array)
	if !isList {
		l, err := readLimits(v)
		if err != nil || !l.Limiting() {
			return nil, err
		}
		return []policy.Limits{l}, nil
	}
	if list.Len() > maxLimits {
		return nil, fmt.Errorf("limits is a list of more than %d", maxLimits)
	}
	var all []policy.Limits
	err := list.Iter(func(term *ast.Term) error {
		l, err := readLimits(term.Value)
		if l.Limiting() {
			all = append(all, l)
		}
		return err
	})
	return all, err
}

func readLimits(v ast.Value) (policy.Limits, error) {
	l := policy.Limits{Per: policy.PerPrincipal, Mode: policy.ModeEnforce}
	object, isObject := v.(ast.Object)
	if !isObject {
		return l, fmt.Errorf("limits is %s, not an object or a list of them", typeName(v))
	}
	err := object.Iter(func(key, value *ast.Term) (err error) {
		name, _ := key.Value.(ast.String)
		switch name {
		case limitRequests:
			l.Requests, err = readRates(limitRequests, value.Value)
		case limitTokens:
			l.Tokens, err = readRates(limitTokens, value.Value)
		case limitConcurrent:
			l.Concurrent, err = readInteger(limitConcurrent, value.Value, maxLimitNumber)
		case limitMaxOutputTokens:
			l.MaxOutputTokens, err = readInteger(limitMaxOutputTokens, value.Value, maxLimitNumber)
		case limitPer:
			l.Per, err = readWord(limitPer, value.Value, policy.PerPrincipal, policy.PerGroup, policy.PerGrant)
		case limitMode:
			l.Mode, err = readWord(limitMode, value.Value, policy.ModeEnforce, policy.ModeWarn)
		case limitContact:
			l.Contact, err = readText(limitContact, value.Value, maxContact)
		default:
			err = fmt.Errorf("limits has an unknown key %v", key)
		}
		return err
	})
	return l, err
}

func readWord(what string, v ast.Value, known ...string) (string, error) {
	word, err := readText(what, v, maxReason)
	if err == nil && !slices.Contains(known, word) {
		err = fmt.Errorf("%s is %q, not one of %v", what, word, known)
	}
	return word, err
}

func readRates(what string, v ast.Value) ([]policy.Rate, error) {
	list, isList := v.(*ast.Array)
	if !isList || list.Len() > maxRates {
		return nil, fmt.Errorf("%s is not a list of up to %d rates such as \"60/1m\"", what, maxRates)
	}
	rates := make([]policy.Rate, 0, list.Len())
	err := list.Iter(func(term *ast.Term) error {
		s, err := readText(what, term.Value, maxMessage)
		if err != nil {
			return err
		}
		rate, err := policy.ParseRate(s)
		rates = append(rates, rate)
		return err
	})
	return rates, err
}

// readKeys accepts null, for no keys, and the rule.
func readKeys(v ast.Value) (policy.KeyRule, error) {
	var rule policy.KeyRule
	if _, isNull := v.(ast.Null); isNull {
		return rule, nil
	}
	object, isObject := v.(ast.Object)
	if !isObject {
		return rule, fmt.Errorf("keys is %s, not an object or null", typeName(v))
	}
	err := object.Iter(func(key, value *ast.Term) (err error) {
		if name, _ := key.Value.(ast.String); name != keysMaxTTL {
			return fmt.Errorf("keys has an unknown key %v", key)
		}
		rule.MaxTTL, err = readDuration(keysMaxTTL, value.Value)
		return err
	})
	return rule, err
}

// readStepUp accepts null, for a denial that no login cures, and what it must be.
func readStepUp(v ast.Value) (*policy.StepUp, error) {
	if _, isNull := v.(ast.Null); isNull {
		return nil, nil
	}
	object, isObject := v.(ast.Object)
	if !isObject {
		return nil, fmt.Errorf("step_up is %s, not an object or null", typeName(v))
	}
	var s policy.StepUp
	err := object.Iter(func(key, value *ast.Term) (err error) {
		name, _ := key.Value.(ast.String)
		switch name {
		case "mfa":
			mfa, isBool := value.Value.(ast.Boolean)
			if !isBool {
				err = fmt.Errorf("step_up's mfa is %s, not a boolean", typeName(value.Value))
			}
			s.MFA = bool(mfa)
		case "acr":
			s.ACR, err = readText("acr", value.Value, maxMessage)
		case "max_age":
			s.MaxAge, err = readDuration("max_age", value.Value)
		case "binding":
			s.Binding, err = readWord("binding", value.Value, "", policy.BindingNonce)
		default:
			err = fmt.Errorf("step_up has an unknown key %v", key)
		}
		return err
	})
	return &s, err
}

// readDuration accepts whole nanoseconds, as Rego counts time.
func readDuration(what string, v ast.Value) (time.Duration, error) {
	n, isNumber := v.(ast.Number)
	if !isNumber {
		return 0, fmt.Errorf("%s is %s, not nanoseconds", what, typeName(v))
	}
	ns, isWhole := n.Int64()
	if !isWhole || ns < 0 {
		return 0, fmt.Errorf("%s is no number of nanoseconds", what)
	}
	return time.Duration(ns), nil
}
