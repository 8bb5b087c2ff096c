package guard

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
)

const (
	// goneAsked bounds the questions to the policy for the list of what is there, goneListed the list.
	goneAsked  = 64
	goneListed = 16
	// goneBody is read of the server's own words, so that the stream to its agent can carry the next request.
	goneBody = 64 << 10
)

// modelGone turns a model server's 404 to a request that names a model into one that says which models are there: of
// those that the caller may use. Nil: the answer says something else.
func (x *exchange) modelGone(ctx context.Context, response *Response, body io.Reader) *ending {
	if response.Status != http.StatusNotFound || x.class.Model == "" || len(x.class.IDs) > 0 || !x.class.Action.UsesModel() {
		return nil
	}
	_, _ = io.CopyN(io.Discard, body, goneBody) // what it says is replaced
	named := x.class.Model
	if x.class.Alias != "" {
		named = fmt.Sprintf("%s (%s)", x.class.Alias, x.class.Model)
	}
	message := "the model server has no model " + named
	if there := x.modelsThere(ctx); len(there) > 0 {
		message += "; it has " + strings.Join(there, ", ")
	}
	return &ending{code: "model_gone", status: http.StatusNotFound, message: message}
}

// modelsThere lists what the server has and the caller may use, under both names where a model has two.
func (x *exchange) modelsThere(ctx context.Context) []string {
	other := map[string][]string{}
	for _, alias := range slices.Sorted(maps.Keys(x.resource.Aliases)) {
		model := x.resource.Aliases[alias]
		other[model] = append(other[model], alias)
	}
	var there []string
	for i, model := range x.resource.Models {
		if i == goneAsked || len(there) >= goneListed {
			there = append(there, "…")
			break
		}
		if model == x.class.Model {
			continue // its agent has not noticed yet
		}
		q := x.questions[0]
		q.Action, q.Model, q.Media = ActionReach, model, nil
		if !x.guard.Decide(ctx, q).Allow {
			continue
		}
		there = append(append(there, model), other[model]...)
	}
	return there
}
