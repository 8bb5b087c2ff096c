package guard

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"iap/internal/modelapi"
)

// refusal is why a request is not sent upstream.
type refusal struct {
	status     int
	code       string // the stable reason
	message    string // for the caller
	retryAfter time.Duration
	header     http.Header // added to the answer
	unrecorded bool        // it is the record that failed
}

// denied turns a decision into a refusal. A policy that could not answer is our failure, not the caller's.
func denied(d Decision) *refusal {
	r := &refusal{status: http.StatusForbidden, code: d.Reason, message: d.Message}
	switch d.Reason {
	case "":
		r.code = "policy_undefined"
	case "policy_error", "policy_timeout", "state_unavailable":
		r.status, r.retryAfter = http.StatusServiceUnavailable, overloadRetry
	}
	if r.message == "" {
		r.message = "the policy does not allow this request"
	}
	if d.StepUp != nil {
		r.header = d.StepUp.header(r.code)
	}
	return r
}

// header says which login would do: to our own client in one field, to others as RFC 9470 has it.
func (s *StepUp) header(reason string) http.Header {
	own, challenge := "reason="+reason, `Bearer error="insufficient_user_authentication"`
	if s.MFA {
		own += "; mfa"
	}
	if s.ACR != "" && !strings.ContainsFunc(s.ACR, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		own += `; acr="` + s.ACR + `"`
		challenge += `, acr_values="` + s.ACR + `"`
	}
	if s.MaxAge > 0 {
		age := strconv.FormatInt(int64(s.MaxAge/time.Second), 10)
		own += "; max_age=" + age
		challenge += ", max_age=" + age
	}
	if s.Binding != "" {
		own += "; binding=" + s.Binding
	}
	return http.Header{"X-Iap-Step-Up": {own}, "Www-Authenticate": {challenge}}
}

// refuse records a refusal and answers it. A refusal that cannot be recorded is a refusal still.
func (x *exchange) refuse(no *refusal) {
	x.answered = true
	if x.caller.Via == "bearer" && no.header["Www-Authenticate"] != nil && no.status == http.StatusForbidden {
		no.status = http.StatusUnauthorized // RFC 9470: the token is not enough, and its bearer can get a better one
	}
	if x.reservation != nil {
		x.reservation.Release()
		x.reservation = nil
	}
	if !no.unrecorded {
		e := x.event(EventDecision)
		e.Decision, e.Reason, e.Message, e.Status = "deny", no.code, no.message, no.status
		e.Duration = x.guard.now().Sub(x.start)
		if err := x.guard.Record(context.WithoutCancel(x.r.Context()), e); err != nil {
			x.guard.logger().Error("record denial", "request", x.id, "resource", x.resource.Name, "reason", no.code, "error", err)
		}
	}
	x.limitDrain()
	if no.header["X-Iap-Step-Up"] != nil {
		x.endConnection() // a better login comes by a session, and so a connection, of its own
	}
	h := x.w.Header()
	for name, values := range no.header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	h.Set("X-Iap-Decision", "deny; reason="+no.code)
	x.answerError(&modelapi.Error{Status: no.status, Code: no.code, Message: no.message}, no.retryAfter)
}

// answerError writes an error as the whole answer, in the caller's dialect.
func (x *exchange) answerError(e *modelapi.Error, retryAfter time.Duration) {
	h := x.w.Header()
	body := e.Body(x.class.Protocol)
	h.Set("Content-Type", modelapi.ContentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	if retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(retryAfter.Seconds()))))
	}
	x.closeUnlessWhole()
	x.status = e.Status
	x.w.WriteHeader(e.Status)
	if x.r.Method == http.MethodHead {
		return
	}
	n, _ := x.w.Write(body) // a caller that left needs no error
	x.sent += int64(n)
}
