package guard

import (
	"context"
	"errors"
	"net/http"

	"iap/internal/modelapi"
	"iap/internal/modelapi/meter"
)

// unknownUsage is that of an exchange of which nothing was counted.
func unknownUsage() meter.Usage {
	return meter.Usage{Input: -1, Output: -1, Cached: -1, Reasoning: -1, Source: meter.Unset}
}

// isMetered says whether an answer must pass a meter: because it costs, or because it hands out an id.
func (x *exchange) isMetered(status int) bool {
	return x.resource.Kind == KindModel && status < 300 && (readsPrompt(x.class.Action) || x.class.Hands != "")
}

// estimate puts our own figure where the server gave none: the input of a request that was sent to a model is its
// estimate; an answer of which nothing came has no output that anybody could name.
func (x *exchange) estimate() {
	if !x.sentOn || !readsPrompt(x.class.Action) || x.usage.Input >= 0 {
		return
	}
	if x.failed && x.usage.Output <= 0 {
		return // it ended with an error before it began: in a queue, perhaps
	}
	x.usage.Input = x.ask.Input
	if x.usage.Source == meter.Unset {
		x.usage.Source = meter.Estimate
	}
}

// charge tells the reservation how much has been used, and cuts an answer that has used it up. An answer of one piece
// is there already: it is only charged.
func (s *stream) charge() *ending {
	x := s.x
	if x.reservation == nil || s.class.Framing != modelapi.SSE && s.class.Framing != modelapi.NDJSON {
		return nil
	}
	u := s.meter.Running()
	if u.Input < 0 {
		u.Input = x.ask.Input
	}
	err := x.reservation.Use(u.Input, max(u.Output, 0))
	if err == nil {
		return nil
	}
	var limited *Limited
	if !errors.As(err, &limited) {
		x.guard.logger().Error("use of a reservation", "request", x.id, "resource", x.resource.Name, "error", err)
		return &ending{code: "limits_unavailable", status: http.StatusServiceUnavailable, message: "the limits cannot be checked at the moment"}
	}
	return &ending{code: limited.Code, status: http.StatusTooManyRequests, message: limited.Message, retryAfter: limited.RetryAfter}
}

// meterAnswer counts a piece of the answer and returns what of it is passed on now.
func (s *stream) meterAnswer(ctx context.Context, p []byte) ([]byte, *ending) {
	if s.meter == nil {
		return p, nil
	}
	out := s.meter.Feed(p)
	if s.x.class.Hands != "" && !s.owned {
		if id := s.meter.ID(); id != "" {
			s.owned = true
			if end := s.x.own(ctx, id); end != nil {
				return nil, end
			}
		}
	}
	return out, nil
}
