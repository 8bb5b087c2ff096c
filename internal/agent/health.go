package agent

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"iap/internal/modelapi"
)

// Why an upstream gets requests only if no other agent is there, as the relays
// and their operators read it.
const (
	reasonUnreachable  = "unreachable"  // nobody answers its address
	reasonTimeout      = "timeout"      // it takes connections and does not answer
	reasonErrors       = "errors"       // it answers questions with errors
	reasonUnauthorized = "unauthorized" // it wants another API key
	reasonNoModels     = "no_models"    // it has none of the models that may be served
	reasonFailing      = "failing"      // it answers questions, and no generation comes to its end
)

const (
	// enoughFindings in a row change what is believed: one lost probe does not.
	enoughFindings = 2
	// failuresToBench generations in a row must fail before that counts.
	failuresToBench = 5
	// benchTime is how long it counts: probes cannot tell when it is over.
	benchTime = 30 * time.Second
)

// tracker makes of single findings what is believed of an upstream.
type tracker struct {
	judged   bool      // there was a finding
	reason   string    // why it is unfit; "" it is fit
	against  int       // findings in a row that say the contrary
	failures int       // generations in a row that failed
	until    time.Time // it is unfit until then, whatever probes say
}

// finds takes one finding, "" a good one.
func (t *tracker) finds(reason string) {
	switch {
	case !t.judged:
		t.judged, t.reason = true, reason
	case (reason == "") == (t.reason == ""):
		t.reason, t.against = reason, 0
	default:
		if t.against++; t.against >= enoughFindings {
			t.reason, t.against = reason, 0
		}
	}
}

// answered takes a generation that the upstream took, or failed.
func (t *tracker) answered(well bool, now time.Time) {
	if well {
		t.failures, t.until = 0, time.Time{}
		return
	}
	if t.failures++; t.failures >= failuresToBench {
		t.failures, t.until = 0, now.Add(benchTime)
	}
}

// unsure says that a second finding should not wait long.
func (t *tracker) unsure() bool { return t.against > 0 }

// verdict is why the upstream is unfit, "" if it is fit.
func (t *tracker) verdict(now time.Time) string {
	if t.judged && t.reason == "" && now.Before(t.until) {
		return reasonFailing
	}
	if !t.judged {
		return reasonUnreachable
	}
	return t.reason
}

// finding is a probe's outcome in a word.
func (u *upstream) finding(found probed, err error) string {
	if found.healthy && err == nil {
		if u.cfg.Kind == modelapi.KindModel && len(u.servable(found.models)) == 0 {
			return reasonNoModels
		}
		return ""
	}
	var strange *strangeAnswer
	var timeout net.Error
	switch {
	case errors.As(err, &strange) && (strange.status == http.StatusUnauthorized || strange.status == http.StatusForbidden):
		return reasonUnauthorized
	case errors.As(err, &strange):
		return reasonErrors
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return reasonTimeout
	}
	return reasonUnreachable
}

// missed notes that a real request could not reach the upstream, and has it
// probed now.
func (a *Agent) missed(u *upstream) {
	u.mu.Lock()
	u.health.finds(reasonUnreachable)
	u.mu.Unlock()
	a.doubts()
}

// answered notes how a real generation began.
func (a *Agent) answered(u *upstream, class modelapi.Class, status int) {
	if u.cfg.Kind != modelapi.KindModel || !class.Action.Computes() {
		return
	}
	now := time.Now()
	u.mu.Lock()
	before := u.health.verdict(now)
	u.health.answered(status > 0 && status < http.StatusInternalServerError, now)
	changed := before != u.health.verdict(now)
	u.mu.Unlock()
	if changed {
		a.log.Warn("generations of an upstream fail or succeed again", "resource", u.cfg.Name, "status", status)
		a.doubts()
	}
}

// doubts asks for a probe soon. It never blocks.
func (a *Agent) doubts() {
	select {
	case a.doubt <- struct{}{}:
	default:
	}
}
