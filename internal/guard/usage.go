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
	return x.resource.Kind == KindModel && status < 300 && (x.class.Action.Computes() || x.class.Hands != "")
}

// unseenRate is how many tokens a second an answer is taken to have grown by that was not streamed and ended before it
// was there: about what a fast server makes.
const unseenRate = 100

// estimate puts our own figure where the server gave none. The input of a request that was sent to a model is what was
// estimated before. An answer that its caller waited for in one piece, and did not get, had grown for as long as it was
// waited for, up to what was set aside; of a stream that did not begin nothing had been made.
func (x *exchange) estimate() {
	if !x.sentOn || !x.class.Action.Computes() || x.usage.Input >= 0 {
		return
	}
	if x.failed && x.usage.Output <= 0 {
		return // it ended with an error before it began: in a queue, perhaps
	}
	x.usage.Input = x.ask.Input
	if x.usage.Source != meter.Unset {
		return
	}
	x.usage.Source = meter.Estimate
	if x.class.Action.Generates() && !x.class.Stream {
		x.usage.Output = x.unseen()
	}
}

// unseen is what an answer of which nothing came may have grown to.
func (x *exchange) unseen() int64 {
	most := x.ask.Output
	if x.reservation != nil && x.reservation.Output() >= 0 {
		most = min(most, x.reservation.Output())
	}
	each := int64(x.guard.now().Sub(x.forwarded).Seconds() * unseenRate)
	return min(each*x.ask.Choices, most)
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
		return &ending{code: limitsUnavailable, status: http.StatusServiceUnavailable, message: "the limits cannot be checked at the moment"}
	}
	no := limited.refusal()
	return &ending{code: no.code, status: no.status, message: no.message, retryAfter: no.retryAfter}
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
