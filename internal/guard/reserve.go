package guard

import (
	"errors"
	"math"
	"net/http"

	"iap/internal/modelapi"
)

const (
	// bytesPerToken is how many bytes of a prompt make one token, on average and over languages: what is reserved for an
	// input before the server has counted it.
	bytesPerToken = 4
	// promptOverhead is what a chat template adds to a prompt, in tokens.
	promptOverhead = 16
	// defaultOutput is reserved for each answer, in tokens, where the request says no length and a limit counts tokens.
	defaultOutput = 4096
	// maxChoices keeps sums of tokens within 64 bits.
	maxChoices = 1 << 20
)

// toAsk is what the request may cost at most.
func (x *exchange) toAsk() Ask {
	a := Ask{Question: x.questions[0], Decision: x.decision, Also: x.also, Choices: min(max(x.class.Choices, 1), maxChoices)}
	if x.class.Action.Computes() {
		a.Input = (x.class.PromptBytes+bytesPerToken-1)/bytesPerToken + promptOverhead
	}
	if !x.class.Action.Generates() {
		return a
	}
	each := x.class.MaxOutput
	if a.Unstated = each <= 0; a.Unstated {
		each = defaultOutput
	}
	if most := int64(x.decision.MaxOutputTokens); most > 0 {
		each = min(each, most)
	}
	a.Output = min(each, math.MaxInt64/maxChoices) * a.Choices
	return a
}

// reserve sets aside what the request may cost. Asking whether the server is well costs nothing.
func (x *exchange) reserve() *refusal {
	if x.class.Upgrade && (x.decision.TokenLimited || x.decision.MaxOutputTokens > 0) {
		return &refusal{
			status: 403, code: "websocket_limited",
			message: "a WebSocket does not pass here where tokens are limited, since what it costs cannot be told",
		}
	}
	x.ask = x.toAsk()
	if x.guard.Reserve == nil || x.class.Action == modelapi.Health {
		return nil
	}
	reservation, err := x.guard.Reserve(x.r.Context(), x.ask)
	var limited *Limited
	switch {
	case err == nil:
		x.reservation = reservation
		reservation.Header(x.w.Header())
		return nil
	case errors.As(err, &limited):
		return limited.refusal()
	}
	x.guard.logger().Error("reserve", "request", x.id, "resource", x.resource.Name, "error", err)
	return &refusal{status: 503, code: limitsUnavailable, message: "the limits cannot be checked at the moment", retryAfter: overloadRetry}
}

// limitsUnavailable is the code of limits that cannot be told: our failure, not the caller's.
const limitsUnavailable = "limits_unavailable"

func (e *Limited) refusal() *refusal {
	r := &refusal{status: http.StatusTooManyRequests, code: e.Code, message: e.Message, retryAfter: e.RetryAfter, header: e.Header}
	if e.Code == limitsUnavailable {
		r.status = http.StatusServiceUnavailable
	}
	return r
}

// maxOutput is the most tokens each answer may have by decision and reservation; 0 for no bound. It is false if less
// than one token is left for each.
func (x *exchange) maxOutput() (int64, bool) {
	most := int64(x.decision.MaxOutputTokens)
	if x.reservation == nil || !x.class.Action.Generates() {
		return most, true
	}
	reserved := x.reservation.Output()
	if reserved < 0 {
		return most, true
	}
	each := reserved / x.ask.Choices
	if most > 0 {
		each = min(each, most)
	}
	return each, each > 0
}

// rewrite writes into the body what decision and reservation demand of it. What comes out is what is recorded and sent.
func (x *exchange) rewrite() *refusal {
	if x.resource.Kind != KindModel {
		return nil
	}
	most, enough := x.maxOutput()
	if !enough {
		return &refusal{
			status: http.StatusTooManyRequests, code: "budget_exceeded", retryAfter: overloadRetry,
			message: "fewer tokens are left than answers were asked for; ask for fewer at once",
		}
	}
	o := modelapi.Obligations{Subject: x.caller.Principal, Priority: x.decision.Priority, MaxOutput: most}
	if x.guard.Salt != nil {
		o.CacheSalt = x.guard.Salt(x.caller)
	}
	class, err := x.guard.table().Rewrite(x.canonical(), x.class, o)
	var bad *modelapi.Error
	switch {
	case err == nil:
		x.class = class
		return nil
	case errors.As(err, &bad):
		return &refusal{status: bad.Status, code: bad.Code, message: bad.Message}
	}
	x.guard.logger().Error("rewrite", "request", x.id, "resource", x.resource.Name, "error", err)
	return &refusal{status: 500, code: "internal", message: "the request could not be brought to the form that was decided on"}
}
