package guard

import (
	"context"
	"errors"

	"iap/internal/modelapi"
)

// checkIDs refuses a request that refers to what is not its caller's. Whose an id is, and whether there is one, is not
// told. All ids of a request must be of one agent: no other has what they name.
func (x *exchange) checkIDs() *refusal {
	unknown := &refusal{status: 404, code: "unknown_id", message: "no answer of yours is kept under this id"}
	if x.class.Action == modelapi.Session && len(x.class.IDs) == 0 && x.class.Hands == "" {
		return unknown // what it touches is named nowhere, so it is nobody's
	}
	for i, id := range x.class.IDs {
		if x.guard.Owned == nil {
			return unknown
		}
		agent, err := x.guard.Owned(x.r.Context(), x.resource, x.caller, id)
		switch {
		case errors.Is(err, ErrNotOwner):
			return unknown
		case err != nil:
			x.guard.logger().Error("look up an id's owner", "request", x.id, "resource", x.resource.Name, "error", err)
			return &refusal{status: 503, code: "state_unavailable", message: "whose this id is cannot be told at the moment", retryAfter: overloadRetry}
		case i > 0 && agent != x.pinned:
			return unknown
		}
		x.pinned = agent
	}
	return nil
}

// own notes whose the id is that the answer hands out. Its caller has not seen it yet, and does not if this fails.
func (x *exchange) own(ctx context.Context, value string) *ending {
	if x.guard.Own == nil {
		return &ending{code: "unknown_id", status: 502, message: "ids of this model server are not handed out here"}
	}
	owner := Owner{Resource: x.resource.Name, Agent: x.agent, Caller: x.caller}
	err := x.guard.Own(ctx, owner, modelapi.ID{Kind: x.class.Hands, Value: value})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return x.endOf(ctx, err)
	case errors.Is(err, ErrNotOwner):
		return &ending{code: "id_conflict", status: 502, message: "the model server handed out an id that is somebody else's"}
	}
	x.guard.logger().Error("note an id's owner", "request", x.id, "resource", x.resource.Name, "error", err)
	return &ending{code: "state_unavailable", status: 503, message: "whose this answer is could not be noted, so it is not handed out"}
}
