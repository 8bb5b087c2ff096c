package modelapi

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
)

// correction changes what a row says of one path: the table of the servers is taken as it was read, and what is wrong
// or too coarse in it stands apart, with the reason.
type correction struct {
	Server    string   `json:"server"`
	Path      string   `json:"path"`   // a row's path or one of its aliases
	Method    []string `json:"method"` // empty: all of the row's
	Action    string   `json:"action"` // empty: action and sub_action stay
	SubAction string   `json:"sub_action"`
	ModelIn   string   `json:"model_in"` // empty: stays
	Reason    string   `json:"reason"`
}

type corrections []correction

func readCorrections() (corrections, error) {
	var all corrections
	if err := json.Unmarshal(knownCorrections, &all, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("parse corrections: %w", err)
	}
	return all, nil
}

// apply returns what is to be taken for r at one method and path.
func (all corrections) apply(r row, method, path string) row {
	for _, c := range all {
		if c.Server != r.Server || c.Path != path || len(c.Method) > 0 && !slices.Contains(c.Method, method) {
			continue
		}
		if c.Action != "" {
			r.Action, r.SubAction = c.Action, c.SubAction
		}
		r.ModelIn = cmp.Or(c.ModelIn, r.ModelIn)
	}
	return r
}
